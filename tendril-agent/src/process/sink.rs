//! Where a program's output goes.

use futures_util::future::BoxFuture;

use crate::process::{journal::StreamJournal, stream::Stream};

/// Takes what a program writes. A sink that is full makes the program wait.
pub(crate) trait Sink: Send + Sync {
    /// The next bytes of a stream, never none.
    fn write(&self, stream: Stream, bytes: Vec<u8>) -> BoxFuture<'_, ()>;

    /// The next bytes of a stream, which its journal holds up to `end`.
    fn write_journaled(&self, stream: Stream, bytes: Vec<u8>, _end: u64) -> BoxFuture<'_, ()> {
        self.write(stream, bytes)
    }

    /// Where the bytes of a stream are to be on disk before they are written here; none, if they may be lost with this process.
    fn journal(&self, _stream: Stream) -> Option<&StreamJournal> {
        None
    }
}
