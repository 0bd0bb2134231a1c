//! What the client says, and what is done about it.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Map, Value};

use super::Socket;
use crate::realtime::binary::BinaryPush;
use crate::realtime::channel::{Channel, PREFIX};
use crate::realtime::frame::{Incoming, Outgoing, Version};
use crate::realtime::rooms::Sound;

impl Socket {
    pub(super) async fn hear_text(&mut self, text: &str) {
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
                self.push(&topic, frame).await;
            }
            _ => self.send(&Outgoing::refusal(Value::Null, frame.reference, frame.topic, "unmatched topic")),
        }
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

    async fn push(&mut self, topic: &str, frame: Incoming) {
        match frame.event.as_str() {
            Some("access_token") => self.renew(topic, &frame.payload).await,
            Some("broadcast") => {
                // The real server cannot send on what is no object.
                let text = frame.payload.is_object().then(|| frame.payload.to_string());
                let size = text.as_ref().map_or(0, String::len);
                let sound = text.map(|text| Sound::Text(text.into()));
                self.broadcast(topic, frame.reference, size, sound).await;
            }
            Some("presence") => self.presence(topic, frame).await,
            // The real server counts and logs unknown events, and says nothing.
            _ => {}
        }
    }

    pub(super) async fn hear_binary(&mut self, frame: &Bytes) {
        if self.version == Version::V1 {
            return;
        }
        let Some(push) = BinaryPush::decode(frame) else { return };
        let reference = Value::from(push.reference);
        if self.channels.contains_key(&push.topic) {
            let size = push.broadcast.payload.len();
            let sound = Sound::Binary(Arc::new(push.broadcast));
            self.broadcast(&push.topic, reference, size, Some(sound)).await;
        } else {
            self.send(&Outgoing::refusal(Value::Null, reference, push.topic.into(), "unmatched topic"));
        }
    }

    /// Says something in the channel's room, if it is not too large and the channel may.
    async fn broadcast(&mut self, topic: &str, reference: Value, size: usize, sound: Option<Sound>) {
        // Who may not speak gets no answer either.
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
        if let Some(sound) = &sound {
            self.say(channel, sound);
        }
        if ack {
            self.send(&channel.reply(reference, "ok"));
        }
    }

    /// Says something in the channel's room; the channel's own echo first, before any answer.
    fn say(&self, channel: &Channel, sound: &Sound) {
        if channel.join.broadcast.echo && channel.pass.read.broadcast {
            self.pass_sound(channel, sound);
        }
        self.realtime.rooms.say(&channel.room(), Some(channel.id), sound);
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
                // From now on it counts as one that asked for presence; its token decides again when it changes.
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
