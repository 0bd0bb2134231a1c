//! This client's presence: it outlasts reconnects, and is sent as often as the server allows.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use super::{Action, RequestId, Session, TopicId, pending::PendingReply};
use crate::{
    error::{Error, ErrorKind},
    wire::{Outbound, Payload, event::name},
};

/// The server closes a channel at the sixth call within 30 s, whatever the calls contain (§7.1). A second more than the server's, which counts when calls arrive.
const WINDOW: Duration = Duration::from_secs(31);
const CALLS_PER_WINDOW: usize = 5;

/// The presence that this client tracks.
#[derive(Debug, Default, PartialEq, Eq)]
enum Wanted {
    /// Never tracked.
    #[default]
    Unsaid,
    /// With this state: JSON text of an object.
    Here(String),
    /// No more.
    Untracked,
}

/// The desired presence of one channel. Of several calls within a short time only the last is sent.
#[derive(Debug, Default)]
pub(super) struct Tracking {
    wanted: Wanted,
    /// The server has received `wanted` on this incarnation.
    is_sent: bool,
    /// Who waits for that, and until when.
    waiting: Vec<(RequestId, Instant)>,
    /// The calls of this incarnation within the window.
    calls: VecDeque<Instant>,
}

impl Tracking {
    pub(super) fn want(&mut self, state: Option<String>, request: RequestId, deadline: Instant) {
        self.wanted = state.map_or(Wanted::Untracked, Wanted::Here);
        self.is_sent = false;
        self.waiting.push((request, deadline));
    }

    /// A new incarnation has no presence of ours, and counts from zero.
    pub(super) fn on_joined(&mut self) {
        self.calls.clear();
        // An absence that was never a presence need not be sent.
        self.is_sent = !matches!(self.wanted, Wanted::Here(_)) && self.waiting.is_empty();
    }

    /// The connection went before the answer came: it will be sent again.
    pub(super) fn requeue(&mut self, requests: Vec<RequestId>, deadline: Instant) {
        self.is_sent = false;
        self.waiting.extend(requests.into_iter().map(|request| (request, deadline)));
    }

    /// The payload to send now, with those who wait for its answer.
    fn take_due(&mut self, now: Instant) -> Option<(String, Vec<RequestId>)> {
        while self.calls.front().is_some_and(|call| *call + WINDOW <= now) {
            self.calls.pop_front();
        }
        if self.is_sent || self.calls.len() >= CALLS_PER_WINDOW {
            return None;
        }
        let payload = match &self.wanted {
            Wanted::Unsaid => return None,
            Wanted::Here(state) => format!(r#"{{"type":"presence","event":"track","payload":{state}}}"#),
            Wanted::Untracked => r#"{"type":"presence","event":"untrack","payload":{}}"#.to_owned(),
        };
        self.is_sent = true;
        self.calls.push_back(now);
        Some((payload, self.waiting.drain(..).map(|(request, _)| request).collect()))
    }

    fn take_expired(&mut self, now: Instant) -> Vec<RequestId> {
        let (late, waiting) =
            std::mem::take(&mut self.waiting).into_iter().partition(|(_, deadline)| *deadline <= now);
        self.waiting = waiting;
        let late: Vec<(RequestId, Instant)> = late;
        late.into_iter().map(|(request, _)| request).collect()
    }

    /// Everyone who waits, when the channel is given up.
    pub(super) fn take_waiting(&mut self) -> Vec<RequestId> {
        self.waiting.drain(..).map(|(request, _)| request).collect()
    }

    /// When the next call is allowed, where one is pending; or when the timeout of a call ends.
    pub(super) fn wake(&self, is_joined: bool) -> Option<Instant> {
        let due =
            (is_joined && !self.is_sent && self.wanted != Wanted::Unsaid).then_some(()).and_then(|()| {
                let excess = (self.calls.len() + 1).checked_sub(CALLS_PER_WINDOW + 1)?;
                self.calls.get(excess).map(|call| *call + WINDOW)
            });
        let late = self.waiting.iter().map(|(_, deadline)| *deadline).min();
        [due, late].into_iter().flatten().min()
    }
}

impl Session {
    /// Sends what is wanted and allowed, and disappoints those who waited too long.
    pub(super) fn track_due(&mut self, now: Instant, out: &mut Vec<Action>) {
        let is_open = self.connection.is_some();
        let ids: Vec<TopicId> = self
            .topics
            .values()
            .filter(|topic| topic.tracking.wanted != Wanted::Unsaid)
            .map(|topic| topic.id)
            .collect();
        for id in ids {
            let Some(topic) = self.topics.get_mut(&id) else { continue };
            for request in topic.tracking.take_expired(now) {
                let waiting_for = "presence to be tracked";
                out.push(Action::Answer(request, Err(Error::new(ErrorKind::Timeout { waiting_for }))));
            }
            if !is_open || !topic.is_joined() {
                continue;
            }
            let Some((payload, requests)) = topic.tracking.take_due(now) else { continue };
            let (join_ref, topic_name) = (topic.join_ref().map(str::to_owned), topic.name.clone());
            let reference = self.fresh_ref();
            let deadline = now + self.settings.push_timeout;
            self.pending.insert(reference.clone(), PendingReply::Track(id, requests), deadline);
            out.push(Action::Send(Outbound {
                join_ref,
                reference,
                topic: topic_name,
                event: name::PRESENCE,
                payload: Payload::Json(payload),
            }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_states_within_a_window_five_are_sent_and_the_last_one_wins() {
        let start = Instant::now();
        let mut tracking = Tracking::default();
        let mut sent = Vec::new();
        for number in 0..20_u64 {
            let now = start + Duration::from_millis(number);
            tracking.want(Some(format!("{{\"n\":{number}}}")), RequestId(number), now + WINDOW);
            sent.extend(tracking.take_due(now));
        }
        assert_eq!(sent.len(), CALLS_PER_WINDOW);
        let allowed = tracking.wake(true).unwrap();
        assert!(allowed <= start + WINDOW + Duration::from_millis(1));
        assert_eq!(tracking.take_due(start + Duration::from_secs(29)), None);
        let (payload, waited) = tracking.take_due(start + WINDOW + Duration::from_millis(1)).unwrap();
        assert!(payload.contains(r#"{"n":19}"#), "{payload}");
        assert_eq!(waited.len(), 15, "all who were overtaken are answered with the last");
    }

    #[test]
    fn a_new_incarnation_is_told_again_and_counts_from_zero() {
        let now = Instant::now();
        let mut tracking = Tracking::default();
        tracking.want(Some("{}".to_owned()), RequestId(1), now + WINDOW);
        assert!(tracking.take_due(now).is_some());
        assert!(tracking.take_due(now).is_none());
        tracking.on_joined();
        assert!(tracking.take_due(now).is_some());
        tracking.want(None, RequestId(2), now + WINDOW);
        assert!(tracking.take_due(now).unwrap().0.contains("untrack"));
        tracking.on_joined();
        assert!(tracking.take_due(now).is_none(), "nothing is sent for a presence that never was");
    }
}
