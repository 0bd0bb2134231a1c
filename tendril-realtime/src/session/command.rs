//! Commands from the handles to the session.

use std::time::{Duration, Instant};

use super::{
    Action, ChannelStatus, Delivery, Interest, RequestId, ResyncReason, Session, Subscriber, TopicId,
    pending::PendingReply,
    topic::{Phase, QueuedPush, Topic},
};
use crate::{
    error::{Error, ErrorKind},
    wire::{Outbound, Payload, Slice, TOPIC_PREFIX, event::name, join::JoinConfig},
};

/// From the handles to the session.
#[derive(Debug)]
pub(crate) enum Command {
    /// Join this channel, again after each interruption. `ready` is answered when everything flows, or when it never will.
    Open { topic: TopicId, name: String, config: JoinConfig, subscribers: Vec<Subscriber>, ready: RequestId },
    /// The channel is not needed any more.
    Leave { topic: TopicId },
    /// This handle does not need the channel any more, though its streams may still be held: they end, with `cause` if there is one.
    /// `request` is answered when the server confirmed it, or when no confirmation is needed.
    Release { topic: TopicId, request: Option<RequestId>, cause: Option<Error> },
    /// Join the channel again: a stream lost what only a new join brings.
    Rejoin { topic: TopicId },
    /// Send this on the channel, as soon as it is joined. With a `request`, the server's reply is awaited.
    Push {
        topic: TopicId,
        request: Option<RequestId>,
        event: &'static str,
        payload: Payload,
        timeout: Duration,
    },
    /// Track this presence payload, now and after each join; `None` stops it.
    Track { topic: TopicId, request: RequestId, payload: Option<String>, timeout: Duration },
    /// Call the token source now.
    RefreshToken,
}

impl Session {
    pub(crate) fn on_command(&mut self, command: Command, now: Instant, out: &mut Vec<Action>) {
        match command {
            Command::Open { topic, name, config, subscribers, ready } => {
                self.open(topic, &name, config, subscribers, ready, now, out);
            }
            Command::Leave { topic } => self.release(topic, None, None, now, out),
            Command::Release { topic, request, cause } => {
                self.release(topic, request, cause.as_ref(), now, out);
            }
            Command::Rejoin { topic } => self.rejoin(self.topic_of(topic), now, out),
            Command::Push { topic, request, event, payload, timeout } => {
                self.push(topic, QueuedPush { request, event, payload, deadline: now + timeout }, now, out);
            }
            Command::Track { topic: handle, request, payload, timeout } => {
                let id = self.topic_of(handle);
                match self.topics.get_mut(&id) {
                    Some(entry) => entry.tracking.want(payload, request, now + timeout),
                    None => out.push(Action::Answer(request, Err(self.ending_of(handle)))),
                }
            }
            Command::RefreshToken => self.fetch_token(out),
        }
        self.tick(now, out);
    }

    /// Why there is nothing behind this handle.
    fn ending_of(&self, handle: TopicId) -> Error {
        self.ended.get(&handle).map_or_else(|| Error::new(ErrorKind::Closed), Error::duplicate)
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one command")]
    fn open(
        &mut self,
        handle: TopicId,
        name: &str,
        config: JoinConfig,
        subscribers: Vec<Subscriber>,
        ready: RequestId,
        now: Instant,
        out: &mut Vec<Action>,
    ) {
        let name = format!("{TOPIC_PREFIX}{name}");
        let refusal = match self.names.get(&name).and_then(|id| self.topics.get(id)) {
            Some(entry) => refusal_to_share(&entry.config, &config),
            None if self.topics.len() >= self.settings.channels_at_most => {
                let most = self.settings.channels_at_most;
                Some(Error::invalid(
                    "topic",
                    format!(
                        "this client has {most} channels, the most a socket may hold; drop one, or use a second client"
                    ),
                ))
            }
            None => None,
        };
        if let Some(error) = refusal {
            for subscriber in subscribers {
                out.push(Action::Deliver(subscriber.id, Delivery::End(error.duplicate())));
            }
            out.push(Action::Channel(handle, ChannelStatus::Ended(error.duplicate())));
            self.ended.insert(handle, error.duplicate());
            out.push(Action::Answer(ready, Err(error)));
            return;
        }
        if let Some(id) = self.names.get(&name).copied() {
            self.share(id, handle, &config, subscribers, ready, now, out);
            return;
        }
        let mut entry = Topic::new(handle, name.clone(), config, subscribers, now);
        entry.awaiting_ready.push((ready, handle));
        self.names.insert(name, handle);
        self.topics.insert(handle, entry);
        self.idle_since = None;
    }

    /// Another handle on a channel there is already. What it subscribes to beyond that makes a new join, which the others receive as
    /// a possible gap.
    #[expect(clippy::too_many_arguments, reason = "the parts of one command")]
    fn share(
        &mut self,
        id: TopicId,
        handle: TopicId,
        config: &JoinConfig,
        mut subscribers: Vec<Subscriber>,
        ready: RequestId,
        now: Instant,
        out: &mut Vec<Action>,
    ) {
        let Some(topic) = self.topics.get_mut(&id) else { return };
        // A state of all presences comes with a join only.
        let mut is_new = subscribers.iter().any(|subscriber| subscriber.interest == Interest::Presence);
        is_new |= config.presence.enabled && !topic.config.presence.enabled;
        topic.config.presence.enabled |= config.presence.enabled;
        for subscriber in &mut subscribers {
            let Interest::Changes(place) = &mut subscriber.interest else { continue };
            let Some(wanted) = config.bindings.get(*place) else { continue };
            *place = topic.config.bindings.iter().position(|known| known == wanted).unwrap_or_else(|| {
                is_new = true;
                topic.config.bindings.push(wanted.clone());
                topic.config.bindings.len() - 1
            });
        }
        topic.handles.insert(handle, subscribers.iter().map(|subscriber| subscriber.id).collect());
        topic.subscribers.extend(subscribers);
        topic.awaiting_ready.push((ready, handle));
        out.push(Action::Channel(handle, topic.status()));
        let is_live = matches!(topic.phase, Phase::Live { .. });
        self.shared.insert(handle, id);
        if is_new {
            self.rejoin(id, now, out);
        } else if is_live {
            self.live(id, now, out);
        }
    }

    /// A handle is dropped. The channel is left with the last one.
    fn release(
        &mut self,
        handle: TopicId,
        request: Option<RequestId>,
        cause: Option<&Error>,
        now: Instant,
        out: &mut Vec<Action>,
    ) {
        let id = self.topic_of(handle);
        self.shared.remove(&handle);
        self.ended.remove(&handle);
        let done = |out: &mut Vec<Action>| {
            out.extend(request.map(|request| Action::Answer(request, Ok(Slice::from(String::new())))));
        };
        let Some(topic) = self.topics.get_mut(&id) else { return done(out) };
        let Some(own) = topic.handles.remove(&handle) else { return done(out) };
        for subscriber in &own {
            let last = cause.map_or(Delivery::Finish, |cause| Delivery::End(cause.duplicate()));
            out.push(Action::Deliver(*subscriber, last));
        }
        topic.subscribers.retain(|subscriber| !own.contains(&subscriber.id));
        out.push(Action::Channel(handle, ChannelStatus::Left));
        if topic.handles.is_empty() {
            self.leave(id, request, cause, now, out);
        } else {
            done(out);
        }
    }

    /// Leaves and joins again, as soon as it may.
    fn rejoin(&mut self, id: TopicId, now: Instant, out: &mut Vec<Action>) {
        let Some(topic) = self.topics.get_mut(&id) else { return };
        let (join_ref, name) = (topic.join_ref().map(str::to_owned), topic.name.clone());
        if let Phase::Waiting { .. } = topic.phase {
            return;
        }
        topic.reset_backoff_if_stable(now, self.settings.stable_after);
        // The first one at once; each repetition waits longer.
        let pause = topic.backoff.next_pause();
        let not_before = if topic.backoff.attempt() <= 1 { now } else { now + pause };
        topic.interrupt(ResyncReason::Rejoined, not_before);
        topic.announce(&topic.status(), out);
        self.pending.forget_join(id);
        if let (Some(join_ref), true) = (join_ref, self.connection.is_some()) {
            self.send_leave(name, join_ref, None, now, out);
        }
    }

    fn send_leave(
        &mut self,
        topic: String,
        join_ref: String,
        request: Option<RequestId>,
        now: Instant,
        out: &mut Vec<Action>,
    ) {
        let reference = self.fresh_ref();
        let deadline = now + self.settings.join_timeout;
        self.pending.insert(reference.clone(), PendingReply::Leave(topic.clone(), request), deadline);
        out.push(Action::Send(Outbound {
            join_ref: Some(join_ref),
            reference,
            topic,
            event: name::LEAVE,
            payload: Payload::Json("{}".to_owned()),
        }));
    }

    fn leave(
        &mut self,
        id: TopicId,
        request: Option<RequestId>,
        cause: Option<&Error>,
        now: Instant,
        out: &mut Vec<Action>,
    ) {
        let Some(topic) = self.remove(id, cause, now, out) else { return };
        match topic.join_ref().map(str::to_owned) {
            Some(join_ref) if self.connection.is_some() => {
                self.send_leave(topic.name, join_ref, request, now, out);
            }
            _ => out.extend(request.map(|request| Action::Answer(request, Ok(Slice::from(String::new()))))),
        }
    }

    /// Takes a topic out of everything; calls that still wait on it return the cause, or that it is closed.
    fn remove(
        &mut self,
        id: TopicId,
        cause: Option<&Error>,
        now: Instant,
        out: &mut Vec<Action>,
    ) -> Option<Topic> {
        let mut topic = self.topics.remove(&id)?;
        self.names.remove(&topic.name);
        let why = || cause.map_or_else(|| Error::new(ErrorKind::Closed), Error::duplicate);
        let ready = topic.awaiting_ready.drain(..).map(|(request, _)| request);
        let waiting: Vec<RequestId> =
            ready.chain(topic.queue.drain(..).filter_map(|push| push.request)).collect();
        for request in waiting.into_iter().chain(topic.tracking.take_waiting()) {
            out.push(Action::Answer(request, Err(why())));
        }
        for awaited in self.pending.forget_topic(id) {
            for request in awaited.requests() {
                out.push(Action::Answer(request, Err(why())));
            }
        }
        if self.topics.is_empty() {
            self.idle_since = Some(now);
        }
        Some(topic)
    }

    /// Ends a topic for good: all who listen or wait learn why, and all who call it later.
    pub(super) fn end(&mut self, id: TopicId, error: &Error, now: Instant, out: &mut Vec<Action>) {
        let Some(topic) = self.topics.get_mut(&id) else { return };
        for subscriber in &topic.subscribers {
            out.push(Action::Deliver(subscriber.id, Delivery::End(error.duplicate())));
        }
        topic.announce(&ChannelStatus::Ended(error.duplicate()), out);
        for handle in topic.handles.keys() {
            self.ended.insert(*handle, error.duplicate());
            self.shared.remove(handle);
        }
        // The server may still hold the channel: a bad binding leaves it joined (OBSERVED 12).
        self.leave(id, None, Some(error), now, out);
    }

    /// Sends it now if the channel is joined, and as soon as it is otherwise.
    pub(super) fn push(&mut self, handle: TopicId, push: QueuedPush, now: Instant, out: &mut Vec<Action>) {
        let (id, request) = (self.topic_of(handle), push.request);
        let queued_at_most = self.settings.queued_pushes;
        let refusal = match self.topics.get_mut(&id) {
            None => Some(self.ending_of(handle)),
            Some(topic) if topic.queue.len() >= queued_at_most => Some(Error::new(ErrorKind::PushRejected {
                message: format!("{queued_at_most} messages already wait for the channel to be joined"),
            })),
            Some(topic) => {
                topic.queue.push_back(push);
                None
            }
        };
        match (refusal, request) {
            (Some(error), Some(request)) => out.push(Action::Answer(request, Err(error))),
            (Some(_), None) => out.push(Action::PushDropped),
            (None, _) => self.flush(id, now, out),
        }
    }

    /// Sends what waited for the channel to be joined.
    pub(super) fn flush(&mut self, id: TopicId, now: Instant, out: &mut Vec<Action>) {
        if self.connection.is_none() {
            return;
        }
        while let Some((topic, push)) =
            self.topics.get_mut(&id).filter(|topic| topic.is_joined()).and_then(|topic| {
                let push = topic.queue.pop_front()?;
                Some((topic, push))
            })
        {
            let (join_ref, name) = (topic.join_ref().map(str::to_owned), topic.name.clone());
            if push.deadline <= now {
                let waiting_for = "the channel to be joined";
                let late = || Err(Error::new(ErrorKind::Timeout { waiting_for }));
                out.push(match push.request {
                    Some(request) => Action::Answer(request, late()),
                    None => Action::PushDropped,
                });
                continue;
            }
            let reference = self.fresh_ref();
            if let Some(request) = push.request {
                self.pending.insert(reference.clone(), PendingReply::Push(request, id), push.deadline);
            }
            out.push(Action::Send(Outbound {
                join_ref,
                reference,
                topic: name,
                event: push.event,
                payload: push.payload,
            }));
        }
    }
}

/// Why two handles cannot hold one channel of a name: a socket holds each name once.
fn refusal_to_share(known: &JoinConfig, wanted: &JoinConfig) -> Option<Error> {
    let differs = [
        ("private", known.private != wanted.private),
        ("ack", known.broadcast.ack != wanted.broadcast.ack),
        ("receive_own", known.broadcast.own != wanted.broadcast.own),
        ("replay", wanted.broadcast.replay.is_some()),
        ("replication_ready", wanted.broadcast.replication_ready && !known.broadcast.replication_ready),
        ("presence_key", !wanted.presence.key.is_empty() && wanted.presence.key != known.presence.key),
    ];
    let names: Vec<&str> = differs.iter().filter(|(_, differs)| *differs).map(|(name, _)| *name).collect();
    (!names.is_empty()).then(|| {
        Error::invalid(
            "topic",
            format!(
                "this client has a channel of that name already, with another `{}`: a socket holds each topic once; use the same settings, or drop the other one first",
                names.join("`, `")
            ),
        )
    })
}
