//! A PostgreSQL that several stacks can share, each with a database of its own.

use std::fs;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::sync::Mutex;
use tokio::time::{Duration, sleep};

use super::account::Account;
use super::binaries::Binaries;
use super::migrations::Migrations;
use super::pg_cron::{self, PgCron};
use super::prepared;
use super::process::{Home, Postgres, unwritable};
use crate::database::{Database, OWNER};
use crate::error::sql_failure;
use crate::error::{ErrorKind, Result, StackError};

/// The database that has the bootstrap and the migrations, and from which others are copied.
const MAIN_DATABASE: &str = "postgres";

/// How often connections that end are checked.
const LOOK: Duration = Duration::from_millis(5);

/// How to start a [`PostgresServer`].
#[derive(Debug, Clone, Default)]
pub struct PostgresOptions {
    /// TCP port on 127.0.0.1; 0 means any free one.
    pub port: u16,
    /// Keep the data here between starts; `None` means a temporary directory that is removed at the end.
    pub persist: Option<PathBuf>,
    /// Directory of `*.sql` migrations; `None` means a database without any.
    pub migrations: Option<PathBuf>,
    /// Whether scheduled jobs run. They run in the main database only, and that cannot be copied then: such a server is for one
    /// stack.
    pub pg_cron: PgCron,
}

/// A running PostgreSQL with Supabase's roles and the project's migrations. Cloning gives another handle; the server
/// stops when the last one is dropped, or by [`PostgresServer::stop`].
#[derive(Debug, Clone)]
pub struct PostgresServer {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// TCP port on 127.0.0.1.
    port: u16,
    /// Where the files are.
    home: Home,
    /// Numbers the databases made by [`PostgresServer::create_database`].
    databases: AtomicU32,
    /// Whether scheduled jobs run.
    pg_cron: bool,
    /// `None` after [`PostgresServer::stop`].
    process: Mutex<Option<Postgres>>,
}

impl PostgresServer {
    /// Finds PostgreSQL, prepares a data directory and starts a server on it.
    ///
    /// # Errors
    /// See [`crate::ErrorKind`]: no PostgreSQL, port taken, directory unwritable, a migration that fails.
    pub async fn start(options: &PostgresOptions) -> Result<Self> {
        let binaries = Binaries::find()?;
        let account = Account::choose();
        let migrations = match &options.migrations {
            Some(dir) => Migrations::read(dir)?,
            None => Migrations::default(),
        };
        let pg_cron = options.pg_cron.is_loaded(&binaries)?;
        let (process, home) = if let Some(dir) = &options.persist {
            let home = kept_home(dir, account, pg_cron)?;
            if !home.data().join("PG_VERSION").is_file() {
                prepared::provision(&binaries, account, &migrations, &home).await?;
            }
            (Postgres::start(&binaries, account, &home, options.port).await?, home)
        } else {
            let dir = prepared::temporary_home(account)?;
            let home = Home { dir: dir.path().to_owned(), temporary: true, pg_cron };
            prepared::provision(&binaries, account, &migrations, &home).await?;
            let process = Postgres::start(&binaries, account, &home, options.port).await?;
            // From here on the supervisor removes it, even if this process is killed.
            let _ = dir.keep();
            (process, home)
        };
        let port = process.port();
        let inner =
            Inner { port, home, databases: AtomicU32::new(0), pg_cron, process: Mutex::new(Some(process)) };
        let server = Self { inner: Arc::new(inner) };
        if pg_cron && options.persist.is_some() {
            // The directory may have been made without.
            let admin = Database::local(port, MAIN_DATABASE).admin().await?;
            admin.batch_execute(pg_cron::SCRIPT).await.map_err(|error| sql_failure("pg_cron.sql", error))?;
        }
        // An existing directory may be older than the newest migration.
        migrations.apply(&mut Database::local(port, MAIN_DATABASE).role(OWNER).await?).await?;
        Ok(server)
    }

    /// The directory of the data, and whether it is removed at the end.
    pub(crate) fn home(&self) -> (&Path, bool) {
        (&self.inner.home.dir, self.inner.home.temporary)
    }

    /// TCP port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.inner.port
    }

    /// The database that has the migrations.
    pub(crate) fn main_database(&self) -> Database {
        Database::local(self.port(), MAIN_DATABASE)
    }

    /// Makes a new database, a copy of the one with the migrations, and gives it.
    pub(crate) async fn create_database(&self) -> Result<Database> {
        if self.inner.pg_cron {
            return Err(StackError::new(
                ErrorKind::Database,
                "a PostgreSQL with pg_cron cannot be shared: the scheduler keeps the main database busy, and it cannot be \
                 copied. Start this stack with a server of its own",
            ));
        }
        let number = self.inner.databases.fetch_add(1, Ordering::Relaxed) + 1;
        let name = format!("stack_{number}");
        let admin = Database::local(self.port(), "template1").admin().await?;
        let create = format!("create database {name} template {MAIN_DATABASE} owner {OWNER}");
        admin.batch_execute(&create).await?;
        Ok(Database::local(self.port(), &name))
    }

    /// Ends all connections to a database and takes none, or takes them again.
    pub(crate) async fn refuse(&self, database: &str, refused: bool) -> Result<()> {
        let admin = Database::local(self.port(), "template1").admin().await?;
        admin.batch_execute(&format!("alter database \"{database}\" allow_connections {}", !refused)).await?;
        let end = "select count(pg_terminate_backend(pid)) from pg_stat_activity where datname = $1";
        while refused && admin.query_one(end, &[&database]).await?.get::<_, i64>(0) > 0 {
            sleep(LOOK).await;
        }
        Ok(())
    }

    /// Stops the server and waits until it is gone, also if there are other handles.
    ///
    /// # Errors
    /// If it does not end.
    pub async fn stop(&self) -> Result<()> {
        match self.inner.process.lock().await.take() {
            Some(process) => process.stop().await,
            None => Ok(()),
        }
    }
}

/// The user's directory, made if need be.
fn kept_home(dir: &Path, account: Account, pg_cron: bool) -> Result<Home> {
    let failed = |error| unwritable(dir, error);
    if !dir.exists() {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed)?;
        account.own(dir).map_err(failed)?;
    }
    Ok(Home { dir: dir.canonicalize().map_err(failed)?, temporary: false, pg_cron })
}
