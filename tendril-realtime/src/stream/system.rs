//! The server's `system` messages about a channel.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use futures_util::Stream;
use serde::Deserialize;

use super::Subscription;
use crate::{driver::Item, error::Error, session::Delivery, wire::Slice};

/// A `system` message of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SystemMessage {
    /// What it is about: `postgres_changes`, `system`, ….
    pub extension: String,
    /// `ok` or `error`.
    pub status: String,
    /// The server's sentence. There is no machine-readable code.
    pub message: String,
}

/// What a [`SystemStream`] yields.
#[derive(Debug)]
#[non_exhaustive]
pub enum SystemEvent {
    /// A message.
    Message(SystemMessage),
    /// Something failed, and is tried again by itself.
    Interrupted(Error),
    /// The reader was too slow: so many messages were dropped before this point.
    Lagged(u64),
}

/// The server's messages about one channel. An `Err` item is the last one: it states why the channel ended.
#[derive(Debug)]
#[must_use = "streams do nothing unless polled"]
pub struct SystemStream {
    subscription: Subscription,
}

impl SystemStream {
    pub(crate) fn new(subscription: Subscription) -> Self {
        Self { subscription }
    }
}

fn read(text: &Slice) -> SystemMessage {
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Wire {
        extension: String,
        status: String,
        message: serde_json::Value,
    }
    let wire: Wire = serde_json::from_str(text.as_str()).unwrap_or_default();
    let message = match wire.message {
        serde_json::Value::String(text) => text,
        other => other.to_string(),
    };
    SystemMessage { extension: wire.extension, status: wire.status, message }
}

impl Stream for SystemStream {
    type Item = Result<SystemEvent, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            let event = match std::task::ready!(self.subscription.poll_take(cx)) {
                None => return Poll::Ready(None),
                Some(Item::Lagged(count)) => Ok(SystemEvent::Lagged(count)),
                Some(Item::Delivery(Delivery::System(text))) => Ok(SystemEvent::Message(read(&text))),
                Some(Item::Delivery(Delivery::TransientError(error))) => Ok(SystemEvent::Interrupted(error)),
                Some(Item::Delivery(Delivery::End(error))) => Err(error),
                Some(Item::Delivery(_)) => continue,
            };
            return Poll::Ready(Some(event));
        }
    }
}
