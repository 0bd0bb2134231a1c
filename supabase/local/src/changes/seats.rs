//! Where the channels that hear of changes are found.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::audience::{Audience, ChannelId};
use super::index::Index;

/// A channel's place in the feed.
#[derive(Debug, Default)]
pub(super) struct Seat {
    /// Counts the channel's requests, so that only the verdict on the latest counts.
    pub(super) request: u64,
    /// Set once the latest accepted request is live.
    pub(super) audience: Option<Arc<Audience>>,
}

/// The channels that asked, until they are forgotten.
#[derive(Debug, Default)]
pub(super) struct Seats(Mutex<Seating>);

/// Who sits where.
#[derive(Debug, Default)]
pub(super) struct Seating {
    seats: HashMap<ChannelId, Seat>,
    /// Of the channels that are live; none since one came or went.
    index: Option<Arc<Index>>,
}

impl Seating {
    /// The channel's seat, made if it has none.
    pub(super) fn entry(&mut self, channel: ChannelId) -> &mut Seat {
        self.seats.entry(channel).or_default()
    }

    /// The channel's seat, if this request is its latest.
    pub(super) fn of_request(&self, channel: ChannelId, request: u64) -> Option<&Seat> {
        self.seats.get(&channel).filter(|seat| seat.request == request)
    }

    /// Sets who hears on a seat that is there.
    pub(super) fn set(&mut self, channel: ChannelId, audience: Option<Arc<Audience>>) {
        if let Some(seat) = self.seats.get_mut(&channel) {
            seat.audience = audience;
            self.index = None;
        }
    }

    /// Takes the channel's seat away.
    pub(super) fn remove(&mut self, channel: ChannelId) {
        self.seats.remove(&channel);
        self.index = None;
    }
}

impl Seats {
    pub(super) fn lock(&self) -> MutexGuard<'_, Seating> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The channels that are live now.
    pub(super) fn index(&self) -> Arc<Index> {
        let mut seating = self.lock();
        if let Some(index) = &seating.index {
            return Arc::clone(index);
        }
        let mut audiences: Vec<_> = seating.seats.values().filter_map(|seat| seat.audience.clone()).collect();
        audiences.sort_unstable_by_key(|audience| audience.channel);
        let index = Arc::new(Index::new(audiences));
        seating.index = Some(Arc::clone(&index));
        index
    }
}
