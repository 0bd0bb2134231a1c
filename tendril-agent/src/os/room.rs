//! Room at the end of a file that is taken from the disk before it is needed: a disk that has become full takes that much more.

use std::fs::File;

use rustix::{
    fs::{FallocateFlags, fallocate},
    io::Errno,
};

/// Bytes of room. Half of them at least are there after each write.
pub(crate) const ROOM: u64 = 256 * 1024;

/// The room of one file.
#[derive(Debug, Default)]
pub(crate) struct Room {
    /// Where it ends in the file.
    end: u64,
    /// The file system gives none.
    is_refused: bool,
}

impl Room {
    /// Takes room behind this position, up to which the file is about to be written, if half of it is used.
    pub(crate) fn take(&mut self, file: &File, written: u64) {
        let from = self.end.max(written);
        if self.is_refused || from >= written + ROOM / 2 {
            return;
        }
        match fallocate(file, FallocateFlags::KEEP_SIZE, from, written + ROOM - from) {
            Ok(()) => self.end = written + ROOM,
            // What is left of it is used now.
            Err(Errno::NOSPC | Errno::DQUOT) => {}
            Err(error) => {
                tracing::debug!(%error, "the file system gives no room before it is needed");
                self.is_refused = true;
            }
        }
    }

    /// Whether there is room behind this position.
    pub(crate) const fn reaches_beyond(&self, position: u64) -> bool {
        self.end > position
    }
}
