//! The lock on the work directory.

use std::{fs::File, path::Path};

use rustix::fs::{FlockOperation, flock};

use crate::{agent::error::AgentError, os::files::open_lock};

/// Locks the work directory: a second agent there would take running jobs for orphaned attempts.
pub(super) fn lock(work_dir: &Path) -> Result<File, AgentError> {
    let dir = work_dir.display().to_string();
    let file = match open_lock(&work_dir.join(".lock")) {
        Ok(file) => file,
        Err(source) => return Err(AgentError::WorkDir { dir, source }),
    };
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(error) if error == rustix::io::Errno::WOULDBLOCK => Err(AgentError::WorkDirInUse(dir)),
        Err(error) => Err(AgentError::WorkDir { dir, source: error.into() }),
    }
}
