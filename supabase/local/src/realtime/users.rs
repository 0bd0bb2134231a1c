//! How many sockets have a channel.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts sockets against a limit.
#[derive(Debug)]
pub(crate) struct Users {
    limit: Option<usize>,
    count: Arc<AtomicUsize>,
}

/// One socket's slot; released when dropped.
#[derive(Debug)]
pub(crate) struct UserSlot(Arc<AtomicUsize>);

impl Users {
    pub(crate) fn new(limit: Option<usize>) -> Self {
        Self { limit, count: Arc::default() }
    }

    /// Whether there is no slot left.
    pub(crate) fn are_full(&self) -> bool {
        self.limit.is_some_and(|limit| self.count.load(Ordering::Relaxed) >= limit)
    }

    /// Takes a slot. A socket that was accepted before the limit was reached is not closed.
    pub(crate) fn slot(&self) -> UserSlot {
        self.count.fetch_add(1, Ordering::Relaxed);
        UserSlot(Arc::clone(&self.count))
    }
}

impl Drop for UserSlot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
