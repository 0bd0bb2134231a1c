//! How patient the server is, and what it allows.

use std::time::Duration;

/// Delays, timeouts and limits. The real server's delays punish clients that retry too fast, and its rates protect
/// other projects; tests seldom need either, so they are off unless set. What a client can always run into is as the
/// real server has it.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RealtimeOptions {
    /// Before a refused upgrade is answered (the real server: 2 s). Default: none.
    pub connect_error_delay: Duration,
    /// Before a refused join is answered (the real server: 5 s). The socket reads nothing meanwhile. Default: none.
    pub join_error_delay: Duration,
    /// Before a channel that got a new token receives "Subscribed to PostgreSQL" again (the real server: about 2 s).
    /// Default: none.
    pub resubscribe_delay: Duration,
    /// How often the changes of rows are delivered: those of one interval together, to the subscribers at its end (the real
    /// server: 100 ms). Default: zero, each at once.
    pub poll_interval: Duration,
    /// Serves Realtime alone, without a gateway before it, as a self-hosted server does: the paths are `/socket` and `/api`, and
    /// the `Host` must begin with this name and a dot. Default: none, with the gateway's paths and any host.
    pub tenant: Option<String>,
    /// A socket from which nothing comes for this long is closed with 1000. Default: 60 s, as the real server.
    pub idle_timeout: Duration,
    /// Channels one socket may have. Default: 100, as the real server.
    pub max_channels: usize,
    /// Sockets that may have a channel at one time. Default: no limit (hosted: 200 and more).
    pub max_users: Option<usize>,
    /// Joins a second, all sockets together, on average. Default: no limit (hosted: 100 and more).
    pub max_joins_per_second: Option<u32>,
    /// Broadcasts a second, sent and delivered, all sockets together, on average. Default: no limit (hosted: 100 and
    /// more).
    pub max_events_per_second: Option<u32>,
    /// Presence calls a second, all sockets together, on average. Default: no limit (hosted: 20 and more).
    pub max_presence_per_second: Option<u32>,
    /// How often the averages above are taken, over the last twelve of these. Default: 5 s, as the real server, which
    /// therefore notices changes late.
    pub rate_tick: Duration,
    /// Presence calls that one channel may make within [`RealtimeOptions::presence_window`]. Default: 5, as the real
    /// server.
    pub max_presence_calls: usize,
    /// See [`RealtimeOptions::max_presence_calls`]. Default: 30 s, as the real server.
    pub presence_window: Duration,
    /// The largest broadcast or presence payload, in thousands of bytes of JSON or binary. (The real server counts the
    /// bytes of its own encoding, which differ a little.) Default: 3000, as the real server; hosted, the smallest plan has
    /// 256.
    pub max_payload_kb: usize,
    /// Whether only private channels may be joined. Default: no.
    pub private_only: bool,
    /// How long a channel waits for the replication that it requested. Default: 60 s, as in the real server.
    pub replication_timeout: Duration,
}

impl Default for RealtimeOptions {
    fn default() -> Self {
        Self {
            connect_error_delay: Duration::ZERO,
            join_error_delay: Duration::ZERO,
            resubscribe_delay: Duration::ZERO,
            poll_interval: Duration::ZERO,
            tenant: None,
            idle_timeout: Duration::from_secs(60),
            max_channels: 100,
            max_users: None,
            max_joins_per_second: None,
            max_events_per_second: None,
            max_presence_per_second: None,
            rate_tick: Duration::from_secs(5),
            max_presence_calls: 5,
            presence_window: Duration::from_secs(30),
            max_payload_kb: 3000,
            private_only: false,
            replication_timeout: Duration::from_secs(60),
        }
    }
}

impl RealtimeOptions {
    /// Whether a `Host` header names the project.
    pub(super) fn is_tenant(&self, host: &str) -> bool {
        self.tenant.as_ref().is_none_or(|tenant| host.split_once('.').is_some_and(|(name, _)| name == tenant))
    }

    /// Whether a payload of so many bytes is too large. The real server grants these 500 bytes, too.
    pub(super) fn is_too_large(&self, bytes: usize) -> bool {
        bytes > self.max_payload_kb * 1000 + 500
    }
}
