//! A task that ends with whoever holds it.

use tokio::task::JoinHandle;

/// A task that ends with whoever holds this.
#[derive(Debug)]
pub(super) struct Background(pub(super) JoinHandle<()>);

impl Drop for Background {
    fn drop(&mut self) {
        self.0.abort();
    }
}
