//! `/realtime/v1`: the server that Supabase clients talk to.
//!
//! [`handshake`] lets a socket in, [`socket`] is its task, [`frame`] and [`binary`] its languages; a joined topic is a
//! [`channel`] made from a [`join`]; [`rooms`] carries broadcasts between sockets and knows who is present
//! ([`presence`]); what a token may do on a private channel is asked in [`permission`]. Rows come from
//! [`crate::changes`], broadcasts also over HTTP ([`http`]) and from the database ([`feed`], [`messages`]).
//!
//! One difference is known: a text frame that is no UTF-8 ends the socket, because the websocket library says so; the
//! real server ignores it.

mod binary;
mod channel;
mod feed;
mod frame;
mod handshake;
mod http;
mod hub;
mod join;
mod messages;
mod options;
mod permission;
mod presence;
mod rate;
mod rooms;
mod socket;
mod users;

use std::sync::Arc;

use axum::Router;
use axum::routing::{get, post};

pub(crate) use hub::Realtime;
pub use options::RealtimeOptions;

/// The routes under the gateway's path and under the server's own.
pub(crate) fn router(realtime: Arc<Realtime>) -> Router {
    let mut router = Router::new()
        .route("/realtime/v1/websocket", get(handshake::upgrade))
        .route("/socket/websocket", get(handshake::upgrade))
        .route("/api/ping", get(http::ping))
        .route("/healthcheck", get(|| async { "ok" }));
    for base in ["/realtime/v1/api/broadcast", "/api/broadcast"] {
        router = router
            .route(base, post(http::batch))
            .route(&format!("{base}/{{topic}}/events/{{event}}"), post(http::single));
    }
    router.with_state(realtime)
}
