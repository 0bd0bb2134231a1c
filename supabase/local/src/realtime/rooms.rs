//! Broadcasts between the sockets of a stack.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use tokio::sync::mpsc;

use super::binary::BinaryBroadcast;
use crate::changes::ChannelId;

/// A public and a private channel of one name are two rooms.
pub(crate) type RoomName = (String, bool);

/// Something said in a room.
#[derive(Debug, Clone)]
pub(crate) enum Broadcast {
    /// JSON text of the whole payload.
    Text(String),
    Binary(BinaryBroadcast),
}

/// A broadcast on its way to one channel of a socket.
#[derive(Debug, Clone)]
pub(crate) struct Delivery {
    pub(crate) channel: ChannelId,
    pub(crate) broadcast: Broadcast,
}

/// Where a socket's deliveries go.
pub(crate) type Ear = mpsc::UnboundedSender<Delivery>;

/// Who is in which room.
#[derive(Debug, Default)]
pub(crate) struct Rooms {
    members: Mutex<HashMap<RoomName, Vec<(ChannelId, Ear)>>>,
}

impl Rooms {
    pub(crate) fn enter(&self, room: RoomName, channel: ChannelId, ear: Ear) {
        let mut members = self.members.lock().unwrap_or_else(PoisonError::into_inner);
        members.entry(room).or_default().push((channel, ear));
    }

    pub(crate) fn leave(&self, room: &RoomName, channel: ChannelId) {
        let mut members = self.members.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(inside) = members.get_mut(room) {
            inside.retain(|(member, _)| *member != channel);
            if inside.is_empty() {
                members.remove(room);
            }
        }
    }

    /// Tells everybody in the room but the speaker.
    pub(crate) fn say(&self, room: &RoomName, speaker: ChannelId, broadcast: &Broadcast) {
        let members = self.members.lock().unwrap_or_else(PoisonError::into_inner);
        for (channel, ear) in members.get(room).into_iter().flatten().filter(|(member, _)| *member != speaker)
        {
            // A socket that is about to leave needs no delivery.
            let _ = ear.send(Delivery { channel: *channel, broadcast: broadcast.clone() });
        }
    }
}
