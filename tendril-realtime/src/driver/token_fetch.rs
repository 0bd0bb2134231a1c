//! Asking the user's token source: one question at a time, each on a task of its own, so that a source that blocks, panics or
//! never answers harms nothing but itself. A question is never cut off: a source that rotates a secret must not lose the new one.

use std::{
    future::pending,
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{task::JoinHandle, time::timeout};

use crate::{
    error::{Error, ErrorKind},
    secret::AccessToken,
    token::TokenSource,
};

/// The longest a source may take.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A token, and how long it lives from now on.
pub(super) type FetchedToken = Result<(AccessToken, Option<Duration>), Error>;

/// The source, and the question that is open.
pub(super) struct TokenFetch {
    source: Option<Arc<dyn TokenSource>>,
    open: Option<JoinHandle<FetchedToken>>,
}

impl TokenFetch {
    pub(super) fn new(source: Option<Arc<dyn TokenSource>>) -> Self {
        Self { source, open: None }
    }

    pub(super) fn has_source(&self) -> bool {
        self.source.is_some()
    }

    pub(super) fn can_refresh(&self) -> bool {
        self.source.as_ref().is_some_and(|source| source.can_refresh())
    }

    /// Asks, unless a question is open already.
    pub(super) fn start(&mut self) {
        if let (None, Some(source)) = (&self.open, &self.source) {
            self.open = Some(tokio::spawn(fetch(Arc::clone(source))));
        }
    }

    /// The answer to the open question; never, if there is none. Cancel safe.
    pub(super) async fn finished(&mut self) -> FetchedToken {
        let Some(open) = &mut self.open else { return pending().await };
        let answer = open.await;
        self.open = None;
        answer.unwrap_or_else(|_| Err(Error::token("the token source panicked")))
    }

    /// Tells the source that a server refused this token.
    pub(super) fn invalidate(&self, token: AccessToken) {
        if let Some(source) = self.source.clone() {
            tokio::spawn(async move { source.invalidate(&token) });
        }
    }
}

async fn fetch(source: Arc<dyn TokenSource>) -> FetchedToken {
    match timeout(TIMEOUT, source.token()).await {
        Ok(Ok(token)) => Ok(with_life(token)),
        // Whatever kind the source chose: to us it is a token that is not there now.
        Ok(Err(error)) if matches!(error.kind(), ErrorKind::Token { .. }) => Err(error),
        Ok(Err(error)) => Err(Error::token(error)),
        Err(_) => Err(Error::token("the token source did not answer within 30 s")),
    }
}

fn with_life(token: AccessToken) -> (AccessToken, Option<Duration>) {
    let life = token.expires_at().map(|end| end.duration_since(SystemTime::now()).unwrap_or_default());
    (token, life)
}
