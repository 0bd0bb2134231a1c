//! Messages from client to client, and from the database.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::Stream;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::value::RawValue;

use super::Subscription;
use crate::{
    driver::{Gauge, Item},
    error::Error,
    session::{Delivery, ResyncReason},
    wire::{BroadcastPayload, Slice, UserBroadcast, change::ChangeKind},
};

/// One broadcast, however it was framed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broadcast {
    event: String,
    payload: BroadcastPayload,
    id: Option<String>,
    replayed: bool,
}

/// The payload of `realtime.broadcast_changes()`: see [`Broadcast::read_change`].
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(bound = "T: serde::de::DeserializeOwned")]
#[non_exhaustive]
pub struct DatabaseChange<T> {
    /// What happened to the row: `INSERT`, `UPDATE` or `DELETE`.
    pub operation: ChangeKind,
    /// The table's schema.
    pub schema: String,
    /// The table.
    pub table: String,
    /// The row as it is now; `None` after a delete.
    pub record: Option<T>,
    /// The row as it was; `None` after an insert.
    pub old_record: Option<T>,
}

/// What a [`BroadcastStream`] yields.
#[derive(Debug)]
#[non_exhaustive]
pub enum BroadcastEvent {
    /// A message.
    Message(Broadcast),
    /// Messages may have been missed before this point.
    Resync(ResyncReason),
    /// As many stored messages came as one join may request: before the first of them, there may have been more.
    Truncated,
    /// The reader was too slow: so many messages were dropped before this point.
    Lagged(u64),
    /// A message whose envelope makes no sense, as it came: its sender does not keep to the protocol.
    Malformed(String),
    /// Something failed that the client is trying again by itself. Nothing is to be done; a [`Resync`](Self::Resync) follows
    /// if something may have been missed.
    Interrupted(Error),
}

impl BroadcastEvent {
    /// The message, if it is one.
    pub fn into_message(self) -> Option<Broadcast> {
        match self {
            Self::Message(message) => Some(message),
            _ => None,
        }
    }
}

/// Broadcasts of one channel. An `Err` item is the last one: it states why there will be no more.
#[derive(Debug)]
#[must_use = "streams do nothing unless polled"]
pub struct BroadcastStream {
    subscription: Subscription,
    /// The event to receive; `None` for all.
    event: Option<String>,
    /// How many stored messages a join requests; unset if it requests none.
    replay_limit: Arc<OnceLock<u8>>,
    /// How many came since the last join.
    replayed: u8,
    /// The last ids seen: a stored message may come again after a reconnect.
    seen_ids: VecDeque<String>,
    /// Reported before the next message.
    truncated: bool,
}

/// Ids remembered; a join repeats no more than 25 messages.
const REMEMBERED: usize = 256;

impl Broadcast {
    /// The name the sender gave it.
    pub fn event(&self) -> &str {
        &self.event
    }

    /// The payload, if it is JSON: its text.
    pub fn json(&self) -> Option<&str> {
        match &self.payload {
            BroadcastPayload::Json(text) => Some(text.as_str()),
            BroadcastPayload::Binary(_) => None,
        }
    }

    /// The payload, if it is raw bytes.
    pub fn bytes(&self) -> Option<&Bytes> {
        match &self.payload {
            BroadcastPayload::Json(_) => None,
            BroadcastPayload::Binary(bytes) => Some(bytes),
        }
    }

    /// Reads a JSON payload as a type.
    ///
    /// # Errors
    /// [`Decode`](crate::ErrorKind::Decode) if it is not of that type, or no JSON.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, Error> {
        serde_json::from_str(self.json().unwrap_or_default())
            .map_err(|error| Error::decode("a broadcast", &error))
    }

    /// Reads the payload that `realtime.broadcast_changes()` makes in a trigger: a row change.
    ///
    /// # Errors
    /// [`Decode`](crate::ErrorKind::Decode) if it is no such payload, or the rows are not of that type.
    #[doc(alias = "broadcast_changes")]
    pub fn read_change<T: DeserializeOwned>(&self) -> Result<DatabaseChange<T>, Error> {
        self.read()
    }

    /// The id of a message that came from the database, or that its sender numbered.
    pub fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// Whether this is a stored message, delivered again.
    pub fn is_replayed(&self) -> bool {
        self.replayed
    }

    fn from_text(text: &Slice) -> Option<Self> {
        #[derive(Deserialize)]
        struct Envelope<'a> {
            #[serde(default)]
            event: String,
            #[serde(borrow)]
            payload: Option<&'a RawValue>,
            #[serde(borrow)]
            meta: Option<&'a RawValue>,
        }
        let envelope: Envelope<'_> = serde_json::from_str(text.as_str()).ok()?;
        let meta = Meta::read(envelope.meta.map(RawValue::get));
        Some(Self {
            event: envelope.event,
            payload: BroadcastPayload::Json(Slice::from(
                envelope.payload.map_or("null", RawValue::get).to_owned(),
            )),
            id: meta.id,
            replayed: meta.replayed,
        })
    }
}

#[derive(Deserialize, Default)]
struct Meta {
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    replayed: bool,
}

impl Meta {
    fn read(json: Option<&str>) -> Self {
        json.and_then(|json| serde_json::from_str(json).ok()).unwrap_or_default()
    }
}

impl BroadcastStream {
    pub(crate) fn new(
        subscription: Subscription,
        event: Option<String>,
        replay_limit: Arc<OnceLock<u8>>,
    ) -> Self {
        Self { subscription, event, replay_limit, replayed: 0, seen_ids: VecDeque::new(), truncated: false }
    }

    pub(crate) fn gauge(&self) -> Gauge {
        self.subscription.gauge()
    }

    /// Whether this message was seen before; records it.
    fn is_repetition(&mut self, message: &Broadcast) -> bool {
        let (Some(limit), Some(id)) = (self.replay_limit.get(), &message.id) else { return false };
        if message.replayed {
            self.replayed = self.replayed.saturating_add(1);
            self.truncated |= self.replayed == *limit;
        }
        if self.seen_ids.contains(id) {
            return true;
        }
        if self.seen_ids.len() == REMEMBERED {
            self.seen_ids.pop_front();
        }
        self.seen_ids.push_back(id.clone());
        false
    }

    fn understand(&mut self, delivery: Delivery) -> Option<Result<BroadcastEvent, Error>> {
        let message = match delivery {
            Delivery::BroadcastText(text) => match Broadcast::from_text(&text) {
                Some(message) => message,
                None => return Some(Ok(BroadcastEvent::Malformed(text.as_str().to_owned()))),
            },
            Delivery::Broadcast(broadcast) => {
                let UserBroadcast { event, metadata, payload } = *broadcast;
                let meta = Meta::read(metadata.as_deref());
                Broadcast { event, payload, id: meta.id, replayed: meta.replayed }
            }
            Delivery::Resync(reason) => {
                self.replayed = 0;
                return Some(Ok(BroadcastEvent::Resync(reason)));
            }
            Delivery::TransientError(error) => return Some(Ok(BroadcastEvent::Interrupted(error))),
            Delivery::End(error) => return Some(Err(error)),
            _ => return None,
        };
        if self.is_repetition(&message) {
            return None;
        }
        let wanted = self.event.as_ref().is_none_or(|event| *event == message.event);
        wanted.then_some(Ok(BroadcastEvent::Message(message)))
    }
}

impl Stream for BroadcastStream {
    type Item = Result<BroadcastEvent, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if std::mem::take(&mut self.truncated) {
                return Poll::Ready(Some(Ok(BroadcastEvent::Truncated)));
            }
            match std::task::ready!(self.subscription.poll_take(cx)) {
                None => return Poll::Ready(None),
                Some(Item::Lagged(count)) => return Poll::Ready(Some(Ok(BroadcastEvent::Lagged(count)))),
                Some(Item::Delivery(delivery)) => {
                    if let Some(event) = self.understand(delivery) {
                        return Poll::Ready(Some(event));
                    }
                }
            }
        }
    }
}
