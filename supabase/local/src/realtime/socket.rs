//! The task of one socket: reads frames, keeps the joined channels, and ends.
//!
//! A second task writes, so that a client that does not read never holds up this one.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, WebSocket};
use futures_util::{SinkExt as _, StreamExt as _, stream::SplitSink};
use serde_json::Value;
use tokio::sync::{broadcast, mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::Realtime;
use super::binary::BinaryPush;
use super::channel::{Channel, PREFIX};
use super::frame::{Incoming, Outgoing, Version};
use super::join::Join;
use super::rooms::{Broadcast, Delivery, Ear};
use crate::changes::{ChannelId, Mailbox, Notice};
use crate::fault::{Blow, Cut};
use crate::jwt::{Claims, JwtError};

/// Channels one socket may have.
const MAX_CHANNELS: usize = 100;

/// How long a closing handshake may take.
const FAREWELL: Duration = Duration::from_secs(1);

/// What a socket was let in with.
#[derive(Debug)]
pub(crate) struct Credentials {
    pub(crate) token: String,
    pub(crate) claims: Claims,
}

/// The state of one socket.
struct Socket {
    realtime: Arc<Realtime>,
    version: Version,
    credentials: Credentials,
    channels: HashMap<String, Channel>,
    /// To the writing task.
    out: mpsc::UnboundedSender<Message>,
    /// Where the change feed writes to.
    mailbox: Mailbox,
    /// Where rooms speak to.
    ear: Ear,
}

/// Serves a socket until it ends.
pub(crate) async fn run(
    websocket: WebSocket,
    realtime: Arc<Realtime>,
    version: Version,
    credentials: Credentials,
) {
    let (sink, mut frames) = websocket.split();
    let (out, messages) = mpsc::unbounded_channel();
    let (mailbox, mut notices) = mpsc::unbounded_channel();
    let (ear, mut deliveries) = mpsc::unbounded_channel();
    let (mut blows, mut stalled) = (realtime.faults.blows(), realtime.faults.stalled());
    let writer = tokio::spawn(write(sink, messages, realtime.faults.stalled()));
    let idle = realtime.options.idle_timeout;
    let mut last_heard = Instant::now();
    let mut socket = Socket {
        realtime: Arc::clone(&realtime),
        version,
        credentials,
        channels: HashMap::new(),
        out,
        mailbox,
        ear,
    };
    let end = loop {
        let deaf = *stalled.borrow_and_update();
        let expiry = Instant::now() + socket.next_expiry();
        tokio::select! {
            frame = frames.next(), if !deaf => {
                last_heard = Instant::now();
                match frame {
                    Some(Ok(Message::Text(text))) => socket.hear_text(text.as_str()).await,
                    Some(Ok(Message::Binary(bytes))) => socket.hear_binary(&bytes),
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                    // The peer said goodbye, broke off, or sent what no websocket sends.
                    Some(Ok(Message::Close(_)) | Err(_)) | None => break Cut::Abrupt,
                }
            }
            Some(notice) = notices.recv() => socket.pass_notice(notice),
            Some(delivery) = deliveries.recv() => socket.pass_delivery(&delivery),
            blow = blows.recv() => match blow {
                Ok(Blow::Cut(cut)) => break cut,
                Ok(Blow::Expire) => socket.expire_all(),
                // Blows were missed or cannot come any more; neither ends a socket.
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => break Cut::Abrupt,
            },
            _ = stalled.changed() => {}
            () = sleep_until(expiry), if !deaf => socket.expire(),
            () = sleep_until(last_heard + idle), if !deaf => break Cut::Close(1000),
            () = realtime.stop.cancelled() => break Cut::Close(1012),
        }
    };
    // Leaves all rooms and the change feed.
    socket.channels.clear();
    match end {
        Cut::Abrupt => writer.abort(),
        Cut::Close(code) => {
            let _ = socket.out.send(Message::Close(Some(CloseFrame { code, reason: "".into() })));
            drop(socket);
            let farewell = async {
                // The writer ends with the close frame; the peer answers it.
                let _ = writer.await;
                while let Some(Ok(_)) = frames.next().await {}
            };
            let _ = timeout(FAREWELL, farewell).await;
        }
    }
}

/// Writes messages in their order; waits while sockets are stalled.
async fn write(
    mut sink: SplitSink<WebSocket, Message>,
    mut messages: mpsc::UnboundedReceiver<Message>,
    mut stalled: watch::Receiver<bool>,
) {
    while let Some(message) = messages.recv().await {
        // An error means that the stack is gone: then nothing stalls any more.
        let _ = stalled.wait_for(|stalled| !stalled).await;
        if sink.send(message).await.is_err() {
            return;
        }
    }
}

impl Socket {
    async fn hear_text(&mut self, text: &str) {
        // What is no frame is ignored; the socket lives on.
        if let Some(frame) = Incoming::decode(self.version, text) {
            self.hear(frame).await;
        }
    }

    async fn hear(&mut self, frame: Incoming) {
        let (topic, event) = (frame.topic.as_str(), frame.event.as_str());
        match (topic, event) {
            (Some("phoenix"), Some("heartbeat")) => {
                self.send(&Outgoing::reply(Value::Null, frame.reference, frame.topic, "ok", "{}"));
            }
            (Some(topic), Some("phx_join")) if topic.starts_with(PREFIX) => {
                let topic = topic.to_owned();
                self.join(topic, frame).await;
            }
            (Some(topic), Some("phx_leave")) => {
                let topic = topic.to_owned();
                self.leave(&topic, frame);
            }
            (Some(topic), _) if self.channels.contains_key(topic) => {
                let topic = topic.to_owned();
                self.push(&topic, frame);
            }
            _ => self.send(&Outgoing::refusal(Value::Null, frame.reference, frame.topic, "unmatched topic")),
        }
    }

    async fn join(&mut self, topic: String, frame: Incoming) {
        match self.admit(&topic, &frame.payload) {
            Ok((join, credentials)) => {
                let refs = (frame.join_ref, frame.reference.clone());
                let channel =
                    Channel::enter(&self.realtime, topic.clone(), refs, join, credentials, self.ear.clone());
                // The new channel's answer comes before the old one's end.
                self.send(&channel.joined(frame.reference));
                if channel.join.presence {
                    self.send(&channel.presence_state());
                }
                channel.subscribe(&self.mailbox, Duration::ZERO);
                if let Some(old) = self.channels.insert(topic, channel) {
                    self.send(&old.closed());
                }
            }
            Err(reason) => {
                // As in the real server, nothing else on this socket is heard meanwhile.
                sleep(self.realtime.options.join_error_delay).await;
                self.send(&Outgoing::refusal(frame.join_ref, frame.reference, frame.topic, &reason));
                if let Some(old) = self.channels.remove(&topic) {
                    self.send(&old.closed());
                }
            }
        }
    }

    /// The join and the token it goes on, or the reason of its refusal.
    fn admit(&self, topic: &str, payload: &Value) -> Result<(Join, (String, Claims)), String> {
        let join = Join::parse(topic.strip_prefix(PREFIX).unwrap_or_default(), payload)?;
        if self.channels.len() >= MAX_CHANNELS && !self.channels.contains_key(topic) {
            return Err("ChannelRateLimitReached: Too many channels".to_owned());
        }
        let (token, claims) = match &join.token {
            Some(token) => (token.clone(), self.realtime.keys.jwt().decode(token)),
            None => (self.credentials.token.clone(), Ok(self.credentials.claims.clone())),
        };
        let claims = claims.and_then(|claims| claims.check().map(|()| claims)).map_err(join_refusal)?;
        Ok((join, (token, claims)))
    }

    fn leave(&mut self, topic: &str, frame: Incoming) {
        let Some(channel) = self.channels.get(topic) else {
            return self.send(&Outgoing::reply(frame.join_ref, frame.reference, frame.topic, "ok", "{}"));
        };
        // A late goodbye of an earlier incarnation is not meant for this one.
        if frame.join_ref.is_null() || frame.join_ref == channel.join_ref {
            self.send(&channel.reply(frame.reference, "ok"));
            self.close(topic);
        }
    }

    fn push(&mut self, topic: &str, frame: Incoming) {
        let Some(channel) = self.channels.get(topic) else { return };
        match frame.event.as_str() {
            Some("access_token") => self.renew(topic, &frame.payload),
            Some("broadcast") => {
                if frame.payload.is_object() {
                    self.say(channel, &Broadcast::Text(frame.payload.to_string()));
                }
                if channel.join.broadcast.ack {
                    self.send(&channel.reply(frame.reference, "ok"));
                }
            }
            Some("presence") => self.send(&channel.reply(frame.reference, "error")),
            // The real server counts and logs unknown events, and says nothing.
            _ => {}
        }
    }

    fn hear_binary(&mut self, frame: &bytes::Bytes) {
        if self.version == Version::V1 {
            return;
        }
        let Some(push) = BinaryPush::decode(frame) else { return };
        let reference = Value::from(push.reference);
        match self.channels.get(&push.topic) {
            Some(channel) => {
                self.say(channel, &Broadcast::Binary(push.broadcast));
                if channel.join.broadcast.ack {
                    self.send(&channel.reply(reference, "ok"));
                }
            }
            None => {
                self.send(&Outgoing::refusal(Value::Null, reference, push.topic.into(), "unmatched topic"));
            }
        }
    }

    /// Says something in the channel's room; the channel's own echo first, before any answer.
    fn say(&self, channel: &Channel, broadcast: &Broadcast) {
        if channel.join.broadcast.echo {
            self.pass_broadcast(channel, broadcast);
        }
        self.realtime.rooms.say(&channel.room(), channel.id, broadcast);
    }

    /// A token pushed to a channel. No answer if it is good; the end of the channel if it is not.
    fn renew(&mut self, topic: &str, payload: &Value) {
        let Some(token) = payload.get("access_token").and_then(Value::as_str) else { return };
        let Some(channel) = self.channels.get_mut(topic) else { return };
        if token.starts_with("sb_") || token == channel.token {
            return;
        }
        let claims =
            self.realtime.keys.jwt().decode(token).and_then(|claims| claims.check().map(|()| claims));
        match claims {
            Ok(claims) => {
                token.clone_into(&mut channel.token);
                channel.claims = claims;
                channel.subscribe(&self.mailbox, self.realtime.options.resubscribe_delay);
            }
            Err(error) => self.end_by_token(topic, error),
        }
    }

    fn next_expiry(&self) -> Duration {
        self.channels.values().map(Channel::expires_in).min().unwrap_or(Duration::from_secs(300))
    }

    /// Ends the channels whose token has run out.
    fn expire(&mut self) {
        let expired = self
            .channels
            .values()
            .filter_map(|channel| Some((channel.topic.clone(), channel.claims.check().err()?)));
        for (topic, error) in expired.collect::<Vec<_>>() {
            self.end_by_token(&topic, error);
        }
    }

    /// Ends all channels as if their tokens had just run out.
    fn expire_all(&mut self) {
        let topics: Vec<String> = self.channels.keys().cloned().collect();
        for topic in topics {
            self.end_by_token(&topic, JwtError::Expired { seconds_ago: 0 });
        }
    }

    fn end_by_token(&mut self, topic: &str, error: JwtError) {
        if let Some(channel) = self.channels.get(topic) {
            self.send(&channel.token_refused(error));
            self.close(topic);
        }
    }

    fn close(&mut self, topic: &str) {
        if let Some(channel) = self.channels.remove(topic) {
            self.send(&channel.closed());
        }
    }

    /// Passes on what the change feed says; what is meant for a channel that ended is dropped.
    fn pass_notice(&self, notice: Notice) {
        match notice {
            Notice::Subscribed { channel, result } => {
                let Some(channel) = self.channel(channel) else { return };
                let (status, message) = match &result {
                    Ok(()) => ("ok", "Subscribed to PostgreSQL"),
                    Err(refusal) => ("error", refusal.as_str()),
                };
                self.send(&channel.system("postgres_changes", status, message));
            }
            Notice::Changed { channel, operation, data, ids } => {
                let Some(channel) = self.channel(channel) else { return };
                let (event, payload) = if channel.join.legacy {
                    (operation, data.to_string())
                } else {
                    let ids: Vec<String> = ids.iter().map(u32::to_string).collect();
                    ("postgres_changes", format!(r#"{{"data":{data},"ids":[{}]}}"#, ids.join(",")))
                };
                self.send_anonymous(channel, event, payload);
            }
        }
    }

    fn pass_delivery(&self, delivery: &Delivery) {
        if let Some(channel) = self.channel(delivery.channel) {
            self.pass_broadcast(channel, &delivery.broadcast);
        }
    }

    fn pass_broadcast(&self, channel: &Channel, broadcast: &Broadcast) {
        match (broadcast, self.version) {
            (Broadcast::Text(payload), _) => self.send_anonymous(channel, "broadcast", payload.clone()),
            (Broadcast::Binary(binary), Version::V2) => {
                if let Some(frame) = binary.encode(&channel.topic) {
                    self.send_message(Message::Binary(frame.into()));
                }
            }
            (Broadcast::Binary(binary), Version::V1) => {
                if let Some(payload) = binary.to_text() {
                    self.send_anonymous(channel, "broadcast", payload);
                }
            }
        }
    }

    fn channel(&self, id: ChannelId) -> Option<&Channel> {
        self.channels.values().find(|channel| channel.id == id)
    }

    /// A frame without refs, as the real server sends what goes to many.
    fn send_anonymous(&self, channel: &Channel, event: &'static str, payload: String) {
        let topic = channel.topic.as_str().into();
        self.send(&Outgoing { join_ref: Value::Null, reference: Value::Null, topic, event, payload });
    }

    fn send(&self, frame: &Outgoing) {
        self.send_message(Message::Text(frame.encode(self.version).into()));
    }

    fn send_message(&self, message: Message) {
        // The writer is gone only when the socket is; the reader will see that.
        let _ = self.out.send(message);
    }
}

/// The reason of a join refused for its token.
fn join_refusal(error: JwtError) -> String {
    let code = match error {
        JwtError::Malformed => "MalformedJWT",
        JwtError::Signature => "JwtSignatureError",
        JwtError::Signer => "JwtSignerError",
        JwtError::MissingClaims | JwtError::Expired { .. } => "InvalidJWTToken",
    };
    format!("{code}: {error}")
}
