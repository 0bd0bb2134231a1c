//! Channels that receive changes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::mpsc;

use super::principal::Principal;
use super::subscription::Subscription;

/// Names one channel's subscriptions. Never used twice in a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ChannelId(u64);

impl ChannelId {
    pub(crate) fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// What a socket receives from the change feed.
#[derive(Debug, Clone)]
pub(crate) enum Notice {
    /// The bindings are live; or the text why not.
    Subscribed { channel: ChannelId, result: Result<(), String> },
    /// A change. `ids` name the bindings it matched, the last of the channel first.
    Changed { channel: ChannelId, operation: &'static str, data: Arc<str>, ids: Vec<u32> },
}

/// Where a socket's notices go.
pub(crate) type Mailbox = mpsc::UnboundedSender<Notice>;

/// One channel that receives changes.
#[derive(Debug)]
pub(super) struct Subscriber {
    pub(super) channel: ChannelId,
    pub(super) principal: Principal,
    pub(super) subscriptions: Vec<Subscription>,
    pub(super) mailbox: Mailbox,
}
