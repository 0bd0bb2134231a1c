//! Broadcasts over HTTP: for those who send now and then and listen to nothing.

use bytes::Bytes;
use reqwest::{
    Method,
    header::{CONTENT_TYPE, HeaderMap, HeaderValue},
};
use serde::Serialize;
use serde_json::Value;
use url::Url;

use crate::{
    endpoint::Endpoint,
    error::{Error, ErrorKind},
    rest::{Parts, Rest, encoded_segment},
    wire::channel_name,
};

/// Sends broadcasts without a websocket; see [`Client::broadcast_api`](crate::Client::broadcast_api).
#[derive(Debug, Clone)]
pub struct BroadcastApi {
    rest: Rest,
    address: String,
}

/// One message of a [batch](BroadcastApi::send_batch).
#[derive(Debug, Clone, Serialize)]
pub struct BroadcastMessage {
    topic: String,
    event: String,
    payload: Value,
    private: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
}

impl BroadcastMessage {
    /// A message to a public channel. The payload must be a JSON object.
    pub fn new(topic: impl Into<String>, event: impl Into<String>, payload: Value) -> Self {
        Self {
            topic: channel_name(&topic.into()).to_owned(),
            event: event.into(),
            payload,
            private: false,
            id: None,
        }
    }

    /// To the private channel of that name instead.
    #[must_use]
    pub fn private(mut self, private: bool) -> Self {
        self.private = private;
        self
    }

    /// A number of the sender's own, which the readers find as [`Broadcast::id`](crate::Broadcast::id).
    #[must_use]
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }
}

impl BroadcastApi {
    pub(crate) fn new(rest: Rest, endpoint: &Endpoint) -> Self {
        Self { rest, address: endpoint.broadcast() }
    }

    /// Sends a JSON payload to one channel. Unlike a batch, a private channel without the right to write is an error.
    ///
    /// # Errors
    /// [`Postgrest`](ErrorKind::Postgrest): 403 without the right to write, 404 from servers too old for this, 422 for a payload over the
    /// limit, 429 over the project's rate.
    pub async fn send<P: Serialize + ?Sized>(
        &self,
        topic: &str,
        event: &str,
        payload: &P,
        private: bool,
    ) -> Result<(), Error> {
        let body = serde_json::to_vec(payload).map_err(|error| Error::unserializable("payload", &error))?;
        self.send_one(topic, event, Bytes::from(body), "application/json", private).await
    }

    /// Sends raw bytes to one channel. Only subscribers that use version 2 of the protocol receive them.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub async fn send_bytes(
        &self,
        topic: &str,
        event: &str,
        bytes: impl Into<Bytes>,
        private: bool,
    ) -> Result<(), Error> {
        self.send_one(topic, event, bytes.into(), "application/octet-stream", private).await
    }

    /// Sends several messages in one request. Messages to private channels without the right to write are left out silently:
    /// so the server does it.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) for an empty topic or event or a payload that is no object;
    /// [`Postgrest`](ErrorKind::Postgrest) as [`send`](Self::send).
    pub async fn send_batch(&self, messages: &[BroadcastMessage]) -> Result<(), Error> {
        for message in messages {
            checked(&message.topic, &message.event)?;
            if !message.payload.is_object() {
                return Err(Error::invalid("payload", "a broadcast carries a JSON object"));
            }
        }
        let body = serde_json::json!({ "messages": messages }).to_string();
        let url = parse(&self.address)?;
        self.post(url, Bytes::from(body), "application/json").await
    }

    async fn send_one(
        &self,
        topic: &str,
        event: &str,
        body: Bytes,
        content_type: &'static str,
        private: bool,
    ) -> Result<(), Error> {
        let topic = channel_name(topic);
        checked(topic, event)?;
        for (what, name) in [("topic", topic), ("event", event)] {
            if matches!(name, "." | "..") {
                return Err(Error::invalid(
                    what,
                    format!("no URL can carry the name `{name}`: use `send_batch`"),
                ));
            }
        }
        let (topic, event) = (encoded_segment(topic), encoded_segment(event));
        let mut url = parse(&format!("{}/{topic}/events/{event}", self.address.trim_end_matches('/')))?;
        url.query_pairs_mut().append_pair("private", if private { "true" } else { "false" });
        self.post(url, body, content_type).await
    }

    async fn post(&self, url: Url, body: Bytes, content_type: &'static str) -> Result<(), Error> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        let parts = Parts { method: Method::POST, url, headers, body, idempotent: false };
        self.rest.send(parts).await.map(drop)
    }
}

fn parse(address: &str) -> Result<Url, Error> {
    Url::parse(address).map_err(|error| {
        Error::with_source(
            ErrorKind::InvalidInput { field: "url", reason: "it cannot be extended".to_owned() },
            error,
        )
    })
}

fn checked(topic: &str, event: &str) -> Result<(), Error> {
    if topic.is_empty() {
        return Err(Error::invalid("topic", "it is empty"));
    }
    if event.is_empty() {
        return Err(Error::invalid("event", "it is empty"));
    }
    Ok(())
}
