//! The handle on a project: one websocket, many channels, and REST beside it.

mod builder;

use std::time::Duration;

use tokio::sync::watch;

pub use self::builder::ClientBuilder;
#[cfg(feature = "rest")]
use crate::{
    channel::http::BroadcastApi,
    rest::{QueryBuilder, Rest},
};
use crate::{
    channel::{Channel, builder::ChannelBuilder},
    driver::{Handle, HeartbeatStream, Stats, Status},
    endpoint::ProtocolVersion,
    error::Error,
};

/// A client of one Supabase project. Cheap to clone; all clones share one websocket, opened with the first channel and closed
/// when there is none.
#[derive(Debug, Clone)]
pub struct Client {
    handle: Handle,
    #[cfg(feature = "rest")]
    rest: Rest,
    #[cfg(feature = "rest")]
    http_broadcasts: BroadcastApi,
    subscribe_timeout: Duration,
    version: ProtocolVersion,
}

impl Client {
    /// A client with all defaults: [`builder`](Self::builder) and [`build`](ClientBuilder::build).
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for what is no URL or no key, or a proxy of the environment that is not
    /// understood.
    pub fn new(url: impl Into<String>, key: impl Into<String>) -> Result<Self, Error> {
        Self::builder(url, key).build()
    }

    /// Starts from the project's base URL (`https://ref.supabase.co`, or a full `wss://…/websocket`) and one of its API keys.
    #[doc(alias = "createClient")]
    pub fn builder(url: impl Into<String>, key: impl Into<String>) -> ClientBuilder {
        ClientBuilder::new(url.into(), key.into())
    }

    /// Describes a channel; nothing is sent until it is joined. A socket holds each name once.
    pub fn channel(&self, name: &str) -> ChannelBuilder {
        ChannelBuilder::new(self.handle.clone(), name, self.subscribe_timeout, self.version)
    }

    /// The channels that are held now: joined, or about to be joined.
    #[doc(alias = "getChannels")]
    pub fn channels(&self) -> Vec<Channel> {
        self.handle.channels().into_iter().map(Channel::new).collect()
    }

    /// The REST interface of the same project, with the same tokens.
    #[cfg(feature = "rest")]
    pub fn rest(&self) -> &Rest {
        &self.rest
    }

    /// A request on a table or a view: `client.rest().from(table)`.
    #[cfg(feature = "rest")]
    pub fn from(&self, table: &str) -> QueryBuilder {
        self.rest.from(table)
    }

    /// A call of a database function: `client.rest().rpc(function, arguments)`.
    #[cfg(feature = "rest")]
    pub fn rpc<A: serde::Serialize + ?Sized>(&self, function: &str, arguments: &A) -> QueryBuilder {
        self.rest.rpc(function, arguments)
    }

    /// Broadcasts without a websocket, for those who send now and then and listen to nothing.
    #[doc(alias("httpSend", "http_send"))]
    #[cfg(feature = "rest")]
    pub fn broadcast_api(&self) -> &BroadcastApi {
        &self.http_broadcasts
    }

    /// The connection's state now, and whenever it changes.
    #[doc(alias("connectionState", "isConnected"))]
    pub fn status(&self) -> watch::Receiver<Status> {
        self.handle.status()
    }

    /// Every heartbeat from now on: sent, answered, or not answered in time. A reader that falls behind misses the oldest.
    ///
    /// ```no_run
    /// use tendril_realtime::{Heartbeat, StreamExt as _};
    ///
    /// # async fn run(client: tendril_realtime::Client) {
    /// let mut heartbeats = client.heartbeats();
    /// while let Some(heartbeat) = heartbeats.next().await {
    ///     match heartbeat {
    ///         Heartbeat::Answered { round_trip } => println!("the server answers after {round_trip:?}"),
    ///         Heartbeat::TimedOut => println!("the server does not answer"),
    ///         _ => {}
    ///     }
    /// }
    /// # }
    /// ```
    #[doc(alias("onHeartbeat", "heartbeatCallback"))]
    pub fn heartbeats(&self) -> HeartbeatStream {
        HeartbeatStream::new(self.handle.heartbeats())
    }

    /// How much went over the connection since the client was built.
    pub fn stats(&self) -> Stats {
        self.handle.counters().snapshot()
    }

    /// Calls the token source now, and pushes a new token to all channels: for a change that the source knows of before
    /// the old token's `exp`.
    #[doc(alias("setAuth", "set_auth"))]
    pub fn refresh_auth(&self) {
        self.handle.refresh_auth();
    }

    /// Reconnects at once: for a network that changed, or a user who does not want to wait out a pause.
    #[doc(alias = "connect")]
    pub fn reconnect_now(&self) {
        self.handle.reconnect_now();
    }

    /// Leaves all channels and closes the connection; all streams end.
    #[doc(alias("removeAllChannels", "disconnect"))]
    pub async fn shutdown(&self) {
        self.handle.shutdown().await;
    }
}
