//! `PostgREST`: typed rows, typed errors, and retries of those requests that may be repeated.
//!
//! ```no_run
//! # async fn run(client: tendril_realtime::Client) -> Result<(), tendril_realtime::Error> {
//! #[derive(serde::Deserialize)]
//! struct Todo { id: i64, title: String }
//!
//! let todos: Vec<Todo> =
//!     client.rest().from("todos").select("id,title").eq("done", false).order("id").limit(20).rows().await?;
//! # Ok(()) }
//! ```
//!
//! # Coming from supabase-js
//!
//! | supabase-js | here |
//! |---|---|
//! | `.select("*", { count: "exact", head: true })` | `.count(Count::Exact).head().execute()`, then [`Response::count`] |
//! | `.order("a", { ascending: false, nullsFirst: true })` | `.order(col("a").desc().nulls_first())` |
//! | `.order("id", { referencedTable: "posts" })`, `.limit(2, { referencedTable: "posts" })` | `.order(col("id").of("posts"))`, `.limit_of(["posts"], 2)` |
//! | `.eq("posts.title", t)`, `.eq("data->>key", v)` | `.eq(col("title").of("posts"), t)`, `.eq(col("data").key("key").text(), v)` |
//! | `.or("a.eq.1,b.gt.2")` | `.or([col("a").eq(1), col("b").gt(2)])` |
//! | `.not("a", "is", null)` | `.not_null("a")`, `.not(col("a").is_null())` |
//! | `.filter("a", "cs", "{1}")` | `.filter(("a", "cs", "{1}"))` |
//! | `.match({ a: 1, b: 2 })` | `.match_([("a", 1), ("b", 2)])` |
//! | `.regexMatch("a", "^x")` | `.regex("a", "^x")` |
//! | `.textSearch("a", q, { type: "websearch", config: "english" })` | `.text_search("a", TextSearch::websearch(q).config("english"))` |
//! | `.upsert(rows, { onConflict: "a,b", ignoreDuplicates: true })` | `.upsert(&rows).on_conflict(["a", "b"]).ignore_duplicates()` |
//! | `.delete()` without a filter | refused, unless [`all_rows`](QueryBuilder::all_rows) is called |
//! | `.single()`, `.maybeSingle()` | [`single`](QueryBuilder::single), [`maybe_single`](QueryBuilder::maybe_single) |
//! | `.csv()`, `.geojson()`, `.explain()`, `.rollback()`, `.stripNulls()` | methods of the same names |
//! | `.rpc("f", args, { get: true })` | `.rpc("f", &args).get()` |
//! | `.schema("billing").from("t")` | `.schema("billing").from("t")` |
//! | `.setHeader(name, value)`, `.abortSignal(s)` | `.header(name, value)`; drop the future |

mod arguments;
mod function;
mod media;
mod order;
mod preference;
mod query_builder;
mod refresh;
mod response;
mod retry;
mod rows;
mod send;
mod transport;

use std::{fmt, sync::Arc, time::Duration};

use serde::Serialize;

pub(crate) use self::transport::Parts;
pub use self::{
    media::Explain, order::OrderBy, preference::Count, query_builder::QueryBuilder, response::Response,
    retry::RetryPolicy,
};
use self::{
    query_builder::{Action, Operation},
    refresh::SessionTokens,
    transport::Transport,
};
use crate::{
    auth::SessionSource,
    endpoint::Endpoint,
    error::Error,
    filter::check_name,
    network::{Network, NetworkSettings, ProxyChoice},
    secret::ApiKey,
    token::{TokenSource, Tokens},
    trace::{TraceContext, TraceSource},
};

/// A handle on a project's REST interface. Clones share one connection pool.
#[derive(Clone)]
pub struct Rest {
    /// Builds requests and nothing else: it never opens a socket.
    requests: postgrest::Postgrest,
    /// The schema, if it is not the project's first.
    schema: Option<String>,
    /// Where the project's Edge Functions are.
    functions: String,
    transport: Arc<Transport>,
}

/// Who the caller is.
pub(crate) enum Credential {
    /// By the API key.
    ApiKey,
    Tokens(Tokens),
    Session(SessionSource),
}

impl Credential {
    /// The token source, if there is one. A session exchanges its tokens by the same network.
    pub(crate) fn tokens(
        self,
        endpoint: &Endpoint,
        key: &ApiKey,
        timeout: Duration,
        network: &Network,
    ) -> Result<Option<Tokens>, Error> {
        match self {
            Self::ApiKey => Ok(None),
            Self::Tokens(tokens) => Ok(Some(tokens)),
            Self::Session(source) => {
                let retries = RetryPolicy::default();
                let rest = Rest::new(endpoint, key.clone(), None, timeout, retries, network)?;
                let session = SessionTokens::new(source, rest, endpoint.token_refresh());
                Ok(Some(Tokens::new(Arc::new(session))))
            }
        }
    }
}

/// How a [`Rest`] is made, for those who need no websocket.
pub struct RestBuilder {
    url: String,
    key: String,
    credential: Credential,
    timeout: Duration,
    retries: RetryPolicy,
    network: NetworkSettings,
}

impl Rest {
    /// Starts from the project's base URL (`https://ref.supabase.co`) and one of its API keys.
    pub fn builder(url: impl Into<String>, key: impl Into<String>) -> RestBuilder {
        RestBuilder {
            url: url.into(),
            key: key.into(),
            credential: Credential::ApiKey,
            timeout: Duration::from_secs(30),
            retries: RetryPolicy::default(),
            network: NetworkSettings::default(),
        }
    }

    /// The tables and functions of another schema than the project's first. The project must expose it.
    ///
    /// ```no_run
    /// # async fn run(rest: tendril_realtime::Rest) -> Result<(), tendril_realtime::Error> {
    /// # #[derive(serde::Deserialize)] struct Invoice { id: i64 }
    /// let invoices: Vec<Invoice> = rest.schema("billing").from("invoices").rows().await?;
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn schema(&self, name: impl Into<String>) -> Self {
        Self { schema: Some(name.into()), ..self.clone() }
    }

    /// A request on a table or a view.
    pub fn from(&self, table: &str) -> QueryBuilder {
        let segment = path_segment("table", table);
        let builder = self.requests.from(segment.as_deref().unwrap_or_default());
        let operation = Operation::Table(Box::new(builder), Action::Read { head: false });
        self.request(operation, table, segment.err())
    }

    /// A call of a database function, its named arguments as a JSON object.
    ///
    /// ```no_run
    /// # async fn run(rest: tendril_realtime::rest::Rest) -> Result<(), tendril_realtime::Error> {
    /// let sum: i64 = rest.rpc("add", &serde_json::json!({"a": 1, "b": 2})).value().await?;
    /// # Ok(()) }
    /// ```
    pub fn rpc<A: Serialize + ?Sized>(&self, function: &str, arguments: &A) -> QueryBuilder {
        let segment = path_segment("function", function);
        let arguments =
            serde_json::to_string(arguments).map_err(|error| Error::unserializable("arguments", &error));
        let path = format!("rpc/{}", segment.as_deref().unwrap_or_default());
        let operation = Operation::Call {
            builder: Box::new(self.requests.from(path)),
            arguments: arguments.as_deref().unwrap_or_default().to_owned(),
            by_get: false,
            head: false,
        };
        self.request(operation, function, segment.err().or(arguments.err()))
    }

    fn request(&self, operation: Operation, target: &str, error: Option<Error>) -> QueryBuilder {
        let mut request = QueryBuilder::new(operation, Arc::clone(&self.transport), target)
            .with_schema(self.schema.as_deref());
        if let Some(error) = error {
            request.fail_with(error);
        }
        request
    }

    /// Sends what another room has built, with the same keys, tokens and retries.
    pub(crate) async fn send(&self, parts: Parts) -> Result<Response, Error> {
        self.transport.send(parts, None).await
    }

    pub(crate) fn new(
        endpoint: &Endpoint,
        key: ApiKey,
        tokens: Option<Tokens>,
        timeout: Duration,
        retries: RetryPolicy,
        network: &Network,
    ) -> Result<Self, Error> {
        Ok(Self {
            requests: postgrest::Postgrest::new(endpoint.rest()),
            schema: None,
            functions: endpoint.functions(),
            transport: Arc::new(Transport::new(key, tokens, timeout, retries, network)?),
        })
    }
}

impl RestBuilder {
    /// Where access tokens come from; without one, the API key identifies the caller.
    #[must_use]
    pub fn token_source(mut self, source: impl TokenSource) -> Self {
        self.credential = Credential::Tokens(Tokens::new(Arc::new(source)));
        self
    }

    /// The session of a signed-in user, refreshed before its access token ends. Replaces a token source.
    #[must_use]
    pub fn session(mut self, session: impl Into<SessionSource>) -> Self {
        self.credential = Credential::Session(session.into());
        self
    }

    /// Attaches a [W3C trace context](TraceContext) to each request: the closure gives that of the current span.
    #[must_use]
    #[doc(alias = "tracePropagation")]
    pub fn trace_context(
        mut self,
        current: impl Fn() -> Option<TraceContext> + Send + Sync + 'static,
    ) -> Self {
        self.network.trace = Some(TraceSource::new(current));
        self
    }

    /// The longest one attempt may take, from connecting to the last byte. Default: 30 s.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// How failures that may pass are repeated.
    #[must_use]
    pub fn retries(mut self, policy: RetryPolicy) -> Self {
        self.retries = policy;
        self
    }

    /// Trusts this certificate authority (DER) beside the platform's.
    #[must_use]
    pub fn root_certificate(mut self, der: impl Into<Vec<u8>>) -> Self {
        self.network.tls.add_root(der.into());
        self
    }

    /// Trusts the certificate authorities of this PEM text beside the platform's.
    #[must_use]
    pub fn root_certificates_pem(mut self, pem: &[u8]) -> Self {
        self.network.tls.add_roots_pem(pem);
        self
    }

    /// Proves to the server who this client is (mutual TLS): a PEM certificate chain, and the PEM of its key.
    #[must_use]
    pub fn client_certificate_pem(mut self, chain: &[u8], key: &[u8]) -> Self {
        self.network.tls.set_identity_pem(chain, key);
        self
    }

    /// Goes through this proxy (`http`, `https`, and with the feature `socks` `socks5` and `socks5h`) instead of those that
    /// the environment names.
    #[must_use]
    pub fn proxy(mut self, url: impl Into<String>) -> Self {
        self.network.proxy = ProxyChoice::Fixed(url.into());
        self
    }

    /// Goes through no proxy, whatever the environment says.
    #[must_use]
    pub fn no_proxy(mut self) -> Self {
        self.network.proxy = ProxyChoice::None;
        self
    }

    /// Checks the arguments. Nothing is sent yet.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) that names the argument.
    pub fn build(self) -> Result<Rest, Error> {
        let endpoint = Endpoint::parse(&self.url)?;
        let key = ApiKey::new(&self.key)?;
        let network = self.network.build()?;
        let tokens = self.credential.tokens(&endpoint, &key, self.timeout, &network)?;
        Rest::new(&endpoint, key, tokens, self.timeout, self.retries, &network)
    }
}

/// A name as one segment of a path. `.` and `..` mean other places in a path, however they are written.
fn path_segment(what: &'static str, name: &str) -> Result<String, Error> {
    check_name(what, name)?;
    if matches!(name, "." | "..") {
        return Err(Error::invalid(what, format!("no URL can carry the name `{name}`")));
    }
    Ok(encoded_segment(name))
}

/// A name as one segment of a path, every character of it. The URL library's own methods drop tabs and line breaks.
pub(crate) fn encoded_segment(name: &str) -> String {
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
mod exchange_tests;
#[cfg(test)]
mod recorded;
