//! Stacks that run on this machine: each writes down where it is, and that is found by the other commands.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde::{Deserialize, Serialize};

use crate::postgres::PostgresServer;
use crate::stack::Stack;

/// How often a process is checked while it starts or ends.
const LOOK: Duration = Duration::from_millis(20);

/// How long PostgreSQL may take to end before it is left alone.
const SHUTDOWN: Duration = Duration::from_secs(10);

/// What a running stack has written down, for this user alone: the keys of a development stack, and the URL of its database.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Running {
    /// The process of the program.
    pub(super) pid: i32,
    /// Counts the starts of this process: each reset adds one.
    pub(super) generation: u32,
    pub(super) api_url: String,
    pub(super) db_url: String,
    pub(super) jwt_secret: String,
    pub(super) anon_key: String,
    pub(super) service_role_key: String,
    pub(super) publishable_key: String,
    pub(super) secret_key: String,
    /// The directory of the data, and whether it is removed with the stack; none if the database is not the stack's.
    pub(super) data: Option<PathBuf>,
    pub(super) temporary: bool,
}

impl Running {
    pub(super) fn of(stack: &Stack, generation: u32) -> Self {
        let keys = stack.keys();
        let home = stack.postgres().map(PostgresServer::home);
        Self {
            pid: rustix::process::getpid().as_raw_nonzero().get(),
            generation,
            api_url: stack.api_url(),
            db_url: stack.database_url(),
            jwt_secret: keys.jwt().expose().to_owned(),
            anon_key: keys.anon().to_owned(),
            service_role_key: keys.service_role().to_owned(),
            publishable_key: keys.publishable().to_owned(),
            secret_key: keys.secret().to_owned(),
            data: home.map(|(data, _)| data.to_owned()),
            temporary: home.is_some_and(|(_, temporary)| temporary),
        }
    }

    /// The port of the API.
    pub(super) fn port(&self) -> Option<u16> {
        self.api_url.rsplit(':').next()?.parse().ok()
    }

    /// All that run. What a killed one has left behind is cleaned up on the way.
    pub(super) fn all() -> io::Result<Vec<Self>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(directory()?)?.flatten() {
            let Ok(text) = fs::read_to_string(entry.path()) else { continue };
            match serde_json::from_str::<Self>(&text) {
                Ok(running) if is_stack(running.pid) => found.push(running),
                Ok(killed) => {
                    killed.clean_up();
                    // Another process may have been quicker.
                    let _ = fs::remove_file(entry.path());
                }
                // Being written, or of another version.
                Err(_) => {}
            }
        }
        found.sort_by_key(Self::port);
        Ok(found)
    }

    /// Writes it down, in one step.
    pub(super) fn save(&self) -> io::Result<()> {
        let path = self.path()?;
        let scratch = path.with_extension("new");
        let mut file =
            fs::OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&scratch)?;
        io::Write::write_all(&mut file, serde_json::to_string_pretty(self)?.as_bytes())?;
        fs::rename(&scratch, path)
    }

    pub(super) fn forget(&self) {
        if let Ok(path) = self.path() {
            // It may be gone already.
            let _ = fs::remove_file(path);
        }
    }

    fn path(&self) -> io::Result<PathBuf> {
        Ok(directory()?.join(format!("{}.json", self.pid)))
    }

    /// Sends the process a signal; whether it is there.
    pub(super) fn signal(&self, signal: Signal) -> bool {
        Pid::from_raw(self.pid).is_some_and(|pid| kill_process(pid, signal).is_ok())
    }

    pub(super) fn is_alive(&self) -> bool {
        is_stack(self.pid)
    }

    /// Ends the PostgreSQL of a stack that was killed together with its supervisor, and removes its temporary directory.
    fn clean_up(&self) {
        let Some(data) = &self.data else { return };
        let file = data.join("data/postmaster.pid");
        let text = fs::read_to_string(&file).unwrap_or_default();
        let server = text.lines().next().and_then(|pid| pid.trim().parse().ok()).and_then(Pid::from_raw);
        if let Some(server) = server.filter(|pid| is_named(*pid, "postgres")) {
            // Fast shutdown; it may have ended by itself meanwhile.
            let _ = kill_process(server, Signal::INT);
            let deadline = Instant::now() + SHUTDOWN;
            while is_named(server, "postgres") && Instant::now() < deadline {
                std::thread::sleep(LOOK);
            }
        }
        let ours = data.file_name().is_some_and(|name| name.to_string_lossy().starts_with("supabase-local-"));
        if self.temporary && ours && data.parent() == Some(std::env::temp_dir().as_path()) {
            // What cannot be removed only takes space.
            let _ = fs::remove_dir_all(data);
        }
    }
}

/// Where stacks write themselves down: private to this user.
fn directory() -> io::Result<PathBuf> {
    let uid = rustix::process::getuid().as_raw();
    let dir = std::env::temp_dir().join(format!("supabase-local-running-{uid}"));
    DirBuilder::new().mode(0o700).recursive(true).create(&dir)?;
    let owner = fs::symlink_metadata(&dir)?;
    if owner.uid() == uid && owner.is_dir() {
        return Ok(dir);
    }
    let message = format!("{} belongs to somebody else: remove it, or set TMPDIR", dir.display());
    Err(io::Error::new(io::ErrorKind::PermissionDenied, message))
}

fn is_stack(pid: i32) -> bool {
    Pid::from_raw(pid).is_some_and(|pid| is_named(pid, "supabase-local"))
}

/// Whether a process exists and, where the system provides it, has this name (of which Linux stores 15 characters).
fn is_named(pid: Pid, name: &str) -> bool {
    if test_kill_process(pid) == Err(Errno::SRCH) {
        return false;
    }
    let process = PathBuf::from(format!("/proc/{}", pid.as_raw_nonzero()));
    let zombie = fs::read_to_string(process.join("stat"))
        .is_ok_and(|stat| stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z')));
    let found = fs::read_to_string(process.join("comm"));
    !zombie && found.map_or(!Path::new("/proc/self").exists(), |found| found.trim() == name)
}
