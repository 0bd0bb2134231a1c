//! The processes of this machine as `/proc` shows them, and signals that reach the process that was found and no other.
//!
//! When a process has ended, its ID can be given to another one, also between a look and a signal: a program that starts processes
//! as fast as it can goes through all IDs in a moment. A process is known by its ID and the time of its start. A signal goes through
//! a descriptor of the process (`pidfd`). What `/proc` says of the ID after the descriptor was opened is true of the process behind it, or
//! that has ended, and the signal reaches nobody.

use std::fs;

use rustix::{
    io::Errno,
    process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open, pidfd_send_signal},
};

/// A process that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Process {
    pub(super) pid: Pid,
    /// The ID of its parent.
    pub(super) parent: i32,
    /// The ID of its process group.
    pub(super) group: i32,
    /// When it was started, in ticks since the machine was.
    started: u64,
    /// It has ended, and its parent has not waited for it.
    pub(super) is_zombie: bool,
}

impl Process {
    /// The process that has this ID now.
    pub(crate) fn with_id(pid: Pid) -> Option<Self> {
        let text = fs::read(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
        Self::parse(pid, &String::from_utf8_lossy(&text))
    }

    fn parse(pid: Pid, stat: &str) -> Option<Self> {
        // The name stands in brackets and can hold anything.
        let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split_ascii_whitespace().collect();
        let number = |at: usize| fields.get(at)?.parse::<i64>().ok();
        let id = |at: usize| i32::try_from(number(at)?).ok();
        // A program whose first thread has ended and whose others go on looks as if it had ended.
        let is_zombie = matches!(*fields.first()?, "Z" | "X" | "x") && number(17)? <= 1;
        let started = u64::try_from(number(19)?).ok()?;
        Some(Self { pid, parent: id(1)?, group: id(2)?, started, is_zombie })
    }

    /// All of them. One that is started meanwhile may be missing, also where the one that started it has ended.
    pub(super) fn all() -> impl Iterator<Item = Self> {
        let entries = fs::read_dir("/proc").into_iter().flatten().filter_map(Result::ok);
        let pids = entries.filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?));
        pids.filter_map(Self::with_id)
    }

    /// Whether it still runs.
    pub(super) fn is_running(&self) -> bool {
        Self::with_id(self.pid).is_some_and(|now| now.started == self.started && !now.is_zombie)
    }

    /// Sends it a signal, if it still runs and still is what it was found to be, as `is_it` says of what it is now. Whoever is gone
    /// needs no signal.
    pub(crate) fn signal(&self, signal: Signal, is_it: impl FnOnce(&Self) -> bool) {
        let descriptor = match pidfd_open(self.pid, PidfdFlags::empty()) {
            Err(Errno::SRCH) => return,
            // A kernel or a sandbox without them, or too many are open: there is the ID alone.
            opened => opened.ok(),
        };
        let now = Self::with_id(self.pid).filter(|now| now.started == self.started && !now.is_zombie);
        if !now.is_some_and(|now| is_it(&now)) {
            return;
        }
        let sent = descriptor.map_or(Err(Errno::NOSYS), |descriptor| pidfd_send_signal(descriptor, signal));
        if sent.is_err_and(|error| error != Errno::SRCH) {
            let _gone = kill_process(self.pid, signal);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        os::unix::process::ExitStatusExt as _,
        process::{Child, Command, Stdio},
        time::{Duration, Instant},
    };

    use super::*;

    fn sleeper() -> (Child, Process) {
        let child = Command::new("sleep").arg("600").stdin(Stdio::null()).spawn().unwrap();
        let process = Process::with_id(Pid::from_child(&child)).unwrap();
        (child, process)
    }

    #[test]
    fn a_signal_reaches_the_process_that_was_found_and_no_other_with_its_id() {
        let (mut child, found) = sleeper();
        // Another one had this ID when it was found.
        let earlier = Process { started: found.started - 1, ..found };
        assert!(found.is_running() && !earlier.is_running());
        earlier.signal(Signal::KILL, |_| true);
        // It is not what it was found to be any more.
        found.signal(Signal::KILL, |now| now.group != found.group);
        assert_eq!(child.try_wait().unwrap(), None);
        found.signal(Signal::KILL, |now| now.group == found.group);
        assert_eq!(child.wait().unwrap().signal(), Some(9));
        assert!(!found.is_running());
        found.signal(Signal::KILL, |_| panic!("it is gone"));
    }

    #[test]
    fn any_name_is_read_and_a_thread_that_goes_on_is_no_zombie() {
        let pid = Pid::from_raw(7).unwrap();
        let stat = |state: &str, threads: u32| {
            format!("7 (a) R 1 (\n x) {state} 5 6 6 0 -1 4 0 0 0 0 1 2 0 0 20 0 {threads} 0 4711 0 0")
        };
        let running = Process { pid, parent: 5, group: 6, started: 4711, is_zombie: false };
        assert_eq!(Process::parse(pid, &stat("S", 1)), Some(running));
        assert_eq!(Process::parse(pid, &stat("Z", 2)), Some(running));
        assert_eq!(Process::parse(pid, &stat("Z", 1)), Some(Process { is_zombie: true, ..running }));
        assert_eq!(Process::parse(pid, ""), None);
    }

    #[test]
    fn a_process_that_has_ended_is_a_zombie_until_it_is_waited_for() {
        let (mut child, found) = sleeper();
        child.kill().unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        while !Process::with_id(found.pid).unwrap().is_zombie {
            assert!(Instant::now() < deadline);
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(!found.is_running());
        child.wait().unwrap();
    }
}
