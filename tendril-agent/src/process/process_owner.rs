//! Whose a process is: a run that has a user of its own is known by it.

use std::{fs, os::unix::fs::MetadataExt as _, path::Path};

use rustix::process::{Pid, geteuid};

/// The user of the run with this data directory: its owner, where that is another one than the user of this process.
pub(super) fn of_data_dir(data_dir: &Path) -> Option<u32> {
    let own = geteuid();
    let owner = fs::symlink_metadata(data_dir).ok()?.uid();
    (own.is_root() && owner != own.as_raw()).then_some(owner)
}

/// Whether a process runs, and is this user's in any respect.
pub(super) fn is_users(pid: Pid, uid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())).unwrap_or_default();
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    let is_zombie = field("State:").trim_start().starts_with('Z');
    !is_zombie && field("Uid:").split_whitespace().any(|id| id.parse() == Ok(uid))
}
