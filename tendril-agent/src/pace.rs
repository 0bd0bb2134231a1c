//! Pauses between tries and beats, spread so that many agents never move in step.

use std::time::Duration;

use tendril_realtime::{Error, Retry};

/// A growing pause with full jitter: each one is drawn from zero to a limit that doubles.
#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    first: Duration,
    most: Duration,
    tries: u32,
}

impl Backoff {
    /// The first pause is at most `first`, none is longer than `most`.
    pub(crate) const fn new(first: Duration, most: Duration) -> Self {
        Self { first, most, tries: 0 }
    }

    /// The pause after one more failure; a server's own wish (`Retry-After`) is obeyed.
    pub(crate) fn after(&mut self, error: &Error) -> Duration {
        match error.retry() {
            Retry::After(wish) => self.next(Some(wish)),
            _ => self.next(None),
        }
    }

    /// The pause after one more failure. A server's wish is kept to the second, and not by everybody at once.
    pub(crate) fn next(&mut self, wish: Option<Duration>) -> Duration {
        let limit = self.first.saturating_mul(2_u32.saturating_pow(self.tries)).min(self.most);
        self.tries = self.tries.saturating_add(1);
        match wish {
            Some(wish) => wish + Duration::from_secs(1).mul_f64(fastrand::f64()),
            None => limit.mul_f64(fastrand::f64()),
        }
    }

    /// After a success.
    pub(crate) fn reset(&mut self) {
        self.tries = 0;
    }
}

/// When the first contact after a start comes: anywhere in the spread.
pub(crate) fn first_beat(spread: Duration) -> Duration {
    spread.mul_f64(fastrand::f64())
}

/// The mean, moved by up to 20 % in either direction.
pub(crate) fn around(mean: Duration) -> Duration {
    mean.mul_f64(0.8 + 0.4 * fastrand::f64())
}

/// The pauses of an agent that has not been answered yet: those who wait for one control plane share its first moments.
pub(crate) fn first_pauses(period: Duration, spread: Duration) -> Backoff {
    Backoff::new(Duration::from_secs(1).max(spread), period.max(2 * spread))
}

#[cfg(test)]
#[path = "pace_tests.rs"]
mod tests;
