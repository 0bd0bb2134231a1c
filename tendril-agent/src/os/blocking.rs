//! Work that waits for the disk, on a thread of its own and not on the one that runs everything else.

use std::io;

use tokio::task::spawn_blocking;

/// Runs work on a thread that may wait for it.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    spawn_blocking(work).await.map_err(io::Error::other)?
}
