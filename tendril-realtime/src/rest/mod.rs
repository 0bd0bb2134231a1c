//! `PostgREST`: typed rows, typed errors, and retries that know what may be repeated.
//!
//! ```no_run
//! # async fn run(client: tendril_realtime::Client) -> Result<(), tendril_realtime::Error> {
//! #[derive(serde::Deserialize)]
//! struct Todo { id: i64, title: String }
//!
//! let todos: Vec<Todo> =
//!     client.rest().from("todos").select("id,title").eq("done", "false").order("id.asc").limit(20).rows().await?;
//! # Ok(()) }
//! ```

mod function;
mod preference;
mod request;
mod response;
mod retry;
mod transport;

use std::{fmt, sync::Arc, time::Duration};

use rustls::pki_types::CertificateDer;
use serde::Serialize;

pub(crate) use self::transport::Parts;
use self::transport::Transport;
pub use self::{
    preference::Count,
    request::{Quoted, Request},
    response::Response,
    retry::RetryPolicy,
};
use crate::{endpoint::Endpoint, error::Error, secret::ApiKey, tls, token::TokenSource};

/// A handle on a project's REST interface. Clones share one connection pool.
#[derive(Clone)]
pub struct Rest {
    /// Builds requests and nothing else: it never opens a socket.
    requests: postgrest::Postgrest,
    /// Where the project's Edge Functions are.
    functions: String,
    transport: Arc<Transport>,
}

/// How a [`Rest`] is made, for those who need no websocket.
pub struct RestBuilder {
    url: String,
    key: String,
    tokens: Option<TokenSourceHandle>,
    timeout: Duration,
    retries: RetryPolicy,
    roots: Vec<CertificateDer<'static>>,
}

/// A token source whose `Debug` says nothing.
#[derive(Clone)]
pub(crate) struct TokenSourceHandle(pub(crate) Arc<dyn TokenSource>);

impl fmt::Debug for TokenSourceHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenSource")
    }
}

impl Rest {
    /// Starts from the project's base URL (`https://ref.supabase.co`) and one of its API keys.
    pub fn builder(url: impl Into<String>, key: impl Into<String>) -> RestBuilder {
        RestBuilder {
            url: url.into(),
            key: key.into(),
            tokens: None,
            timeout: Duration::from_secs(30),
            retries: RetryPolicy::default(),
            roots: Vec::new(),
        }
    }

    /// A request on a table or a view.
    pub fn from(&self, table: &str) -> Request {
        let builder = self.requests.from(path_segment(table));
        Request::new(builder, Arc::clone(&self.transport), table)
    }

    /// A call of a database function, its named arguments as a JSON object.
    ///
    /// ```no_run
    /// # async fn run(rest: tendril_realtime::rest::Rest) -> Result<(), tendril_realtime::Error> {
    /// let sum: i64 = rest.rpc("add", &serde_json::json!({"a": 1, "b": 2})).value().await?;
    /// # Ok(()) }
    /// ```
    pub fn rpc<A: Serialize + ?Sized>(&self, function: &str, arguments: &A) -> Request {
        let (body, error) = match serde_json::to_string(arguments) {
            Ok(body) => (body, None),
            Err(error) => (String::new(), Some(Error::decode("the arguments", &error))),
        };
        let builder = self.requests.rpc(path_segment(function), body);
        let mut request = Request::new(builder, Arc::clone(&self.transport), function);
        request.fail_with(error);
        request
    }

    /// Sends what another room has built, with the same keys, tokens and retries.
    pub(crate) async fn send(&self, parts: Parts) -> Result<Response, Error> {
        self.transport.send(parts, None).await
    }

    pub(crate) fn new(
        endpoint: &Endpoint,
        key: ApiKey,
        tokens: Option<Arc<dyn TokenSource>>,
        timeout: Duration,
        retries: RetryPolicy,
        tls: &Arc<rustls::ClientConfig>,
    ) -> Result<Self, Error> {
        Ok(Self {
            requests: postgrest::Postgrest::new(endpoint.rest()),
            functions: endpoint.functions(),
            transport: Arc::new(Transport::new(key, tokens, timeout, retries, tls)?),
        })
    }
}

impl RestBuilder {
    /// Where access tokens come from; without one, the API key says who the caller is.
    #[must_use]
    pub fn token_source(mut self, source: impl TokenSource) -> Self {
        self.tokens = Some(TokenSourceHandle(Arc::new(source)));
        self
    }

    /// The longest one attempt may take, from connecting to the last byte. Default: 30 s.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// How failures that a repetition can mend are repeated.
    #[must_use]
    pub fn retries(mut self, policy: RetryPolicy) -> Self {
        self.retries = policy;
        self
    }

    /// Trusts this certificate authority (DER) beside the platform's.
    #[must_use]
    pub fn root_certificate(mut self, der: impl Into<Vec<u8>>) -> Self {
        self.roots.push(CertificateDer::from(der.into()));
        self
    }

    /// Checks the arguments. Nothing is sent yet.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) that names the argument.
    pub fn build(self) -> Result<Rest, Error> {
        let endpoint = Endpoint::parse(&self.url)?;
        let key = ApiKey::new(&self.key)?;
        let tls = tls::client_config(&self.roots)?;
        Rest::new(&endpoint, key, self.tokens.map(|handle| handle.0), self.timeout, self.retries, &tls)
    }
}

/// Table names may hold any character; the builder below would paste them into the path as they are.
fn path_segment(name: &str) -> String {
    url::form_urlencoded::byte_serialize(name.as_bytes()).collect::<String>().replace('+', "%20")
}

/// The URL may hold a key in its query, and the key is one.
impl fmt::Debug for RestBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { timeout, retries, .. } = self;
        f.debug_struct("RestBuilder")
            .field("timeout", timeout)
            .field("retries", retries)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Rest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rest").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod recorded;
