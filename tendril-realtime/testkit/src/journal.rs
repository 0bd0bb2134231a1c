//! What clients did, with times.

use std::time::{Duration, Instant};

use serde_json::Value;

/// One thing that happened.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Entry {
    /// When.
    pub at: Instant,
    /// The connection it happened on, counted from 1 in the order in which TCP connections were accepted.
    pub connection: u64,
    /// What.
    pub event: Event,
}

/// What can happen.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// A TCP connection was accepted.
    Accepted,
    /// A websocket was opened with this path and query.
    Upgraded {
        /// Path and query, `apikey` included.
        target: String,
        /// Names in lower case.
        headers: Vec<(String, String)>,
    },
    /// A join came in, whatever became of it.
    Join {
        /// With the `realtime:` prefix.
        topic: String,
        /// The whole payload.
        payload: Value,
    },
    /// A leave came in.
    Leave {
        /// With the `realtime:` prefix.
        topic: String,
    },
    /// A broadcast or presence push came in.
    Push {
        /// With the `realtime:` prefix.
        topic: String,
        /// `broadcast`, `presence` or whatever else was sent.
        event: String,
        /// The whole payload; raw bytes of a binary broadcast as an array of numbers.
        payload: Value,
    },
    /// An access token was pushed.
    Token {
        /// With the `realtime:` prefix.
        topic: String,
        /// The token.
        token: String,
    },
    /// A heartbeat came in.
    Heartbeat,
    /// An HTTP request that was no websocket upgrade.
    Http(crate::HttpRequest),
    /// The connection ended.
    Closed,
}

/// Everything that happened so far.
#[derive(Debug, Clone, Default)]
pub struct Journal {
    pub(crate) entries: Vec<Entry>,
}

/// What a test waited for did not happen in time.
#[derive(Debug, Clone, thiserror::Error)]
#[error("not within {waited:?}; {entries} things happened meanwhile, the last ones: {last}")]
pub struct NotInTime {
    pub(crate) waited: Duration,
    pub(crate) entries: usize,
    pub(crate) last: String,
}

impl Journal {
    /// Everything, oldest first.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// How many entries satisfy this.
    pub fn count(&self, is: impl Fn(&Event) -> bool) -> usize {
        self.entries.iter().filter(|entry| is(&entry.event)).count()
    }

    /// How many TCP connections were accepted.
    pub fn accepted(&self) -> usize {
        self.count(|event| *event == Event::Accepted)
    }

    /// How many websockets were opened.
    pub fn upgrades(&self) -> usize {
        self.count(|event| matches!(event, Event::Upgraded { .. }))
    }

    /// How many joins came in for this topic, with or without the `realtime:` prefix.
    pub fn joins(&self, topic: &str) -> usize {
        self.count(|event| matches!(event, Event::Join { topic: joined, .. } if same(joined, topic)))
    }

    /// How many leaves came in for this topic, with or without the `realtime:` prefix.
    pub fn leaves(&self, topic: &str) -> usize {
        self.count(|event| matches!(event, Event::Leave { topic: left } if same(left, topic)))
    }

    /// The payloads of the broadcasts and presence calls of this topic, with or without the `realtime:` prefix.
    pub fn pushes(&self, topic: &str) -> Vec<Value> {
        let of = |entry: &Entry| match &entry.event {
            Event::Push { topic: pushed, payload, .. } if same(pushed, topic) => Some(payload.clone()),
            _ => None,
        };
        self.entries.iter().filter_map(of).collect()
    }

    /// The times between consecutive entries that satisfy this.
    pub fn pauses(&self, is: impl Fn(&Event) -> bool) -> Vec<Duration> {
        let times: Vec<Instant> =
            self.entries.iter().filter(|entry| is(&entry.event)).map(|entry| entry.at).collect();
        times.windows(2).map(|pair| pair[1].saturating_duration_since(pair[0])).collect()
    }

    pub(crate) fn last(&self) -> String {
        let shown: Vec<String> =
            self.entries.iter().rev().take(5).rev().map(|entry| format!("{:?}", entry.event)).collect();
        shown.join(", ")
    }
}

fn same(full: &str, topic: &str) -> bool {
    full == topic || full.strip_prefix("realtime:") == Some(topic)
}
