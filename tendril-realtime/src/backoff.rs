//! Pauses between attempts: growing, and spread over their whole range.

use std::time::Duration;

use ::backoff::{ExponentialBackoff, ExponentialBackoffBuilder, backoff::Backoff as _};

/// An endless series of pauses. Each is drawn evenly from zero up to twice a base that doubles, and none exceeds the
/// longest: a thousand clients that lost the same server do not come back in the same second.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    inner: ExponentialBackoff,
    shortest: Duration,
    longest: Duration,
    attempt: u32,
}

impl Backoff {
    pub(crate) fn new(first: Duration, longest: Duration) -> Self {
        let inner = ExponentialBackoffBuilder::new()
            .with_initial_interval(first)
            .with_multiplier(2.0)
            // Drawn from zero to twice this, so the longest pause is one that few share.
            .with_max_interval(longest / 2)
            .with_randomization_factor(1.0)
            // The crate's default gives up after 15 minutes.
            .with_max_elapsed_time(None)
            .build();
        // A pause of nearly zero would make the first retries a burst.
        Self { inner, shortest: (first / 5).min(longest), longest, attempt: 0 }
    }

    /// The pause before the next attempt.
    pub(crate) fn next_pause(&mut self) -> Duration {
        self.attempt = self.attempt.saturating_add(1);
        self.inner.next_backoff().unwrap_or(self.longest).clamp(self.shortest, self.longest)
    }

    /// How many pauses were drawn since the last success.
    pub(crate) fn attempt(&self) -> u32 {
        self.attempt
    }

    /// To be called when the thing has *proved* to work, not when it merely began.
    pub(crate) fn reset(&mut self) {
        self.attempt = 0;
        self.inner.reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_are_spread_and_never_exceed_the_longest() {
        let longest = Duration::from_secs(30);
        let mut mean_of_tenth = Duration::ZERO;
        for _ in 0..500 {
            let mut backoff = Backoff::new(Duration::from_millis(500), longest);
            let pauses: Vec<_> = (0..10).map(|_| backoff.next_pause()).collect();
            assert!(pauses[0] <= Duration::from_secs(1) && pauses[0] >= Duration::from_millis(100));
            assert!(pauses.iter().all(|pause| *pause <= longest));
            mean_of_tenth += pauses[9] / 500;
        }
        assert!(mean_of_tenth > Duration::from_secs(12), "{mean_of_tenth:?}");
    }

    #[test]
    fn it_never_gives_up_and_starts_afresh_after_a_reset() {
        let mut backoff = Backoff::new(Duration::from_millis(10), Duration::from_secs(1));
        for _ in 0..10_000 {
            backoff.next_pause();
        }
        assert_eq!(backoff.attempt(), 10_000);
        backoff.reset();
        assert_eq!(backoff.attempt(), 0);
        assert!(backoff.next_pause() <= Duration::from_millis(20));
    }
}
