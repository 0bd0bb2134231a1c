//! How many sockets have a channel.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts sockets against a limit.
#[derive(Debug)]
pub(crate) struct Users {
    limit: Option<usize>,
    count: Arc<AtomicUsize>,
}

/// One socket's place; given back when dropped.
#[derive(Debug)]
pub(crate) struct Seat(Arc<AtomicUsize>);

impl Users {
    pub(crate) fn new(limit: Option<usize>) -> Self {
        Self { limit, count: Arc::default() }
    }

    /// Whether there is no place left.
    pub(crate) fn are_full(&self) -> bool {
        self.limit.is_some_and(|limit| self.count.load(Ordering::Relaxed) >= limit)
    }

    /// A place. Who was let in before the limit was reached is not sent away.
    pub(crate) fn seat(&self) -> Seat {
        self.count.fetch_add(1, Ordering::Relaxed);
        Seat(Arc::clone(&self.count))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
