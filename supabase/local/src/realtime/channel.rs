//! One joined topic of one socket. Dropping it ends its part in the change feed and in its room.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use super::Realtime;
use super::frame::Outgoing;
use super::join::Join;
use super::rooms::{Ear, RoomName};
use crate::changes::{ChannelId, Listener, Mailbox};
use crate::jwt::{Claims, JwtError};

/// What stands before the name that clients choose.
pub(crate) const PREFIX: &str = "realtime:";

/// Expiry is looked at again after this long at the latest, so that a clock that jumps does no harm.
const LOOK_AGAIN: Duration = Duration::from_secs(300);

/// A joined topic.
#[derive(Debug)]
pub(crate) struct Channel {
    pub(crate) id: ChannelId,
    pub(crate) topic: String,
    /// As the join sent it; what `phx_close` and `system` carry.
    pub(crate) join_ref: Value,
    /// What replies carry: the join's own ref where it sent no `join_ref`.
    pub(crate) reply_ref: Value,
    pub(crate) join: Join,
    /// The token in force, to see whether a pushed one is new.
    pub(crate) token: String,
    pub(crate) claims: Claims,
    realtime: Arc<Realtime>,
}

impl Channel {
    /// Enters the room of the topic. The change feed follows with [`Channel::subscribe`].
    pub(crate) fn enter(
        realtime: &Arc<Realtime>,
        topic: String,
        refs: (Value, Value),
        join: Join,
        credentials: (String, Claims),
        ear: Ear,
    ) -> Self {
        let (join_ref, reference) = refs;
        let reply_ref = if join_ref.is_null() { reference } else { join_ref.clone() };
        let (token, claims) = credentials;
        let realtime = Arc::clone(realtime);
        let channel =
            Self { id: ChannelId::next(), topic, join_ref, reply_ref, join, token, claims, realtime };
        channel.realtime.rooms.enter(channel.room(), channel.id, ear);
        channel
    }

    /// Asks the change feed for the bindings, if there are any, with the claims now in force.
    pub(crate) fn subscribe(&self, mailbox: &Mailbox, delay: Duration) {
        if !self.join.bindings.is_empty() {
            let listener = Listener::new(&self.claims);
            let bindings = self.join.bindings.clone();
            self.realtime.changes.subscribe(self.id, bindings, listener, mailbox.clone(), delay);
        }
    }

    /// The room of the topic.
    pub(crate) fn room(&self) -> RoomName {
        (self.topic.clone(), self.join.private)
    }

    /// How long the token in force is still good; zero once it has expired.
    pub(crate) fn expires_in(&self) -> Duration {
        let end =
            Duration::from_secs(u64::try_from(self.claims.expires_at().unwrap_or_default()).unwrap_or(0));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        end.saturating_sub(now).min(LOOK_AGAIN)
    }

    /// The answer to the join.
    pub(crate) fn joined(&self, reference: Value) -> Outgoing {
        let echoes: Vec<String> = self.join.bindings.iter().map(crate::changes::Binding::echo).collect();
        let response = format!(r#"{{"postgres_changes":[{}]}}"#, echoes.join(","));
        Outgoing::reply(self.join_ref.clone(), reference, self.topic.as_str().into(), "ok", &response)
    }

    /// An answer to a push.
    pub(crate) fn reply(&self, reference: Value, status: &str) -> Outgoing {
        Outgoing::reply(self.reply_ref.clone(), reference, self.topic.as_str().into(), status, "{}")
    }

    /// A message of the server about the channel.
    pub(crate) fn system(&self, extension: &str, status: &str, message: &str) -> Outgoing {
        let subtopic = self.topic.strip_prefix(PREFIX).unwrap_or_default();
        let payload = format!(
            r#"{{"message":{},"status":"{status}","extension":"{extension}","channel":{}}}"#,
            Value::from(message),
            Value::from(subtopic),
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

    /// The members of the channel: nobody, as long as presence is not built.
    pub(crate) fn presence_state(&self) -> Outgoing {
        self.push("presence_state", "{}".to_owned())
    }

    /// The end of the channel.
    pub(crate) fn closed(&self) -> Outgoing {
        let (join_ref, topic) = (self.join_ref.clone(), self.topic.as_str().into());
        Outgoing {
            reference: join_ref.clone(),
            join_ref,
            topic,
            event: "phx_close",
            payload: "{}".to_owned(),
        }
    }

    fn push(&self, event: &'static str, payload: String) -> Outgoing {
        let topic = self.topic.as_str().into();
        Outgoing { join_ref: self.join_ref.clone(), reference: Value::Null, topic, event, payload }
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        self.realtime.changes.unsubscribe(self.id);
        self.realtime.rooms.leave(&self.room(), self.id);
    }
}
