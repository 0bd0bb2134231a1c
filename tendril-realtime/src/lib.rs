//! A Supabase Realtime and PostgREST client that reports where rows may have been missed, and which errors are final.
//!
//! ```no_run
//! use tendril_realtime::{ChangeEvent, Client, PostgresChanges, StreamExt as _, col};
//!
//! #[derive(serde::Deserialize)]
//! struct Todo {
//!     id: i64,
//!     title: String,
//! }
//!
//! # async fn run() -> Result<(), tendril_realtime::Error> {
//! let client = Client::builder("https://ref.supabase.co", "sb_publishable_…").build()?;
//! let mut todos =
//!     client.channel("todos").postgres_changes::<Todo>(PostgresChanges::on("public", "todos").filter(col("id").gt(5))).subscribe().await?;
//! while let Some(event) = todos.next().await {
//!     match event? {
//!         ChangeEvent::Insert(todo) | ChangeEvent::Update { new: todo, .. } => println!("{}: {}", todo.id, todo.title),
//!         ChangeEvent::Delete { old } => println!("gone: {old:?}"),
//!         ChangeEvent::Resync(_) | ChangeEvent::Lagged(_) => println!("something may be missing: read the table"),
//!         _ => {}
//!     }
//! }
//! # Ok(()) }
//! ```
//!
//! # Where to begin
//!
//! | you want | use |
//! |---|---|
//! | the rows of a table and every change of them, without gaps | [`Client::watch`], [`Client::store`] |
//! | changes as they happen | [`Client::channel`], then [`postgres_changes`](ChannelBuilder::postgres_changes) |
//! | messages between clients, who is online | [`ChannelBuilder::on_broadcast`], [`ChannelBuilder::on_presence`], [`Channel`] |
//! | messages without a websocket | [`Client::broadcast_api`] |
//! | to read and write rows | [`Client::rest`] |
//! | to call an Edge Function | [`Rest::invoke`] |
//! | tokens that are renewed | [`ClientBuilder::session`], [`TokenSource`], or a closure |
//! | to know how a channel is, to leave it | [`Channel::status`], [`Channel::leave`], [`Client::channels`] |
//! | to know how the connection is | [`Client::status`], [`Client::heartbeats`], [`Client::stats`], [`telemetry`] |
//! | one trace from here to the logs of the project | [`ClientBuilder::trace_context`] |
//!
//! What is promised, and what cannot be, is said in [`guarantees`]. [`coming_from_supabase_js`] has the names of supabase-js beside
//! ours, and [`cookbook`] short answers.
//!
//! # Errors
//!
//! There is one [`Error`], with a [`kind`](Error::kind), a source, and advice: [`Error::retry`]. `{error}` says what went wrong,
//! `{error:#}` why, too. An `Err` item of a stream is its end. A failure that the client recovers from by itself is an event
//! (`Interrupted`), and so is a row that is not of the type asked for (`Undecodable`, with the row as it came).
//!
//! # Runtime and TLS
//!
//! The crate runs on tokio. TLS is rustls, by default with `ring`, trusting what the platform trusts and the certificates given to
//! [`ClientBuilder::root_certificate`]; a [client certificate](ClientBuilder::client_certificate_pem) can be given. `HTTPS_PROXY`,
//! `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY` (hosts, domains, addresses, networks) are respected for HTTP and for the websocket
//! alike; one that is not understood is an error of `build`. Of a host's addresses the first that answers is taken.
//!
//! # Optional features
//!
//! * `rest` (default): [`rest`], [`watch`], Edge Functions and [`BroadcastApi`]. Without it the crate is the websocket alone, and pulls in
//!   no HTTP client.
//! * `platform` (default): trusts the certificate authorities that the platform trusts. `webpki-roots`: trusts those of Mozilla, which
//!   are compiled in, for images without any. With both, either will do.
//! * `ring` (default), `aws-lc-rs`: the cryptography of TLS. With both it is `aws-lc-rs`; with neither, the process' default provider of
//!   rustls.
//! * `socks`: proxies that speak SOCKS 5.
//! * `metrics`: the client's counters also go to the `metrics` facade; names in [`telemetry`].

#![cfg_attr(docsrs, feature(doc_cfg))]
#![cfg_attr(
    not(feature = "rest"),
    allow(dead_code, reason = "REST and the watches use more of the rooms below them")
)]

#[cfg(feature = "rest")]
mod auth;
mod backoff;
mod channel;
mod client;
mod driver;
mod endpoint;
mod error;
mod filter;
#[doc = include_str!("guarantees.md")]
pub mod guarantees {}
#[doc = include_str!("coming_from_supabase_js.md")]
pub mod coming_from_supabase_js {}
#[doc = include_str!("cookbook.md")]
pub mod cookbook {}
mod network;
mod proxy;
#[cfg(feature = "rest")]
pub mod rest;
mod secret;
mod session;
mod socket;
mod stream;
pub mod telemetry;
mod tls;
mod token;
mod trace;
#[cfg(feature = "rest")]
pub mod watch;
mod wire;

#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub use self::session::fuzzing;
/// Streams and their `next()`: what a reader of this crate's streams needs, without another dependency.
pub use futures_util::{Stream, StreamExt};

#[cfg(feature = "rest")]
pub use self::{
    auth::{Session, SessionSource},
    channel::http::{BroadcastApi, BroadcastMessage},
    rest::Rest,
};
pub use self::{
    channel::{
        Channel,
        builder::{ChannelBuilder, PostgresChangesBuilder},
        changes::PostgresChanges,
    },
    client::{Client, ClientBuilder},
    driver::{Heartbeat, HeartbeatStream, Phase, Stats, Status},
    endpoint::ProtocolVersion,
    error::{Error, ErrorKind, PostgrestError, Retry},
    filter::{Column, Filter, Operand, TextSearch, col},
    secret::{AccessToken, ApiKey, RefreshToken},
    session::{ChannelStatus, ResyncReason},
    stream::{
        broadcast::{Broadcast, BroadcastEvent, BroadcastStream, DatabaseChange},
        changes::{ChangeEvent, ChangeStream},
        presence::{PresenceEvent, PresenceMeta, PresenceState, PresenceStream},
        row::{RawRow, Row},
        system::{SystemEvent, SystemMessage, SystemStream},
    },
    token::{TokenFuture, TokenSource},
    trace::TraceContext,
    wire::{change::ChangeKind, join::PostgresEvent},
};
