//! A file that takes what a program writes.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    sync::{Mutex, PoisonError},
};

use futures_util::future::BoxFuture;

use crate::process::{journal::StreamJournal, sink::Sink, stream::Stream};

/// Writes a program's stdout into a file that only this user may read.
pub(crate) struct FileSink<'a> {
    file: Mutex<(File, Option<io::Error>)>,
    /// Where the rest goes; none: nowhere.
    rest: Option<&'a dyn Sink>,
}

impl<'a> FileSink<'a> {
    /// Makes the file anew: what is there may be a link, or a pipe that nobody reads. Errors: the disk.
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        Ok(Self { file: Mutex::new((file, None)), rest: None })
    }

    /// The same, with another sink for what the program writes to stderr.
    pub(crate) fn passing(self, rest: &'a dyn Sink) -> Self {
        Self { rest: Some(rest), ..self }
    }

    /// Whether all of it is there. Errors: the disk.
    pub(crate) fn finish(self) -> io::Result<()> {
        self.file.into_inner().unwrap_or_else(PoisonError::into_inner).1.map_or(Ok(()), Err)
    }
}

impl Sink for FileSink<'_> {
    fn write(&self, stream: Stream, bytes: Vec<u8>) -> BoxFuture<'_, ()> {
        if stream == Stream::Stdout {
            let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
            if file.1.is_none()
                && let Err(error) = file.0.write_all(&bytes)
            {
                file.1 = Some(error);
            }
        } else if let Some(rest) = self.rest {
            return rest.write(stream, bytes);
        }
        Box::pin(std::future::ready(()))
    }

    fn write_journaled(&self, stream: Stream, bytes: Vec<u8>, end: u64) -> BoxFuture<'_, ()> {
        match self.rest.filter(|_| stream != Stream::Stdout) {
            Some(rest) => rest.write_journaled(stream, bytes, end),
            None => self.write(stream, bytes),
        }
    }

    fn journal(&self, stream: Stream) -> Option<&StreamJournal> {
        self.rest.filter(|_| stream != Stream::Stdout)?.journal(stream)
    }
}
