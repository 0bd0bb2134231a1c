//! Messages of both protocol versions.

use bytes::Bytes;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

/// The serializer a client requested.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    V1,
    V2,
}

/// From a client.
#[derive(Debug)]
pub(crate) struct Inbound {
    pub(crate) join_ref: Option<String>,
    pub(crate) reference: Option<String>,
    pub(crate) topic: String,
    pub(crate) event: String,
    pub(crate) payload: Value,
    /// The raw bytes of a binary broadcast.
    pub(crate) bytes: Option<Bytes>,
}

/// To a client.
#[derive(Debug, Clone)]
pub(crate) struct Outbound {
    pub(crate) join_ref: Option<String>,
    pub(crate) reference: Option<String>,
    pub(crate) topic: String,
    pub(crate) event: String,
    pub(crate) payload: Value,
}

impl Outbound {
    pub(crate) fn new(topic: &str, event: &str, payload: Value) -> Self {
        Self { join_ref: None, reference: None, topic: topic.to_owned(), event: event.to_owned(), payload }
    }

    pub(crate) fn of(mut self, join_ref: Option<&str>) -> Self {
        self.join_ref = join_ref.map(str::to_owned);
        self
    }

    pub(crate) fn answering(mut self, reference: Option<&str>) -> Self {
        self.reference = reference.map(str::to_owned);
        self
    }

    pub(crate) fn encode(&self, version: Version) -> Message {
        let Self { join_ref, reference, topic, event, payload } = self;
        let text = match version {
            Version::V2 => json!([join_ref, reference, topic, event, payload]).to_string(),
            Version::V1 => {
                json!({"topic": topic, "event": event, "payload": payload, "ref": reference}).to_string()
            }
        };
        Message::text(text)
    }
}

/// A broadcast in binary framing (kind 4).
pub(crate) fn binary_broadcast(topic: &str, event: &str, meta: &str, json: bool, payload: &[u8]) -> Message {
    let length = |text: &str| u8::try_from(text.len()).unwrap_or(u8::MAX);
    let mut frame = vec![4, length(topic), length(event), length(meta), u8::from(json)];
    for text in [topic, event, meta] {
        frame.extend_from_slice(text.as_bytes());
    }
    frame.extend_from_slice(payload);
    Message::binary(frame)
}

/// `None` for what makes no sense; a real server drops it silently.
pub(crate) fn decode(message: &Message) -> Option<Inbound> {
    match message {
        Message::Text(text) => text_frame(text.as_str()),
        Message::Binary(frame) => binary_frame(frame),
        _ => None,
    }
}

fn text_frame(text: &str) -> Option<Inbound> {
    let string = |value: &Value| value.as_str().map(str::to_owned);
    match serde_json::from_str(text).ok()? {
        Value::Array(parts) => Some(Inbound {
            join_ref: string(parts.first()?),
            reference: string(parts.get(1)?),
            topic: string(parts.get(2)?)?,
            event: string(parts.get(3)?)?,
            payload: parts.get(4)?.clone(),
            bytes: None,
        }),
        Value::Object(parts) => Some(Inbound {
            join_ref: parts.get("join_ref").and_then(string),
            reference: parts.get("ref").and_then(string),
            topic: string(parts.get("topic")?)?,
            event: string(parts.get("event")?)?,
            payload: parts.get("payload")?.clone(),
            bytes: None,
        }),
        _ => None,
    }
}

/// Kind 3: a broadcast of raw bytes or of JSON.
fn binary_frame(frame: &Bytes) -> Option<Inbound> {
    let header: &[u8] = frame.get(..7)?;
    let [3, join_ref, reference, topic, event, meta, encoding] = *header else { return None };
    let mut at = 7;
    let mut name = |length: u8| {
        let text = std::str::from_utf8(frame.get(at..at + usize::from(length))?).ok()?.to_owned();
        at += usize::from(length);
        Some(text)
    };
    let (join_ref, reference) = (name(join_ref)?, name(reference)?);
    let (topic, event, _meta) = (name(topic)?, name(event)?, name(meta)?);
    let rest = frame.slice(at..);
    let (payload, bytes) = if encoding == 0 {
        (json!(rest.to_vec()), Some(rest))
    } else {
        (serde_json::from_slice(&rest).ok()?, None)
    };
    Some(Inbound {
        join_ref: Some(join_ref),
        reference: Some(reference),
        topic,
        event: "broadcast".to_owned(),
        payload: json!({"type": "broadcast", "event": event, "payload": payload}),
        bytes,
    })
}
