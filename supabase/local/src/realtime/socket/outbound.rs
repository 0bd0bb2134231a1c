//! What is sent to the client.

use axum::extract::ws::Message;
use tokio::time::Instant;

use super::Socket;
use super::writer::WriterCommand;
use crate::changes::{ChannelId, Notice};
use crate::fault::{Cut, Subject};
use crate::realtime::binary::BinaryBroadcast;
use crate::realtime::channel::{Channel, PREFIX};
use crate::realtime::frame::{Outgoing, Version};
use crate::realtime::rooms::{Delivery, RoomMessage};

impl Socket {
    /// Sends on what comes from the change feed; what is meant for a channel that ended is dropped.
    pub(super) fn pass_notice(&self, notice: Notice) {
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
                self.send(&channel.anonymous(event, payload));
            }
        }
    }

    /// Sends on what comes from a room.
    pub(super) fn pass_delivery(&mut self, delivery: &Delivery) {
        let Some(channel) = self.channel(delivery.channel) else { return };
        match &delivery.message {
            RoomMessage::Presence(_) if !channel.receives_presence() => return,
            RoomMessage::Text(_) | RoomMessage::Binary(_) if !channel.pass.read.broadcast => return,
            RoomMessage::Binary(message) => {
                // A message that was replayed a moment ago comes live as well.
                if message.id.as_ref().is_some_and(|id| channel.replayed.contains(id)) {
                    return;
                }
            }
            RoomMessage::Presence(_) | RoomMessage::Text(_) => {}
        }
        self.send_room_message(channel, &delivery.message);
        if let RoomMessage::Presence(_) = delivery.message {
            return;
        }
        self.realtime.events.add(1);
        if self.realtime.events.is_over() {
            let topic = channel.topic.clone();
            self.shut_down(&topic, "Too many messages per second");
        }
    }

    pub(super) fn send_room_message(&self, channel: &Channel, message: &RoomMessage) {
        match (message, self.version) {
            (RoomMessage::Presence(diff), _) => {
                self.send(&channel.anonymous("presence_diff", diff.to_string()));
            }
            (RoomMessage::Text(payload), _) => {
                self.send(&channel.anonymous("broadcast", payload.to_string()));
            }
            (RoomMessage::Binary(message), Version::V2) => self.send_binary(channel, message),
            (RoomMessage::Binary(message), Version::V1) => {
                if let Some(payload) = message.to_text() {
                    self.send(&channel.anonymous("broadcast", payload));
                }
            }
        }
    }

    /// A message of the past: JSON as text, and with the channel's own ref; bytes only for those who can read them.
    pub(super) fn pass_replayed(&self, channel: &Channel, message: &BinaryBroadcast) {
        if let Some(payload) = message.to_text() {
            self.send(&channel.push("broadcast", payload));
        } else if self.version == Version::V2 {
            self.send_binary(channel, message);
        }
    }

    /// Notifies a channel that messages of the database arrive from now on; or ends it, because they do not.
    pub(super) fn pass_readiness(&mut self, channel: ChannelId, ready: bool) {
        let Some(channel) = self.channel(channel) else { return };
        if ready {
            self.send(&channel.system("system", "ok", "Replication connection established"));
        } else {
            let topic = channel.topic.clone();
            self.shut_down(&topic, "Replication connection was not established in time");
        }
    }

    /// Announces the disconnect to each channel, as the server does when the project's settings change.
    pub(super) fn announce_disconnect(&self) {
        let payload = r#"{"message":"Server requested disconnect","status":"ok","extension":"system"}"#;
        for channel in self.channels.values() {
            self.send(&channel.anonymous("system", payload.to_owned()));
        }
    }

    pub(super) fn send(&self, frame: &Outgoing) {
        let topic = frame.topic.as_str().unwrap_or_default();
        self.send_message(&Message::Text(frame.encode(self.version).into()), topic, frame.event);
    }

    fn send_binary(&self, channel: &Channel, message: &BinaryBroadcast) {
        if let Some(frame) = message.encode(&channel.topic) {
            self.send_message(&Message::Binary(frame.into()), &channel.topic, "broadcast");
        }
    }

    /// Sends a frame, unless a fault changes that.
    fn send_message(&self, message: &Message, topic: &str, event: &str) {
        let outcome = self.realtime.faults.frame(|| {
            let channel = self.channels.get(topic).map(|channel| &channel.pass.claims);
            Subject {
                claims: channel.into_iter().chain([&self.credentials.claims]).collect(),
                topics: vec![topic.strip_prefix(PREFIX).unwrap_or(topic)],
                event: Some(event),
                ..Subject::default()
            }
        });
        if let Some(cut) = outcome.cut {
            return self.end(cut);
        }
        let due = (!outcome.delay.is_zero()).then(|| Instant::now() + outcome.delay);
        for _ in 0..outcome.copies {
            self.post(WriterCommand::Frame { message: message.clone(), due, held_by: outcome.stall });
        }
    }

    /// Ends the socket after what was sent before.
    pub(super) fn end(&self, cut: Cut) {
        self.post(WriterCommand::End(cut));
    }

    fn post(&self, command: WriterCommand) {
        // The writer is gone only when the socket is; the reader will see that.
        let _ = self.out.send(command);
    }
}
