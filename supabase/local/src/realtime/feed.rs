//! Broadcasts from the database, live: what is inserted into `realtime.messages` is sent to its room.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::messages;
use super::rooms::{RoomMessage, Rooms};
use crate::replication::{self, Source};

/// The publication of the messages alone.
pub(crate) const PUBLICATION: &str = "supabase_realtime_messages_publication";

/// Follows the table from the first join on.
#[derive(Debug)]
pub(crate) struct Feed {
    source: Source,
    stop: CancellationToken,
    wanted: AtomicBool,
    /// Whether every later insert will arrive.
    ready: watch::Sender<bool>,
}

impl Feed {
    /// A feed that is not yet running; it ends with `stop`.
    pub(crate) fn new(source: Source, stop: CancellationToken) -> Arc<Self> {
        Arc::new(Self { source, stop, wanted: AtomicBool::new(false), ready: watch::Sender::new(false) })
    }

    /// Starts it, if it was not started before.
    pub(crate) fn start(self: &Arc<Self>, rooms: &Arc<Rooms>) {
        if self.wanted.swap(true, Ordering::Relaxed) {
            return;
        }
        let (feed, rooms) = (Arc::clone(self), Arc::clone(rooms));
        tokio::spawn(async move {
            let (mut transactions, mut live) = replication::stream(feed.source.clone(), feed.stop.clone());
            if live.wait_for(|live| *live).await.is_ok() {
                feed.ready.send_replace(true);
            }
            while let Some(transaction) = transactions.recv().await {
                for (room, message) in transaction.changes.iter().filter_map(messages::inserted) {
                    rooms.send(&room, None, &RoomMessage::Binary(Arc::new(message)));
                }
            }
        });
    }

    /// Returns once every later insert will arrive.
    pub(crate) async fn wait_ready(&self) {
        // The sender is in `self`, so waiting cannot fail.
        let _ = self.ready.subscribe().wait_for(|ready| *ready).await;
    }
}
