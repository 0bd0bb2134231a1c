//! Whether the peer is alive. Any inbound frame proves it; the heartbeat provokes one.

use std::time::{Duration, Instant};

/// The beats of one connection.
#[derive(Debug)]
pub(super) struct Heartbeat {
    interval: Duration,
    patience: Duration,
    next_beat: Instant,
    /// The beat under way: its ref, and when it was sent.
    sent: Option<(String, Instant)>,
    round_trip: Option<Duration>,
}

impl Heartbeat {
    pub(super) fn new(interval: Duration, patience: Duration, now: Instant) -> Self {
        Self { interval, patience, next_beat: now + interval, sent: None, round_trip: None }
    }

    /// Whether a beat is to be sent. A silent client is cut after 60 s however much it receives, so beats are sent whether
    /// or not anything came in.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.sent.is_none() && now >= self.next_beat
    }

    pub(super) fn on_sent(&mut self, reference: String, now: Instant) {
        self.sent = Some((reference, now));
        self.next_beat = now + self.interval;
    }

    /// Any frame at all came in. Returns whether it was the answer to the beat under way.
    pub(super) fn on_inbound(&mut self, reference: Option<&str>, now: Instant) -> bool {
        let answered = matches!((&self.sent, reference), (Some((sent, _)), Some(got)) if sent == got);
        if answered && let Some((_, at)) = &self.sent {
            self.round_trip = Some(now.saturating_duration_since(*at));
        }
        self.sent = None;
        answered
    }

    /// When silence means death, unless something keeps the server from answering until `excuse`.
    pub(super) fn deadline(&self, excuse: Option<Instant>) -> Option<Instant> {
        let (_, sent) = self.sent.as_ref()?;
        let deadline = *sent + self.patience;
        Some(excuse.map_or(deadline, |excuse| deadline.max(excuse)))
    }

    /// When to look at this again.
    pub(super) fn wake(&self, excuse: Option<Instant>) -> Instant {
        self.deadline(excuse).unwrap_or(self.next_beat)
    }

    /// Whether a beat waits for its answer: then any frame changes when to wake.
    pub(super) fn is_open(&self) -> bool {
        self.sent.is_some()
    }

    pub(super) fn round_trip(&self) -> Option<Duration> {
        self.round_trip
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(25);
    const PATIENCE: Duration = Duration::from_secs(10);

    #[test]
    fn any_inbound_frame_proves_life_and_the_answer_measures_the_way() {
        let start = Instant::now();
        let mut heart = Heartbeat::new(INTERVAL, PATIENCE, start);
        assert!(!heart.is_due(start + Duration::from_secs(24)));
        let sent = start + INTERVAL;
        assert!(heart.is_due(sent));
        heart.on_sent("7".to_owned(), sent);
        assert_eq!(heart.deadline(None), Some(sent + PATIENCE));
        assert!(!heart.on_inbound(None, sent + Duration::from_secs(1)));
        assert_eq!(heart.deadline(None), None);
        heart.on_sent("8".to_owned(), sent + INTERVAL);
        assert!(heart.on_inbound(Some("8"), sent + INTERVAL + Duration::from_millis(3)));
        assert_eq!(heart.round_trip(), Some(Duration::from_millis(3)));
    }

    #[test]
    fn a_join_that_makes_the_server_deaf_excuses_its_silence() {
        let start = Instant::now();
        let mut heart = Heartbeat::new(INTERVAL, PATIENCE, start);
        heart.on_sent("1".to_owned(), start);
        let excuse = start + Duration::from_secs(18);
        assert_eq!(heart.deadline(Some(excuse)), Some(excuse));
    }
}
