//! Processes of an attempt that outlived the process that should have waited for them.
//!
//! Terraform and everything it starts have the attempt's own `TF_DATA_DIR` in their environment, so that they are found
//! without a note that could be missing or stale: also when they left their process group, and also when the agent that
//! started them is dead. Where a run has a user of its own, every process of that user is one of them.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::ffi::OsStrExt,
    path::Path,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, getpgid, getpgrp, kill_process, kill_process_group};

use crate::process::{
    process_owner,
    runner::{BETWEEN_INTERRUPTS, EscalationRecord, GracePeriod, TerminationStage},
};

/// Between two looks whether they have ended.
const PAUSE: Duration = Duration::from_millis(50);

/// The processes of the attempt with this data directory. A zombie has no environment, and is none of them.
pub(crate) fn of(data_dir: &Path) -> Vec<Pid> {
    let mut mark = b"TF_DATA_DIR=".to_vec();
    mark.extend_from_slice(data_dir.as_os_str().as_bytes());
    let entries = fs::read_dir("/proc").into_iter().flatten().filter_map(Result::ok);
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok().and_then(Pid::from_raw));
    // Also what has cleaned its environment, and what this process may not read it of.
    let user = process_owner::of_data_dir(data_dir);
    pids.filter(|pid| {
        if user.is_some_and(|user| process_owner::is_users(*pid, user)) {
            return true;
        }
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|variable| variable == mark)
    })
    .collect()
}

/// Ends them by the escalation: SIGINT to their groups, a grace period, a second SIGINT, SIGKILL. What a previous run sent already is
/// not sent again: for Terraform a further interrupt is the order to drop everything. Answers none where there were none.
/// Blocks for as long as that takes.
pub(crate) fn end(data_dir: &Path, grace_period: GracePeriod) -> Option<TerminationStage> {
    let stages = [
        (grace_period.graceful.max(BETWEEN_INTERRUPTS), TerminationStage::Interrupted),
        (grace_period.forced, TerminationStage::InterruptedTwice),
    ];
    let mut left = of(data_dir);
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
                send(&left, Signal::INT);
                Duration::ZERO
            }
        };
        let deadline = Instant::now() + grace_period.saturating_sub(waited);
        loop {
            left = of(data_dir);
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
    // They may start others until they are dead; a few rounds find those too.
    for _ in 0..100 {
        // What starts children as fast as it is killed is stopped first.
        for signal in [Signal::STOP, Signal::KILL] {
            let left = of(data_dir);
            if left.is_empty() {
                return;
            }
            send(&left, signal);
        }
        std::thread::sleep(PAUSE);
    }
    tracing::error!(data_dir = %data_dir.display(), "processes of an ended attempt cannot be killed");
}

/// Signals the groups of these processes, and those processes alone that are in this process's own group.
fn send(pids: &[Pid], signal: Signal) {
    let own = getpgrp();
    let mut groups = BTreeSet::new();
    for pid in pids {
        match getpgid(Some(*pid)) {
            Ok(group) if group != own => {
                groups.insert(group.as_raw_nonzero());
            }
            Ok(_) => {
                // A process that is gone needs no signal; errors of sending mean nothing else.
                let _gone = kill_process(*pid, signal);
            }
            Err(_) => {}
        }
    }
    for group in groups.into_iter().filter_map(|group| Pid::from_raw(group.get())) {
        let _gone = kill_process_group(group, signal);
    }
}

#[cfg(test)]
mod tests {
    use std::{
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
}
