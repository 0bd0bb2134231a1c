//! Pauses between tries and schedule, spread so that many agents never move in step.

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

    /// The pause after one more failure; a server's own `Retry-After` is obeyed.
    pub(crate) fn after(&mut self, error: &Error) -> Duration {
        self.next(retry_after(error))
    }

    /// The pause after one more failure. A server's `Retry-After` is honoured to the second, with jitter.
    pub(crate) fn next(&mut self, retry_after: Option<Duration>) -> Duration {
        let limit = self.first.saturating_mul(2_u32.saturating_pow(self.tries)).min(self.most);
        self.tries = self.tries.saturating_add(1);
        match retry_after {
            Some(retry_after) => retry_after + Duration::from_secs(1).mul_f64(fastrand::f64()),
            None => limit.mul_f64(fastrand::f64()),
        }
    }

    /// After a success.
    pub(crate) fn reset(&mut self) {
        self.tries = 0;
    }
}

/// The mean, moved by up to 20 % in either direction.
pub(crate) fn around(mean: Duration) -> Duration {
    mean.mul_f64(0.8 + 0.4 * fastrand::f64())
}

/// The pause after a failure that is no part of a series: the server's `Retry-After`, or about this long.
pub(crate) fn pause_after(error: &Error, mean: Duration) -> Duration {
    if retry_after(error).is_some() { Backoff::new(mean, mean).after(error) } else { around(mean) }
}

/// When the schedule of one agent come.
#[derive(Clone, Debug)]
pub(crate) struct HeartbeatSchedule {
    period: Duration,
    spread: Duration,
    pauses: Backoff,
}

impl HeartbeatSchedule {
    /// Of an agent that has just started. Until it is answered its pauses are long: those who wait for one control plane share
    /// its first moments.
    pub(crate) fn starting(period: Duration, spread: Duration) -> Self {
        let pauses = Backoff::new(Duration::from_secs(1).max(spread), period.max(2 * spread));
        Self { period, spread, pauses }
    }

    /// The first contact after a start comes anywhere in the spread.
    pub(crate) fn first(&self) -> Duration {
        self.spread.mul_f64(fastrand::f64())
    }

    /// The pause after a heartbeat that was answered.
    pub(crate) fn answered(&mut self) -> Duration {
        self.pauses = Backoff::new(Duration::from_secs(2), self.period);
        around(self.period)
    }

    /// The pause after a heartbeat that was not.
    pub(crate) fn missed(&mut self, retry_after: Option<Duration>) -> Duration {
        self.pauses.next(retry_after)
    }
}

/// What a server demands (`Retry-After`).
pub(crate) fn retry_after(error: &Error) -> Option<Duration> {
    match error.retry() {
        Retry::After(retry_after) => Some(retry_after),
        _ => None,
    }
}

#[cfg(test)]
#[path = "backoff_tests.rs"]
mod tests;
