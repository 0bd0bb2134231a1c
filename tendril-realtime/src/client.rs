//! The handle on a project: one websocket, many channels, and REST beside it.

use std::{fmt, sync::Arc, time::Duration};

use tokio::sync::watch;
use tokio_tungstenite::tungstenite::http::{HeaderMap, HeaderName, HeaderValue};

use crate::{
    channel::{Channel, builder::ChannelBuilder},
    driver::{Handle, Setup, Stats, Status},
    endpoint::{Endpoint, ProtocolVersion},
    error::Error,
    network::{NetworkSettings, ProxyChoice},
    secret::ApiKey,
    session::Settings,
    socket::{Dialer, TcpTuning},
    token::{TokenSource, Tokens},
};

#[cfg(feature = "rest")]
use crate::{
    channel::http::BroadcastApi,
    rest::{QueryBuilder, Rest, RetryPolicy},
};

/// A client of one Supabase project. Cheap to clone; all clones share one websocket, opened with the first channel and closed
/// when nobody wants one.
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

/// How a [`Client`] is made. Every default is a number with a reason; see each method.
#[must_use]
pub struct ClientBuilder {
    url: String,
    key: String,
    version: ProtocolVersion,
    tokens: Option<Tokens>,
    settings: Settings,
    connect_timeout: Duration,
    subscribe_timeout: Duration,
    rest_timeout: Duration,
    #[cfg(feature = "rest")]
    rest_retries: RetryPolicy,
    initial_backoff: Duration,
    max_backoff: Duration,
    network: NetworkSettings,
    headers: Vec<(String, String)>,
    query: Vec<(String, String)>,
    tuning: TcpTuning,
}

const LONGEST_HEARTBEAT: Duration = Duration::from_secs(55);
/// `Duration::MAX` stands for "as long as it takes", and cannot be added to a time.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(30 * 24 * 3600);

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
            #[cfg(feature = "rest")]
            rest_retries: RetryPolicy::default(),
            initial_backoff: Duration::from_millis(500),
            max_backoff: Duration::from_secs(30),
            network: NetworkSettings::default(),
            headers: Vec::new(),
            query: Vec::new(),
            tuning: TcpTuning::default(),
        }
    }

    /// Describes a channel; nothing is sent until it is joined. A socket holds each name once.
    pub fn channel(&self, name: &str) -> ChannelBuilder {
        ChannelBuilder::new(self.handle.clone(), name, self.subscribe_timeout, self.version)
    }

    /// The channels that are held now: joined, or kept trying to join.
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
        self.tokens = Some(Tokens::new(Arc::new(source)));
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

    /// Pauses between attempts to connect are drawn from zero to a bound that doubles from twice `initial` up to `max`.
    /// Default: 500 ms and 30 s. There is no last attempt.
    #[doc(alias = "reconnectAfterMs")]
    pub fn reconnect_backoff(mut self, initial: Duration, max: Duration) -> Self {
        // Zero would be a loop without a pause.
        self.initial_backoff = initial.max(Duration::from_millis(10));
        self.max_backoff = max.max(self.initial_backoff);
        self
    }

    /// The longest one attempt of a REST request may take. Default: 30 s.
    #[cfg(feature = "rest")]
    pub fn rest_timeout(mut self, timeout: Duration) -> Self {
        self.rest_timeout = timeout;
        self
    }

    /// How REST requests are repeated.
    #[cfg(feature = "rest")]
    pub fn rest_retries(mut self, policy: RetryPolicy) -> Self {
        self.rest_retries = policy;
        self
    }

    /// Trusts this certificate authority (DER) beside the platform's, for the websocket and for REST.
    pub fn root_certificate(mut self, der: impl Into<Vec<u8>>) -> Self {
        self.network.tls.add_root(der.into());
        self
    }

    /// Trusts the certificate authorities of this PEM text beside the platform's, for the websocket and for REST.
    pub fn root_certificates_pem(mut self, pem: &[u8]) -> Self {
        self.network.tls.add_roots_pem(pem);
        self
    }

    /// Proves to the server who this client is (mutual TLS), for the websocket and for REST: a PEM certificate chain, and the
    /// PEM of its key.
    pub fn client_certificate_pem(mut self, chain: &[u8], key: &[u8]) -> Self {
        self.network.tls.set_identity_pem(chain, key);
        self
    }

    /// Goes through this proxy (`http`, `https`, and with the feature `socks` `socks5` and `socks5h`) instead of those that
    /// the environment names, for the websocket and for REST.
    pub fn proxy(mut self, url: impl Into<String>) -> Self {
        self.network.proxy = ProxyChoice::Fixed(url.into());
        self
    }

    /// Goes through no proxy, whatever the environment says.
    pub fn no_proxy(mut self) -> Self {
        self.network.proxy = ProxyChoice::None;
        self
    }

    /// Sends this header with each websocket upgrade. Policies find headers that begin with `x-` in `request.headers`.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Appends this parameter to the websocket address, such as `log_level`.
    #[doc(alias = "params")]
    pub fn query(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.query.push((name.into(), value.into()));
        self
    }

    /// Checks the arguments. No I/O, and no runtime is needed yet.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) that names the argument.
    pub fn build(mut self) -> Result<Client, Error> {
        let endpoint = Endpoint::parse(&self.url)?;
        let key = ApiKey::new(&self.key)?;
        for (field, value) in [
            ("heartbeat_interval", self.settings.heartbeat_interval),
            ("heartbeat_timeout", self.settings.heartbeat_timeout),
            ("connect_timeout", self.connect_timeout),
            ("subscribe_timeout", self.subscribe_timeout),
            ("rest_timeout", self.rest_timeout),
            ("join_timeout", self.settings.join_timeout),
        ] {
            if value.is_zero() {
                return Err(Error::invalid(field, "it is zero"));
            }
        }
        for value in [
            &mut self.settings.heartbeat_timeout,
            &mut self.connect_timeout,
            &mut self.settings.join_timeout,
            &mut self.subscribe_timeout,
            &mut self.rest_timeout,
            &mut self.initial_backoff,
            &mut self.max_backoff,
        ] {
            *value = (*value).min(LONGEST_TIMEOUT);
        }
        if self.settings.heartbeat_interval > LONGEST_HEARTBEAT {
            let most = LONGEST_HEARTBEAT.as_secs();
            return Err(Error::invalid(
                "heartbeat_interval",
                format!("the server cuts a client that is silent for 60 s; at most {most} s"),
            ));
        }
        let network = self.network.build()?;
        let tokens = self.tokens;
        #[cfg(feature = "rest")]
        let rest = Rest::new(
            &endpoint,
            key.clone(),
            tokens.clone(),
            self.rest_timeout,
            self.rest_retries,
            &network,
        )?;
        #[cfg(feature = "rest")]
        let http_broadcasts = BroadcastApi::new(rest.clone(), &endpoint);
        let dialer = Dialer::new(network, self.connect_timeout, self.tuning, header_map(&self.headers)?);
        let setup = Setup {
            endpoint,
            key,
            version: self.version,
            tokens,
            dialer,
            settings: self.settings,
            query: self.query,
            initial_backoff: self.initial_backoff,
            max_backoff: self.max_backoff,
        };
        Ok(Client {
            handle: Handle::new(setup),
            #[cfg(feature = "rest")]
            rest,
            #[cfg(feature = "rest")]
            http_broadcasts,
            subscribe_timeout: self.subscribe_timeout,
            version: self.version,
        })
    }
}

fn header_map(headers: &[(String, String)]) -> Result<HeaderMap, Error> {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        let wrong =
            || Error::invalid("header", format!("`{name}` or its value is nothing a header can carry"));
        let key = HeaderName::from_bytes(name.as_bytes()).map_err(|_| wrong())?;
        if matches!(key.as_str(), "host" | "upgrade" | "connection")
            || key.as_str().starts_with("sec-websocket-")
        {
            return Err(Error::invalid("header", format!("`{name}` belongs to the websocket handshake")));
        }
        map.append(key, HeaderValue::from_str(value).map_err(|_| wrong())?);
    }
    Ok(map)
}

/// The URL may hold a key in its query, and the key is one.
impl fmt::Debug for ClientBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { version, settings, connect_timeout, subscribe_timeout, rest_timeout, .. } = self;
        f.debug_struct("ClientBuilder")
            .field("version", version)
            .field("settings", settings)
            .field("connect_timeout", connect_timeout)
            .field("subscribe_timeout", subscribe_timeout)
            .field("rest_timeout", rest_timeout)
            .finish_non_exhaustive()
    }
}
