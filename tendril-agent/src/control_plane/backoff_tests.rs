use std::collections::BTreeMap;

use super::*;
use crate::config::Timing;

#[test]
fn pauses_grow_to_their_limit_and_obey_the_server() {
    let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));
    for limit in [1, 2, 4, 8, 16, 30, 30] {
        assert!(backoff.next(None) <= Duration::from_secs(limit));
    }
    let pause = backoff.next(Some(Duration::from_secs(60)));
    assert!((Duration::from_secs(60)..Duration::from_secs(61)).contains(&pause), "{pause:?}");
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

/// A thousand agents that are started in the same moment, and what the control plane answers them.
struct Fleet {
    timing: Timing,
    /// Until then every request is refused.
    away_until: Duration,
    /// What a refusal demands.
    retry_after: Option<Duration>,
}

/// The agents of a fleet.
const AGENTS: usize = 1000;
/// How long they are watched.
const WATCHED: Duration = Duration::from_secs(90);

impl Fleet {
    fn healthy() -> Self {
        Self { timing: Timing::default(), away_until: Duration::ZERO, retry_after: None }
    }

    /// When each agent comes with its requests: schedule, and with the first that is answered the list and the socket.
    fn requests(&self) -> Vec<Duration> {
        let mut all = Vec::new();
        for _ in 0..AGENTS {
            let mut schedule = HeartbeatSchedule::starting(self.timing.heartbeat, self.timing.startup_jitter);
            let mut now = schedule.first();
            while now < self.away_until {
                all.push(now);
                now += schedule.missed(self.retry_after);
            }
            all.extend([now; 3]);
            while now < WATCHED {
                now += schedule.answered();
                all.push(now);
            }
        }
        all.retain(|at| *at < WATCHED);
        all
    }

    /// Requests in the busiest second, over those in a mean one; the median, because each start depends on chance.
    fn peak(&self) -> f64 {
        let mut peaks: Vec<f64> = (0..9).map(|_| self.peak_of_one_start()).collect();
        peaks.sort_by(f64::total_cmp);
        peaks[peaks.len() / 2]
    }

    fn peak_of_one_start(&self) -> f64 {
        let mut seconds = BTreeMap::<u64, f64>::new();
        for at in self.requests() {
            *seconds.entry(at.as_secs()).or_default() += 1.0;
        }
        let mean = seconds.values().sum::<f64>() / WATCHED.as_secs_f64();
        seconds.into_values().fold(0.0, f64::max) / mean
    }
}

#[test]
fn a_thousand_agents_that_start_at_once_come_in_no_second_three_times_as_often_as_on_average() {
    let peak = Fleet::healthy().peak();
    assert!(peak < 3.0, "{peak}");
    // Without the spread they would.
    let timing = Timing { startup_jitter: Duration::ZERO, ..Timing::default() };
    assert!(Fleet { timing, ..Fleet::healthy() }.peak() > 3.0);
}

#[test]
fn a_thousand_agents_that_wait_for_a_control_plane_do_not_fall_upon_it_when_it_is_back() {
    let peak = Fleet { away_until: Duration::from_secs(45), ..Fleet::healthy() }.peak();
    assert!(peak < 3.0, "{peak}");
}

#[test]
fn a_thousand_agents_keep_to_what_a_busy_server_wishes() {
    let retry_after = Duration::from_secs(10);
    let fleet =
        Fleet { away_until: Duration::from_secs(45), retry_after: Some(retry_after), ..Fleet::healthy() };
    let early = fleet.requests().into_iter().filter(|at| *at < Duration::from_secs(40)).count();
    assert!(early <= AGENTS * 4, "each came at most once in ten seconds: {early}");
}
