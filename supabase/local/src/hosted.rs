//! What a hosted project has and a development stack has not: quotas, delays after errors, a limit of rows.

use std::time::Duration;

use crate::realtime::RealtimeOptions;

/// Most rows of one read, as a hosted project is made with.
pub(crate) const MAX_ROWS: u64 = 1000;

/// A plan of Supabase, by its Realtime quotas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum HostedPlan {
    /// 200 connections, 100 messages, 100 joins and 20 presence messages a second, 256 kB of broadcast.
    Free,
    /// 500 connections, 500 messages, 500 joins and 50 presence messages a second, 3,000 kB of broadcast.
    Pro,
    /// 10,000 connections, 2,500 messages, 2,500 joins and 1,000 presence messages a second, 3,000 kB of broadcast.
    Team,
}

impl HostedPlan {
    /// Realtime as this plan has it, with the delays by which the real server slows down clients that fail.
    pub fn realtime(self) -> RealtimeOptions {
        let (users, events, joins, presence, kilobytes) = match self {
            Self::Free => (200, 100, 100, 20, 256),
            Self::Pro => (500, 500, 500, 50, 3000),
            Self::Team => (10_000, 2500, 2500, 1000, 3000),
        };
        RealtimeOptions {
            connect_error_delay: Duration::from_secs(2),
            join_error_delay: Duration::from_secs(5),
            resubscribe_delay: Duration::from_secs(2),
            poll_interval: Duration::from_millis(100),
            max_users: Some(users),
            max_events_per_second: Some(events),
            max_joins_per_second: Some(joins),
            max_presence_per_second: Some(presence),
            max_payload_kb: kilobytes,
            ..RealtimeOptions::default()
        }
    }
}
