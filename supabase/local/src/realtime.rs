//! `/realtime/v1`: the websocket server that Supabase clients talk to.
//!
//! [`handshake`] lets a socket in, [`socket`] is its task, [`frame`] its two languages; a joined topic is a [`channel`]
//! made from a [`join`]; [`rooms`] carries broadcasts between sockets; rows come from [`crate::changes`].
//!
//! Presence and the authorization of private channels are not built yet: a join that asks for them is answered ok,
//! presence calls are answered with an error, and a private channel is a room of its own that anybody may enter.

mod binary;
mod channel;
mod frame;
mod handshake;
mod join;
mod rooms;
mod socket;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use tokio_util::sync::CancellationToken;

use crate::changes::Changes;
use crate::fault::Faults;
use crate::keys::ProjectKeys;
use rooms::Rooms;

/// How patient the server is. The real server's delays punish clients that retry too fast; tests seldom want them.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RealtimeOptions {
    /// Before a refused upgrade is answered (the real server: 2 s). Default: none.
    pub connect_error_delay: Duration,
    /// Before a refused join is answered (the real server: 5 s). The whole socket is deaf meanwhile. Default: none.
    pub join_error_delay: Duration,
    /// Before a channel that got a new token hears "Subscribed to PostgreSQL" again (the real server: about 2 s).
    /// Default: none.
    pub resubscribe_delay: Duration,
    /// A socket from which nothing comes for this long is closed with 1000. Default: 60 s, as the real server.
    pub idle_timeout: Duration,
}

impl Default for RealtimeOptions {
    fn default() -> Self {
        Self {
            connect_error_delay: Duration::ZERO,
            join_error_delay: Duration::ZERO,
            resubscribe_delay: Duration::ZERO,
            idle_timeout: Duration::from_secs(60),
        }
    }
}

/// What all sockets of a stack share.
#[derive(Debug)]
pub(crate) struct Realtime {
    pub(crate) keys: Arc<ProjectKeys>,
    pub(crate) faults: Faults,
    pub(crate) options: RealtimeOptions,
    pub(crate) changes: Arc<Changes>,
    pub(crate) rooms: Rooms,
    /// Cancelled when the stack stops: sockets are closed with 1012.
    pub(crate) stop: CancellationToken,
}

impl Realtime {
    pub(crate) fn new(
        keys: Arc<ProjectKeys>,
        faults: Faults,
        options: RealtimeOptions,
        changes: Arc<Changes>,
        stop: CancellationToken,
    ) -> Arc<Self> {
        Arc::new(Self { keys, faults, options, changes, rooms: Rooms::default(), stop })
    }
}

/// The websocket under the gateway's path and under the server's own.
pub(crate) fn router(realtime: Arc<Realtime>) -> Router {
    Router::new()
        .route("/realtime/v1/websocket", get(handshake::upgrade))
        .route("/socket/websocket", get(handshake::upgrade))
        .with_state(realtime)
}
