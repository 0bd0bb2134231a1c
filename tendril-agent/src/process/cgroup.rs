//! A control group for one attempt, where the system lets this process make one: whatever an attempt starts is in it, however it
//! hides, and whoever is left of its parents.
//!
//! Groups of version 2 only, below the group that this process is in. A container mounts them read only; for a service of
//! systemd `Delegate=yes` makes them this service's own. Where there is none, processes are found by their descent
//! ([`zombies`](super::zombies)) and by their environment ([`orphans`](super::orphans)).

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, getpid};

use crate::process::process_table::Process;

/// What the names of groups begin with.
const PREFIX: &str = "tendril-run-";
/// How long the processes of a group may take to be gone once they were killed.
const GONE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(10);

/// The group that this process has entered.
static OWN: Mutex<Option<Cgroup>> = Mutex::new(None);

/// The group of one attempt.
#[derive(Clone, Debug)]
pub(crate) struct Cgroup {
    dir: PathBuf,
}

impl Cgroup {
    /// The group of this attempt; none where there are no groups of version 2.
    pub(crate) fn of(attempt: &str) -> Option<Self> {
        let parent = group_of("self")?;
        let name = format!("{PREFIX}{attempt}");
        // An executor is in its own already.
        let is_in_it = parent.file_name().is_some_and(|own| own.to_str() == Some(&name));
        Some(Self { dir: if is_in_it { parent } else { parent.join(name) } })
    }

    /// Moves this process into it, and with it whatever it will start. Errors: this process may not.
    pub(crate) fn enter(self) -> io::Result<()> {
        match fs::create_dir(&self.dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        // 0 stands for the writer.
        if let Err(error) = fs::write(self.dir.join("cgroup.procs"), "0") {
            let _not_empty = fs::remove_dir(&self.dir);
            return Err(error);
        }
        *OWN.lock().unwrap_or_else(PoisonError::into_inner) = Some(self);
        Ok(())
    }

    /// Kills what is in it, and removes it. Blocks. Errors: something in it is still there.
    pub(crate) fn end(&self) -> io::Result<()> {
        let deadline = Instant::now() + GONE;
        while self.dir.exists() {
            // Groups that a process has made inside it are killed with it.
            match fs::write(self.dir.join("cgroup.kill"), "1") {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            if remove_tree(&self.dir).is_ok() {
                break;
            }
            if Instant::now() >= deadline {
                return Err(io::Error::other(format!("{} is not empty", self.dir.display())));
            }
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }

    /// Whether a process is in it, or in a group inside it.
    fn holds(&self, pid: Pid) -> bool {
        group_of(&pid.as_raw_nonzero().to_string()).is_some_and(|group| group.starts_with(&self.dir))
    }

    fn processes(&self) -> Vec<Pid> {
        let text = fs::read_to_string(self.dir.join("cgroup.procs")).unwrap_or_default();
        text.lines().filter_map(|line| Pid::from_raw(line.trim().parse().ok()?)).collect()
    }
}

/// Kills the other processes in the group that this process has entered, if it has. Blocks.
pub(crate) fn kill_others() {
    let Some(own) = OWN.lock().unwrap_or_else(PoisonError::into_inner).clone() else { return };
    let deadline = Instant::now() + GONE;
    loop {
        let others: Vec<Pid> = own.processes().into_iter().filter(|pid| *pid != getpid()).collect();
        if others.is_empty() {
            return;
        }
        if Instant::now() >= deadline {
            tracing::error!(group = %own.dir.display(), "processes in the control group of this run cannot be killed");
            return;
        }
        for process in others.into_iter().filter_map(Process::with_id) {
            process.signal(Signal::KILL, |now| own.holds(now.pid));
        }
        std::thread::sleep(PAUSE);
    }
}

/// Removes a group and those inside it, which must be empty.
fn remove_tree(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    fs::remove_dir(dir)
}

/// The directory of the group of version 2 that a process is in.
fn group_of(process: &str) -> Option<PathBuf> {
    let groups = fs::read_to_string(format!("/proc/{process}/cgroup")).ok()?;
    let path = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    let mount = mounts.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let (place, kind) = (fields.next()?, fields.next()?);
        (kind == "cgroup2").then_some(place)
    })?;
    Some(Path::new(mount).join(path))
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write as _,
        process::{Command, Stdio},
    };

    use super::*;

    #[test]
    fn a_group_ends_with_everything_in_it() {
        let attempt = format!("test-{}", getpid().as_raw_nonzero());
        let Some(group) = Cgroup::of(&attempt).filter(|group| fs::create_dir(&group.dir).is_ok()) else {
            eprintln!("this user may make no control group here: not tried");
            return;
        };
        let mut child = Command::new("setsid")
            .args(["sh", "-c", "read go; sleep 600 & exec env -i sleep 600"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        fs::write(group.dir.join("cgroup.procs"), child.id().to_string()).unwrap();
        child.stdin.take().unwrap().write_all(b"go\n").unwrap();
        let deadline = Instant::now() + GONE;
        while group.processes().len() < 2 {
            assert!(Instant::now() < deadline, "{:?}", group.processes());
            std::thread::sleep(PAUSE);
        }
        group.end().unwrap();
        assert!(!group.dir.exists());
        assert!(!child.wait().unwrap().success());
        group.end().unwrap();
    }
}
