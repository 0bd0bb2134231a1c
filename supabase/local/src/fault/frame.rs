//! Faults of frames: what the server sends on a websocket.

use std::time::Duration;

use super::Cut;

/// What happens to a frame from the server. The rows of a broken change feed, say, are `Withhold` for the event
/// `postgres_changes`; a subscription that never becomes live, or becomes it twice, is `Withhold` or `Duplicate` for
/// the event `system`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum FrameFault {
    /// It is never sent, without any notice.
    Withhold,
    /// It is sent twice.
    Duplicate,
    /// It is sent so much later, and the frames after it no earlier.
    Delay(Duration),
    /// From it on the socket is half open: nothing more is sent, though the connection stands, until the fault is lifted;
    /// then everything is sent.
    Stall,
    /// The socket ends instead.
    Cut(Cut),
}
