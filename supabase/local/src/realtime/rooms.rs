//! The rooms of a stack: who hears whom, and who is present.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Map, Value};
use tokio::sync::mpsc;

use super::binary::BinaryBroadcast;
use super::presence::Presence;
use crate::changes::ChannelId;

/// A public and a private channel of one name are two rooms.
pub(crate) type RoomName = (String, bool);

/// What is heard in a room.
#[derive(Debug, Clone)]
pub(crate) enum Sound {
    /// A broadcast, as JSON text of its whole payload.
    Text(Arc<str>),
    /// A broadcast that is kept in pieces, because each language spells it in its own way.
    Binary(Arc<BinaryBroadcast>),
    /// JSON text: who came and who went.
    Presence(Arc<str>),
}

/// A sound on its way to one channel of a socket.
#[derive(Debug, Clone)]
pub(crate) struct Delivery {
    pub(crate) channel: ChannelId,
    pub(crate) sound: Sound,
}

/// Where a socket's deliveries go.
pub(crate) type Ear = mpsc::UnboundedSender<Delivery>;

/// All rooms with somebody inside.
#[derive(Debug, Default)]
pub(crate) struct Rooms {
    rooms: Mutex<HashMap<RoomName, Room>>,
}

#[derive(Debug, Default)]
struct Room {
    members: Vec<(ChannelId, Ear)>,
    presence: Presence,
}

impl Room {
    /// Tells everybody inside but the speaker.
    fn say(&self, speaker: Option<ChannelId>, sound: &Sound) {
        for (channel, ear) in self.members.iter().filter(|(member, _)| Some(*member) != speaker) {
            // A socket that is about to leave needs no delivery.
            let _ = ear.send(Delivery { channel: *channel, sound: sound.clone() });
        }
    }

    fn tell(&self, diff: Option<String>) {
        if let Some(diff) = diff {
            self.say(None, &Sound::Presence(diff.into()));
        }
    }
}

impl Rooms {
    /// Lets a channel in, and gives the payload of `presence_state`: what comes after it, the channel hears.
    pub(crate) fn enter(&self, room: RoomName, channel: ChannelId, ear: Ear) -> String {
        let mut rooms = self.rooms();
        let room = rooms.entry(room).or_default();
        room.members.push((channel, ear));
        room.presence.state()
    }

    /// Lets a channel out; the others hear that it is not present any more.
    pub(crate) fn leave(&self, name: &RoomName, channel: ChannelId) {
        let mut rooms = self.rooms();
        if let Some(room) = rooms.get_mut(name) {
            room.members.retain(|(member, _)| *member != channel);
            let diff = room.presence.untrack(channel);
            room.tell(diff);
            if room.members.is_empty() {
                rooms.remove(name);
            }
        }
    }

    /// Tells everybody in the room but the speaker.
    pub(crate) fn say(&self, room: &RoomName, speaker: Option<ChannelId>, sound: &Sound) {
        if let Some(room) = self.rooms().get(room) {
            room.say(speaker, sound);
        }
    }

    /// Makes a channel present under a key, or changes what it shows of itself.
    pub(crate) fn track(&self, room: &RoomName, channel: ChannelId, key: &str, payload: Map<String, Value>) {
        if let Some(room) = self.rooms().get_mut(room) {
            let diff = room.presence.track(channel, key, payload);
            room.tell(diff);
        }
    }

    /// Makes a channel absent.
    pub(crate) fn untrack(&self, room: &RoomName, channel: ChannelId) {
        if let Some(room) = self.rooms().get_mut(room) {
            let diff = room.presence.untrack(channel);
            room.tell(diff);
        }
    }

    fn rooms(&self) -> MutexGuard<'_, HashMap<RoomName, Room>> {
        self.rooms.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
