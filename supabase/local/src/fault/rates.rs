//! When the averages of limits a second are taken: by the clock, or by a test.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// When the rates of a stack are measured.
#[derive(Debug, Default)]
pub(crate) struct RateTicks {
    held: AtomicBool,
    /// Counts the ticks that a test made.
    made: AtomicU64,
}

impl RateTicks {
    pub(super) fn hold(&self, held: bool) {
        self.held.store(held, Ordering::Relaxed);
    }

    pub(super) fn tick(&self) {
        self.made.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether the clock makes no ticks.
    pub(crate) fn are_held(&self) -> bool {
        self.held.load(Ordering::Relaxed)
    }

    /// How many a test has made.
    pub(crate) fn made(&self) -> u64 {
        self.made.load(Ordering::Relaxed)
    }
}
