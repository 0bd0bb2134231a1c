//! Sends requests: one pool, explicit timeouts, tokens, retries.

use std::time::Duration;

use bytes::Bytes;
use reqwest::{
    Client, Method,
    header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue, LOCATION},
    redirect::Policy,
};
use tracing::Instrument as _;
use url::Url;

use super::{
    response::{Response, api_error},
    retry::{Next, RetryPolicy, next},
};
use crate::{
    error::{Error, ErrorKind, PostgrestError},
    network::Network,
    secret::{AccessToken, ApiKey},
    telemetry::{REQUEST_SPAN, TARGET},
    token::Tokens,
    trace::{TraceContext, TraceSource},
};

/// A request in the types of our own HTTP stack.
#[derive(Debug, Clone)]
pub(crate) struct Parts {
    pub(crate) method: Method,
    pub(crate) url: Url,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// Whether a second execution does no harm.
    pub(crate) idempotent: bool,
}

pub(crate) struct Transport {
    http: Client,
    key: ApiKey,
    tokens: Option<Tokens>,
    timeout: Duration,
    retries: RetryPolicy,
    trace: Option<TraceSource>,
}

impl Transport {
    pub(super) fn new(
        key: ApiKey,
        tokens: Option<Tokens>,
        timeout: Duration,
        retries: RetryPolicy,
        network: &Network,
    ) -> Result<Self, Error> {
        let http = Client::builder()
            .tls_backend_preconfigured(rustls::ClientConfig::clone(&network.tls))
            // One rule for HTTP and for the websocket.
            .no_proxy()
            .proxy(network.http_proxy())
            // A redirect would send the key, a header of its own, to whatever it names.
            .redirect(Policy::none())
            .connect_timeout(Duration::from_secs(10))
            .tcp_nodelay(true)
            // Shorter than what gateways grant an idle connection, so that a request rarely meets a dead one.
            .pool_idle_timeout(Duration::from_secs(55))
            .user_agent(concat!("tendril-realtime/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| Error::with_source(ErrorKind::Connect { step: "http setup" }, error))?;
        Ok(Self { http, key, tokens, timeout, retries, trace: network.trace.clone() })
    }

    /// Sends it, again where [`next`] decides so.
    pub(super) async fn send(&self, parts: Parts, timeout: Option<Duration>) -> Result<Response, Error> {
        let span = tracing::debug_span!(
            target: TARGET, REQUEST_SPAN, method = %parts.method, path = parts.url.path(), attempt = tracing::field::Empty
        );
        self.send_again(parts, timeout, &span).instrument(span.clone()).await
    }

    /// `span` is its own, and not the current one: where that is filtered out, the current span is the caller's.
    async fn send_again(
        &self,
        parts: Parts,
        timeout: Option<Duration>,
        span: &tracing::Span,
    ) -> Result<Response, Error> {
        let mut backoff = self.retries.backoff();
        let mut fresh_token_tried = false;
        let trace = self.trace.as_ref().and_then(TraceSource::current);
        loop {
            let token = match &self.tokens {
                Some(tokens) => Some(tokens.fetch().await?),
                None => None,
            };
            span.record("attempt", backoff.attempt() + 1);
            let error = match self
                .attempt(&parts, token.as_ref(), trace.as_ref(), timeout.unwrap_or(self.timeout))
                .await
            {
                Ok(response) => return Ok(response),
                Err(error) => error,
            };
            let next = next(&error, parts.idempotent, self.retries.longest_pause);
            if next == Next::FreshToken
                && let (Some(tokens), Some(token)) = (&self.tokens, &token)
            {
                // Also where this call is not repeated: the next one must not get the refused token again.
                tokens.invalidate(token);
            }
            if backoff.attempt() + 1 >= self.retries.attempts {
                return Err(error);
            }
            match next {
                Next::GiveUp => return Err(error),
                Next::FreshToken => {
                    let Some(tokens) = &self.tokens else { return Err(error) };
                    if fresh_token_tried || !tokens.can_refresh()? {
                        return Err(error);
                    }
                    fresh_token_tried = true;
                }
                Next::Pause(pause) => {
                    let drawn = backoff.next_pause();
                    // The pause that a server requests is respected to the second, and not by all clients at the same moment.
                    let pause =
                        pause.map(|requested| requested.saturating_add(drawn.min(Duration::from_secs(1))));
                    tokio::time::sleep(pause.unwrap_or(drawn)).await;
                }
            }
        }
    }

    async fn attempt(
        &self,
        parts: &Parts,
        token: Option<&AccessToken>,
        trace: Option<&TraceContext>,
        timeout: Duration,
    ) -> Result<Response, Error> {
        let mut headers = parts.headers.clone();
        if let Some(trace) = trace.filter(|_| !headers.contains_key("traceparent")) {
            trace.add_to(&mut headers);
        }
        headers.insert(HeaderName::from_static("apikey"), secret_header(self.key.expose())?);
        // The `sb_…` keys are no JWTs: a gateway refuses them as a bearer.
        let bearer = match token {
            Some(token) => Some(token.expose()),
            None if self.key.is_opaque() => None,
            None => Some(self.key.expose()),
        };
        if let Some(bearer) = bearer {
            headers.insert(AUTHORIZATION, secret_header(&format!("Bearer {bearer}"))?);
        }
        let answer = self
            .http
            .request(parts.method.clone(), parts.url.clone())
            .headers(headers)
            .body(parts.body.clone())
            .timeout(timeout)
            .send()
            .await
            .map_err(failed)?;
        let status = answer.status();
        let headers = answer.headers().clone();
        if status.is_redirection() {
            return Err(redirected(status.as_u16(), &parts.url, &headers));
        }
        let body = answer.bytes().await.map_err(failed)?;
        if status.is_success() {
            return Ok(Response::new(status.as_u16(), &headers, body));
        }
        Err(Error::new(ErrorKind::Postgrest(api_error(status.as_u16(), &headers, &body))))
    }
}

/// Only the origin is shown: the rest of an address may hold what should not be logged.
fn redirected(status: u16, from: &Url, headers: &HeaderMap) -> Error {
    let location = headers.get(LOCATION).and_then(|value| value.to_str().ok());
    let target = location.and_then(|location| from.join(location).ok()).map(|url| url.origin());
    let target = target.map_or_else(|| "another address".to_owned(), |origin| origin.ascii_serialization());
    let message = format!("redirected to {target}, which is not followed: give the project's final URL");
    Error::new(ErrorKind::Postgrest(PostgrestError { status, message, ..PostgrestError::default() }))
}

fn secret_header(value: &str) -> Result<HeaderValue, Error> {
    let mut value =
        HeaderValue::from_str(value).map_err(|_| Error::invalid("api key", "no header can carry it"))?;
    value.set_sensitive(true);
    Ok(value)
}

/// The URL is taken out: filters may hold what should not be logged.
fn failed(error: reqwest::Error) -> Error {
    let kind = if error.is_connect() {
        ErrorKind::Connect { step: "http" }
    } else if error.is_timeout() {
        ErrorKind::Timeout { waiting_for: "the answer of the REST interface" }
    } else {
        ErrorKind::ConnectionLost { code: None, reason: "the HTTP exchange broke off".to_owned() }
    };
    Error::with_source(kind, error.without_url())
}
