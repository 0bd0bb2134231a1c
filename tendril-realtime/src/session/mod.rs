//! The protocol as a pure state machine: frames, commands, ticks and closes go in, [`Action`]s come out. Time is an argument.
//!
//! The subscriptions (channels with their bindings, tokens, tracked presence) are separate from the connection and replayed,
//! paced, after each reconnect.
//!
//! One file per kind of input: [`command`] (a call of the user), [`connection`] (a socket or a token came or went),
//! [`inbound`] (a message of the server), [`clock`] (time passed). [`topic`], [`pending`], [`heartbeat`] and [`credential`]
//! are the session's state.

mod action;
mod clock;
mod command;
mod connection;
mod credential;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod heartbeat;
mod inbound;
mod pending;
mod presence;
mod settings;
mod topic;

use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, Instant},
};

pub use self::action::{ChannelStatus, ResyncReason};
pub(crate) use self::{
    action::{Action, Delivery},
    command::Command,
    settings::Settings,
    topic::{Interest, Subscriber},
};
use self::{
    credential::Credential,
    heartbeat::Heartbeat,
    pending::Pending,
    topic::{Phase, Topic},
};
use crate::error::Error;

/// A channel of ours, for its whole life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct TopicId(pub(crate) u64);

/// A stream of a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct SubscriberId(pub(crate) u64);

/// What can be done about a token that is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Renewal {
    /// The token source gives another one.
    BySource,
    /// There is no token of ours: a new connection makes the gateway give a new one.
    ByReconnect,
    /// Nothing.
    Never,
}

/// Someone who awaits an [`Action::Answer`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct RequestId(pub(crate) u64);

/// An open connection.
#[derive(Debug)]
struct Connection {
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
    /// The topic of the last message.
    last_topic: TopicId,
    /// Further handles on a topic of the same name.
    shared: HashMap<TopicId, TopicId>,
    /// Why the channels of handles ended that are still held.
    ended: HashMap<TopicId, Error>,
    pending: Pending,
    credential: Credential,
    renewal: Renewal,
    connection: Option<Connection>,
    next_ref: u64,
    /// Since when nobody wants a channel.
    idle_since: Option<Instant>,
    /// The server requested a long pause.
    stay_away_until: Option<Instant>,
    /// One moment on both clocks: the instant, and the Unix time in milliseconds.
    epoch: (Instant, u64),
}

impl Session {
    /// `unix_ms` is the wall clock's time at `now`.
    pub(crate) fn new(
        settings: Settings,
        has_token_source: bool,
        renewal: Renewal,
        now: Instant,
        unix_ms: u64,
    ) -> Self {
        Self {
            settings,
            topics: BTreeMap::new(),
            names: HashMap::new(),
            last_topic: TopicId(0),
            shared: HashMap::new(),
            ended: HashMap::new(),
            pending: Pending::default(),
            credential: Credential::new(has_token_source, renewal == Renewal::BySource),
            renewal,
            connection: None,
            next_ref: 1,
            idle_since: Some(now),
            stay_away_until: None,
            epoch: (now, unix_ms),
        }
    }

    /// Whether there is a reason to be connected.
    pub(crate) fn wants_connection(&self, now: Instant) -> bool {
        !self.topics.is_empty()
            || (self.connection.is_some()
                && self.idle_since.is_some_and(|since| now < since + self.settings.idle_disconnect))
    }

    /// Whether the connection proved to work.
    pub(crate) fn is_proved(&self) -> bool {
        self.connection.as_ref().is_some_and(|connection| connection.proved)
    }

    /// The earliest time of a reconnect, where a rate limit was the cause of the close.
    pub(crate) fn stay_away_until(&mut self) -> Option<Instant> {
        self.stay_away_until.take()
    }

    /// The last measured way of a heartbeat and back.
    pub(crate) fn round_trip(&self) -> Option<Duration> {
        self.connection.as_ref().and_then(|connection| connection.heartbeat.round_trip())
    }

    /// Whether a heartbeat waits for its answer: then any frame changes [`wake`](Self::wake).
    pub(crate) fn is_heartbeat_open(&self) -> bool {
        self.connection.as_ref().is_some_and(|connection| connection.heartbeat.is_open())
    }

    /// How many channels are in use, and in how many of them everything flows.
    pub(crate) fn channels(&self) -> (usize, usize) {
        let live = self.topics.values().filter(|topic| matches!(topic.phase, Phase::Live { .. })).count();
        (self.topics.len(), live)
    }

    /// The server's time: a replay is requested by it.
    pub(crate) fn set_clock(&mut self, now: Instant, unix_ms: u64) {
        self.epoch = (now, unix_ms);
    }

    /// The wall clock's time at this moment, in milliseconds since 1970.
    fn unix_ms(&self, now: Instant) -> u64 {
        let (at, unix_ms) = self.epoch;
        unix_ms + u64::try_from(now.saturating_duration_since(at).as_millis()).unwrap_or_default()
    }

    /// The topic that a handle holds.
    fn topic_of(&self, handle: TopicId) -> TopicId {
        self.shared.get(&handle).copied().unwrap_or(handle)
    }

    fn fresh_ref(&mut self) -> String {
        let reference = self.next_ref;
        self.next_ref += 1;
        reference.to_string()
    }
}

#[cfg(test)]
mod replay;
#[cfg(test)]
mod tests;
