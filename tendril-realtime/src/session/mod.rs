//! The protocol as a pure state machine: frames, commands, ticks and closes go in, [`Action`]s come out. Time is an argument.
//!
//! What is wanted (channels with their bindings, tokens, tracked presence) is kept apart from the connection and replayed,
//! paced, after each reconnect.

mod credential;
mod heartbeat;
mod inbound;
mod pending;
mod topic;

use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, Instant},
};

pub(crate) use self::topic::{Interest, Subscriber};
use self::{
    credential::Credential,
    heartbeat::Heartbeat,
    pending::{Awaited, Pending},
    topic::{Phase, QueuedPush, Topic},
};
use crate::{
    error::{Error, ErrorKind, Retry},
    secret::AccessToken,
    wire::{BroadcastPayload, Change, Outbound, Payload, Slice, TOPIC_PREFIX, event::name, join::JoinConfig},
};

/// A channel of ours, for its whole life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct TopicId(pub(crate) u64);

/// A stream that hears a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct SubscriberId(pub(crate) u64);

/// Someone who awaits an [`Action::Answer`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct RequestId(pub(crate) u64);

/// Why rows may have been missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ResyncReason {
    /// The connection was lost and is back.
    Reconnected,
    /// The server had ended or lost the channel; it is joined again.
    Rejoined,
    /// The server announced its subscription anew: its connection to the database had been interrupted.
    Resubscribed,
    /// The access token was renewed, upon which the server subscribes anew.
    TokenRenewed,
}

/// From the handles to the session.
#[derive(Debug)]
pub(crate) enum Command {
    /// Join this channel and keep it joined. `ready` is answered when everything flows, or when it never will.
    Open { topic: TopicId, name: String, config: JoinConfig, subscribers: Vec<Subscriber>, ready: RequestId },
    /// Nobody wants the channel any more.
    Leave { topic: TopicId },
    /// Send this on the channel, as soon as it is joined. With a `request`, the server's reply is awaited.
    Push {
        topic: TopicId,
        request: Option<RequestId>,
        event: &'static str,
        payload: Payload,
        patience: Duration,
    },
    /// Track this presence payload, now and after each join; `None` stops it.
    Track { topic: TopicId, request: RequestId, payload: Option<String>, patience: Duration },
    /// Ask the token source now.
    RenewToken,
}

/// From the session to the driver.
#[derive(Debug)]
pub(crate) enum Action {
    /// Put this on the wire.
    Send(Outbound),
    /// Put this into a mailbox.
    Deliver(SubscriberId, Delivery),
    /// Answer a request.
    Answer(RequestId, Result<Slice, Error>),
    /// Ask the token source; tell the answer by [`Session::on_token`].
    AskForToken,
    /// Tell the token source that this token was refused.
    TokenRefused(AccessToken),
    /// The peer is dead: drop the connection, without a goodbye.
    Drop,
}

/// What a stream hears.
#[derive(Debug)]
pub(crate) enum Delivery {
    /// A row changed.
    Change(Box<Change>),
    /// Rows may have been missed before this point.
    Resync(ResyncReason),
    /// A text broadcast: `{"event","payload","meta"?}`.
    BroadcastText(Slice),
    /// A broadcast that came in binary framing.
    Broadcast { event: String, metadata: Option<String>, payload: BroadcastPayload },
    /// All presences of the channel.
    PresenceState(Slice),
    /// Presences that came and went.
    PresenceDiff(Slice),
    /// The channel was joined again: presences start over.
    PresenceReset,
    /// Something failed, and will be tried again.
    Trouble(Error),
    /// Something failed for good.
    End(Error),
}

/// The session's numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) heartbeat_interval: Duration,
    /// Silence after a heartbeat that means death.
    pub(crate) heartbeat_patience: Duration,
    /// The server may take 15 s to reach its database.
    pub(crate) join_timeout: Duration,
    /// From an accepted join to rows that flow; a cold project takes seconds.
    pub(crate) subscribe_timeout: Duration,
    /// Joins under way at once: a refused one makes the server deaf for 5 s.
    pub(crate) joins_at_once: usize,
    /// Between two joins.
    pub(crate) join_spacing: Duration,
    /// The server's own limit.
    pub(crate) channels_at_most: usize,
    /// Messages that wait for one channel to be joined.
    pub(crate) queued_pushes: usize,
    /// How long a connection without channels is kept.
    pub(crate) idle_disconnect: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            heartbeat_interval: Duration::from_secs(25),
            heartbeat_patience: Duration::from_secs(10),
            join_timeout: Duration::from_secs(20),
            subscribe_timeout: Duration::from_secs(30),
            joins_at_once: 2,
            join_spacing: Duration::from_millis(20),
            channels_at_most: 100,
            queued_pushes: 100,
            idle_disconnect: Duration::from_secs(50),
        }
    }
}

/// An open connection.
#[derive(Debug)]
struct Link {
    heartbeat: Heartbeat,
    /// The next join may go out from here on.
    next_join: Instant,
    /// The server proved that it works: it answered a heartbeat or let rows flow.
    proved: bool,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Session {
    settings: Settings,
    /// In the order they were opened, which is the order of their joins.
    topics: BTreeMap<TopicId, Topic>,
    names: HashMap<String, TopicId>,
    pending: Pending,
    credential: Credential,
    link: Option<Link>,
    next_ref: u64,
    /// Since when nobody wants a channel.
    idle_since: Option<Instant>,
    /// The server asked for a long pause.
    stay_away_until: Option<Instant>,
}

impl Session {
    pub(crate) fn new(settings: Settings, has_token_source: bool, can_refresh: bool, now: Instant) -> Self {
        Self {
            settings,
            topics: BTreeMap::new(),
            names: HashMap::new(),
            pending: Pending::default(),
            credential: Credential::new(has_token_source, can_refresh),
            link: None,
            next_ref: 1,
            idle_since: Some(now),
            stay_away_until: None,
        }
    }

    /// Whether there is a reason to be connected.
    pub(crate) fn wants_connection(&self, now: Instant) -> bool {
        !self.topics.is_empty()
            || (self.link.is_some()
                && self.idle_since.is_some_and(|since| now < since + self.settings.idle_disconnect))
    }

    /// Whether the connection proved to work; the driver's backoff starts afresh only then.
    pub(crate) fn is_proved(&self) -> bool {
        self.link.as_ref().is_some_and(|link| link.proved)
    }

    /// The earliest time of a reconnect, where a rate limit was the cause of the close.
    pub(crate) fn stay_away_until(&mut self) -> Option<Instant> {
        self.stay_away_until.take()
    }

    /// The last measured way of a heartbeat and back.
    pub(crate) fn round_trip(&self) -> Option<Duration> {
        self.link.as_ref().and_then(|link| link.heartbeat.round_trip())
    }

    /// Whether a heartbeat waits for its answer: then any frame changes [`wake`](Self::wake).
    pub(crate) fn is_heartbeat_open(&self) -> bool {
        self.link.as_ref().is_some_and(|link| link.heartbeat.is_open())
    }

    /// How many channels are wanted, and in how many of them everything flows.
    pub(crate) fn channels(&self) -> (usize, usize) {
        let live = self.topics.values().filter(|topic| matches!(topic.phase, Phase::Live { .. })).count();
        (self.topics.len(), live)
    }

    fn fresh_ref(&mut self) -> String {
        let reference = self.next_ref;
        self.next_ref += 1;
        reference.to_string()
    }

    // --- commands ---------------------------------------------------------------------------------------------------

    pub(crate) fn on_command(&mut self, command: Command, now: Instant, out: &mut Vec<Action>) {
        match command {
            Command::Open { topic, name, config, subscribers, ready } => {
                let name = format!("{TOPIC_PREFIX}{name}");
                let refusal = if self.names.contains_key(&name) {
                    Some(Error::invalid(
                        "topic",
                        "this client has a channel of that name already: a socket holds each topic once; share the handle, or drop it first",
                    ))
                } else if self.topics.len() >= self.settings.channels_at_most {
                    let most = self.settings.channels_at_most;
                    Some(Error::invalid(
                        "topic",
                        format!(
                            "this client has {most} channels, the most a socket may hold; drop one, or use a second client"
                        ),
                    ))
                } else {
                    None
                };
                if let Some(error) = refusal {
                    for subscriber in subscribers {
                        out.push(Action::Deliver(subscriber.id, Delivery::End(error.duplicate())));
                    }
                    out.push(Action::Answer(ready, Err(error)));
                    return;
                }
                let mut entry = Topic::new(topic, name.clone(), config, subscribers, now);
                entry.awaiting_ready.push(ready);
                self.names.insert(name, topic);
                self.topics.insert(topic, entry);
                self.idle_since = None;
            }
            Command::Leave { topic } => self.leave(topic, now, out),
            Command::Push { topic, request, event, payload, patience } => {
                self.push(topic, request, event, payload, now + patience, now, out);
            }
            Command::Track { topic, request, payload, patience } => {
                let Some(entry) = self.topics.get_mut(&topic) else {
                    out.push(Action::Answer(request, Err(Error::new(ErrorKind::Closed))));
                    return;
                };
                entry.tracked.clone_from(&payload);
                let payload = payload.map_or_else(untrack_payload, |payload| track_payload(&payload));
                self.push(
                    topic,
                    Some(request),
                    name::PRESENCE,
                    Payload::Json(payload),
                    now + patience,
                    now,
                    out,
                );
            }
            Command::RenewToken => self.ask_for_token(out),
        }
        self.tick(now, out);
    }

    fn ask_for_token(&mut self, out: &mut Vec<Action>) {
        if self.credential.ask() {
            out.push(Action::AskForToken);
        }
    }

    fn leave(&mut self, id: TopicId, now: Instant, out: &mut Vec<Action>) {
        let Some(topic) = self.remove(id, now, out) else { return };
        if let (Some(join_ref), true) = (topic.join_ref().map(str::to_owned), self.link.is_some()) {
            let reference = self.fresh_ref();
            let deadline = now + self.settings.join_timeout;
            self.pending.insert(reference.clone(), Awaited::Leave(topic.name.clone()), deadline);
            out.push(Action::Send(Outbound {
                join_ref: Some(join_ref),
                reference,
                topic: topic.name,
                event: name::LEAVE,
                payload: Payload::Json("{}".to_owned()),
            }));
        }
    }

    /// Takes a topic out of everything; whoever still waits on it is told that it is closed.
    fn remove(&mut self, id: TopicId, now: Instant, out: &mut Vec<Action>) -> Option<Topic> {
        let mut topic = self.topics.remove(&id)?;
        self.names.remove(&topic.name);
        let waiting =
            topic.awaiting_ready.drain(..).chain(topic.queue.drain(..).filter_map(|push| push.request));
        for request in waiting {
            out.push(Action::Answer(request, Err(Error::new(ErrorKind::Closed))));
        }
        for awaited in self.pending.forget_topic(id) {
            if let Awaited::Push(request, _) = awaited {
                out.push(Action::Answer(request, Err(Error::new(ErrorKind::Closed))));
            }
        }
        if self.topics.is_empty() {
            self.idle_since = Some(now);
        }
        Some(topic)
    }

    /// Ends a topic for good: all who listen or wait are told why.
    fn end(&mut self, id: TopicId, error: &Error, now: Instant, out: &mut Vec<Action>) {
        let Some(topic) = self.topics.get_mut(&id) else { return };
        for subscriber in &topic.subscribers {
            out.push(Action::Deliver(subscriber.id, Delivery::End(error.duplicate())));
        }
        for request in topic.awaiting_ready.drain(..) {
            out.push(Action::Answer(request, Err(error.duplicate())));
        }
        // The server may still hold the channel: a bad binding leaves it joined (OBSERVED 12).
        self.leave(id, now, out);
    }

    /// The connection cannot be had, for a reason that will not go away.
    pub(crate) fn end_all(&mut self, error: &Error, now: Instant, out: &mut Vec<Action>) {
        let ids: Vec<_> = self.topics.keys().copied().collect();
        for id in ids {
            self.end(id, error, now, out);
        }
    }

    /// Tells everyone of a failure that will be tried again.
    pub(crate) fn trouble_all(&self, error: &Error, out: &mut Vec<Action>) {
        for subscriber in self.topics.values().flat_map(|topic| &topic.subscribers) {
            out.push(Action::Deliver(subscriber.id, Delivery::Trouble(error.duplicate())));
        }
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "the parts of one message; a struct would be built for this call only"
    )]
    fn push(
        &mut self,
        id: TopicId,
        request: Option<RequestId>,
        event: &'static str,
        payload: Payload,
        deadline: Instant,
        now: Instant,
        out: &mut Vec<Action>,
    ) {
        let queued_at_most = self.settings.queued_pushes;
        let refusal = match self.topics.get_mut(&id) {
            None => Some(Error::new(ErrorKind::Closed)),
            Some(topic) if topic.queue.len() >= queued_at_most => Some(Error::new(ErrorKind::Push {
                message: format!("{queued_at_most} messages already wait for the channel to be joined"),
            })),
            Some(topic) => {
                topic.queue.push_back(QueuedPush { request, event, payload, deadline });
                None
            }
        };
        match (refusal, request) {
            (Some(error), Some(request)) => out.push(Action::Answer(request, Err(error))),
            (Some(_), None) => {}
            (None, _) => self.flush(id, now, out),
        }
    }

    /// Sends what waited for the channel to be joined.
    fn flush(&mut self, id: TopicId, now: Instant, out: &mut Vec<Action>) {
        if self.link.is_none() {
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
                if let Some(request) = push.request {
                    let waiting_for = "the channel to be joined";
                    out.push(Action::Answer(request, Err(Error::new(ErrorKind::Timeout { waiting_for }))));
                }
                continue;
            }
            let reference = self.fresh_ref();
            if let Some(request) = push.request {
                self.pending.insert(reference.clone(), Awaited::Push(request, id), push.deadline);
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

    // --- the connection ---------------------------------------------------------------------------------------------

    /// The websocket is open.
    pub(crate) fn on_open(&mut self, now: Instant, out: &mut Vec<Action>) {
        self.link = Some(Link {
            heartbeat: Heartbeat::new(
                self.settings.heartbeat_interval,
                self.settings.heartbeat_patience,
                now,
            ),
            next_join: now,
            proved: false,
        });
        self.tick(now, out);
    }

    /// The websocket is gone, whoever closed it. Everything wanted waits to be joined again.
    pub(crate) fn on_closed(&mut self, now: Instant, out: &mut Vec<Action>) {
        self.link = None;
        for awaited in self.pending.take_all() {
            if let Awaited::Push(request, _) = awaited {
                let reason = "before the message was answered".to_owned();
                let error = Error::new(ErrorKind::ConnectionLost { code: None, reason });
                out.push(Action::Answer(request, Err(error)));
            }
        }
        for topic in self.topics.values_mut() {
            let not_before = match topic.phase {
                // A refused join keeps its pause over a reconnect.
                Phase::Waiting { not_before } => not_before.max(now),
                Phase::Joining { .. } | Phase::Subscribing { .. } | Phase::Live { .. } => now,
            };
            topic.interrupt(ResyncReason::Reconnected, not_before);
        }
    }

    /// The token source answered [`Action::AskForToken`]; `life` is how long the token lives from now on.
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
            Err(error) => {
                self.credential.on_failure(now + Duration::from_secs(5));
                self.trouble_all(&error, out);
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
    fn renew_joined(&mut self, out: &mut Vec<Action>) {
        if self.link.is_none() {
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

    // --- time -------------------------------------------------------------------------------------------------------

    /// Does what is due.
    pub(crate) fn tick(&mut self, now: Instant, out: &mut Vec<Action>) {
        if self.credential.is_refresh_due(now) && self.link.is_some() {
            self.ask_for_token(out);
        }
        self.expire(now, out);
        if self.link.is_some() && self.beat(now, out) {
            self.join_due(now, out);
        }
    }

    /// Returns whether the peer may be alive.
    fn beat(&mut self, now: Instant, out: &mut Vec<Action>) -> bool {
        let (_, excuse) = self.pending.joins();
        let Some(link) = &mut self.link else { return false };
        if link.heartbeat.deadline(excuse).is_some_and(|deadline| now >= deadline) {
            out.push(Action::Drop);
            return false;
        }
        if link.heartbeat.is_due(now) {
            let reference = self.next_ref.to_string();
            self.next_ref += 1;
            link.heartbeat.on_sent(reference.clone(), now);
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
            let Some(link) = &self.link else { return };
            if link.next_join > now || self.pending.joins().0 >= self.settings.joins_at_once {
                return;
            }
            let ready = self.topics.values().find(|topic| {
                matches!(topic.phase, Phase::Waiting { not_before } if not_before <= now)
                    && !self.pending.is_leaving(&topic.name)
            });
            let Some(id) = ready.map(|topic| topic.id) else { return };
            if !self.credential.is_fresh(now) {
                self.ask_for_token(out);
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
        let message = Outbound {
            join_ref: Some(join_ref.clone()),
            reference: join_ref.clone(),
            topic: topic.name.clone(),
            event: name::JOIN,
            payload: Payload::Json(topic.config.payload(token.as_ref())),
        };
        topic.token = token;
        self.pending.insert(join_ref, Awaited::Join(id), now + self.settings.join_timeout);
        if let Some(link) = &mut self.link {
            link.next_join = now + self.settings.join_spacing;
        }
        out.push(Action::Send(message));
    }

    /// Everything whose deadline is over.
    fn expire(&mut self, now: Instant, out: &mut Vec<Action>) {
        for awaited in self.pending.take_expired(now) {
            match awaited {
                Awaited::Join(id) => {
                    let error = Error::new(ErrorKind::Timeout { waiting_for: "the answer to a join" });
                    self.abandon(id, &error, now, out);
                }
                Awaited::Push(request, _) => {
                    let waiting_for = "the acknowledgement of a message";
                    out.push(Action::Answer(request, Err(Error::new(ErrorKind::Timeout { waiting_for }))));
                }
                Awaited::Leave(_) => {}
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
            while topic.queue.front().is_some_and(|push| push.deadline <= now) {
                if let Some(request) = topic.queue.pop_front().and_then(|push| push.request) {
                    let waiting_for = "the channel to be joined";
                    out.push(Action::Answer(request, Err(Error::new(ErrorKind::Timeout { waiting_for }))));
                }
            }
        }
    }

    /// Gives up this incarnation, tells the server so, and tries again after a pause: a join that was answered too late
    /// would otherwise leave a channel on the server that nobody here knows.
    fn abandon(&mut self, id: TopicId, error: &Error, now: Instant, out: &mut Vec<Action>) {
        let reference = self.fresh_ref();
        let leave_deadline = now + self.settings.join_timeout;
        let Some(topic) = self.topics.get_mut(&id) else { return };
        if let (Some(join_ref), true) = (topic.join_ref().map(str::to_owned), self.link.is_some()) {
            self.pending.insert(reference.clone(), Awaited::Leave(topic.name.clone()), leave_deadline);
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
    fn interrupted(
        &mut self,
        id: TopicId,
        error: &Error,
        reason: ResyncReason,
        now: Instant,
        out: &mut Vec<Action>,
    ) {
        let retry = error.retry();
        let renewable = self.credential.can_refresh();
        if retry == Retry::Never || (retry == Retry::WithFreshToken && !renewable) {
            if let Some(topic) = self.topics.get_mut(&id) {
                // The server let go of it already: no leave.
                topic.phase = Phase::Waiting { not_before: now };
            }
            self.end(id, &error.duplicate().into_final(), now, out);
            return;
        }
        let Some(topic) = self.topics.get_mut(&id) else { return };
        let pause = topic.backoff.next_pause();
        let not_before = match retry {
            Retry::After(least) => now + least + pause.min(least),
            // A fresh token is the remedy; only a source that keeps giving refused ones needs pauses.
            Retry::WithFreshToken if topic.backoff.attempt() <= 1 => now,
            _ => now + pause,
        };
        let refused = topic.token.take();
        topic.interrupt(reason, not_before);
        for subscriber in &topic.subscribers {
            out.push(Action::Deliver(subscriber.id, Delivery::Trouble(error.duplicate())));
        }
        if retry == Retry::WithFreshToken {
            if let Some(token) = refused {
                out.push(Action::TokenRefused(token));
            }
            self.credential.on_refused();
        }
        if let Retry::After(least) = retry
            && error.code().contains("RateLimit")
        {
            self.stay_away_until = Some(now + least);
        }
    }

    /// When to call [`tick`](Self::tick) next.
    pub(crate) fn wake(&self) -> Option<Instant> {
        let topics = self.topics.values().filter_map(Topic::wake);
        let own = [self.pending.wake(), self.credential.wake().filter(|_| self.link.is_some())];
        let mut earliest = topics.chain(own.into_iter().flatten()).min();
        let mut consider = |at: Instant| earliest = Some(earliest.map_or(at, |known| known.min(at)));
        if let Some(link) = &self.link {
            let (joins, excuse) = self.pending.joins();
            consider(link.heartbeat.wake(excuse));
            if joins < self.settings.joins_at_once {
                let due = self.topics.values().filter_map(|topic| match topic.phase {
                    Phase::Waiting { not_before } if !self.pending.is_leaving(&topic.name) => {
                        Some(not_before)
                    }
                    _ => None,
                });
                // A join that waits for a token is woken by the token.
                if let Some(due) = due.min().filter(|_| !self.credential.is_asking()) {
                    consider(due.max(link.next_join));
                }
            }
            if let Some(since) = self.idle_since {
                consider(since + self.settings.idle_disconnect);
            }
        }
        earliest
    }
}

/// The payload of a `presence` push that tracks this state (JSON text of an object).
fn track_payload(state: &str) -> String {
    format!(r#"{{"type":"presence","event":"track","payload":{state}}}"#)
}

fn untrack_payload() -> String {
    r#"{"type":"presence","event":"untrack","payload":{}}"#.to_owned()
}

#[cfg(test)]
mod replay;
#[cfg(test)]
mod tests;
