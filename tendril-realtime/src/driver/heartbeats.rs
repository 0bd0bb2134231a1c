//! The results of the heartbeats, for their observers.

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::{Stream, StreamExt as _, stream};
use tokio::sync::broadcast;

/// One step of a heartbeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Heartbeat {
    /// It was sent.
    #[doc(alias = "sent")]
    Sent,
    /// The server answered it.
    #[doc(alias = "ok")]
    Answered {
        /// The time to the server and back.
        round_trip: Duration,
    },
    /// Nothing came in time. The connection is given up, and opened anew after a pause.
    #[doc(alias = "timeout")]
    TimedOut,
    /// The connection ended, whatever the reason: there are no heartbeats until the next one is open.
    #[doc(alias = "disconnected")]
    Disconnected,
}

/// Heartbeats that a reader may be behind.
pub(super) const KEPT: usize = 64;

/// What becomes of the heartbeats; see [`Client::heartbeats`](crate::Client::heartbeats). Ends with the client.
#[must_use = "streams do nothing unless polled"]
pub struct HeartbeatStream(Pin<Box<dyn Stream<Item = Heartbeat> + Send + Sync>>);

impl HeartbeatStream {
    pub(crate) fn new(receiver: broadcast::Receiver<Heartbeat>) -> Self {
        let heartbeats = stream::unfold(receiver, |mut receiver| async {
            loop {
                match receiver.recv().await {
                    Ok(heartbeat) => return Some((heartbeat, receiver)),
                    Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => return None,
                }
            }
        });
        Self(Box::pin(heartbeats))
    }
}

impl Stream for HeartbeatStream {
    type Item = Heartbeat;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Heartbeat>> {
        self.0.poll_next_unpin(cx)
    }
}

impl fmt::Debug for HeartbeatStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HeartbeatStream(…)")
    }
}
