//! Typed views of a mailbox. Decoding happens here, on the reader's task.

pub(crate) mod broadcast;
pub(crate) mod changes;
mod fields;
mod outline;
pub(crate) mod presence;
pub(crate) mod row;
pub(crate) mod system;
mod typed;

use std::{
    sync::{Arc, OnceLock},
    task::{Context, Poll},
};

use crate::driver::{ChannelHandle, Gauge, Item, Receiver};

/// A mailbox and the share in the channel that fills it. Made before the channel is opened, so that nothing is missed.
#[derive(Debug)]
pub(crate) struct Subscription {
    receiver: Receiver,
    /// Set when the channel is opened; dropping the last share leaves the channel.
    handle: Arc<OnceLock<ChannelHandle>>,
}

impl Subscription {
    pub(crate) fn new(receiver: Receiver, handle: Arc<OnceLock<ChannelHandle>>) -> Self {
        Self { receiver, handle }
    }

    pub(crate) fn gauge(&self) -> Gauge {
        self.receiver.gauge()
    }

    /// Joins the channel anew.
    pub(crate) fn rejoin(&self) {
        if let Some(handle) = self.handle.get() {
            handle.rejoin();
        }
    }

    pub(crate) fn poll_take(&mut self, cx: &mut Context<'_>) -> Poll<Option<Item>> {
        self.receiver.poll_take(cx)
    }
}
