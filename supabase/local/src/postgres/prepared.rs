//! A data directory with bootstrap and migrations in it, made once per machine and copied for each server.
//!
//! `initdb`, the bootstrap and the migrations take seconds, and with one process per test they would be paid by every
//! test. So the finished directory is stored under the temporary directory, named by a hash of all that went into it,
//! made by one process under a file lock and moved into place in one step.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::process::Command;
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest;
use tempfile::TempDir;
use tokio::task::spawn_blocking;

use super::account::Account;
use super::binaries::Binaries;
use super::bootstrap;
use super::cache::Cache;
use super::migrations::Migrations;
use super::pg_cron;
use super::process::{Home, Postgres, unwritable};
use crate::database::{ADMIN, Database, OWNER};
use crate::error::{ErrorKind, Result, StackError, sql_failure};

/// Fills `home` with a copy of the prepared data directory, making that first if this is the first time.
pub(crate) async fn provision(
    binaries: &Binaries,
    account: Account,
    migrations: &Migrations,
    home: &Home,
) -> Result<()> {
    let cache = Cache::open()?;
    let name = fingerprint(binaries, migrations, home.pg_cron);
    let prepared = loop {
        if let Some(prepared) = cache.get(&name)? {
            break prepared;
        }
        let locked = cache.clone();
        let _lock = blocking(move || locked.lock()).await?;
        // The holder of the lock before may have made it.
        if cache.get(&name)?.is_none() {
            cache.remove_unused(SystemTime::now());
            prepare(binaries, account, migrations, &cache.path(&name), home.pg_cron).await?;
        }
    };
    let target = home.data();
    blocking(move || copy_tree(&prepared.path, &target, account).map_err(|error| unwritable(&target, error)))
        .await
}

/// Makes the directory elsewhere and moves it to `prepared`.
async fn prepare(
    binaries: &Binaries,
    account: Account,
    migrations: &Migrations,
    prepared: &Path,
    pg_cron: bool,
) -> Result<()> {
    let scratch = temporary_home(account)?;
    let home = Home { dir: scratch.path().to_owned(), temporary: false, pg_cron };
    let (programs, data) = (binaries.clone(), home.data());
    blocking(move || initdb(&programs, account, &data)).await?;
    let server = Postgres::start(binaries, account, &home, 0).await?;
    let filled = fill(server.port(), migrations, pg_cron).await;
    server.stop().await?;
    filled?;
    fs::rename(home.data(), prepared).map_err(|error| unwritable(prepared, error))
}

async fn fill(port: u16, migrations: &Migrations, pg_cron: bool) -> Result<()> {
    let database = Database::local(port, "postgres");
    let mut superuser = database.admin().await?;
    bootstrap::apply(&mut superuser).await?;
    superuser.batch_execute(bootstrap::OWNED).await.map_err(|error| sql_failure("owned.sql", error))?;
    if pg_cron {
        superuser.batch_execute(pg_cron::SCRIPT).await.map_err(|error| sql_failure("pg_cron.sql", error))?;
    }
    let mut owner = database.role(OWNER).await?;
    migrations.apply(&mut owner).await
}

/// A new private directory that belongs to the server's account.
pub(crate) fn temporary_home(account: Account) -> Result<TempDir> {
    let parent = std::env::temp_dir();
    let dir = tempfile::Builder::new()
        .prefix("supabase-local-")
        .tempdir()
        .map_err(|error| unwritable(&parent, error))?;
    account.own(dir.path()).map_err(|error| unwritable(dir.path(), error))?;
    Ok(dir)
}

fn initdb(binaries: &Binaries, account: Account, data: &Path) -> Result<()> {
    let mut command = Command::new(binaries.program("initdb"));
    command.arg("-D").arg(data).args(["-U", ADMIN, "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8"]);
    // A small first segment is less to copy for each server.
    command.args(["--no-sync", "--no-instructions", "--wal-segsize=4"]).env("TZ", "UTC").current_dir("/");
    account.apply(&mut command);
    let output = command.output().map_err(|error| {
        StackError::with_source(ErrorKind::PostgresFailed, format!("cannot run initdb: {error}"), error)
    })?;
    if output.status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&output.stderr);
    Err(StackError::new(
        ErrorKind::DataDirUnwritable,
        format!("initdb failed in {}: {}", data.display(), words.trim()),
    ))
}

/// A hash of everything that decides what is in a prepared directory.
fn fingerprint(binaries: &Binaries, migrations: &Migrations, pg_cron: bool) -> String {
    let mut hash = digest::Context::new(&digest::SHA256);
    let mut add = |text: &str| {
        hash.update(&(text.len() as u64).to_le_bytes());
        hash.update(text.as_bytes());
    };
    add(include_str!("prepared.rs"));
    add(binaries.version());
    if pg_cron {
        add(pg_cron::SCRIPT);
    }
    for (name, text) in
        bootstrap::SCRIPTS.into_iter().chain([("owned.sql", bootstrap::OWNED)]).chain(migrations.texts())
    {
        add(name);
        add(text);
    }
    URL_SAFE_NO_PAD.encode(&hash.finish().as_ref()[..15])
}

/// Copies a directory tree and gives it to the server's account.
fn copy_tree(from: &Path, to: &Path, account: Account) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(to)?;
    account.own(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_tree(&entry.path(), &target, account)?;
        } else {
            fs::copy(entry.path(), &target)?;
            account.own(&target)?;
        }
    }
    Ok(())
}

/// Runs file work off the async threads.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    spawn_blocking(work).await.unwrap_or_else(|error| {
        Err(StackError::with_source(
            ErrorKind::PostgresFailed,
            format!("the file work ended: {error}"),
            error,
        ))
    })
}
