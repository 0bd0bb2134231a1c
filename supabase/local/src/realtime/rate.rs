//! A rolling average that is taken now and then, as the real server takes it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::fault::RateTicks;

/// Ticks over which the average goes.
const TICKS: usize = 12;

/// Counts something against a limit a second.
#[derive(Debug)]
pub(crate) struct Rate {
    limit: Option<u32>,
    tick: Duration,
    ticks: Arc<RateTicks>,
    counts: Mutex<Counts>,
}

#[derive(Debug)]
struct Counts {
    /// Of the ticks that are over, the latest last.
    past: VecDeque<u64>,
    current: u64,
    /// When the current tick began.
    since: Instant,
    /// Ticks made by a test that are over.
    made: u64,
}

impl Rate {
    /// Counts from now on. The first tick is over at once and empty, as the real server's counters begin.
    pub(crate) fn new(limit: Option<u32>, tick: Duration, ticks: Arc<RateTicks>) -> Self {
        let counts =
            Counts { past: VecDeque::from([0]), current: 0, since: Instant::now(), made: ticks.made() };
        Self { limit, tick, ticks, counts: Mutex::new(counts) }
    }

    pub(crate) fn limit(&self) -> Option<u32> {
        self.limit
    }

    /// Counts, unless there is no limit to count for.
    pub(crate) fn add(&self, count: u64) {
        if self.limit.is_some() {
            self.average_at(Instant::now(), count);
        }
    }

    /// The average a second as of the last tick.
    pub(crate) fn average(&self) -> f64 {
        if self.limit.is_some() { self.average_at(Instant::now(), 0) } else { 0.0 }
    }

    /// Whether the average was over the limit at the last tick.
    pub(crate) fn is_over(&self) -> bool {
        self.limit.is_some_and(|limit| self.average() > f64::from(limit))
    }

    fn average_at(&self, now: Instant, count: u64) -> f64 {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        while counts.made < self.ticks.made() {
            counts.made += 1;
            counts.end_tick();
        }
        if self.ticks.are_held() {
            counts.since = now;
        }
        let mut ended = 0;
        while now.duration_since(counts.since) >= self.tick && ended <= TICKS {
            counts.end_tick();
            counts.since += self.tick;
            ended += 1;
        }
        if ended > TICKS {
            // After so long a silence, the ticks need not be counted one by one.
            counts.since = now;
        }
        counts.current += count;
        #[allow(clippy::cast_precision_loss, reason = "an average need not be exact")]
        let (sum, ticks) = (counts.past.iter().sum::<u64>() as f64, counts.past.len() as f64);
        if ticks == 0.0 { 0.0 } else { sum / (ticks * self.tick.as_secs_f64()) }
    }
}

impl Counts {
    fn end_tick(&mut self) {
        let current = std::mem::take(&mut self.current);
        self.past.push_back(current);
        if self.past.len() > TICKS {
            self.past.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_noticed_at_a_tick_and_forgotten_slowly() {
        let rate = Rate::new(Some(5), Duration::from_secs(5), Arc::default());
        let start = rate.counts.lock().unwrap().since;
        let at = |seconds, count| rate.average_at(start + Duration::from_secs(seconds), count);
        for _ in 0..100 {
            assert!(at(1, 1) < 0.1, "not before the tick");
        }
        assert!((at(5, 0) - 10.0).abs() < 1e-9);
        assert!((at(10, 0) - 100.0 / 15.0).abs() < 1e-9);
        assert!((at(60, 0) - 100.0 / 60.0).abs() < 1e-9);
        assert!(at(65, 0) < 1e-9);
        assert!(at(10_000, 0) < 1e-9);
    }

    #[test]
    fn without_a_limit_nothing_is_over() {
        let rate = Rate::new(None, Duration::from_nanos(1), Arc::default());
        rate.add(1_000_000);
        assert!(!rate.is_over());
    }
}
