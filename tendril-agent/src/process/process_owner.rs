//! Whose a process is: a run that has a user of its own is known by it.

use std::{fs, os::unix::fs::MetadataExt as _, path::Path};

use rustix::process::{Pid, geteuid};

/// The user of the run with this data directory: its owner, where that is another one than the user of this process.
pub(super) fn of_data_dir(data_dir: &Path) -> Option<u32> {
    let own = geteuid();
    let owner = fs::symlink_metadata(data_dir).ok()?.uid();
    (own.is_root() && owner != own.as_raw()).then_some(owner)
}

/// Every user that a process is in any respect; none, if it is gone.
pub(super) fn users_of(pid: Pid) -> Vec<u32> {
    let status = fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())).unwrap_or_default();
    let ids = status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap_or_default();
    ids.split_ascii_whitespace().filter_map(|id| id.parse().ok()).collect()
}

/// The environment with which a process was started, as far as it has left it; none, if this process may not read it.
pub(super) fn environment_of(pid: Pid) -> Option<Vec<u8>> {
    let place = format!("/proc/{}", pid.as_raw_nonzero());
    let environment = fs::read(format!("{place}/environ")).ok()?;
    if !environment.is_empty() {
        return Some(environment);
    }
    // Its first thread may have ended.
    let threads = fs::read_dir(format!("{place}/task")).ok()?.filter_map(Result::ok);
    threads.filter_map(|thread| fs::read(thread.path().join("environ")).ok()).find(|read| !read.is_empty())
}
