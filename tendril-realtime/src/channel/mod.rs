//! What a user holds of a joined channel.

pub(crate) mod builder;
pub(crate) mod changes;
#[cfg(feature = "rest")]
pub(crate) mod http;

use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;

use crate::{
    driver::ChannelHandle,
    endpoint::ProtocolVersion,
    error::Error,
    wire::{Payload, binary::name_length, event::name},
};

/// How long an acknowledgement is awaited: on a private channel without the right to write, none ever comes.
const ACK_TIMEOUT: Duration = Duration::from_secs(10);

/// A joined channel. It stays joined over reconnects, and is left when the last handle and the last stream of it are dropped.
#[derive(Debug, Clone)]
pub struct Channel {
    handle: ChannelHandle,
    acknowledged: bool,
    version: ProtocolVersion,
}

/// The server ends a connection over a larger frame, and with it all channels.
const LARGEST_FRAME: usize = 5_000_000;

impl Channel {
    pub(crate) fn new(handle: ChannelHandle, acknowledged: bool, version: ProtocolVersion) -> Self {
        Self { handle, acknowledged, version }
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
        let payload =
            serde_json::to_value(payload).map_err(|error| Error::unserializable("payload", &error))?;
        if !payload.is_object() {
            // The server fails to encode anything else on delivery, and crashes the sender's channel.
            return Err(Error::invalid("payload", "a broadcast carries a JSON object"));
        }
        checked_event(event)?;
        let message = serde_json::json!({ "type": "broadcast", "event": event, "payload": payload });
        self.send(Payload::Json(message.to_string())).await
    }

    /// Sends raw bytes. Only subscribers that speak version 2 of the protocol hear them.
    ///
    /// # Errors
    /// As [`broadcast`](Self::broadcast).
    pub async fn broadcast_bytes(&self, event: &str, bytes: impl Into<Bytes>) -> Result<(), Error> {
        if self.version == ProtocolVersion::V1 {
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
        self.handle.push(name::BROADCAST, payload, ACK_TIMEOUT, self.acknowledged).await
    }

    /// Says that we are here, with this state (a JSON object), now and again after each reconnect. The server counts each
    /// call: more than 5 within 30 s close the channel.
    ///
    /// # Errors
    /// [`PushRejected`](crate::ErrorKind::PushRejected) if the server refuses it, [`Timeout`](crate::ErrorKind::Timeout) without an answer.
    pub async fn track<S: Serialize + ?Sized>(&self, state: &S) -> Result<(), Error> {
        let state = serde_json::to_value(state).map_err(|error| Error::unserializable("state", &error))?;
        if !state.is_object() {
            return Err(Error::invalid("state", "presence carries a JSON object"));
        }
        self.handle.track(Some(state.to_string()), ACK_TIMEOUT).await
    }

    /// Says that we are not here any more.
    ///
    /// # Errors
    /// As [`track`](Self::track).
    pub async fn untrack(&self) -> Result<(), Error> {
        self.handle.track(None, ACK_TIMEOUT).await
    }
}

fn checked_event(event: &str) -> Result<(), Error> {
    if event.is_empty() {
        return Err(Error::invalid("event", "it is empty"));
    }
    name_length("event", event).map(drop)
}
