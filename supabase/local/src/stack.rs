//! The stack as a whole: a database and the services in front of it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::auth::Auth;
use crate::clock::Clock;
use crate::database::{ADMIN, Database, OWNER};
use crate::error::{ErrorKind, Result, StackError, sql_failure};
use crate::fault::Faults;
use crate::functions::{self, Functions};
use crate::hosted::{self, HostedPlan};
use crate::jwt::JwtSecret;
use crate::keys::ProjectKeys;
use crate::link::Link;
use crate::postgres::{self, Migrations, PgCron, PostgresOptions, PostgresServer};
use crate::project::project_file;
use crate::realtime::{Realtime, RealtimeOptions};
use crate::rest::{Rest, Settings};
use crate::server::{ApiServer, Services};

/// A running stack. [`Stack::stop`] ends it in good order; dropping it ends it soon.
#[derive(Debug)]
pub struct Stack {
    api: ApiServer,
    server: Server,
    database: Database,
    keys: Arc<ProjectKeys>,
    faults: Faults,
    functions: Arc<Functions>,
}

/// Whose PostgreSQL is under a stack.
#[derive(Debug)]
enum Server {
    /// The stack's own, which ends with it.
    Own(PostgresServer),
    /// One of several stacks.
    Shared(PostgresServer),
    /// Somebody else's.
    Existing,
}

/// What a [`Stack`] shall be like. The defaults suit tests: any free ports, temporary data, the project's migrations.
#[derive(Debug)]
pub struct StackBuilder {
    port: u16,
    postgres: PostgresOptions,
    shared: Option<PostgresServer>,
    existing: Option<String>,
    seed: Option<PathBuf>,
    scripts: Vec<String>,
    jwt: JwtSecret,
    realtime: RealtimeOptions,
    rest: Settings,
    functions: Option<PathBuf>,
    function_secrets: BTreeMap<String, String>,
}

impl Stack {
    /// Begins the description of a stack. Its migrations and Edge Functions are those of the project, which is the `supabase`
    /// directory in the working directory or above it, if there is one; it runs no seed.
    pub fn builder() -> StackBuilder {
        StackBuilder {
            port: 0,
            postgres: PostgresOptions {
                migrations: project_file("migrations"),
                ..PostgresOptions::default()
            },
            shared: None,
            existing: None,
            seed: None,
            scripts: Vec::new(),
            jwt: JwtSecret::default(),
            realtime: RealtimeOptions::default(),
            rest: Settings::default(),
            functions: project_file("functions"),
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

    /// URL of the database as its owner, role `postgres`: what a hosted project gives you. That of an existing database is as it was
    /// given, with its password.
    pub fn database_url(&self) -> String {
        self.database.url(OWNER)
    }

    /// URL of the database as the superuser, which a hosted project does not give you. That of an existing database is as it was
    /// given.
    pub fn admin_url(&self) -> String {
        self.database.url(ADMIN)
    }

    /// The PostgreSQL under this stack, for further stacks; `None` if it uses an existing database.
    pub fn postgres(&self) -> Option<&PostgresServer> {
        match &self.server {
            Server::Own(server) | Server::Shared(server) => Some(server),
            Server::Existing => None,
        }
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

    /// While refused, the database is down: all connections to it end, and none is taken. Its server keeps running.
    ///
    /// # Errors
    /// If the server does not do that, and for an existing database, which is not this stack's to take down.
    pub async fn refuse_database(&self, refused: bool) -> Result<()> {
        let Some(server) = self.postgres() else {
            let message = "an existing database is not taken down: refuse its connections yourself";
            return Err(StackError::new(ErrorKind::DatabaseUnsuitable, message));
        };
        server.refuse(self.database.name(), refused).await
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
        match self.server {
            Server::Own(server) => server.stop().await,
            Server::Shared(_) | Server::Existing => Ok(()),
        }
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

    /// Stores the database in a directory between starts.
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

    /// Applies these migrations instead of those of the `supabase` directory here or above.
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

    /// Uses a database that is there already (`postgresql://user:password@host:5432/database`) instead of starting a server. It is
    /// made a Supabase database if nothing of one is in it, which takes a superuser, and gets the migrations that it does not have
    /// yet. What is in it stays as it is, also when the stack ends.
    #[must_use]
    pub fn existing_database(mut self, url: impl Into<String>) -> Self {
        self.existing = Some(url.into());
        self
    }

    /// Starts the stack; when this returns, requests are answered.
    ///
    /// # Errors
    /// See [`ErrorKind`]: no PostgreSQL, port taken, directory unwritable, a database that cannot be used, SQL that fails.
    pub async fn start(self) -> Result<Stack> {
        let (server, database) = match (self.existing, self.shared) {
            (Some(url), _) => {
                let migrations = self.postgres.migrations.as_deref().map(Migrations::read).transpose()?;
                (Server::Existing, postgres::open(&url, &migrations.unwrap_or_default()).await?)
            }
            (None, Some(server)) => {
                let database = server.create_database().await?;
                (Server::Shared(server), database)
            }
            (None, None) => {
                let server = PostgresServer::start(&self.postgres).await?;
                let database = server.main_database();
                (Server::Own(server), database)
            }
        };
        for script in &self.scripts {
            let admin = database.admin().await?;
            admin.batch_execute(script).await.map_err(|error| sql_failure("the given SQL", error))?;
        }
        if let Some(file) = &self.seed {
            apply_seed(file, &database).await?;
        }
        let clock = Clock::default();
        let keys = Arc::new(ProjectKeys::new(self.jwt.with_clock(clock.clone())));
        let faults = Faults::new(clock);
        let stop = CancellationToken::new();
        let realtime =
            Realtime::new(Arc::clone(&keys), faults.clone(), self.realtime, &database, stop.clone());
        let functions_stop = stop.clone();
        let rest = rest(&database, &keys, self.rest, stop)?;
        let auth = Auth::new(Arc::clone(&keys), Link::new(database.clone()));
        let database_url = database.url(OWNER);
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
        Ok(Stack { api, server, database, keys, faults, functions })
    }
}

async fn apply_seed(file: &Path, database: &Database) -> Result<()> {
    let script = std::fs::read_to_string(file).map_err(|error| {
        StackError::with_source(
            ErrorKind::File,
            format!("cannot read the seed {}: {error}", file.display()),
            error,
        )
    })?;
    let owner = database.role(OWNER).await?;
    owner.batch_execute(&script).await.map_err(|error| sql_failure(&file.display().to_string(), error))
}

/// The REST service, which follows the schema until `stop`.
fn rest(
    database: &Database,
    keys: &ProjectKeys,
    settings: Settings,
    stop: CancellationToken,
) -> Result<Rest> {
    let pool = database.pool()?;
    let config = database.listener();
    let rest = Rest::new(pool, keys.jwt().clone(), settings);
    let follower = rest.clone();
    tokio::spawn(async move { stop.run_until_cancelled(follower.follow_schema(config)).await });
    Ok(rest)
}
