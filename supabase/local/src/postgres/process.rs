//! One running PostgreSQL: a private data directory, a free port, and a sure end.
//!
//! The server runs under a supervisor, which stops it by [`Postgres::stop`], by drop, or because this process was killed, and
//! removes a temporary data directory.

use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};
use tokio::time::sleep;

use super::account::Account;
use super::binaries::Binaries;
use super::pg_cron;
use crate::error::{ErrorKind, Result, StackError};
use crate::supervisor::{Ending, supervised};

/// How often the server's files are checked while it starts or stops.
const LOOK: Duration = Duration::from_millis(5);

/// How long a start may take; crash recovery of an existing directory is the slow case.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a stop may take; the supervisor itself gets rougher after 5 s.
const STOP_TIMEOUT: Duration = Duration::from_secs(15);

/// How often another free port is tried when another process was quicker.
const PORT_TRIES: u32 = 8;

/// A running server. Dropping it begins the stop; [`Postgres::stop`] waits for it.
#[derive(Debug)]
pub(crate) struct Postgres {
    /// TCP port on 127.0.0.1.
    port: u16,
    /// The supervising shell; `None` once the stop was begun.
    supervisor: Option<Child>,
}

/// Where the server has its files.
#[derive(Debug, Clone)]
pub(crate) struct Home {
    /// Holds `data/` and `postgres.log`.
    pub(crate) dir: PathBuf,
    /// Removed when the server ends.
    pub(crate) temporary: bool,
    /// Whether its server loads `pg_cron`.
    pub(crate) pg_cron: bool,
}

impl Home {
    /// The data directory proper.
    pub(crate) fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    fn log(&self) -> PathBuf {
        self.dir.join("postgres.log")
    }
}

impl Postgres {
    /// Starts a server on an initialised directory and waits until it takes connections. Port 0 means any free one.
    pub(crate) async fn start(binaries: &Binaries, account: Account, home: &Home, port: u16) -> Result<Self> {
        clear_stale_pid(&home.data())?;
        if port != 0 {
            check_free(port)?;
            return Self::try_start(binaries, account, home, port).await;
        }
        let mut tries = 0;
        loop {
            let port = free_port()?;
            match Self::try_start(binaries, account, home, port).await {
                Err(error) if error.kind() == ErrorKind::PortTaken && tries < PORT_TRIES => tries += 1,
                result => return result,
            }
        }
    }

    async fn try_start(binaries: &Binaries, account: Account, home: &Home, port: u16) -> Result<Self> {
        let log = File::create(home.log()).map_err(|error| unwritable(&home.dir, error))?;
        let remove = home.temporary.then_some(home.dir.as_path());
        let mut command = supervised(&binaries.program("postgres"), Ending::Interrupt, remove);
        command.arg("-D").arg(home.data());
        for setting in settings(port, home) {
            command.arg("-c").arg(setting);
        }
        let errors = log.try_clone().map_err(|error| unwritable(&home.dir, error))?;
        command.env("TZ", "UTC").current_dir("/").stdout(log).stderr(errors);
        account.apply(&mut command);
        let supervisor = command.spawn().map_err(|error| {
            StackError::with_source(ErrorKind::PostgresFailed, format!("cannot run /bin/sh: {error}"), error)
        })?;
        let mut server = Self { port, supervisor: Some(supervisor) };
        server.wait_ready(home).await?;
        Ok(server)
    }

    async fn wait_ready(&mut self, home: &Home) -> Result<()> {
        let deadline = Instant::now() + START_TIMEOUT;
        while !is_ready(&home.data()) {
            let ended = match &mut self.supervisor {
                Some(child) => !matches!(child.try_wait(), Ok(None)),
                None => true,
            };
            if ended || Instant::now() > deadline {
                return Err(start_failure(home, self.port));
            }
            sleep(LOOK).await;
        }
        Ok(())
    }

    /// TCP port on 127.0.0.1.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Stops the server and waits until it is gone.
    pub(crate) async fn stop(mut self) -> Result<()> {
        let Some(mut supervisor) = self.supervisor.take() else { return Ok(()) };
        drop(supervisor.stdin.take());
        let deadline = Instant::now() + STOP_TIMEOUT;
        while matches!(supervisor.try_wait(), Ok(None)) {
            if Instant::now() > deadline {
                return Err(StackError::new(
                    ErrorKind::PostgresFailed,
                    format!(
                        "PostgreSQL on port {} did not stop in {} s; end it by hand",
                        self.port,
                        STOP_TIMEOUT.as_secs()
                    ),
                ));
            }
            sleep(LOOK).await;
        }
        Ok(())
    }
}

impl Drop for Postgres {
    /// Closes the pipe, which makes the supervisor stop the server, and reaps the supervisor off this thread.
    fn drop(&mut self) {
        if let Some(mut supervisor) = self.supervisor.take() {
            drop(supervisor.stdin.take());
            std::thread::spawn(move || supervisor.wait());
        }
    }
}

/// The settings of a development server.
fn settings(port: u16, home: &Home) -> Vec<String> {
    let mut settings = vec![
        "listen_addresses=127.0.0.1".to_owned(),
        format!("port={port}"),
        // No socket directory: the usual one may not exist or not be ours.
        "unix_socket_directories=".to_owned(),
        "wal_level=logical".to_owned(),
        "max_connections=300".to_owned(),
        "max_replication_slots=128".to_owned(),
        "max_wal_senders=128".to_owned(),
        "shared_buffers=32MB".to_owned(),
        // Off would make the WAL sender wait for the WAL writer: 130 ms instead of 1 ms per event.
        "synchronous_commit=on".to_owned(),
        "timezone=UTC".to_owned(),
        "log_timezone=UTC".to_owned(),
        "jit=off".to_owned(),
    ];
    if home.pg_cron {
        settings.extend(pg_cron::SETTINGS.map(str::to_owned));
    }
    if home.temporary {
        settings.extend(["fsync=off".to_owned(), "full_page_writes=off".to_owned()]);
    }
    settings
}

/// The 8th line of `postmaster.pid` is `ready` once connections are accepted.
fn is_ready(data: &Path) -> bool {
    let file = fs::read_to_string(data.join("postmaster.pid")).unwrap_or_default();
    file.lines().nth(7).is_some_and(|line| line.trim() == "ready")
}

/// Removes a `postmaster.pid` whose process is gone (a machine that lost power, a container's recycled pid).
fn clear_stale_pid(data: &Path) -> Result<()> {
    let path = data.join("postmaster.pid");
    let Ok(text) = fs::read_to_string(&path) else { return Ok(()) };
    let pid = text.lines().next().unwrap_or_default().trim();
    if is_running_server(pid) {
        return Err(StackError::new(
            ErrorKind::DataDirInUse,
            format!(
                "{} is in use by a running PostgreSQL (pid {pid}): stop it, or choose another directory",
                data.display()
            ),
        ));
    }
    fs::remove_file(&path).map_err(|error| unwritable(data, error))
}

/// Whether the process exists and, where the system provides its name, is a PostgreSQL.
fn is_running_server(pid: &str) -> bool {
    let Some(process) = pid.parse().ok().and_then(Pid::from_raw) else { return false };
    let exists = test_kill_process(process) != Err(Errno::SRCH);
    let name = fs::read_to_string(format!("/proc/{pid}/comm"));
    exists && name.map_or(true, |name| name.trim() == "postgres")
}

/// A port that was free a moment ago.
fn free_port() -> Result<u16> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .map_err(|error| {
            StackError::with_source(ErrorKind::PortTaken, format!("no free TCP port: {error}"), error)
        })
}

fn check_free(port: u16) -> Result<()> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).map(drop).map_err(|_| port_taken(port))
}

fn port_taken(port: u16) -> StackError {
    StackError::new(
        ErrorKind::PortTaken,
        format!(
            "port {port} is taken by another program: stop it, or choose another with --db-port (0: any)"
        ),
    )
}

/// The reason of a failed start, out of the server's log.
fn start_failure(home: &Home, port: u16) -> StackError {
    let log = fs::read_to_string(home.log()).unwrap_or_default();
    if log.contains("could not bind") || log.contains("Address already in use") {
        return port_taken(port);
    }
    let lines: Vec<&str> = log.lines().collect();
    let end = lines[lines.len().saturating_sub(8)..].join("\n  ");
    StackError::new(ErrorKind::PostgresFailed, format!("PostgreSQL did not start; its output:\n  {end}"))
}

/// A directory that cannot be written.
pub(crate) fn unwritable(dir: &Path, error: std::io::Error) -> StackError {
    StackError::with_source(
        ErrorKind::DataDirUnwritable,
        format!(
            "cannot write {}: {error}. Choose a directory that the account PostgreSQL runs as can reach and write \
             (as root that is `postgres` or `nobody`, so not below /root)",
            dir.display()
        ),
        error,
    )
}
