//! Channels that hear of changes, and where they are found.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc;

use super::listener::Listener;
use super::subscription::Subscription;
use crate::replication::RowChange;

/// Names one channel's subscriptions. Never used twice in a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ChannelId(u64);

impl ChannelId {
    pub(crate) fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// What a socket hears from here.
#[derive(Debug, Clone)]
pub(crate) enum Notice {
    /// The bindings are live; or the text why not.
    Subscribed { channel: ChannelId, result: Result<(), String> },
    /// A change. `ids` name the bindings it matched, the last of the channel first.
    Changed { channel: ChannelId, operation: &'static str, data: Arc<str>, ids: Vec<u32> },
}

/// Where a socket's notices go.
pub(crate) type Mailbox = mpsc::UnboundedSender<Notice>;

/// One channel that hears of changes.
#[derive(Debug)]
pub(super) struct Audience {
    pub(super) channel: ChannelId,
    pub(super) listener: Listener,
    pub(super) subscriptions: Vec<Subscription>,
    pub(super) mailbox: Mailbox,
}

impl Audience {
    pub(super) fn wants(&self, change: &RowChange) -> bool {
        self.subscriptions.iter().any(|subscription| subscription.wants(&change.relation, change.operation))
    }
}

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
pub(super) struct Seats(Mutex<HashMap<ChannelId, Seat>>);

impl Seats {
    pub(super) fn lock(&self) -> MutexGuard<'_, HashMap<ChannelId, Seat>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The channels that are live now, the oldest first.
    pub(super) fn audiences(&self) -> Vec<Arc<Audience>> {
        let mut audiences: Vec<_> = self.lock().values().filter_map(|seat| seat.audience.clone()).collect();
        audiences.sort_unstable_by_key(|audience| audience.channel);
        audiences
    }
}
