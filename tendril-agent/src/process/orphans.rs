//! Processes of an attempt that outlived the process that should have waited for them.
//!
//! Terraform and everything it starts have the attempt's own `TF_DATA_DIR` in their environment, so that they are found
//! without a note that could be missing or stale: also when they left their process group, and also when the agent that
//! started them is dead. Where a run has a user of its own, every process of that user is one of them.

use std::{
    collections::BTreeSet,
    os::unix::ffi::OsStrExt,
    path::Path,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, geteuid, getpgrp};

use crate::process::{
    process_owner::{self, environment_of, users_of},
    process_table::Process,
    runner::{BETWEEN_INTERRUPTS, EscalationRecord, GracePeriod, TerminationStage},
};

/// Between two looks whether they have ended.
const PAUSE: Duration = Duration::from_millis(50);

/// What the processes of one attempt are known by.
struct Mark {
    /// The variable that they have.
    variable: Vec<u8>,
    /// Their user, where the run has one of its own.
    user: Option<u32>,
}

impl Mark {
    fn of(data_dir: &Path) -> Self {
        let mut variable = b"TF_DATA_DIR=".to_vec();
        variable.extend_from_slice(data_dir.as_os_str().as_bytes());
        Self { variable, user: process_owner::of_data_dir(data_dir) }
    }

    /// Whether a process has it. The environment of other users' processes is not read: they can write there what they like, and
    /// have it on a file system that lets its reader wait for ever.
    fn is_on(&self, pid: Pid) -> bool {
        let users = users_of(pid);
        // Also what has cleaned its environment.
        if self.user.is_some_and(|user| users.contains(&user)) {
            return true;
        }
        if users.iter().any(|user| *user != geteuid().as_raw()) {
            return false;
        }
        let environment = environment_of(pid).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| variable == self.variable)
    }

    fn find(&self) -> Vec<Process> {
        let look =
            || Process::all().filter(|process| !process.is_zombie && self.is_on(process.pid)).collect();
        let found: Vec<Process> = look();
        // One that started another one and ended during the look hides both.
        if found.is_empty() { look() } else { found }
    }

    /// Signals them, and the others in their process groups. Where the run has a user of its own, all that is its own was found, and
    /// the groups may be others': a process can enter any group of its session.
    fn send(&self, found: &[Process], signal: Signal) {
        let own = getpgrp().as_raw_nonzero().get();
        let mut groups: BTreeSet<i32> = BTreeSet::new();
        if self.user.is_none() {
            groups.extend(
                found.iter().map(|process| process.group).filter(|group| *group > 0 && *group != own),
            );
        }
        let is_found = |process: &Process| found.iter().any(|found| found.pid == process.pid);
        let members: Vec<Process> = if groups.is_empty() {
            Vec::new()
        } else {
            Process::all().filter(|process| groups.contains(&process.group) && !is_found(process)).collect()
        };
        for process in found {
            process.signal(signal, |now| self.is_on(now.pid));
        }
        for process in members {
            process.signal(signal, |now| now.group == process.group);
        }
    }
}

/// The processes of the attempt with this data directory. A zombie is none of them.
pub(crate) fn of(data_dir: &Path) -> Vec<Process> {
    Mark::of(data_dir).find()
}

/// Ends them by the escalation: SIGINT to their groups, a grace period, a second SIGINT, SIGKILL. What a previous run sent already is
/// not sent again: for Terraform a further interrupt is the order to drop everything. Answers none where there were none.
/// Blocks for as long as that takes.
pub(crate) fn end(data_dir: &Path, grace_period: GracePeriod) -> Option<TerminationStage> {
    let stages = [
        (grace_period.graceful.max(BETWEEN_INTERRUPTS), TerminationStage::Interrupted),
        (grace_period.forced, TerminationStage::InterruptedTwice),
    ];
    let mark = Mark::of(data_dir);
    let mut left = mark.find();
    if left.is_empty() {
        return None;
    }
    let recorded = EscalationRecord::noted(data_dir);
    for (grace_period, stage) in stages {
        let waited = match &recorded {
            Some(recorded) if recorded.stage > stage => continue,
            Some(recorded) if recorded.stage == stage => recorded.since.elapsed().unwrap_or_default(),
            _ => {
                EscalationRecord::note(data_dir, stage);
                mark.send(&left, Signal::INT);
                Duration::ZERO
            }
        };
        let deadline = Instant::now() + grace_period.saturating_sub(waited);
        loop {
            left = mark.find();
            if left.is_empty() {
                return Some(stage);
            }
            if Instant::now() >= deadline {
                break;
            }
            std::thread::sleep(PAUSE);
        }
    }
    kill(data_dir);
    Some(TerminationStage::Killed)
}

/// Ends them at once: of an attempt whose leader has ended already.
pub(crate) fn kill(data_dir: &Path) {
    let mark = Mark::of(data_dir);
    // They may start others until they are dead; a few rounds find those too.
    for _ in 0..100 {
        // What starts children as fast as it is killed is stopped first.
        for signal in [Signal::STOP, Signal::KILL] {
            let left = mark.find();
            if left.is_empty() {
                return;
            }
            mark.send(&left, signal);
        }
        std::thread::sleep(PAUSE);
    }
    tracing::error!(data_dir = %data_dir.display(), "processes of an ended attempt cannot be killed");
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        os::unix::process::CommandExt,
        path::PathBuf,
        process::{Child, Command, Stdio},
    };

    use super::*;

    fn start(dir: &Path, script: &str) -> Child {
        let marked = Command::new("/bin/bash")
            .args(["-c", &format!("{script} & echo ready; wait")])
            .env("TF_DATA_DIR", dir)
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        while of(dir).len() < 2 {
            assert!(Instant::now() < deadline);
            std::thread::sleep(Duration::from_millis(5));
        }
        marked
    }

    fn grace_period(graceful: u64) -> GracePeriod {
        GracePeriod { graceful: Duration::from_millis(graceful), forced: Duration::from_millis(200) }
    }

    fn data_dir(dir: &tempfile::TempDir) -> PathBuf {
        let data = dir.path().join("data");
        fs::create_dir(&data).unwrap();
        data
    }

    #[test]
    fn what_listens_ends_after_one_interrupt() {
        let dir = tempfile::tempdir().unwrap();
        let data = data_dir(&dir);
        assert_eq!(end(&data, grace_period(0)), None);
        let mut child = start(&data, "(trap 'exit 1' INT; sleep 600)");
        assert_eq!(end(&data, grace_period(10_000)), Some(TerminationStage::Interrupted));
        child.wait().unwrap();
    }

    #[test]
    fn what_an_earlier_life_sent_is_not_sent_again() {
        let count = "n=0; trap 'n=$((n+1)); echo $n >$TF_DATA_DIR/count' INT; touch $TF_DATA_DIR/ready; while :; do sleep 0.02; done";
        for (earlier, sent) in [
            (None, "2\n"),
            (Some(TerminationStage::Interrupted), "1\n"),
            (Some(TerminationStage::InterruptedTwice), ""),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let data = data_dir(&dir);
            let mut child = start(&data, &format!("({count})"));
            let deadline = Instant::now() + Duration::from_secs(10);
            while !data.join("ready").exists() {
                assert!(Instant::now() < deadline);
                std::thread::sleep(Duration::from_millis(5));
            }
            if let Some(stage) = earlier {
                EscalationRecord::note(&data, stage);
            }
            assert_eq!(end(&data, grace_period(100)), Some(TerminationStage::Killed));
            assert_eq!(fs::read_to_string(data.join("count")).unwrap_or_default(), sent, "{earlier:?}");
            child.wait().unwrap();
        }
    }

    #[test]
    fn what_is_deaf_is_killed_also_in_another_session() {
        let dir = tempfile::tempdir().unwrap();
        let data = data_dir(&dir);
        let mut child = start(&data, "trap '' INT TERM; setsid sleep 600");
        assert_eq!(end(&data, grace_period(100)), Some(TerminationStage::Killed));
        assert!(of(&data).is_empty());
        child.wait().unwrap();
    }

    #[test]
    fn a_process_of_another_user_cannot_say_that_it_belongs_to_a_run() {
        if !geteuid().is_root() {
            eprintln!("only root can start processes of other users: not tried");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let data = data_dir(&dir);
        std::os::unix::fs::chown(&data, Some(70_101), Some(70_101)).unwrap();
        let start = |user: u32, variable: &Path| {
            let mut command = Command::new("sleep");
            command.arg("600").env_clear().env("TF_DATA_DIR", variable).uid(user).gid(user).process_group(0);
            command.spawn().unwrap()
        };
        let mut liar = start(70_102, &data);
        assert!(of(&data).is_empty());
        let mut own = start(70_101, Path::new("/elsewhere"));
        kill(&data);
        assert!(!own.wait().unwrap().success());
        assert_eq!(liar.try_wait().unwrap(), None);
        liar.kill().unwrap();
        liar.wait().unwrap();
    }

    #[test]
    fn what_shares_the_group_of_a_process_is_interrupted_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let data = data_dir(&dir);
        let (ready, interrupted) = (data.join("ready"), data.join("interrupted"));
        // It has nothing of the attempt in its environment.
        let other = format!(
            "import signal,sys,time\ndef end(*_):\n  open(\"{}\", \"w\")\n  sys.exit(0)\nsignal.signal(signal.SIGINT, end)\nopen(\"{}\", \"w\")\ntime.sleep(600)",
            interrupted.display(),
            ready.display()
        );
        let script = format!("env -i python3 -c '{other}' & (trap 'exit 1' INT; sleep 600)");
        let mut child = start(&data, &script);
        let deadline = Instant::now() + Duration::from_secs(10);
        while !ready.exists() {
            assert!(Instant::now() < deadline);
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(end(&data, grace_period(10_000)), Some(TerminationStage::Interrupted));
        child.wait().unwrap();
        while !interrupted.exists() {
            assert!(Instant::now() < deadline, "it was not interrupted");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
