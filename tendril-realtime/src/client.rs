//! The handle on a project: one websocket, many channels, and REST beside it.

use std::{fmt, sync::Arc, time::Duration};

use rustls::pki_types::CertificateDer;
use tokio::sync::watch;

use crate::{
    channel::{builder::ChannelBuilder, http::BroadcastApi},
    driver::{Handle, Setup, Stats, Status},
    endpoint::{Endpoint, ProtocolVersion},
    error::Error,
    rest::{Rest, RetryPolicy, TokenSourceHandle},
    secret::ApiKey,
    session::Settings,
    socket::{Dialer, TcpTuning},
    tls,
    token::TokenSource,
};

/// A client of one Supabase project. Cheap to clone; all clones share one websocket, opened with the first channel and closed
/// when nobody wants one.
#[derive(Debug, Clone)]
pub struct Client {
    handle: Handle,
    rest: Rest,
    http_broadcasts: BroadcastApi,
    subscribe_timeout: Duration,
    version: ProtocolVersion,
}

/// How a [`Client`] is made. Every default is a number with a reason; see each method.
#[must_use]
pub struct ClientBuilder {
    url: String,
    key: String,
    version: ProtocolVersion,
    tokens: Option<TokenSourceHandle>,
    settings: Settings,
    connect_timeout: Duration,
    subscribe_timeout: Duration,
    rest_timeout: Duration,
    rest_retries: RetryPolicy,
    reconnect_first: Duration,
    reconnect_longest: Duration,
    roots: Vec<CertificateDer<'static>>,
    tuning: TcpTuning,
}

const LONGEST_HEARTBEAT: Duration = Duration::from_secs(55);

impl Client {
    /// Starts from the project's base URL (`https://ref.supabase.co`, or a full `wss://…/websocket`) and one of its API keys.
    #[doc(alias = "createClient")]
    pub fn builder(url: impl Into<String>, key: impl Into<String>) -> ClientBuilder {
        ClientBuilder {
            url: url.into(),
            key: key.into(),
            version: ProtocolVersion::V2,
            tokens: None,
            settings: Settings::default(),
            connect_timeout: Duration::from_secs(15),
            subscribe_timeout: Duration::from_secs(60),
            rest_timeout: Duration::from_secs(30),
            rest_retries: RetryPolicy::default(),
            reconnect_first: Duration::from_millis(500),
            reconnect_longest: Duration::from_secs(30),
            roots: Vec::new(),
            tuning: TcpTuning::default(),
        }
    }

    /// Describes a channel; nothing is sent until it is joined. A socket holds each name once.
    pub fn channel(&self, name: &str) -> ChannelBuilder {
        ChannelBuilder::new(self.handle.clone(), name, self.subscribe_timeout, self.version)
    }

    /// The REST interface of the same project, with the same tokens.
    pub fn rest(&self) -> &Rest {
        &self.rest
    }

    /// Broadcasts without a websocket, for those who send now and then and listen to nothing.
    #[doc(alias("httpSend", "http_send"))]
    pub fn broadcast_api(&self) -> &BroadcastApi {
        &self.http_broadcasts
    }

    /// The connection's state now, and whenever it changes.
    #[doc(alias("connectionState", "isConnected", "onHeartbeat"))]
    pub fn status(&self) -> watch::Receiver<Status> {
        self.handle.status()
    }

    /// How much went over the connection since the client was built.
    pub fn stats(&self) -> Stats {
        self.handle.counters().snapshot()
    }

    /// Asks the token source now, and pushes a new token to all channels: for a change that the source knows of before
    /// the old token's `exp`.
    #[doc(alias("setAuth", "set_auth"))]
    pub fn refresh_auth(&self) {
        self.handle.refresh_auth();
    }

    /// Connects anew at once: for a network that changed, or a user who does not want to wait out a pause.
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

impl ClientBuilder {
    /// Where access tokens come from; an [`AccessToken`](crate::AccessToken) is a source that never changes. Without one, the
    /// API key says who we are.
    #[doc(alias = "accessToken")]
    pub fn token_source(mut self, source: impl TokenSource) -> Self {
        self.tokens = Some(TokenSourceHandle(Arc::new(source)));
        self
    }

    /// The websocket protocol's version. Default: 2.0.0.
    #[doc(alias = "vsn")]
    pub fn protocol_version(mut self, version: ProtocolVersion) -> Self {
        self.version = version;
        self
    }

    /// Between two heartbeats. Default: 25 s, twice within the 60 s after which the server cuts a silent client.
    #[doc(alias = "heartbeatIntervalMs")]
    pub fn heartbeat_interval(mut self, interval: Duration) -> Self {
        self.settings.heartbeat_interval = interval;
        self
    }

    /// How much silence after a heartbeat means that the peer is dead. Default: 10 s.
    pub fn heartbeat_timeout(mut self, timeout: Duration) -> Self {
        self.settings.heartbeat_timeout = timeout;
        self
    }

    /// The longest a connection may take to open, proxy and TLS included. Default: 15 s.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// The longest a join may take. Default: 20 s; the server itself may take 15 s to reach its database.
    pub fn join_timeout(mut self, timeout: Duration) -> Self {
        self.settings.join_timeout = timeout;
        self
    }

    /// The longest `join` and `subscribe` wait for everything to flow, over all attempts. Default: 60 s.
    pub fn subscribe_timeout(mut self, timeout: Duration) -> Self {
        self.subscribe_timeout = timeout;
        self
    }

    /// Pauses between attempts to connect are drawn from zero to a bound that doubles from twice `first` up to `longest`.
    /// Default: 500 ms and 30 s. There is no last attempt.
    #[doc(alias = "reconnectAfterMs")]
    pub fn reconnect_backoff(mut self, first: Duration, longest: Duration) -> Self {
        // Zero would be a loop without a pause.
        self.reconnect_first = first.max(Duration::from_millis(10));
        self.reconnect_longest = longest.max(self.reconnect_first);
        self
    }

    /// The longest one attempt of a REST request may take. Default: 30 s.
    pub fn rest_timeout(mut self, timeout: Duration) -> Self {
        self.rest_timeout = timeout;
        self
    }

    /// How REST requests are repeated.
    pub fn rest_retries(mut self, policy: RetryPolicy) -> Self {
        self.rest_retries = policy;
        self
    }

    /// Trusts this certificate authority (DER) beside the platform's, for the websocket and for REST.
    pub fn root_certificate(mut self, der: impl Into<Vec<u8>>) -> Self {
        self.roots.push(CertificateDer::from(der.into()));
        self
    }

    /// Checks the arguments. No I/O, and no runtime is needed yet.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) that names the argument.
    pub fn build(self) -> Result<Client, Error> {
        let endpoint = Endpoint::parse(&self.url)?;
        let key = ApiKey::new(&self.key)?;
        for (field, value) in [
            ("heartbeat_interval", self.settings.heartbeat_interval),
            ("heartbeat_timeout", self.settings.heartbeat_timeout),
            ("connect_timeout", self.connect_timeout),
            ("join_timeout", self.settings.join_timeout),
        ] {
            if value.is_zero() {
                return Err(Error::invalid(field, "it is zero"));
            }
        }
        if self.settings.heartbeat_interval > LONGEST_HEARTBEAT {
            let most = LONGEST_HEARTBEAT.as_secs();
            return Err(Error::invalid(
                "heartbeat_interval",
                format!("the server cuts a client that is silent for 60 s; at most {most} s"),
            ));
        }
        let tls = tls::client_config(&self.roots)?;
        let tokens = self.tokens.map(|handle| handle.0);
        let rest =
            Rest::new(&endpoint, key.clone(), tokens.clone(), self.rest_timeout, self.rest_retries, &tls)?;
        let http_broadcasts = BroadcastApi::new(rest.clone(), &endpoint);
        let dialer = Dialer::new(tls, self.connect_timeout, self.tuning);
        let setup = Setup {
            endpoint,
            key,
            version: self.version,
            tokens,
            dialer,
            settings: self.settings,
            reconnect_first: self.reconnect_first,
            reconnect_longest: self.reconnect_longest,
        };
        Ok(Client {
            handle: Handle::new(setup),
            rest,
            http_broadcasts,
            subscribe_timeout: self.subscribe_timeout,
            version: self.version,
        })
    }
}

/// The URL may hold a key in its query, and the key is one.
impl fmt::Debug for ClientBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            version, settings, connect_timeout, subscribe_timeout, rest_timeout, rest_retries, ..
        } = self;
        f.debug_struct("ClientBuilder")
            .field("version", version)
            .field("settings", settings)
            .field("connect_timeout", connect_timeout)
            .field("subscribe_timeout", subscribe_timeout)
            .field("rest_timeout", rest_timeout)
            .field("rest_retries", rest_retries)
            .finish_non_exhaustive()
    }
}
