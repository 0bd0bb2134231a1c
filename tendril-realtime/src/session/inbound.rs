//! What the session makes of a message from the server.

use std::time::Instant;

use super::{
    Action, ChannelStatus, Delivery, ResyncReason, Session, TopicId,
    pending::PendingReply,
    topic::{Interest, Phase, ReadyConditions, Subscriber},
};
use crate::{
    error::{Error, ErrorKind, Retry},
    wire::{
        Body, Event, FrameError, Inbound, Slice, Utf8Bytes,
        event::{Reply, System},
        join::Accepted,
        reason, text,
    },
};

/// Whether a broadcast is one of those that the database stores: their envelope gives them an id.
fn is_stored(body: &Body) -> bool {
    #[derive(serde::Deserialize)]
    struct Envelope<'a> {
        #[serde(borrow)]
        meta: Option<&'a serde_json::value::RawValue>,
    }
    #[derive(serde::Deserialize)]
    struct Meta {
        id: Option<serde::de::IgnoredAny>,
    }
    let has_id = |meta: &str| serde_json::from_str::<Meta>(meta).is_ok_and(|meta| meta.id.is_some());
    match body {
        Body::Json(text) => serde_json::from_str::<Envelope<'_>>(text.as_str())
            .is_ok_and(|envelope| envelope.meta.is_some_and(|meta| has_id(meta.get()))),
        Body::UserBroadcast(broadcast) => broadcast.metadata.as_deref().is_some_and(has_id),
        Body::Change(..) | Body::Opaque(_) => false,
    }
}

/// Whether a reply means that the server has no such channel.
fn is_unmatched(payload: &Slice) -> bool {
    serde_json::from_str::<Reply<'_>>(payload.as_str())
        .is_ok_and(|reply| !reply.is_ok() && reply.reason() == UNMATCHED)
}

const UNMATCHED: &str = "unmatched topic";

/// How far the cursor of a replay stays behind the last message received.
const REPLAY_OVERLAP_MS: u64 = 5_000;

impl Session {
    /// Something came in that is no message (a websocket ping, a frame that makes no sense): the peer is alive.
    pub(crate) fn on_sign_of_life(&mut self, now: Instant) {
        if let Some(connection) = &mut self.connection {
            connection.heartbeat.on_inbound(None, now);
        }
    }

    /// A text frame came in. Answers whether it was a row change in the server's own form, which needs neither refs nor a tick: most
    /// frames are such.
    pub(crate) fn on_text(
        &mut self,
        frame: Utf8Bytes,
        now: Instant,
        out: &mut Vec<Action>,
    ) -> Result<bool, FrameError> {
        let routed = match text::route(frame) {
            Ok(routed) => routed,
            Err(frame) => {
                self.on_message(text::decode(&frame)?, now, out);
                return Ok(false);
            }
        };
        self.on_sign_of_life(now);
        let topic = self.topic_named(routed.topic()).and_then(|id| self.topics.get_mut(&id));
        if let Some(topic) = topic.filter(|topic| topic.is_current(routed.join_ref())) {
            topic.deliver(&routed.ids, routed.change, out);
        }
        Ok(true)
    }

    /// A message came in.
    pub(crate) fn on_message(&mut self, message: Inbound, now: Instant, out: &mut Vec<Action>) {
        if let Some(connection) = &mut self.connection
            && let Some(round_trip) = connection.heartbeat.on_inbound(message.reference.as_deref(), now)
        {
            connection.proved = true;
            out.push(Action::HeartbeatAnswered(round_trip));
        }
        let id = self.topic_named(message.topic.as_str());
        let Inbound { join_ref, reference, event, body, .. } = message;
        if let Body::Change(ids, change) = body {
            let topic = id.and_then(|id| self.topics.get_mut(&id));
            if let Some(topic) = topic.filter(|topic| topic.is_current(join_ref.as_deref())) {
                topic.deliver(&ids, change, out);
            }
            return;
        }
        match (event, id, body) {
            (Event::Reply, _, Body::Json(payload)) => {
                match (reference.and_then(|reference| self.pending.take(&reference)), id) {
                    (Some(awaited), _) => self.reply(&awaited, &payload, now, out),
                    // The answer to a message without a waiting call can still show that the channel is gone.
                    (None, Some(id)) if is_unmatched(&payload) => self.forgotten_by_server(id, now, out),
                    (None, _) => {}
                }
            }
            // Version 1 names the incarnation in `ref`.
            (Event::Error, Some(id), _) => {
                self.server_ended(id, join_ref.or(reference).as_deref(), "the channel crashed", now, out);
            }
            (Event::Close, Some(id), _) => {
                self.server_ended(id, join_ref.or(reference).as_deref(), "the server closed it", now, out);
            }
            (Event::System, Some(id), Body::Json(payload)) => {
                self.system(id, join_ref.as_deref(), &payload, now, out);
            }
            (event, Some(id), body) => self.relay(id, join_ref.as_deref(), &event, &body, now, out),
            _ => {}
        }
        self.tick(now, out);
    }

    /// The topic of this name. Most messages are for the same as the one before.
    fn topic_named(&mut self, name: &str) -> Option<TopicId> {
        if self.topics.get(&self.last_topic).is_none_or(|topic| topic.name != name) {
            self.last_topic = *self.names.get(name)?;
        }
        Some(self.last_topic)
    }

    fn reply(&mut self, awaited: &PendingReply, payload: &Slice, now: Instant, out: &mut Vec<Action>) {
        let Ok(reply) = serde_json::from_str::<Reply<'_>>(payload.as_str()) else {
            // An answer that cannot be read is no answer.
            if let PendingReply::Join(id) = *awaited
                && let Some(topic) = self.topics.get(&id)
            {
                let error = reason::refused_join(topic.sub_topic(), "");
                self.interrupted(id, &error, ResyncReason::Rejoined, now, out);
            }
            for request in awaited.clone().requests() {
                let message = "an answer that is none".to_owned();
                out.push(Action::Answer(request, Err(Error::new(ErrorKind::PushRejected { message }))));
            }
            return;
        };
        match *awaited {
            PendingReply::Join(id) if reply.is_ok() => {
                let accepted = reply.response.and_then(|response| serde_json::from_str(response.get()).ok());
                self.joined(id, &accepted.unwrap_or_default(), now, out);
            }
            PendingReply::Join(id) => {
                let Some(topic) = self.topics.get(&id) else { return };
                let error = reason::refused_join(topic.sub_topic(), &reply.reason());
                self.interrupted(id, &error, ResyncReason::Rejoined, now, out);
            }
            // Refused or not: the server does not have the channel any more.
            PendingReply::Leave(_, request) => {
                out.extend(request.map(|request| Action::Answer(request, Ok(Slice::from(String::new())))));
            }
            PendingReply::Push(_, id) | PendingReply::Track(id, _) => {
                let answer = if reply.is_ok() {
                    Ok(reply.response.map_or("{}", serde_json::value::RawValue::get).to_owned())
                } else {
                    let reason = reply.reason();
                    if reason == UNMATCHED {
                        self.forgotten_by_server(id, now, out);
                    }
                    Err(if reason.is_empty() { "without a reason".to_owned() } else { reason })
                };
                for request in awaited.clone().requests() {
                    let answer = answer.clone().map(Slice::from);
                    let answer = answer.map_err(|message| Error::new(ErrorKind::PushRejected { message }));
                    out.push(Action::Answer(request, answer));
                }
            }
        }
    }

    fn joined(&mut self, id: TopicId, accepted: &Accepted, now: Instant, out: &mut Vec<Action>) {
        let subscribe_deadline = now + self.settings.subscribe_timeout;
        let Some(topic) = self.topics.get_mut(&id) else { return };
        let Phase::Joining { join_ref } = &topic.phase else { return };
        let join_ref = join_ref.clone();
        // By place: the echo may spell a binding differently, and ids are opaque.
        if accepted.postgres_changes.len() < topic.config.bindings.len() {
            // Rows could not be assigned: better no channel than a silent one.
            let error = reason::refused_join(
                topic.sub_topic(),
                "the server accepted fewer bindings than were asked for",
            );
            self.abandon(id, &error, now, out);
            return;
        }
        topic.binding_ids = accepted.postgres_changes.iter().map(|binding| binding.id).collect();
        topic.tracking.on_joined();
        topic.ending = None;
        // Before anything of this incarnation can be relayed.
        if let Some(reason) = topic.message_gap.take() {
            for subscriber in topic.subscribers_to(|interest| interest == Interest::Broadcast) {
                out.push(Action::Deliver(subscriber, Delivery::Resync(reason)));
            }
            topic.replication_gap = topic.config.broadcast.replication_ready.then_some(reason);
        }
        if topic.was_joined {
            for subscriber in topic.subscribers_to(|interest| interest == Interest::Presence) {
                out.push(Action::Deliver(subscriber, Delivery::PresenceReset));
            }
        }
        topic.was_joined = true;
        let awaits = ReadyConditions {
            rows: !topic.config.bindings.is_empty(),
            replication: topic.config.broadcast.replication_ready,
        };
        if awaits.nothing() {
            topic.phase = Phase::Live { join_ref };
            self.live(id, now, out);
        } else {
            topic.phase = Phase::Subscribing { join_ref, deadline: subscribe_deadline, awaits };
            topic.announce(&topic.status(), out);
        }
        self.flush(id, now, out);
        // A token that came while the join was under way.
        self.renew_joined(out);
    }

    /// Everything that was requested flows, for the first time or again.
    pub(super) fn live(&mut self, id: TopicId, now: Instant, out: &mut Vec<Action>) {
        if let Some(connection) = &mut self.connection {
            connection.proved = true;
        }
        let Some(topic) = self.topics.get_mut(&id) else { return };
        topic.announce(&topic.status(), out);
        if let Some(Delivery::Resync(reason)) = topic.take_gap() {
            for subscriber in topic.change_subscribers() {
                out.push(Action::Deliver(subscriber, Delivery::Resync(reason)));
            }
        }
        if let Some(reason) = topic.replication_gap.take() {
            for subscriber in topic.subscribers_to(|interest| interest == Interest::Broadcast) {
                out.push(Action::Deliver(subscriber, Delivery::Resync(reason)));
            }
        }
        topic.flows(now);
        for (request, _) in topic.awaiting_ready.drain(..) {
            out.push(Action::Answer(request, Ok(Slice::from(String::new()))));
        }
    }

    /// `phx_error` or `phx_close`. On a duplicate join the old incarnation's close comes after the new one's reply.
    fn server_ended(
        &mut self,
        id: TopicId,
        incarnation: Option<&str>,
        what: &str,
        now: Instant,
        out: &mut Vec<Action>,
    ) {
        let Some(topic) = self.topics.get_mut(&id) else { return };
        if !topic.is_current(incarnation) {
            return;
        }
        let error = topic.ending.take().unwrap_or_else(|| reason::ended_channel(topic.sub_topic(), what));
        // A join under way that ends so is not answered any more.
        self.pending.forget_join(id);
        self.interrupted(id, &error, ResyncReason::Rejoined, now, out);
    }

    /// A push was answered with "unmatched topic": the server does not have the channel any more.
    fn forgotten_by_server(&mut self, id: TopicId, now: Instant, out: &mut Vec<Action>) {
        let Some(topic) = self.topics.get(&id).filter(|topic| topic.is_joined()) else { return };
        let error = reason::refused_join(topic.sub_topic(), UNMATCHED);
        self.interrupted(id, &error, ResyncReason::Rejoined, now, out);
    }

    fn system(
        &mut self,
        id: TopicId,
        join_ref: Option<&str>,
        payload: &Slice,
        now: Instant,
        out: &mut Vec<Action>,
    ) {
        let Ok(message) = serde_json::from_str::<System>(payload.as_str()) else { return };
        let Some(topic) = self.topics.get_mut(&id) else { return };
        if !topic.is_current(join_ref) {
            return;
        }
        for subscriber in topic.subscribers_to(|interest| interest == Interest::System) {
            out.push(Action::Deliver(subscriber, Delivery::System(payload.clone())));
        }
        let text = message.text();
        match (message.extension.as_str(), message.is_ok()) {
            ("postgres_changes", true) => self.subscribed(id, now, out),
            ("postgres_changes", false) => {
                let error = reason::failed_changes(topic.sub_topic(), &text);
                if error.retry() == Retry::Never {
                    self.end_changes(id, &error, now, out);
                    return;
                }
                // The server tries again by itself; the rows of the meantime are lost.
                if let Phase::Live { join_ref } = &topic.phase {
                    let deadline = now + self.settings.subscribe_timeout;
                    let awaits = ReadyConditions { rows: true, replication: false };
                    topic.phase = Phase::Subscribing { join_ref: join_ref.clone(), deadline, awaits };
                    topic.gap = Some(ResyncReason::Resubscribed);
                }
                topic.announce(&ChannelStatus::Interrupted(error.duplicate()), out);
                for subscriber in topic.change_subscribers() {
                    out.push(Action::Deliver(subscriber, Delivery::TransientError(error.duplicate())));
                }
            }
            // The `phx_close` that follows has no reason of its own.
            (_, false) => topic.ending = Some(reason::ended_channel(topic.sub_topic(), &text)),
            (_, true) if text.starts_with("Replication connection established") => {
                if let Phase::Live { .. } = topic.phase {
                    topic.replication_gap = Some(ResyncReason::Resubscribed);
                }
                self.arrived(id, |awaits| awaits.replication = false, now, out);
            }
            // "Server requested disconnect" announces a close, which is reported by itself.
            (_, true) => {}
        }
    }

    /// The bindings are wrong, which disables them all and nothing else: subscribers to broadcasts or presence of the channel
    /// are not affected, and the next join leaves the bindings out.
    fn end_changes(&mut self, id: TopicId, error: &Error, now: Instant, out: &mut Vec<Action>) {
        let Some(topic) = self.topics.get_mut(&id) else { return };
        let receives_rows = |subscriber: &Subscriber| matches!(subscriber.interest, Interest::Changes(_));
        if topic.subscribers.iter().all(receives_rows) {
            self.end(id, error, now, out);
            return;
        }
        for subscriber in topic.change_subscribers() {
            out.push(Action::Deliver(subscriber, Delivery::End(error.duplicate())));
        }
        for (request, _) in topic.awaiting_ready.drain(..) {
            out.push(Action::Answer(request, Err(error.duplicate())));
        }
        topic.subscribers.retain(|subscriber| !receives_rows(subscriber));
        topic.config.bindings.clear();
        topic.gap = None;
        if let Some(join_ref) = topic.join_ref().map(str::to_owned) {
            topic.phase = Phase::Live { join_ref };
            self.live(id, now, out);
        }
    }

    /// "Subscribed to PostgreSQL": rows flow from now on. Each repetition means a possible gap (§4.8).
    fn subscribed(&mut self, id: TopicId, now: Instant, out: &mut Vec<Action>) {
        let Some(topic) = self.topics.get_mut(&id) else { return };
        if topic.was_live && topic.gap.is_none() {
            let reason =
                if topic.token_pushed { ResyncReason::TokenRenewed } else { ResyncReason::Resubscribed };
            topic.gap = Some(reason);
        }
        topic.token_pushed = false;
        self.arrived(id, |awaits| awaits.rows = false, now, out);
    }

    /// Something that an accepted join waited for came.
    fn arrived(
        &mut self,
        id: TopicId,
        what: impl FnOnce(&mut ReadyConditions),
        now: Instant,
        out: &mut Vec<Action>,
    ) {
        let Some(topic) = self.topics.get_mut(&id) else { return };
        match &mut topic.phase {
            Phase::Subscribing { join_ref, awaits, .. } => {
                what(awaits);
                if awaits.nothing() {
                    topic.phase = Phase::Live { join_ref: join_ref.clone() };
                    self.live(id, now, out);
                }
            }
            Phase::Live { .. } => self.live(id, now, out),
            Phase::Waiting { .. } | Phase::Joining { .. } => {}
        }
    }

    /// Broadcasts and presence: handed on as they are.
    fn relay(
        &mut self,
        id: TopicId,
        join_ref: Option<&str>,
        event: &Event,
        body: &Body,
        now: Instant,
        out: &mut Vec<Action>,
    ) {
        let heard_at = self.unix_ms(now);
        let Some(topic) = self.topics.get_mut(&id) else { return };
        if !topic.is_current(join_ref) {
            return;
        }
        if let (Event::Broadcast, Some(replay)) = (event, &mut topic.config.broadcast.replay)
            && is_stored(body)
        {
            // The next join asks for what came after this, and a little before: clocks differ, and streams drop what they have received already.
            replay.since = replay.since.max(heard_at.saturating_sub(REPLAY_OVERLAP_MS));
        }
        let interest = if *event == Event::Broadcast { Interest::Broadcast } else { Interest::Presence };
        for subscriber in topic.subscribers_to(|wanted| wanted == interest) {
            let delivery = match (event, body) {
                (Event::Broadcast, Body::Json(text)) => Delivery::BroadcastText(text.clone()),
                (Event::Broadcast, Body::UserBroadcast(broadcast)) => Delivery::Broadcast(broadcast.clone()),
                (Event::PresenceState, Body::Json(text)) => Delivery::PresenceState(text.clone()),
                (Event::PresenceDiff, Body::Json(text)) => Delivery::PresenceDiff(text.clone()),
                _ => return,
            };
            out.push(Action::Deliver(subscriber, delivery));
        }
    }
}
