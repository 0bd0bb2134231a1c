//! What the client sends, and what is done about it.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Map, Value};

use super::Socket;
use crate::realtime::binary::BinaryPush;
use crate::realtime::channel::{Channel, PREFIX};
use crate::realtime::frame::{Incoming, Outgoing, Version};
use crate::realtime::rooms::RoomMessage;

impl Socket {
    pub(super) async fn receive_text(&mut self, text: &str) {
        // What is no frame is ignored; the socket stays open.
        if let Some(frame) = Incoming::decode(self.version, text) {
            self.receive(frame).await;
        }
    }

    async fn receive(&mut self, frame: Incoming) {
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
                self.push(&topic, frame).await;
            }
            _ => self.send(&Outgoing::refusal(Value::Null, frame.reference, frame.topic, "unmatched topic")),
        }
    }

    fn leave(&mut self, topic: &str, frame: Incoming) {
        let Some(channel) = self.channels.get(topic) else {
            return self.send(&Outgoing::reply(frame.join_ref, frame.reference, frame.topic, "ok", "{}"));
        };
        // A late leave of an earlier join is not meant for this one.
        if frame.join_ref.is_null() || frame.join_ref == channel.join_ref {
            self.send(&channel.reply(frame.reference, "ok"));
            self.close(topic);
        }
    }

    async fn push(&mut self, topic: &str, frame: Incoming) {
        match frame.event.as_str() {
            Some("access_token") => self.renew(topic, &frame.payload).await,
            Some("broadcast") => {
                // The real server cannot send on what is no object.
                let text = frame.payload.is_object().then(|| frame.payload.to_string());
                let size = text.as_ref().map_or(0, String::len);
                let message = text.map(|text| RoomMessage::Text(text.into()));
                self.broadcast(topic, frame.reference, size, message).await;
            }
            Some("presence") => self.presence(topic, frame).await,
            // The real server counts and logs unknown events, and answers nothing.
            _ => {}
        }
    }

    pub(super) async fn receive_binary(&mut self, frame: &Bytes) {
        if self.version == Version::V1 {
            return;
        }
        let Some(push) = BinaryPush::decode(frame) else { return };
        let reference = Value::from(push.reference);
        if self.channels.contains_key(&push.topic) {
            let size = push.broadcast.payload.len();
            let message = RoomMessage::Binary(Arc::new(push.broadcast));
            self.broadcast(&push.topic, reference, size, Some(message)).await;
        } else {
            self.send(&Outgoing::refusal(Value::Null, reference, push.topic.into(), "unmatched topic"));
        }
    }

    /// Sends a message to the channel's room, if it is not too large and the channel may.
    async fn broadcast(&mut self, topic: &str, reference: Value, size: usize, message: Option<RoomMessage>) {
        // A channel that may not send gets no answer either.
        if !self.may_write(topic).await.broadcast {
            return;
        }
        let Some(channel) = self.channels.get(topic) else { return };
        let ack = channel.join.broadcast.ack;
        if self.realtime.options.is_too_large(size) {
            if ack {
                self.send(&channel.reply_with(reference, "error", r#""payload_size_exceeded""#));
            }
            return;
        }
        self.realtime.events.add(1);
        if let Some(message) = &message {
            self.send_to_room(channel, message);
        }
        if ack {
            self.send(&channel.reply(reference, "ok"));
        }
    }

    /// Sends a message to the channel's room; the channel's own echo first, before any answer.
    fn send_to_room(&self, channel: &Channel, message: &RoomMessage) {
        if channel.join.broadcast.echo && channel.pass.read.broadcast {
            self.send_room_message(channel, message);
        }
        self.realtime.rooms.send(&channel.room(), Some(channel.id), message);
    }

    async fn presence(&mut self, topic: &str, frame: Incoming) {
        let event = frame.payload.get("event").and_then(Value::as_str).map(str::to_lowercase);
        let Some(channel) = self.channels.get_mut(topic) else { return };
        let payload = match (event.as_deref(), frame.payload.get("payload")) {
            (None, _) => return self.reply(topic, frame.reference, "ok", "{}"),
            (Some("untrack"), _) => None,
            (Some("track"), None) => Some(Map::new()),
            (Some("track"), Some(Value::Object(payload))) => Some(payload.clone()),
            (Some("track"), Some(_)) => {
                let response = r#"{"reason":"Presence track payload must be a map"}"#;
                return self.reply(topic, frame.reference, "error", response);
            }
            _ => return self.reply(topic, frame.reference, "error", "{}"),
        };
        if !channel.may_call_presence() {
            return self.shut_down(topic, "Client presence rate limit exceeded");
        }
        self.realtime.calls.add(1);
        if self.realtime.calls.is_over() {
            return self.shut_down(topic, "Too many presence messages per second");
        }
        if !self.may_write(topic).await.presence {
            return self.reply(topic, frame.reference, "error", "{}");
        }
        let Some(channel) = self.channels.get_mut(topic) else { return };
        match payload {
            Some(payload) => {
                let size = Value::Object(payload.clone()).to_string().len();
                if self.realtime.options.is_too_large(size) {
                    return self.shut_down(topic, "Track message size exceeded");
                }
                // From now on it counts as one that requested presence; its token decides again when it changes.
                channel.join.presence = true;
                channel.track(payload);
            }
            None => channel.untrack(),
        }
        self.reply(topic, frame.reference, "ok", "{}");
    }

    fn reply(&self, topic: &str, reference: Value, status: &str, response: &str) {
        if let Some(channel) = self.channels.get(topic) {
            self.send(&channel.reply_with(reference, status, response));
        }
    }
}
