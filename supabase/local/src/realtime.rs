//! `/realtime/v1`: the server that Supabase clients talk to.
//!
//! [`handshake`] accepts a socket, [`socket`] is its task, [`frame`] and [`binary`] its protocol versions; a joined topic is a
//! [`channel`] made from a [`join`]; [`rooms`] sends broadcasts between sockets and tracks who is present
//! ([`presence`]); what a token may do on a private channel is checked in [`permission`]. Rows come from
//! [`crate::changes`], broadcasts also over HTTP ([`http`]) and from the database ([`feed`], [`messages`]).
//!
//! One difference is known: a text frame that is not UTF-8 ends the socket, because the websocket library refuses it; the
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
use axum::routing::{any, get, post};

pub(crate) use hub::Realtime;
pub use options::RealtimeOptions;

/// The routes under the server's own path and, if there is one, under the gateway's.
pub(crate) fn router(realtime: Arc<Realtime>) -> Router {
    let mut router = Router::new()
        .route("/socket/websocket", get(handshake::upgrade))
        .route("/socket", any(http::not_found))
        .route("/socket/{*path}", any(http::not_found))
        .route("/api/ping", get(http::ping))
        .route("/healthcheck", get(|| async { "ok" }));
    let mut bases = vec!["/api/broadcast"];
    if realtime.options.tenant.is_none() {
        bases.push("/realtime/v1/api/broadcast");
        router = router.route("/realtime/v1/websocket", get(handshake::upgrade));
    } else {
        router = router.route("/realtime/{*path}", any(http::not_found));
    }
    for base in bases {
        router = router
            .route(base, post(http::batch))
            .route(&format!("{base}/{{topic}}/events/{{event}}"), post(http::single));
    }
    router.with_state(realtime)
}
