//! The exchange of a refresh token, and when it is due.

use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use reqwest::{
    Method,
    header::{CONTENT_TYPE, HeaderMap, HeaderValue},
};
use tokio::sync::Mutex;
use url::Url;

use super::{Parts, Rest};
use crate::{
    auth::{Session, SessionSource, Store},
    error::{Error, ErrorKind, PostgrestError, Retry},
    secret::AccessToken,
    telemetry::TARGET,
    token::{TokenFuture, TokenSource, renewal_margin},
};

/// A source that is called for a token just when it should be renewed must not return the old one once more.
const EARLIER: Duration = Duration::from_secs(5);

/// A session as a token source. [`Tokens`](crate::token::Tokens) makes one call at a time.
pub(crate) struct SessionTokens {
    rest: Rest,
    address: String,
    store: Option<Store>,
    state: Mutex<State>,
    /// What a server refused. Apart from the state, which is locked during an exchange.
    refused: std::sync::Mutex<Option<AccessToken>>,
}

struct State {
    session: Session,
    /// The access token is used until then.
    until: Option<Until>,
    /// The session is not stored yet.
    unstored: bool,
    /// The server ended the session.
    ended: Option<Error>,
}

/// By both clocks: one stands still while the machine sleeps, the other may be set.
#[derive(Debug, Clone, Copy)]
struct Until {
    monotonic: Instant,
    wall: SystemTime,
}

impl Until {
    fn after(life: Duration) -> Option<Self> {
        // Whatever a server sends as a life, it must not overflow.
        let early = (renewal_margin(life) + EARLIER).min(life / 4 * 3);
        let rest = life.saturating_sub(early);
        let (monotonic, wall) = (Instant::now().checked_add(rest)?, SystemTime::now().checked_add(rest)?);
        Some(Self { monotonic, wall })
    }

    fn is_over(self) -> bool {
        Instant::now() >= self.monotonic || SystemTime::now() >= self.wall
    }
}

impl SessionTokens {
    /// `rest` sends without tokens of its own.
    pub(crate) fn new(source: SessionSource, rest: Rest, address: String) -> Self {
        let SessionSource { session, store } = source;
        // By our clock: if it is wrong, a server refuses the token, and it is exchanged then.
        let ends = session.access_token.as_ref().and_then(AccessToken::expires_at);
        let life = ends.map(|ends| ends.duration_since(SystemTime::now()).unwrap_or_default());
        let until = life.and_then(Until::after);
        let state = State { session, until, unstored: false, ended: None };
        Self { rest, address, store, state: Mutex::new(state), refused: std::sync::Mutex::default() }
    }

    async fn current(&self) -> Result<AccessToken, Error> {
        let mut state = self.state.lock().await;
        if let Some(error) = &state.ended {
            return Err(error.clone());
        }
        let refused = self.refused.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        let usable = state.session.access_token.clone().filter(|token| {
            refused.as_ref() != Some(token) && state.until.is_none_or(|until| !until.is_over())
        });
        let token = match usable {
            Some(token) => token,
            None => self.exchange(&mut state).await?,
        };
        self.keep(&mut state).await;
        Ok(token)
    }

    async fn exchange(&self, state: &mut State) -> Result<AccessToken, Error> {
        let body = serde_json::json!({ "refresh_token": state.session.refresh_token.expose() });
        let url = Url::parse(&self.address).map_err(|error| Error::invalid("url", error.to_string()))?;
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let body = Bytes::from(body.to_string());
        // The server sends the same session again to a client that did not get its answer.
        let parts = Parts { method: Method::POST, url, headers, body, idempotent: true };
        let answer = self.rest.send(parts).await.map_err(|error| {
            if error.postgrest().is_some_and(has_ended) {
                let error = Error::session_ended(error);
                state.ended = Some(error.clone());
                error
            } else {
                let retry = match error.retry() {
                    Retry::After(pause) => Retry::After(pause),
                    _ => Retry::Backoff,
                };
                Error::of_token_source(error.into(), retry)
            }
        })?;
        let session: Session = answer.json().map_err(Error::token)?;
        let Some(token) = session.access_token.clone() else {
            let message = "there is no access token in it".to_owned();
            return Err(Error::token(Error::new(ErrorKind::Decode { what: "the session", message })));
        };
        let by_claims = || {
            let ends = token.expires_at()?;
            Some(ends.duration_since(SystemTime::now()).unwrap_or_default())
        };
        state.until = session.expires_in.map(Duration::from_secs).or_else(by_claims).and_then(Until::after);
        state.session = session;
        state.unstored = true;
        Ok(token)
    }

    async fn keep(&self, state: &mut State) {
        let Some(store) = self.store.as_ref().filter(|_| state.unstored) else { return };
        match store(state.session.clone()).await {
            Ok(()) => state.unstored = false,
            Err(error) => {
                tracing::error!(target: TARGET, %error, "the new session is not stored; it is tried again");
            }
        }
    }
}

/// Whether the server's answer means that this refresh token gets no session any more.
fn has_ended(error: &PostgrestError) -> bool {
    matches!(error.status, 400 | 401 | 403 | 422)
}

impl TokenSource for SessionTokens {
    fn token(&self) -> TokenFuture<'_> {
        Box::pin(self.current())
    }

    fn invalidate(&self, token: &AccessToken) {
        *self.refused.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(token.clone());
    }
}
