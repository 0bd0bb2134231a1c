//! How a client is made: its settings, each with its default and the reason for it.

use std::{fmt, sync::Arc, time::Duration};

use tokio_tungstenite::tungstenite::http::{HeaderMap, HeaderName, HeaderValue};

use super::Client;
#[cfg(feature = "rest")]
use crate::{
    auth::SessionSource,
    channel::http::BroadcastApi,
    rest::{Credential, Rest, RetryPolicy},
};
use crate::{
    driver::{Handle, Setup},
    endpoint::{Endpoint, ProtocolVersion},
    error::Error,
    network::{NetworkSettings, ProxyChoice},
    secret::ApiKey,
    session::Settings,
    socket::{Dialer, TcpTuning},
    token::{TokenSource, Tokens},
    trace::{TraceContext, TraceSource},
};

/// How a [`Client`] is made. Every default is a number with a reason; see each method.
#[must_use]
pub struct ClientBuilder {
    url: String,
    key: String,
    version: ProtocolVersion,
    tokens: Option<Tokens>,
    #[cfg(feature = "rest")]
    session: Option<SessionSource>,
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
/// `Duration::MAX` means "as long as it takes", and cannot be added to a time.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(30 * 24 * 3600);

impl ClientBuilder {
    pub(super) fn new(url: String, key: String) -> Self {
        Self {
            url,
            key,
            version: ProtocolVersion::V2,
            tokens: None,
            #[cfg(feature = "rest")]
            session: None,
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

    /// Where access tokens come from; an [`AccessToken`](crate::AccessToken) is a source that never changes. Without one, the
    /// API key identifies the client.
    #[doc(alias = "accessToken")]
    pub fn token_source(mut self, source: impl TokenSource) -> Self {
        self.tokens = Some(Tokens::new(Arc::new(source)));
        #[cfg(feature = "rest")]
        {
            self.session = None;
        }
        self
    }

    /// The session of a signed-in user, refreshed before its access token ends. Replaces a token source.
    #[cfg(feature = "rest")]
    #[doc(alias("setSession", "autoRefreshToken"))]
    pub fn session(mut self, session: impl Into<SessionSource>) -> Self {
        self.session = Some(session.into());
        self.tokens = None;
        self
    }

    /// Attaches a [W3C trace context](TraceContext) to each request over HTTP and to each websocket upgrade: the closure gives
    /// that of the current span, and is called on the task that sends. A request with its own `traceparent` is not changed.
    ///
    /// ```
    /// # use tendril_realtime::{Client, TraceContext};
    /// # fn current_traceparent() -> Option<String> { None }
    /// let client = Client::builder("https://ref.supabase.co", "sb_publishable_…")
    ///     .trace_context(|| TraceContext::new(current_traceparent()?).ok());
    /// ```
    #[doc(alias = "tracePropagation")]
    pub fn trace_context(
        mut self,
        current: impl Fn() -> Option<TraceContext> + Send + Sync + 'static,
    ) -> Self {
        self.network.trace = Some(TraceSource::new(current));
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

    /// How long a connection without channels stays open, for the next one. Default: 50 s.
    #[doc(alias = "disconnectOnEmptyChannelsAfterMs")]
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.settings.idle_disconnect = timeout;
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

    /// Uses no proxy, whatever the environment contains.
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
            &mut self.settings.idle_disconnect,
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
        let tokens = match self.session {
            Some(session) => {
                Credential::Session(session).tokens(&endpoint, &key, self.rest_timeout, &network)?
            }
            None => tokens,
        };
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
