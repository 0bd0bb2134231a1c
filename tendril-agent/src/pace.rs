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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_their_limit_and_obey_the_server() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));
        for limit in [1, 2, 4, 8, 16, 30, 30] {
            assert!(backoff.next(None) <= Duration::from_secs(limit));
        }
        let wished = backoff.next(Some(Duration::from_secs(60)));
        assert!((Duration::from_secs(60)..Duration::from_secs(61)).contains(&wished), "{wished:?}");
        backoff.reset();
        assert!(backoff.next(None) <= Duration::from_secs(1));
    }

    #[test]
    fn beats_are_spread_by_a_fifth() {
        for _ in 0..1000 {
            let beat = around(Duration::from_secs(15));
            assert!((Duration::from_secs(12)..=Duration::from_secs(18)).contains(&beat));
        }
    }
}
