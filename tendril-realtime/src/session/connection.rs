//! The connection and the token: what their coming and going means for the channels.

use std::time::{Duration, Instant};

use super::{
    Action, ChannelStatus, Connection, Delivery, Renewal, ResyncReason, Session, TopicId,
    heartbeat::Heartbeat, pending::PendingReply, topic::Phase,
};
use crate::{
    error::{Error, ErrorKind, Retry},
    secret::AccessToken,
    wire::{Outbound, Payload, Slice, event::name},
};

impl Session {
    /// The websocket is open.
    pub(crate) fn on_open(&mut self, now: Instant, out: &mut Vec<Action>) {
        self.connection = Some(Connection {
            heartbeat: Heartbeat::new(self.settings.heartbeat_interval, self.settings.heartbeat_timeout, now),
            next_join: now,
            proved: false,
        });
        self.tick(now, out);
    }

    /// The websocket is gone, for no known reason.
    #[cfg(test)]
    pub(crate) fn on_closed(&mut self, now: Instant, out: &mut Vec<Action>) {
        let reason = "the connection ended".to_owned();
        self.on_lost(&Error::new(ErrorKind::ConnectionLost { code: None, reason }), now, out);
    }

    /// The websocket is gone, by either side. Every channel in use waits to be joined again.
    pub(crate) fn on_lost(&mut self, error: &Error, now: Instant, out: &mut Vec<Action>) {
        self.connection = None;
        let interrupted = ChannelStatus::Interrupted(error.duplicate());
        for awaited in self.pending.take_all() {
            if let PendingReply::Track(id, requests) = awaited {
                // Tracking is desired state that outlives the connection.
                let deadline = now + self.settings.push_timeout;
                if let Some(topic) = self.topics.get_mut(&id) {
                    topic.tracking.requeue(requests, deadline);
                }
                continue;
            }
            if let PendingReply::Leave(_, request) = awaited {
                // With the connection, the server closed all its channels.
                out.extend(request.map(|request| Action::Answer(request, Ok(Slice::from(String::new())))));
                continue;
            }
            for request in awaited.requests() {
                let reason = "before the message was answered".to_owned();
                let error = Error::new(ErrorKind::ConnectionLost { code: None, reason });
                out.push(Action::Answer(request, Err(error)));
            }
        }
        for topic in self.topics.values_mut() {
            let not_before = match topic.phase {
                // The pause of a refused join outlasts a reconnect.
                Phase::Waiting { not_before } => not_before.max(now),
                Phase::Joining { .. } | Phase::Subscribing { .. } | Phase::Live { .. } => now,
            };
            topic.reset_backoff_if_stable(now, self.settings.stable_after);
            topic.interrupt(ResyncReason::Reconnected, not_before);
            topic.announce(&interrupted, out);
        }
    }

    /// The token source answered [`Action::FetchToken`]; `life` is how long the token is valid from now on.
    pub(crate) fn on_token(
        &mut self,
        answer: Result<(AccessToken, Option<Duration>), Error>,
        now: Instant,
        out: &mut Vec<Action>,
    ) {
        match answer {
            Ok((token, life)) => {
                self.credential.on_token(token, life, now);
                self.renew_joined(out);
            }
            Err(error) if error.retry() == Retry::Never => {
                // The session has ended: a token that is still good must not outlive it.
                self.credential.on_failure(now + Duration::from_secs(5));
                self.end_all(&error, now, out);
            }
            Err(error) => {
                self.credential.on_failure(now + Duration::from_secs(5));
                self.interrupt_all(&error, out);
                // Joins that wait for a token try again after their own pause.
                for topic in self.topics.values_mut() {
                    if let Phase::Waiting { not_before } = &mut topic.phase
                        && *not_before <= now
                    {
                        *not_before = now + topic.backoff.next_pause();
                    }
                }
            }
        }
        self.tick(now, out);
    }

    /// Pushes the token to the channels that run on another one; the server answers nothing where all is well.
    pub(super) fn renew_joined(&mut self, out: &mut Vec<Action>) {
        if self.connection.is_none() {
            return;
        }
        let Some(token) = self.credential.token().cloned() else { return };
        let stale: Vec<_> = self
            .topics
            .values()
            .filter(|topic| topic.is_joined() && topic.token.as_ref() != Some(&token))
            .map(|topic| topic.id)
            .collect();
        for id in stale {
            let reference = self.fresh_ref();
            let Some(topic) = self.topics.get_mut(&id) else { continue };
            topic.token = Some(token.clone());
            topic.token_pushed = !topic.config.bindings.is_empty();
            out.push(Action::Send(Outbound {
                join_ref: topic.join_ref().map(str::to_owned),
                reference,
                topic: topic.name.clone(),
                event: name::ACCESS_TOKEN,
                payload: Payload::Json(serde_json::json!({ "access_token": token.expose() }).to_string()),
            }));
        }
    }

    pub(super) fn fetch_token(&mut self, out: &mut Vec<Action>) {
        if self.credential.begin_fetch() {
            out.push(Action::FetchToken);
        }
    }

    /// The connection cannot be had, for a reason that will not go away.
    pub(crate) fn end_all(&mut self, error: &Error, now: Instant, out: &mut Vec<Action>) {
        let ids: Vec<_> = self.topics.keys().copied().collect();
        for id in ids {
            self.end(id, error, now, out);
        }
    }

    /// Notifies all streams of a failure that will be tried again.
    pub(crate) fn interrupt_all(&self, error: &Error, out: &mut Vec<Action>) {
        let interrupted = ChannelStatus::Interrupted(error.duplicate());
        for topic in self.topics.values() {
            if !topic.is_joined() {
                topic.announce(&interrupted, out);
            }
            for subscriber in &topic.subscribers {
                out.push(Action::Deliver(subscriber.id, Delivery::TransientError(error.duplicate())));
            }
        }
    }

    /// Gives up this incarnation, leaves at the server, and tries again after a pause: a join that was answered too late
    /// would otherwise leave a channel on the server that has no entry here.
    pub(super) fn abandon(&mut self, id: TopicId, error: &Error, now: Instant, out: &mut Vec<Action>) {
        let reference = self.fresh_ref();
        let leave_deadline = now + self.settings.join_timeout;
        let Some(topic) = self.topics.get_mut(&id) else { return };
        if let (Some(join_ref), true) = (topic.join_ref().map(str::to_owned), self.connection.is_some()) {
            self.pending.insert(
                reference.clone(),
                PendingReply::Leave(topic.name.clone(), None),
                leave_deadline,
            );
            out.push(Action::Send(Outbound {
                join_ref: Some(join_ref),
                reference,
                topic: topic.name.clone(),
                event: name::LEAVE,
                payload: Payload::Json("{}".to_owned()),
            }));
        }
        self.interrupted(id, error, ResyncReason::Rejoined, now, out);
    }

    /// This incarnation is over. What follows is decided by the error's class, here and nowhere else.
    pub(super) fn interrupted(
        &mut self,
        id: TopicId,
        error: &Error,
        reason: ResyncReason,
        now: Instant,
        out: &mut Vec<Action>,
    ) {
        let retry = error.retry();
        let renewable = self.renewal != Renewal::Never;
        if retry == Retry::Never || (retry == Retry::RefreshToken && !renewable) {
            if let Some(topic) = self.topics.get_mut(&id) {
                // The server closed it already: no leave.
                topic.phase = Phase::Waiting { not_before: now };
            }
            self.end(id, &error.duplicate().into_final(), now, out);
            return;
        }
        let Some(topic) = self.topics.get_mut(&id) else { return };
        topic.reset_backoff_if_stable(now, self.settings.stable_after);
        let pause = topic.backoff.next_pause();
        let not_before = match retry {
            Retry::After(least) => now + least + pause.min(least),
            // A fresh token is the remedy; only a source that gives refused ones again and again needs pauses.
            Retry::RefreshToken if topic.backoff.attempt() <= 1 => now,
            _ => now + pause,
        };
        let refused = topic.token.take();
        topic.interrupt(reason, not_before);
        topic.announce(&ChannelStatus::Interrupted(error.duplicate()), out);
        for subscriber in &topic.subscribers {
            out.push(Action::Deliver(subscriber.id, Delivery::TransientError(error.duplicate())));
        }
        if retry == Retry::RefreshToken {
            if let Some(token) = refused {
                out.push(Action::TokenRefused(token));
            }
            self.credential.on_refused();
            if self.renewal == Renewal::ByReconnect {
                out.push(Action::Reconnect);
            }
        }
        if let Retry::After(least) = retry
            && error.code().contains("RateLimit")
        {
            self.stay_away_until = Some(now + least);
        }
    }
}
