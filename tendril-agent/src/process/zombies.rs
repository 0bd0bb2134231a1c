//! Zombies of an agent that is process 1, as it is in its container: orphans become its children, and nobody else waits for
//! them.
//!
//! A plain "wait for any child" would also take the exit codes of the agent's own children, which tokio waits for. So every
//! child of the agent is started through [`spawn`], which writes it down in the same moment, and the reaper leaves those.

use std::{
    collections::BTreeSet,
    fs, io,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rustix::process::{Pid, WaitOptions, getpid, waitpid};
use tokio::{
    process::{Child, Command},
    signal::unix::{SignalKind, signal},
    time::timeout,
};

use crate::telemetry;

/// Several zombies can hide behind one signal: now and then it is looked without one.
const ROUND: Duration = Duration::from_secs(5);

/// The children that somebody in this process waits for. A process has one set of children, so there is one list.
static OWN: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());

/// A child is waited for as long as this lives.
#[derive(Debug)]
pub(crate) struct Own(i32);

impl Drop for Own {
    fn drop(&mut self) {
        own().remove(&self.0);
    }
}

fn own() -> MutexGuard<'static, BTreeSet<i32>> {
    // Nothing that holds the lock can leave the set in halves.
    OWN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts a child that its caller waits for. Errors: it cannot be started.
pub(crate) fn spawn(command: &mut Command) -> io::Result<(Child, Pid, Own)> {
    // Held over the start: a child that ends at once must not be taken for an orphan.
    let mut own = own();
    let child = command.spawn()?;
    let id = child.id().map(u32::cast_signed).unwrap_or_default();
    let pid =
        Pid::from_raw(id).ok_or_else(|| io::Error::other("the program ended before it could be watched"))?;
    own.insert(id);
    Ok((child, pid, Own(id)))
}

/// Waits for orphans for ever, if this is process 1. Must be called inside a runtime. Errors: no signal handler.
pub(crate) async fn reap_if_first() -> io::Result<()> {
    if !getpid().is_init() {
        return Ok(());
    }
    let mut ended = signal(SignalKind::child())?;
    loop {
        reap();
        // Whether a signal came or the time is over: it is looked again.
        let _either = timeout(ROUND, ended.recv()).await;
    }
}

/// Waits for every child that has ended and is nobody's.
fn reap() {
    for pid in zombies() {
        let own = own();
        if !own.contains(&pid.as_raw_nonzero().get())
            && let Ok(Some(_)) = waitpid(Some(pid), WaitOptions::NOHANG)
        {
            metrics::counter!(telemetry::ZOMBIES_REAPED).increment(1);
        }
    }
}

/// The children of this process that have ended.
fn zombies() -> Vec<Pid> {
    let me = getpid().as_raw_nonzero().to_string();
    let entries = fs::read_dir("/proc").into_iter().flatten().filter_map(Result::ok);
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let is_zombie = |pid: &i32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // The name stands in brackets and can hold anything; after it come the state and the parent.
        let mut fields = stat.rsplit(") ").next().unwrap_or_default().split(' ');
        fields.next() == Some("Z") && fields.next() == Some(&me)
    };
    pids.filter(is_zombie).filter_map(Pid::from_raw).collect()
}

#[cfg(test)]
mod tests {
    use std::{process::Stdio, time::Instant};

    use super::*;

    /// Plays process 1 in a namespace of its own; the test below starts it there.
    #[tokio::test]
    #[ignore = "started by the_agent_as_process_1_reaps_orphans_and_nobody_elses_children"]
    async fn as_process_1() {
        assert!(getpid().is_init());
        let reaper = tokio::spawn(reap_if_first());
        let mut runs = tokio::task::JoinSet::new();
        for code in 0..100 {
            runs.spawn(async move {
                // Each leaves two orphans: one that ends before it, one that ends after it.
                let script = format!("(true &) ; (sleep 0.05 &) ; exit {code}");
                let mut command = Command::new("/bin/sh");
                let (mut child, _, _own) = spawn(command.args(["-c", &script]).stdin(Stdio::null())).unwrap();
                assert_eq!(child.wait().await.unwrap().code(), Some(code), "an exit code was stolen");
            });
        }
        while let Some(run) = runs.join_next().await {
            run.unwrap();
        }
        let deadline = Instant::now() + Duration::from_secs(20);
        while fs::read_dir("/proc").unwrap().filter(|entry| is_number(entry.as_ref().unwrap())).count() > 1 {
            assert!(Instant::now() < deadline, "zombies: {:?}", zombies());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        reaper.abort();
    }

    fn is_number(entry: &fs::DirEntry) -> bool {
        entry.file_name().to_string_lossy().parse::<u32>().is_ok()
    }

    #[test]
    fn the_agent_as_process_1_reaps_orphans_and_nobody_elses_children() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("only root can make a process namespace: not tried");
            return;
        }
        let output = std::process::Command::new("unshare")
            .args(["--pid", "--fork", "--mount-proc"])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "process::zombies::tests::as_process_1", "--ignored", "--nocapture"])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && said.contains("1 passed"),
            "{said}{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}
