//! One joined topic of one socket. Dropping it ends its part in the change feed and in its room.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};
use tokio::time::Instant;
use uuid::Uuid;

use super::frame::Outgoing;
use super::hub::Realtime;
use super::join::Join;
use super::permission::{Grants, Requester};
use super::rooms::{DeliverySender, RoomName};
use crate::changes::{ChannelId, Mailbox, Principal};
use crate::jwt::{Claims, JwtError};

/// What stands before the name that clients choose.
pub(crate) const PREFIX: &str = "realtime:";

/// Expiry is checked again after this long at the latest, so that a clock that jumps does no harm.
const LOOK_AGAIN: Duration = Duration::from_secs(300);

/// A joined topic.
#[derive(Debug)]
pub(crate) struct Channel {
    pub(crate) id: ChannelId,
    pub(crate) topic: String,
    /// As the join sent it; it is sent back in `phx_close` and `system`.
    pub(crate) join_ref: Value,
    /// The `join_ref` of replies: the join's own ref where it sent no `join_ref`.
    pub(crate) reply_ref: Value,
    pub(crate) join: Join,
    pub(crate) pass: Pass,
    /// What it may send; checked when it first sends something, and again after a new token.
    pub(crate) write: Option<Grants>,
    /// Messages that were replayed at its join, which are not sent again.
    pub(crate) replayed: HashSet<String>,
    /// The name under which it is present.
    presence_key: String,
    /// When it called presence, within the window of the limit.
    presence_calls: VecDeque<Instant>,
    realtime: Arc<Realtime>,
}

/// On what a channel goes.
#[derive(Debug)]
pub(crate) struct Pass {
    /// The token in force, to see whether a pushed one is new.
    pub(crate) token: String,
    pub(crate) claims: Claims,
    /// What it may receive.
    pub(crate) read: Grants,
}

impl Channel {
    /// Enters the room of the topic; also the payload of `presence_state`. The change feed follows with
    /// [`Channel::subscribe`].
    pub(crate) fn enter(
        realtime: &Arc<Realtime>,
        topic: String,
        refs: (Value, Value),
        join: Join,
        pass: Pass,
        deliveries: DeliverySender,
    ) -> (Self, String) {
        let (join_ref, reference) = refs;
        let reply_ref = if join_ref.is_null() { reference } else { join_ref.clone() };
        let presence_key = join.presence_key.clone().unwrap_or_else(|| Uuid::new_v4().to_string());
        let write = (!join.private).then_some(Grants::ALL);
        let channel = Self {
            id: ChannelId::next(),
            topic,
            join_ref,
            reply_ref,
            join,
            pass,
            write,
            replayed: HashSet::new(),
            presence_key,
            presence_calls: VecDeque::new(),
            realtime: Arc::clone(realtime),
        };
        let state = channel.realtime.rooms.enter(channel.room(), channel.id, deliveries);
        (channel, state)
    }

    /// Subscribes to the change feed for the bindings, if there are any, with the current claims.
    pub(crate) fn subscribe(&self, mailbox: &Mailbox, delay: Duration) {
        if !self.join.bindings.is_empty() {
            let principal = Principal::new(&self.pass.claims);
            let bindings = self.join.bindings.clone();
            self.realtime.changes.subscribe(self.id, bindings, principal, mailbox.clone(), delay);
        }
    }

    /// The room of the topic.
    pub(crate) fn room(&self) -> RoomName {
        (self.topic.clone(), self.join.private)
    }

    /// The topic as clients name it.
    pub(crate) fn name(&self) -> &str {
        self.topic.strip_prefix(PREFIX).unwrap_or_default()
    }

    /// The requester whose permissions are checked.
    pub(crate) fn requester<'a>(&'a self, headers: &'a str) -> Requester<'a> {
        Requester { claims: &self.pass.claims, headers, topic: self.name() }
    }

    /// Whether it receives presence. On a private channel, presence must have been requested.
    pub(crate) fn receives_presence(&self) -> bool {
        !self.join.private || (self.join.presence && self.pass.read.presence)
    }

    /// Counts a presence call; false if it is one too many.
    pub(crate) fn may_call_presence(&mut self) -> bool {
        let options = &self.realtime.options;
        let now = Instant::now();
        self.presence_calls.retain(|call| now.duration_since(*call) < options.presence_window);
        self.presence_calls.push_back(now);
        self.presence_calls.len() <= options.max_presence_calls
    }

    /// Is present with this payload.
    pub(crate) fn track(&self, payload: Map<String, Value>) {
        self.realtime.rooms.track(&self.room(), self.id, &self.presence_key, payload);
    }

    /// Is not present any more.
    pub(crate) fn untrack(&self) {
        self.realtime.rooms.untrack(&self.room(), self.id);
    }

    /// How long the token in force is still good; zero once it has expired.
    pub(crate) fn expires_in(&self) -> Duration {
        let end = self.pass.claims.expires_at().unwrap_or_default();
        self.realtime.keys.jwt().until(end).min(LOOK_AGAIN)
    }

    /// The answer to the join.
    pub(crate) fn joined(&self, reference: Value) -> Outgoing {
        let echoes: Vec<String> = self.join.bindings.iter().map(crate::changes::Binding::echo).collect();
        let response = format!(r#"{{"postgres_changes":[{}]}}"#, echoes.join(","));
        Outgoing::reply(self.join_ref.clone(), reference, self.topic.as_str().into(), "ok", &response)
    }

    /// An answer to a push.
    pub(crate) fn reply(&self, reference: Value, status: &str) -> Outgoing {
        self.reply_with(reference, status, "{}")
    }

    /// An answer to a push with a response (JSON text).
    pub(crate) fn reply_with(&self, reference: Value, status: &str, response: &str) -> Outgoing {
        Outgoing::reply(self.reply_ref.clone(), reference, self.topic.as_str().into(), status, response)
    }

    /// A message of the server about the channel.
    pub(crate) fn system(&self, extension: &str, status: &str, message: &str) -> Outgoing {
        let payload = format!(
            r#"{{"message":{},"status":"{status}","extension":"{extension}","channel":{}}}"#,
            Value::from(message),
            Value::from(self.name()),
        );
        self.push("system", payload)
    }

    /// Why the token ends the channel.
    pub(crate) fn token_refused(&self, error: JwtError) -> Outgoing {
        let message = match error {
            // The real server shows its internal name here.
            JwtError::Signature => ":signature_error".to_owned(),
            other => other.to_string(),
        };
        self.system("system", "error", &message)
    }

    /// The end of the channel.
    pub(crate) fn closed(&self) -> Outgoing {
        self.ended("phx_close", "{}")
    }

    /// The end of the channel by an error of the server.
    pub(crate) fn crashed(&self) -> Outgoing {
        self.ended("phx_error", r#"{"reason":"channel_crash"}"#)
    }

    fn ended(&self, event: &'static str, payload: &str) -> Outgoing {
        let (join_ref, topic) = (self.join_ref.clone(), self.topic.as_str().into());
        Outgoing { reference: join_ref.clone(), join_ref, topic, event, payload: payload.to_owned() }
    }

    /// A frame to this channel alone.
    pub(crate) fn push(&self, event: &'static str, payload: String) -> Outgoing {
        let topic = self.topic.as_str().into();
        Outgoing { join_ref: self.join_ref.clone(), reference: Value::Null, topic, event, payload }
    }

    /// A frame without refs, as the real server sends what goes to many.
    pub(crate) fn anonymous(&self, event: &'static str, payload: String) -> Outgoing {
        let topic = self.topic.as_str().into();
        Outgoing { join_ref: Value::Null, reference: Value::Null, topic, event, payload }
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        self.realtime.changes.unsubscribe(self.id);
        self.realtime.rooms.leave(&self.room(), self.id);
    }
}
