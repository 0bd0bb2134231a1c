//! Numbers for operators: monotonic since the client was built.

use std::sync::atomic::{AtomicU64, Ordering};

/// Written by the driver, read by anyone.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) frames_received: AtomicU64,
    pub(crate) bytes_received: AtomicU64,
    pub(crate) frames_sent: AtomicU64,
    pub(crate) bytes_sent: AtomicU64,
    pub(crate) malformed_frames: AtomicU64,
    pub(crate) events_delivered: AtomicU64,
    pub(crate) events_dropped: AtomicU64,
    pub(crate) resyncs: AtomicU64,
    pub(crate) connections: AtomicU64,
}

/// A snapshot of a client's counters; see [`Client::counters`](crate::Client::counters).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct CountersSnapshot {
    /// Websocket messages that came in, pings and pongs among them.
    pub frames_received: u64,
    /// Their bytes.
    pub bytes_received: u64,
    /// Websocket messages that went out.
    pub frames_sent: u64,
    /// Their bytes.
    pub bytes_sent: u64,
    /// Messages that made no sense and were passed over.
    pub malformed_frames: u64,
    /// Events put into streams.
    pub events_delivered: u64,
    /// Events that did not fit into a stream whose reader was too slow.
    pub events_dropped: u64,
    /// Marks of possible gaps put into streams.
    pub resyncs: u64,
    /// Connections that were opened; more than one means that there were reconnects.
    pub connections: u64,
}

impl Counters {
    pub(crate) fn add(counter: &AtomicU64, amount: u64) {
        counter.fetch_add(amount, Ordering::Relaxed);
    }

    pub(crate) fn snapshot(&self) -> CountersSnapshot {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        CountersSnapshot {
            frames_received: read(&self.frames_received),
            bytes_received: read(&self.bytes_received),
            frames_sent: read(&self.frames_sent),
            bytes_sent: read(&self.bytes_sent),
            malformed_frames: read(&self.malformed_frames),
            events_delivered: read(&self.events_delivered),
            events_dropped: read(&self.events_dropped),
            resyncs: read(&self.resyncs),
            connections: read(&self.connections),
        }
    }
}
