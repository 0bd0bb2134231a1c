//! Files that their owner alone can read, written whole, and locks between processes.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::Path,
};

use rustix::fs::{FlockOperation, flock};
use tempfile::NamedTempFile;

use crate::failure::{Failure, FailureKind, Result};

/// A lock between processes; the kernel releases it also when its holder is killed.
#[derive(Debug)]
pub struct FileLock {
    _file: File,
}

impl FileLock {
    /// Waits for the lock of a file, which is made.
    ///
    /// # Errors
    /// A directory that cannot be written.
    pub fn take(path: &Path) -> Result<Self> {
        let take = || -> io::Result<File> {
            make_dir(path)?;
            let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
            flock(&file, FlockOperation::LockExclusive)?;
            Ok(file)
        };
        Ok(Self { _file: take().map_err(|error| unreadable(path, error))? })
    }

    /// The lock of a file, unless another process has it.
    ///
    /// # Errors
    /// A directory that cannot be written.
    pub fn try_take(path: &Path) -> Result<Option<Self>> {
        let take = || -> io::Result<Option<File>> {
            make_dir(path)?;
            let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => Ok(Some(file)),
                Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
                Err(error) => Err(error.into()),
            }
        };
        Ok(take().map_err(|error| unreadable(path, error))?.map(|file| Self { _file: file }))
    }
}

/// Writes a file of mode 0600 that is there whole, or as it was before.
pub(crate) fn write_private(path: &Path, text: &[u8]) -> io::Result<()> {
    make_dir(path)?;
    let dir = path.parent().unwrap_or(Path::new("."));
    // A temporary file has mode 0600 from the start.
    let mut file = NamedTempFile::new_in(dir)?;
    file.write_all(text)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

/// Makes the directory of a file, with mode 0700.
pub(super) fn make_dir(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |dir| fs::DirBuilder::new().recursive(true).mode(0o700).create(dir))
}

pub(super) fn unreadable(path: &Path, error: io::Error) -> Failure {
    Failure::new(FailureKind::Unexpected, format!("{}: {error}", path.display())).caused_by(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_held_by_one_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.lock");
        let held = FileLock::take(&path).unwrap();
        assert!(FileLock::try_take(&path).unwrap().is_none());
        drop(held);
        assert!(FileLock::try_take(&path).unwrap().is_some());
    }
}
