//! The condition of the connection, as users see it.

use std::time::Duration;

use tokio::time::Instant;

use crate::error::Error;

/// The condition of the connection. Each variant's text states what may happen next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Phase {
    /// There is no channel, so nothing is connected. The first channel connects.
    Idle,
    /// A connection is being opened.
    Connecting {
        /// How many attempts failed since the last connection that proved to work.
        attempt: u32,
    },
    /// The websocket is open.
    Connected {
        /// Since when.
        since: Instant,
    },
    /// The last attempt or connection failed; the next attempt comes by itself.
    Backoff {
        /// How many attempts failed since the last connection that proved to work.
        attempt: u32,
        /// When the next attempt begins.
        retry_at: Instant,
    },
    /// The client was shut down.
    Closed,
}

/// A snapshot of the connection's state; see [`Client::status`](crate::Client::status).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Status {
    /// Where the connection stands.
    pub phase: Phase,
    /// Why the last attempt or connection ended; kept until a connection proves to work.
    pub last_error: Option<Error>,
    /// Channels that are wanted.
    pub channels: usize,
    /// Channels in which everything that was requested flows.
    pub subscribed_channels: usize,
    /// The last measured time of a heartbeat to the server and back.
    pub round_trip: Option<Duration>,
}

impl Default for Status {
    fn default() -> Self {
        Self { phase: Phase::Idle, last_error: None, channels: 0, subscribed_channels: 0, round_trip: None }
    }
}

impl Status {
    /// Whether the websocket is open.
    pub fn is_connected(&self) -> bool {
        matches!(self.phase, Phase::Connected { .. })
    }
}

impl Phase {
    /// The phase's name in lower case, for logs.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Connecting { .. } => "connecting",
            Self::Connected { .. } => "connected",
            Self::Backoff { .. } => "backoff",
            Self::Closed => "closed",
        }
    }
}
