//! Where Supabase is: the local stack, or an external one that the environment names.

use std::{env, fs, path::Path};

use supabase_local::{JwtSecret, Stack, StackBuilder};
use tokio_postgres::{Client, NoTls};

use crate::{wait::until, world::repository};

/// A lock in the external database: tests are processes of their own, and one of them applies the migrations.
const MIGRATIONS_LOCK: i64 = 0x7e4d_7211;

/// A Supabase project with the migrations in it.
#[derive(Debug)]
pub struct Project {
    /// Base URL.
    pub url: String,
    /// The `anon` key.
    pub anon_key: String,
    /// The `service_role` key.
    pub service_role_key: String,
    /// What signs user and machine tokens.
    pub jwt: JwtSecret,
    /// The database, as role `postgres`.
    pub database_url: String,
    /// The local stack; `None` for an external project.
    stack: Option<Stack>,
}

impl Project {
    /// A fresh local stack, or the one external project.
    pub async fn start() -> Self {
        match env::var("STACK").as_deref() {
            Ok("external") => Self::external().await,
            Ok("local") | Err(_) => Self::on(Stack::builder()).await,
            Ok(other) => {
                panic!("STACK is \"{other}\": leave it out for the local stack, or write \"external\"")
            }
        }
    }

    /// A local stack whose database has these migrations, whatever `STACK` is: tests of them are no tests
    /// to a project that has its own.
    pub async fn with_migrations(dir: &Path) -> Self {
        Self::on(Stack::builder().migrations(dir)).await
    }

    /// A local stack whose Edge Functions have this variable, whatever `STACK` is.
    pub async fn with_function_secret(name: &str, value: &str) -> Self {
        Self::on(Stack::builder().function_secret(name, value)).await
    }

    async fn on(stack: StackBuilder) -> Self {
        let stack = stack.start().await.unwrap_or_else(|error| panic!("the local stack: {error}"));
        Self {
            url: stack.api_url(),
            anon_key: stack.anon_key().to_owned(),
            service_role_key: stack.service_role_key().to_owned(),
            jwt: stack.jwt_secret().clone(),
            database_url: stack.database_url(),
            stack: Some(stack),
        }
    }

    async fn external() -> Self {
        let var = |name: &str| {
            env::var(name)
                .unwrap_or_else(|_| panic!("STACK=external needs {name} (`supabase status` prints it)"))
        };
        let project = Self {
            url: var("SUPABASE_URL"),
            anon_key: var("SUPABASE_ANON_KEY"),
            service_role_key: var("SUPABASE_SERVICE_ROLE_KEY"),
            jwt: JwtSecret::new(var("SUPABASE_JWT_SECRET")),
            database_url: var("SUPABASE_DB_URL"),
            stack: None,
        };
        project.migrate().await;
        project
    }

    /// The local stack, whose faults a test needs. On an external project it reports that the test was skipped, and why.
    pub fn stack(&self, why: &str) -> Option<&Stack> {
        if self.stack.is_none() {
            println!("skipped: {why}, which only the local stack can do");
        }
        self.stack.as_ref()
    }

    /// Whether this is an external project, which outlives the test.
    pub fn is_external(&self) -> bool {
        self.stack.is_none()
    }

    /// A connection to the database as its owner, whom row level security does not bind.
    pub async fn database(&self) -> Client {
        connect(&self.database_url).await
    }

    /// Applies what `supabase db push` would apply, and records it where that does.
    async fn migrate(&self) {
        let mut database = self.database().await;
        let prepare = "create schema if not exists supabase_migrations;
            create table if not exists supabase_migrations.schema_migrations (version text primary key, statements text[], name text);";
        database.execute("select pg_advisory_lock($1)", &[&MIGRATIONS_LOCK]).await.expect("the lock");
        database.batch_execute(prepare).await.expect("the list of migrations");
        let mut files: Vec<_> = fs::read_dir(repository("supabase/migrations"))
            .expect("the migrations")
            .map(|entry| entry.expect("a migration").path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "sql"))
            .collect();
        files.sort();
        for file in files {
            let stem = file.file_stem().expect("a name").to_string_lossy().into_owned();
            let (version, name) = stem.split_once('_').expect("a version and a name");
            let record = "insert into supabase_migrations.schema_migrations (version, name) values ($1, $2) on conflict do nothing";
            let transaction = database.transaction().await.expect("a transaction");
            if transaction.execute(record, &[&version, &name]).await.expect("the list of migrations") == 1 {
                let sql = fs::read_to_string(&file).expect("a migration");
                transaction.batch_execute(&sql).await.unwrap_or_else(|error| panic!("{stem}.sql: {error:?}"));
            }
            transaction.commit().await.expect("the migration is stored");
        }
        database.batch_execute("notify pgrst, 'reload schema'").await.expect("a notification");
        database.execute("select pg_advisory_unlock($1)", &[&MIGRATIONS_LOCK]).await.expect("the lock");
        let rest = tendril_realtime::Rest::builder(&self.url, &self.service_role_key)
            .build()
            .expect("the project's URL");
        until("PostgREST has loaded the tables", async || {
            rest.from("deployment_logs")
                .select("id")
                .limit(1)
                .execute()
                .await
                .map_err(|error| error.to_string())
        })
        .await;
    }
}

/// Opens a connection whose task ends with it.
/// A connection to a database, for as long as the client is held.
pub async fn connect(url: &str) -> Client {
    let (client, connection) =
        tokio_postgres::connect(url, NoTls).await.unwrap_or_else(|error| panic!("no database: {error}"));
    tokio::spawn(connection);
    client
}
