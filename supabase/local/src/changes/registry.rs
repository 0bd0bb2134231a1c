//! The channels that receive changes, by their ids.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::index::Index;
use super::subscriber::{ChannelId, Subscriber};

/// One channel's entry.
#[derive(Debug, Default)]
pub(super) struct Registration {
    /// Counts the channel's requests, so that only the verdict on the latest counts.
    pub(super) request: u64,
    /// Set once the latest accepted request is live.
    pub(super) subscriber: Option<Arc<Subscriber>>,
}

/// The channels that subscribed, until they are removed.
#[derive(Debug, Default)]
pub(super) struct Registry(Mutex<Registrations>);

/// The entries by channel.
#[derive(Debug, Default)]
pub(super) struct Registrations {
    registrations: HashMap<ChannelId, Registration>,
    /// Of the channels that are live; none since one came or went.
    index: Option<Arc<Index>>,
}

impl Registrations {
    /// The channel's registration, made if it has none.
    pub(super) fn entry(&mut self, channel: ChannelId) -> &mut Registration {
        self.registrations.entry(channel).or_default()
    }

    /// The channel's registration, if this request is its latest.
    pub(super) fn of_request(&self, channel: ChannelId, request: u64) -> Option<&Registration> {
        self.registrations.get(&channel).filter(|registration| registration.request == request)
    }

    /// Sets the subscriber of a registration that exists.
    pub(super) fn set(&mut self, channel: ChannelId, subscriber: Option<Arc<Subscriber>>) {
        if let Some(registration) = self.registrations.get_mut(&channel) {
            registration.subscriber = subscriber;
            self.index = None;
        }
    }

    /// Removes the channel's registration.
    pub(super) fn remove(&mut self, channel: ChannelId) {
        self.registrations.remove(&channel);
        self.index = None;
    }
}

impl Registry {
    pub(super) fn lock(&self) -> MutexGuard<'_, Registrations> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The channels that are live now.
    pub(super) fn index(&self) -> Arc<Index> {
        let mut registrations = self.lock();
        if let Some(index) = &registrations.index {
            return Arc::clone(index);
        }
        let mut subscribers: Vec<_> = registrations
            .registrations
            .values()
            .filter_map(|registration| registration.subscriber.clone())
            .collect();
        subscribers.sort_unstable_by_key(|subscriber| subscriber.channel);
        let index = Arc::new(Index::new(subscribers));
        registrations.index = Some(Arc::clone(&index));
        index
    }
}
