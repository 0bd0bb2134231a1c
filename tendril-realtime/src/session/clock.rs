//! Time: what is due, what is late, and when to look again.

use std::time::Instant;

use super::{
    Action, Session, TopicId,
    pending::PendingReply,
    topic::{Phase, Topic},
};
use crate::{
    error::{Error, ErrorKind},
    wire::{Outbound, Payload, event::name},
};

impl Session {
    /// Does what is due.
    pub(crate) fn tick(&mut self, now: Instant, out: &mut Vec<Action>) {
        if self.credential.is_refresh_due(now) && self.connection.is_some() {
            self.fetch_token(out);
        }
        self.expire(now, out);
        if self.connection.is_some() && self.send_heartbeat(now, out) {
            self.join_due(now, out);
        }
        self.track_due(now, out);
    }

    /// Returns whether the peer may be alive.
    fn send_heartbeat(&mut self, now: Instant, out: &mut Vec<Action>) -> bool {
        let (_, join_deadline) = self.pending.joins();
        let Some(connection) = &mut self.connection else { return false };
        if connection.heartbeat.deadline().is_some_and(|deadline| now >= deadline) {
            out.push(Action::Drop);
            return false;
        }
        if connection.heartbeat.is_due(now) {
            let reference = self.next_ref.to_string();
            self.next_ref += 1;
            connection.heartbeat.on_sent(reference.clone(), now, join_deadline);
            out.push(Action::Send(Outbound {
                join_ref: None,
                reference,
                topic: "phoenix".to_owned(),
                event: name::HEARTBEAT,
                payload: Payload::Json("{}".to_owned()),
            }));
        }
        true
    }

    /// Sends the joins whose turn has come.
    fn join_due(&mut self, now: Instant, out: &mut Vec<Action>) {
        loop {
            let Some(connection) = &self.connection else { return };
            if connection.next_join > now || self.pending.joins().0 >= self.settings.joins_at_once {
                return;
            }
            let ready = self.topics.values().find(|topic| {
                matches!(topic.phase, Phase::Waiting { not_before } if not_before <= now)
                    && !self.pending.is_leaving(&topic.name)
            });
            let Some(id) = ready.map(|topic| topic.id) else { return };
            if !self.credential.is_fresh(now) {
                self.fetch_token(out);
                return;
            }
            self.join(id, now, out);
        }
    }

    fn join(&mut self, id: TopicId, now: Instant, out: &mut Vec<Action>) {
        let join_ref = self.fresh_ref();
        let token = self.credential.token().cloned();
        let Some(topic) = self.topics.get_mut(&id) else { return };
        topic.phase = Phase::Joining { join_ref: join_ref.clone() };
        topic.announce(&topic.status(), out);
        let message = Outbound {
            join_ref: Some(join_ref.clone()),
            reference: join_ref.clone(),
            topic: topic.name.clone(),
            event: name::JOIN,
            payload: Payload::Json(topic.config.payload(token.as_ref())),
        };
        topic.token = token;
        self.pending.insert(join_ref, PendingReply::Join(id), now + self.settings.join_timeout);
        if let Some(connection) = &mut self.connection {
            connection.next_join = now + self.settings.join_spacing;
        }
        out.push(Action::Send(message));
    }

    /// Everything whose deadline is over.
    fn expire(&mut self, now: Instant, out: &mut Vec<Action>) {
        for awaited in self.pending.take_expired(now) {
            match awaited {
                PendingReply::Join(id) => {
                    let error = Error::new(ErrorKind::Timeout { waiting_for: "the answer to a join" });
                    self.abandon(id, &error, now, out);
                }
                PendingReply::Leave(_, request) => out.extend(request.map(|request| {
                    let waiting_for = "the server to confirm that the channel was left";
                    Action::Answer(request, Err(Error::new(ErrorKind::Timeout { waiting_for })))
                })),
                awaited @ (PendingReply::Push(..) | PendingReply::Track(..)) => {
                    for request in awaited.requests() {
                        let waiting_for = "the acknowledgement of a message";
                        out.push(Action::Answer(
                            request,
                            Err(Error::new(ErrorKind::Timeout { waiting_for })),
                        ));
                    }
                }
            }
        }
        let late: Vec<_> = self
            .topics
            .values()
            .filter(|topic| matches!(topic.phase, Phase::Subscribing { deadline, .. } if deadline <= now))
            .map(|topic| topic.id)
            .collect();
        for id in late {
            let error =
                Error::new(ErrorKind::Timeout { waiting_for: "row changes to begin after an accepted join" });
            self.abandon(id, &error, now, out);
        }
        for topic in self.topics.values_mut() {
            // Each message has a limit of its own: one that may wait for long holds up none behind it.
            topic.queue.retain(|push| {
                let is_late = push.deadline <= now;
                if is_late {
                    let waiting_for = "the channel to be joined";
                    out.push(match push.request {
                        Some(request) => {
                            Action::Answer(request, Err(Error::new(ErrorKind::Timeout { waiting_for })))
                        }
                        None => Action::PushDropped,
                    });
                }
                !is_late
            });
        }
    }

    /// When to call [`tick`](Self::tick) next.
    pub(crate) fn wake(&self) -> Option<Instant> {
        let topics = self.topics.values().filter_map(Topic::wake);
        let own = [self.pending.wake(), self.credential.wake().filter(|_| self.connection.is_some())];
        let mut earliest = topics.chain(own.into_iter().flatten()).min();
        let mut consider = |at: Instant| earliest = Some(earliest.map_or(at, |known| known.min(at)));
        if let Some(connection) = &self.connection {
            let (joins, _) = self.pending.joins();
            consider(connection.heartbeat.wake());
            if joins < self.settings.joins_at_once {
                let due = self.topics.values().filter_map(|topic| match topic.phase {
                    Phase::Waiting { not_before } if !self.pending.is_leaving(&topic.name) => {
                        Some(not_before)
                    }
                    _ => None,
                });
                // A join that waits for a token is woken by the token.
                if let Some(due) = due.min().filter(|_| !self.credential.is_fetching()) {
                    consider(due.max(connection.next_join));
                }
            }
            if let Some(since) = self.idle_since {
                consider(since + self.settings.idle_disconnect);
            }
        }
        earliest
    }
}
