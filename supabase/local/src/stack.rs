//! The stack as a whole: a database and the services in front of it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::{Manager, ManagerConfig, Pool, RecyclingMethod, Runtime};
use serde_json::Value;
use tokio_postgres::NoTls;
use tokio_util::sync::CancellationToken;

use crate::auth::Auth;
use crate::clock::Clock;
use crate::database::{self, ADMIN, AUTHENTICATOR, OWNER};
use crate::error::{ErrorKind, Result, StackError, sql_failure};
use crate::fault::Faults;
use crate::functions::{self, Functions};
use crate::hosted::{self, HostedPlan};
use crate::jwt::JwtSecret;
use crate::keys::ProjectKeys;
use crate::link::Link;
use crate::postgres::{MAIN_DATABASE, PgCron, PostgresOptions, PostgresServer};
use crate::project::project_dir;
use crate::realtime::{Realtime, RealtimeOptions};
use crate::rest::{Rest, Settings};
use crate::server::{ApiServer, Services};

/// Connections of the REST service.
const POOL_SIZE: usize = 10;

/// How long a request waits for one of them before it is answered 504, as PostgREST does.
const POOL_PATIENCE: Duration = Duration::from_secs(10);

/// A running stack. [`Stack::stop`] ends it in good order; dropping it ends it soon.
#[derive(Debug)]
pub struct Stack {
    api: ApiServer,
    server: PostgresServer,
    /// Whether the server is this stack's own, and ends with it.
    owned: bool,
    database: String,
    keys: Arc<ProjectKeys>,
    faults: Faults,
    functions: Arc<Functions>,
}

/// What a [`Stack`] shall be like. The defaults suit tests: any free ports, temporary data, the project's migrations.
#[derive(Debug)]
pub struct StackBuilder {
    port: u16,
    postgres: PostgresOptions,
    shared: Option<PostgresServer>,
    seed: Option<PathBuf>,
    scripts: Vec<String>,
    jwt: JwtSecret,
    realtime: RealtimeOptions,
    rest: Settings,
    functions: Option<PathBuf>,
    function_secrets: BTreeMap<String, String>,
}

impl Stack {
    /// Begins the description of a stack.
    pub fn builder() -> StackBuilder {
        StackBuilder {
            port: 0,
            postgres: PostgresOptions { migrations: project_dir("migrations"), ..PostgresOptions::default() },
            shared: None,
            seed: None,
            scripts: Vec::new(),
            jwt: JwtSecret::default(),
            realtime: RealtimeOptions::default(),
            rest: Settings::default(),
            functions: project_dir("functions"),
            function_secrets: BTreeMap::new(),
        }
    }

    /// The base URL, such as `http://127.0.0.1:54321`: what a Supabase client calls the project's URL.
    pub fn api_url(&self) -> String {
        format!("http://{}", self.api.address())
    }

    /// The address of the API.
    pub fn address(&self) -> SocketAddr {
        self.api.address()
    }

    /// All keys of the project.
    pub fn keys(&self) -> &ProjectKeys {
        &self.keys
    }

    /// The project's `anon` key.
    pub fn anon_key(&self) -> &str {
        self.keys.anon()
    }

    /// The project's `service_role` key.
    pub fn service_role_key(&self) -> &str {
        self.keys.service_role()
    }

    /// The secret that signs the project's tokens.
    pub fn jwt_secret(&self) -> &JwtSecret {
        self.keys.jwt()
    }

    /// URL of the database as its owner, role `postgres`: what a hosted project gives you.
    pub fn database_url(&self) -> String {
        database::url(self.server.port(), OWNER, &self.database)
    }

    /// URL of the database as the superuser, which a hosted project does not give you.
    pub fn admin_url(&self) -> String {
        database::url(self.server.port(), ADMIN, &self.database)
    }

    /// The PostgreSQL under this stack, for further stacks.
    pub fn postgres(&self) -> &PostgresServer {
        &self.server
    }

    /// A token of a signed-in user, valid for an hour.
    pub fn mint_user(&self, user_id: &str) -> String {
        self.jwt_secret().user_token(user_id, HOUR)
    }

    /// A token of the agent of a cluster, valid for an hour.
    pub fn mint_machine(&self, cluster_id: &str) -> String {
        self.jwt_secret().machine_token(cluster_id, HOUR)
    }

    /// A token with exactly these claims.
    pub fn mint(&self, claims: &Value) -> String {
        self.jwt_secret().sign(claims)
    }

    /// The switches that make this stack misbehave.
    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    /// Ends the services, and the database server if it is this stack's own.
    ///
    /// # Errors
    /// If PostgreSQL does not end.
    pub async fn stop(self) -> Result<()> {
        self.api.stop().await;
        self.functions.ended().await;
        if self.owned { self.server.stop().await } else { Ok(()) }
    }
}

/// How long minted tokens live.
const HOUR: Duration = Duration::from_secs(3600);

impl StackBuilder {
    /// Port of the API on 127.0.0.1; 0 (the default) means any free one.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        self.port = port;
        self
    }

    /// Port of PostgreSQL on 127.0.0.1; 0 (the default) means any free one.
    #[must_use]
    pub fn database_port(mut self, port: u16) -> Self {
        self.postgres.port = port;
        self
    }

    /// Keeps the database in a directory between starts.
    #[must_use]
    pub fn persist(mut self, dir: impl Into<PathBuf>) -> Self {
        self.postgres.persist = Some(dir.into());
        self
    }

    /// Runs scheduled jobs, or not (the default).
    #[must_use]
    pub fn pg_cron(mut self, pg_cron: PgCron) -> Self {
        self.postgres.pg_cron = pg_cron;
        self
    }

    /// Applies these migrations instead of the project's own `supabase/migrations`.
    #[must_use]
    pub fn migrations(mut self, dir: impl Into<PathBuf>) -> Self {
        self.postgres.migrations = Some(dir.into());
        self
    }

    /// Starts with an empty `public` schema.
    #[must_use]
    pub fn without_migrations(mut self) -> Self {
        self.postgres.migrations = None;
        self
    }

    /// Runs a file of SQL as the database's owner once the migrations are in.
    #[must_use]
    pub fn seed(mut self, file: impl Into<PathBuf>) -> Self {
        self.seed = Some(file.into());
        self
    }

    /// Runs SQL as superuser before the services start; for the tables of a test.
    #[must_use]
    pub fn sql(mut self, script: impl Into<String>) -> Self {
        self.scripts.push(script.into());
        self
    }

    /// Signs and verifies tokens with this instead of the well-known development secret.
    #[must_use]
    pub fn jwt_secret(mut self, secret: JwtSecret) -> Self {
        self.jwt = secret;
        self
    }

    /// Sets Realtime's delays, timeouts and limits.
    #[must_use]
    pub fn realtime(mut self, options: RealtimeOptions) -> Self {
        self.realtime = options;
        self
    }

    /// Sets the REST server's row limit, its schemas and so on.
    #[must_use]
    pub fn rest(mut self, settings: Settings) -> Self {
        self.rest = settings;
        self
    }

    /// Has the quotas, the delays after errors and the limit of rows of a hosted project.
    #[must_use]
    pub fn hosted(mut self, plan: HostedPlan) -> Self {
        self.realtime = plan.realtime();
        self.rest.max_rows = Some(hosted::MAX_ROWS);
        self
    }

    /// Serves the Edge Functions of this directory instead of the project's own `supabase/functions`. What a `config.toml` beside it
    /// says of them holds.
    #[must_use]
    pub fn functions(mut self, dir: impl Into<PathBuf>) -> Self {
        self.functions = Some(dir.into());
        self
    }

    /// Gives the Edge Functions a variable, as `supabase secrets set` does.
    #[must_use]
    pub fn function_secret(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.function_secrets.insert(name.into(), value.into());
        self
    }

    /// Uses a running server with a new database in it, instead of starting a server. The migrations are those the
    /// server was started with.
    #[must_use]
    pub fn shared_postgres(mut self, server: &PostgresServer) -> Self {
        self.shared = Some(server.clone());
        self
    }

    /// Starts the stack; when this returns, requests are answered.
    ///
    /// # Errors
    /// See [`ErrorKind`]: no PostgreSQL, port taken, directory unwritable, SQL that fails.
    pub async fn start(self) -> Result<Stack> {
        let (server, owned, database) = match self.shared {
            Some(server) => {
                let database = server.create_database().await?;
                (server, false, database)
            }
            None => (PostgresServer::start(&self.postgres).await?, true, MAIN_DATABASE.to_owned()),
        };
        for script in &self.scripts {
            let admin = database::connect(server.port(), ADMIN, &database).await?;
            admin.batch_execute(script).await.map_err(|error| sql_failure("the given SQL", error))?;
        }
        if let Some(file) = &self.seed {
            apply_seed(file, &server, &database).await?;
        }
        let clock = Clock::default();
        let keys = Arc::new(ProjectKeys::new(self.jwt.with_clock(clock.clone())));
        let faults = Faults::new(clock);
        let stop = CancellationToken::new();
        let realtime = Realtime::new(
            Arc::clone(&keys),
            faults.clone(),
            self.realtime,
            server.port(),
            &database,
            stop.clone(),
        );
        let functions_stop = stop.clone();
        let rest = rest(&server, &database, &keys, self.rest, stop)?;
        let auth = Auth::new(Arc::clone(&keys), Link::new(server.port(), database.clone()));
        let database_url = database::url(server.port(), OWNER, &database);
        let environment = functions::environment(&keys, &database_url, self.function_secrets);
        let functions =
            Arc::new(Functions::new(self.functions, environment, Arc::clone(&keys), functions_stop)?);
        let services = Services {
            rest,
            keys: Arc::clone(&keys),
            faults: faults.clone(),
            realtime,
            auth,
            functions: Arc::clone(&functions),
        };
        let api = ApiServer::start(self.port, services).await?;
        Ok(Stack { api, server, owned, database, keys, faults, functions })
    }
}

async fn apply_seed(file: &Path, server: &PostgresServer, database: &str) -> Result<()> {
    let script = std::fs::read_to_string(file).map_err(|error| {
        StackError::with_source(
            ErrorKind::File,
            format!("cannot read the seed {}: {error}", file.display()),
            error,
        )
    })?;
    let owner = database::connect(server.port(), OWNER, database).await?;
    owner.batch_execute(&script).await.map_err(|error| sql_failure(&file.display().to_string(), error))
}

/// The REST service, which follows the schema until `stop`.
fn rest(
    server: &PostgresServer,
    database: &str,
    keys: &ProjectKeys,
    settings: Settings,
    stop: CancellationToken,
) -> Result<Rest> {
    let config = database::config(server.port(), AUTHENTICATOR, database);
    let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
    let manager = Manager::from_config(config.clone(), NoTls, recycling);
    let pool = Pool::builder(manager).max_size(POOL_SIZE).runtime(Runtime::Tokio1);
    let pool = pool.wait_timeout(Some(POOL_PATIENCE)).build().map_err(|error| {
        StackError::with_source(
            ErrorKind::Database,
            format!("cannot build the connection pool: {error}"),
            error,
        )
    })?;
    let rest = Rest::new(pool, keys.jwt().clone(), settings);
    let follower = rest.clone();
    tokio::spawn(async move { stop.run_until_cancelled(follower.follow_schema(config)).await });
    Ok(rest)
}
