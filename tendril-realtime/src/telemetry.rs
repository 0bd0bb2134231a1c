//! Names that operators rely on: they change only with a new major version.
//!
//! * **Events** of the crate `tracing` have the target `tendril_realtime`: `connected` (info), `not connected` (warn, with
//!   `error`), `a frame was passed over` (debug). No key, token, URL or payload is in any of them. The websocket library logs
//!   frames at level TRACE under its own target `tungstenite`: leave that off where logs are not secret.
//! * **Spans** have the same target: [`CONNECT_SPAN`] and [`CONNECTION_SPAN`]. The events above are inside them.
//! * **Metrics**, with the feature `metrics`, are counters of the facade of that name; the constants below are their names.
//!   The same numbers are in [`Client::stats`](crate::Client::stats) without any feature.

/// Span of one attempt to connect: the token source, the network, the upgrade. Field `attempt`.
pub const CONNECT_SPAN: &str = "realtime.connect";
/// Span of one open connection, from the upgrade to its end.
pub const CONNECTION_SPAN: &str = "realtime.connection";
/// Span of one request over HTTP with its repetitions: REST, Edge Functions, the broadcast API. Fields `method`, `path` (without the query) and
/// `attempt`.
pub const REQUEST_SPAN: &str = "rest.request";

/// Target of all events.
pub const TARGET: &str = "tendril_realtime";

/// Websocket messages received.
pub const FRAMES_RECEIVED: &str = "tendril_realtime_frames_received_total";
/// Bytes of websocket messages received.
pub const BYTES_RECEIVED: &str = "tendril_realtime_bytes_received_total";
/// Websocket messages sent.
pub const FRAMES_SENT: &str = "tendril_realtime_frames_sent_total";
/// Bytes of websocket messages sent.
pub const BYTES_SENT: &str = "tendril_realtime_bytes_sent_total";
/// Messages that made no sense.
pub const MALFORMED_FRAMES: &str = "tendril_realtime_malformed_frames_total";
/// Events put into streams.
pub const EVENTS_DELIVERED: &str = "tendril_realtime_events_delivered_total";
/// Events that did not fit into a stream.
pub const EVENTS_DROPPED: &str = "tendril_realtime_events_dropped_total";
/// Messages without acknowledgement that were given up.
pub const PUSHES_DROPPED: &str = "tendril_realtime_pushes_dropped_total";
/// Marks of possible gaps.
pub const RESYNCS: &str = "tendril_realtime_resyncs_total";
/// Connections opened.
pub const CONNECTIONS: &str = "tendril_realtime_connections_total";
