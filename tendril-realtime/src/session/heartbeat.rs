//! Whether the peer is alive. Any inbound frame proves it; the heartbeat provokes one.

use std::time::{Duration, Instant};

/// The heartbeats of one connection.
#[derive(Debug)]
pub(super) struct Heartbeat {
    interval: Duration,
    timeout: Duration,
    next_beat: Instant,
    /// The heartbeat whose answer has not come.
    sent: Option<PendingHeartbeat>,
    round_trip: Option<Duration>,
}

#[derive(Debug)]
struct PendingHeartbeat {
    reference: String,
    at: Instant,
    /// When silence means death; `None` as soon as anything came in.
    deadline: Option<Instant>,
}

impl Heartbeat {
    pub(super) fn new(interval: Duration, timeout: Duration, now: Instant) -> Self {
        Self { interval, timeout, next_beat: now + interval, sent: None, round_trip: None }
    }

    /// Whether a heartbeat is to be sent. A silent client is cut after 60 s however much it receives, so heartbeats are sent whether
    /// or not anything came in.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        !self.is_open() && now >= self.next_beat
    }

    /// A heartbeat went out. The server reads in order: a join sent before it may delay its answer until `join_deadline`, a join
    /// sent after it may not.
    pub(super) fn on_sent(&mut self, reference: String, now: Instant, join_deadline: Option<Instant>) {
        let deadline = (now + self.timeout).max(join_deadline.unwrap_or(now));
        self.sent = Some(PendingHeartbeat { reference, at: now, deadline: Some(deadline) });
        self.next_beat = now + self.interval;
    }

    /// Any frame at all came in. If it was the answer to the heartbeat under way: how long that took.
    pub(super) fn on_inbound(&mut self, reference: Option<&str>, now: Instant) -> Option<Duration> {
        let pending = self.sent.as_mut()?;
        pending.deadline = None;
        if reference != Some(pending.reference.as_str()) {
            return None;
        }
        self.round_trip = Some(now.saturating_duration_since(pending.at));
        self.sent = None;
        self.round_trip
    }

    /// When silence means death.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.sent.as_ref().and_then(|pending| pending.deadline)
    }

    /// When to check this again.
    pub(super) fn wake(&self) -> Instant {
        self.deadline().unwrap_or(self.next_beat)
    }

    /// Whether a heartbeat waits for a sign of life: then any frame changes when to wake.
    pub(super) fn is_open(&self) -> bool {
        self.deadline().is_some()
    }

    pub(super) fn round_trip(&self) -> Option<Duration> {
        self.round_trip
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(25);
    const TIMEOUT: Duration = Duration::from_secs(10);

    #[test]
    fn any_inbound_frame_proves_life_and_the_answer_measures_the_way() {
        let start = Instant::now();
        let mut heart = Heartbeat::new(INTERVAL, TIMEOUT, start);
        assert!(!heart.is_due(start + Duration::from_secs(24)));
        let sent = start + INTERVAL;
        assert!(heart.is_due(sent));
        heart.on_sent("7".to_owned(), sent, None);
        assert_eq!(heart.deadline(), Some(sent + TIMEOUT));
        assert_eq!(heart.on_inbound(None, sent + Duration::from_secs(1)), None);
        assert_eq!(heart.deadline(), None);
        let answered = heart.on_inbound(Some("7"), sent + Duration::from_secs(2));
        assert_eq!(answered, Some(Duration::from_secs(2)), "also behind other frames");
        heart.on_sent("8".to_owned(), sent + INTERVAL, None);
        assert!(heart.on_inbound(Some("8"), sent + INTERVAL + Duration::from_millis(3)).is_some());
        assert_eq!(heart.round_trip(), Some(Duration::from_millis(3)));
    }

    #[test]
    fn a_join_that_makes_the_server_deaf_excuses_its_silence() {
        let start = Instant::now();
        let mut heart = Heartbeat::new(INTERVAL, TIMEOUT, start);
        let join_deadline = start + Duration::from_secs(18);
        heart.on_sent("1".to_owned(), start, Some(join_deadline));
        assert_eq!(heart.deadline(), Some(join_deadline));
    }
}
