//! Whom the kernel kills where memory is used up: what a run has started, before the agent, its executors and its keepers.
//!
//! Any process may make another one of its user's the better choice of the kernel, and what that one starts inherits it. Where the agent
//! has `CAP_SYS_RESOURCE` a run cannot take it back; elsewhere it can become as good a choice as the agent, and no worse one.

use std::{fs, io};

use rustix::process::Pid;

/// How much better a choice than this process, in thousandths of the machine's memory.
const MORE: i32 = 500;
/// The largest that the kernel takes (`proc_pid_oom_score_adj(5)`).
const MOST: i32 = 1000;

/// Makes a program that was started now, and all that it will start, the better choice. Where that is refused, it is as good a choice
/// as this process.
pub(super) fn prefer(pid: Pid) {
    if let Err(error) = try_prefer(pid) {
        tracing::debug!(%error, "a program cannot be made the first that the kernel kills when memory is used up");
    }
}

fn try_prefer(pid: Pid) -> io::Result<()> {
    let own: i32 =
        fs::read_to_string("/proc/self/oom_score_adj")?.trim().parse().map_err(io::Error::other)?;
    fs::write(
        format!("/proc/{}/oom_score_adj", pid.as_raw_nonzero()),
        own.saturating_add(MORE).min(MOST).to_string(),
    )
}
