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
use tokio_util::sync::CancellationToken;

use crate::changes::Changes;
use crate::fault::Faults;
use crate::keys::ProjectKeys;
use crate::link::Link;
use crate::replication::Source;
use feed::Feed;
pub use options::RealtimeOptions;
use rate::Rate;
use rooms::Rooms;
use users::Users;

/// What is said when the database cannot be asked.
const NO_DATABASE: &str = "Realtime was unable to connect to the project database";

/// What all sockets of a stack share.
#[derive(Debug)]
pub(crate) struct Realtime {
    pub(crate) keys: Arc<ProjectKeys>,
    pub(crate) faults: Faults,
    pub(crate) options: RealtimeOptions,
    pub(crate) changes: Arc<Changes>,
    /// Cancelled when the stack stops: sockets are closed with 1012.
    pub(crate) stop: CancellationToken,
    feed: Arc<Feed>,
    rooms: Arc<Rooms>,
    /// To ask about permissions and messages of the past.
    link: Link,
    users: Users,
    joins: Rate,
    /// Broadcasts, sent and delivered.
    events: Rate,
    /// Presence calls.
    calls: Rate,
}

impl Realtime {
    pub(crate) fn new(
        keys: Arc<ProjectKeys>,
        faults: Faults,
        options: RealtimeOptions,
        port: u16,
        database: &str,
        stop: CancellationToken,
    ) -> Arc<Self> {
        let source = |publication, slot: &str| Source {
            port,
            database: database.to_owned(),
            publication,
            slot: format!("{slot}_{database}"),
        };
        let changes = Changes::new(source(crate::changes::PUBLICATION, "supabase_realtime"), stop.clone());
        let feed = Feed::new(source(feed::PUBLICATION, "supabase_realtime_messages"), stop.clone());
        let rate = |limit| Rate::new(limit, options.rate_tick);
        Arc::new(Self {
            keys,
            faults,
            changes,
            stop,
            feed,
            rooms: Arc::default(),
            link: Link::new(port, database.to_owned()),
            users: Users::new(options.max_users),
            joins: rate(options.max_joins_per_second),
            events: rate(options.max_events_per_second),
            calls: rate(options.max_presence_per_second),
            options,
        })
    }
}

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
