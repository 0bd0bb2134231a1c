//! Numbers for operators: monotonic since the client was built.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::telemetry;

/// One number that only grows.
#[derive(Debug)]
pub(crate) struct Counter {
    value: AtomicU64,
    #[cfg(feature = "metrics")]
    name: &'static str,
}

/// Written by the driver, read by anyone.
#[derive(Debug)]
pub(crate) struct Counters {
    pub(crate) frames_received: Counter,
    pub(crate) bytes_received: Counter,
    pub(crate) frames_sent: Counter,
    pub(crate) bytes_sent: Counter,
    pub(crate) malformed_frames: Counter,
    pub(crate) events_delivered: Counter,
    pub(crate) events_dropped: Counter,
    pub(crate) resyncs: Counter,
    pub(crate) pushes_dropped: Counter,
    pub(crate) connections: Counter,
}

impl Counter {
    #[cfg_attr(
        not(feature = "metrics"),
        expect(unused_variables, reason = "only the metrics facade needs names")
    )]
    fn new(name: &'static str) -> Self {
        Self {
            value: AtomicU64::new(0),
            #[cfg(feature = "metrics")]
            name,
        }
    }

    pub(crate) fn add(&self, amount: u64) {
        self.value.fetch_add(amount, Ordering::Relaxed);
        #[cfg(feature = "metrics")]
        metrics::counter!(self.name).increment(amount);
    }

    fn get(&self) -> u64 {
        self.value.load(Ordering::Relaxed)
    }
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            frames_received: Counter::new(telemetry::FRAMES_RECEIVED),
            bytes_received: Counter::new(telemetry::BYTES_RECEIVED),
            frames_sent: Counter::new(telemetry::FRAMES_SENT),
            bytes_sent: Counter::new(telemetry::BYTES_SENT),
            malformed_frames: Counter::new(telemetry::MALFORMED_FRAMES),
            events_delivered: Counter::new(telemetry::EVENTS_DELIVERED),
            events_dropped: Counter::new(telemetry::EVENTS_DROPPED),
            resyncs: Counter::new(telemetry::RESYNCS),
            pushes_dropped: Counter::new(telemetry::PUSHES_DROPPED),
            connections: Counter::new(telemetry::CONNECTIONS),
        }
    }
}

/// A snapshot of a client's counters; see [`Client::stats`](crate::Client::stats).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Stats {
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
    /// Messages without acknowledgement that were given up: the connection was down for too long, or the channel ended.
    pub pushes_dropped: u64,
    /// Connections that were opened; more than one means that there were reconnects.
    pub connections: u64,
}

impl Counters {
    pub(crate) fn snapshot(&self) -> Stats {
        Stats {
            frames_received: self.frames_received.get(),
            bytes_received: self.bytes_received.get(),
            frames_sent: self.frames_sent.get(),
            bytes_sent: self.bytes_sent.get(),
            malformed_frames: self.malformed_frames.get(),
            events_delivered: self.events_delivered.get(),
            events_dropped: self.events_dropped.get(),
            resyncs: self.resyncs.get(),
            pushes_dropped: self.pushes_dropped.get(),
            connections: self.connections.get(),
        }
    }
}
