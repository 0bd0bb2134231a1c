//! The rooms of a stack: their members, and who is present.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Map, Value};
use tokio::sync::mpsc;

use super::binary::BinaryBroadcast;
use super::presence::Presence;
use crate::changes::ChannelId;

/// A public and a private channel of one name are two rooms.
pub(crate) type RoomName = (String, bool);

/// What is sent in a room.
#[derive(Debug, Clone)]
pub(crate) enum RoomMessage {
    /// A broadcast, as JSON text of its whole payload.
    Text(Arc<str>),
    /// A broadcast in its parts, because each protocol version encodes it in its own way.
    Binary(Arc<BinaryBroadcast>),
    /// JSON text: who joined and who left.
    Presence(Arc<str>),
}

/// A message on its way to one channel of a socket.
#[derive(Debug, Clone)]
pub(crate) struct Delivery {
    pub(crate) channel: ChannelId,
    pub(crate) message: RoomMessage,
}

/// Where a socket's deliveries go.
pub(crate) type DeliverySender = mpsc::UnboundedSender<Delivery>;

/// All rooms that have members.
#[derive(Debug, Default)]
pub(crate) struct Rooms {
    rooms: Mutex<HashMap<RoomName, Room>>,
}

#[derive(Debug, Default)]
struct Room {
    members: Vec<(ChannelId, DeliverySender)>,
    presence: Presence,
}

impl Room {
    /// Sends to all members but the sender.
    fn send(&self, sender: Option<ChannelId>, message: &RoomMessage) {
        for (channel, deliveries) in self.members.iter().filter(|(member, _)| Some(*member) != sender) {
            // A socket that is about to leave needs no delivery.
            let _ = deliveries.send(Delivery { channel: *channel, message: message.clone() });
        }
    }

    fn send_diff(&self, diff: Option<String>) {
        if let Some(diff) = diff {
            self.send(None, &RoomMessage::Presence(diff.into()));
        }
    }
}

impl Rooms {
    /// Adds a channel, and gives the payload of `presence_state`: the channel receives everything that comes after it.
    pub(crate) fn enter(&self, room: RoomName, channel: ChannelId, deliveries: DeliverySender) -> String {
        let mut rooms = self.rooms();
        let room = rooms.entry(room).or_default();
        room.members.push((channel, deliveries));
        room.presence.state()
    }

    /// Removes a channel; the others are notified that it is not present any more.
    pub(crate) fn leave(&self, name: &RoomName, channel: ChannelId) {
        let mut rooms = self.rooms();
        if let Some(room) = rooms.get_mut(name) {
            room.members.retain(|(member, _)| *member != channel);
            let diff = room.presence.untrack(channel);
            room.send_diff(diff);
            if room.members.is_empty() {
                rooms.remove(name);
            }
        }
    }

    /// Sends to all members of the room but the sender.
    pub(crate) fn send(&self, room: &RoomName, sender: Option<ChannelId>, message: &RoomMessage) {
        if let Some(room) = self.rooms().get(room) {
            room.send(sender, message);
        }
    }

    /// Makes a channel present under a key, or changes what it shows of itself.
    pub(crate) fn track(&self, room: &RoomName, channel: ChannelId, key: &str, payload: Map<String, Value>) {
        if let Some(room) = self.rooms().get_mut(room) {
            let diff = room.presence.track(channel, key, payload);
            room.send_diff(diff);
        }
    }

    /// Makes a channel absent.
    pub(crate) fn untrack(&self, room: &RoomName, channel: ChannelId) {
        if let Some(room) = self.rooms().get_mut(room) {
            let diff = room.presence.untrack(channel);
            room.send_diff(diff);
        }
    }

    fn rooms(&self) -> MutexGuard<'_, HashMap<RoomName, Room>> {
        self.rooms.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
