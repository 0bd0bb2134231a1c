//! A Supabase Realtime and PostgREST client that tells the truth about gaps.
mod backoff;
mod channel;
mod client;
mod driver;
mod endpoint;
mod error;
pub mod rest;
mod secret;
mod session;
mod socket;
mod stream;
pub mod telemetry;
mod tls;
mod token;
pub mod watch;
mod wire;

pub use self::{
    channel::{
        Channel,
        builder::{ChangesBuilder, ChannelBuilder},
        changes::Changes,
        filter::Filter,
        http::{BroadcastMessage, HttpBroadcasts},
    },
    client::{Client, ClientBuilder},
    driver::{CountersSnapshot, Phase, Status},
    endpoint::Version,
    error::{ApiError, Error, ErrorKind, Retry},
    rest::Rest,
    secret::{AccessToken, ApiKey},
    session::ResyncReason,
    stream::{
        broadcast::{Broadcast, BroadcastEvent, BroadcastStream},
        changes::{ChangeEvent, ChangeStream},
        presence::{Meta, PresenceEvent, PresenceStream},
        row::{RawRow, Row},
    },
    token::{TokenFuture, TokenSource},
    wire::{change::ChangeKind, join::EventFilter},
};
