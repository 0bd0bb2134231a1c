//! The session's numbers, each with its reason.

use std::time::Duration;

/// The session's numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) heartbeat_interval: Duration,
    /// Silence after a heartbeat that means death.
    pub(crate) heartbeat_timeout: Duration,
    /// The server may take 15 s to reach its database.
    pub(crate) join_timeout: Duration,
    /// From an accepted join to rows that flow; a cold project takes seconds.
    pub(crate) subscribe_timeout: Duration,
    /// Joins under way at once: after a refused one the server reads nothing for 5 s.
    pub(crate) joins_at_once: usize,
    /// Between two joins.
    pub(crate) join_spacing: Duration,
    /// The server's own limit.
    pub(crate) channels_at_most: usize,
    /// Messages that wait for one channel to be joined.
    pub(crate) queued_pushes: usize,
    /// From a message to its acknowledgement.
    pub(crate) push_timeout: Duration,
    /// A connection or a channel that lived so long worked: the pauses before the next attempt start afresh.
    pub(crate) stable_after: Duration,
    /// How long a connection without channels stays open.
    pub(crate) idle_disconnect: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            heartbeat_interval: Duration::from_secs(25),
            heartbeat_timeout: Duration::from_secs(10),
            join_timeout: Duration::from_secs(20),
            subscribe_timeout: Duration::from_secs(30),
            joins_at_once: 2,
            join_spacing: Duration::from_millis(20),
            channels_at_most: 100,
            queued_pushes: 100,
            push_timeout: Duration::from_secs(10),
            stable_after: Duration::from_secs(30),
            idle_disconnect: Duration::from_secs(50),
        }
    }
}
