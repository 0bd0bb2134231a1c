//! What a user holds of a joined channel.

pub(crate) mod builder;
pub(crate) mod changes;
#[cfg(feature = "rest")]
pub(crate) mod http;

use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;

use tokio::sync::watch;

use crate::{
    driver::ChannelHandle,
    endpoint::ProtocolVersion,
    error::Error,
    session::ChannelStatus,
    wire::{Payload, binary::name_length, event::name},
};

/// How long an acknowledgement is awaited: on a private channel without the right to write, none ever comes.
const ACK_TIMEOUT: Duration = Duration::from_secs(10);
/// `Duration::MAX` means "as long as it takes", and cannot be added to a time.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(30 * 24 * 3600);

/// A joined channel. It stays joined over reconnects, and is left when the last handle and the last stream of it are dropped, or
/// by [`leave`](Self::leave).
#[derive(Debug, Clone)]
pub struct Channel {
    handle: ChannelHandle,
    timeout: Duration,
}

/// The server ends a connection over a larger frame, and with it all channels.
const LARGEST_FRAME: usize = 5_000_000;

impl Channel {
    pub(crate) fn new(handle: ChannelHandle) -> Self {
        Self { handle, timeout: ACK_TIMEOUT }
    }

    /// Its name, without `realtime:`.
    #[doc(alias = "topic")]
    pub fn name(&self) -> &str {
        self.handle.name()
    }

    /// Whether it is a private channel.
    pub fn is_private(&self) -> bool {
        self.handle.traits().private
    }

    /// Where the channel stands now, and whenever that changes.
    ///
    /// ```no_run
    /// # async fn run(room: tendril_realtime::Channel) {
    /// let mut status = room.status();
    /// while status.changed().await.is_ok() {
    ///     println!("{} is {}", room.name(), status.borrow().name());
    /// }
    /// # }
    /// ```
    pub fn status(&self) -> watch::Receiver<ChannelStatus> {
        self.handle.status()
    }

    /// The same channel with another time limit for each acknowledgement, and for a message to wait for the connection.
    /// Default: 10 s.
    #[must_use]
    pub fn with_timeout(&self, timeout: Duration) -> Self {
        Self { handle: self.handle.clone(), timeout: timeout.min(LONGEST_TIMEOUT) }
    }

    /// Leaves the channel and awaits the server's confirmation. All clones of this handle are of no more use, and the streams
    /// that were made with it end, without an error. The name is free at once. A channel of the same name that was joined
    /// separately is still sent.
    ///
    /// # Errors
    /// [`Timeout`](crate::ErrorKind::Timeout) if the server does not answer; the channel is left all the same.
    #[doc(alias("unsubscribe", "removeChannel"))]
    pub async fn leave(&self) -> Result<(), Error> {
        self.handle.leave().await
    }

    pub(crate) fn give_up(&self, cause: Error) {
        self.handle.give_up(cause);
    }

    pub(crate) fn last_error(&self) -> Option<Error> {
        self.handle.last_error()
    }

    /// Sends a message to everyone else on the channel. If the channel was opened
    /// [`ack`](builder::ChannelBuilder::ack), resolves when the server accepted it, otherwise when it is
    /// queued. While the connection is down, messages wait for up to 10 s.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for a payload that is no JSON object;
    /// [`PushRejected`](crate::ErrorKind::PushRejected) if the server refuses it, `payload_size_exceeded` among the reasons;
    /// [`Timeout`](crate::ErrorKind::Timeout) if no acknowledgement comes: without the right to write, none does.
    #[doc(alias = "send")]
    pub async fn broadcast<P: Serialize + ?Sized>(&self, event: &str, payload: &P) -> Result<(), Error> {
        // The server fails to encode anything else on delivery, and crashes the sender's channel.
        let payload = object("payload", payload, "a broadcast carries a JSON object")?;
        checked_event(event)?;
        let event = serde_json::Value::from(event);
        self.send(Payload::Json(format!(r#"{{"type":"broadcast","event":{event},"payload":{payload}}}"#)))
            .await
    }

    /// Sends raw bytes. Only subscribers that use version 2 of the protocol receive them.
    ///
    /// # Errors
    /// As [`broadcast`](Self::broadcast).
    pub async fn broadcast_bytes(&self, event: &str, bytes: impl Into<Bytes>) -> Result<(), Error> {
        if self.handle.traits().version == ProtocolVersion::V1 {
            return Err(Error::invalid("payload", "version 1 of the protocol carries no raw bytes"));
        }
        checked_event(event)?;
        self.send(Payload::BinaryBroadcast { event: event.to_owned(), bytes: bytes.into() }).await
    }

    async fn send(&self, payload: Payload) -> Result<(), Error> {
        let size = payload.size();
        if size > LARGEST_FRAME - 1024 {
            let reason = format!("{size} bytes are more than a frame may carry ({LARGEST_FRAME})");
            return Err(Error::invalid("payload", reason));
        }
        self.handle.push(name::BROADCAST, payload, self.timeout, self.handle.traits().ack).await
    }

    /// Tracks this client's presence with this state (a JSON object), now and again after each reconnect. The server counts each
    /// call: more than 5 within 30 s close the channel.
    ///
    /// # Errors
    /// [`PushRejected`](crate::ErrorKind::PushRejected) if the server refuses it, [`Timeout`](crate::ErrorKind::Timeout) without an answer.
    pub async fn track<S: Serialize + ?Sized>(&self, state: &S) -> Result<(), Error> {
        let state = object("state", state, "presence carries a JSON object")?;
        self.handle.track(Some(state), self.timeout).await
    }

    /// Ends this client's presence.
    ///
    /// # Errors
    /// As [`track`](Self::track).
    pub async fn untrack(&self) -> Result<(), Error> {
        self.handle.track(None, self.timeout).await
    }
}

fn checked_event(event: &str) -> Result<(), Error> {
    if event.is_empty() {
        return Err(Error::invalid("event", "it is empty"));
    }
    name_length("event", event).map(drop)
}

/// The JSON text of an object. It is not read again: a number that a double cannot hold keeps its digits.
fn object<T: Serialize + ?Sized>(field: &'static str, value: &T, otherwise: &str) -> Result<String, Error> {
    let text = serde_json::to_string(value).map_err(|error| Error::unserializable(field, &error))?;
    if text.starts_with('{') { Ok(text) } else { Err(Error::invalid(field, otherwise)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_has_every_digit_and_is_an_object() {
        let huge = std::collections::BTreeMap::from([("n", u128::MAX)]);
        assert_eq!(object("payload", &huge, "no").unwrap(), format!("{{\"n\":{}}}", u128::MAX));
        let raw: &serde_json::value::RawValue = serde_json::from_str(r#" {"n":1.50} "#).unwrap();
        assert_eq!(object("payload", raw, "no").unwrap(), r#"{"n":1.50}"#);
        for other in
            [serde_json::json!(null), serde_json::json!([1]), serde_json::json!("{}"), serde_json::json!(5)]
        {
            assert!(object("payload", &other, "no").is_err(), "{other}");
        }
    }
}
