//! The clock by which tokens are judged. It can be set wrong on purpose, as servers' clocks are.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Real time plus a skew. Cloning gives another handle to the same clock.
#[derive(Debug, Clone, Default)]
pub(crate) struct Clock {
    /// Seconds; positive when the clock is fast. Written by the fault plan.
    skew: Arc<AtomicI64>,
}

impl Clock {
    /// Whole seconds since 1970.
    pub(crate) fn now(&self) -> i64 {
        let real = i64::try_from(since_1970().as_secs()).unwrap_or(i64::MAX);
        real.saturating_add(self.skew.load(Ordering::Relaxed))
    }

    /// How long it is until a second since 1970; zero once it has come.
    pub(crate) fn until(&self, second: i64) -> Duration {
        let real = second.saturating_sub(self.skew.load(Ordering::Relaxed));
        Duration::from_secs(u64::try_from(real).unwrap_or(0)).saturating_sub(since_1970())
    }

    /// Sets the clock this many seconds fast, or slow if negative.
    pub(crate) fn skew(&self, seconds: i64) {
        self.skew.store(seconds, Ordering::Relaxed);
    }
}

fn since_1970() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
