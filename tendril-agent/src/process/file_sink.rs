//! A file that takes what a program writes.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    sync::{Mutex, PoisonError},
};

use futures_util::future::BoxFuture;

use crate::process::{runner::Sink, stream::Stream};

/// Writes a program's stdout into a file that only this user may read.
pub(crate) struct FileSink(Mutex<(File, Option<io::Error>)>);

impl FileSink {
    /// Errors: the disk.
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
        Ok(Self(Mutex::new((file, None))))
    }

    /// Whether all of it is there. Errors: the disk.
    pub(crate) fn finish(self) -> io::Result<()> {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner).1.map_or(Ok(()), Err)
    }
}

impl Sink for FileSink {
    fn write(&self, stream: Stream, bytes: Vec<u8>) -> BoxFuture<'_, ()> {
        if stream == Stream::Stdout {
            let mut file = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if file.1.is_none()
                && let Err(error) = file.0.write_all(&bytes)
            {
                file.1 = Some(error);
            }
        }
        Box::pin(std::future::ready(()))
    }
}
