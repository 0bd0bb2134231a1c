//! Who the agent is: the secret that it was given, and the machine token that it works with.
//!
//! ```text
//! credential      TENDRIL_AGENT_TOKEN, or a file that may change: a JWT, or an API key
//! cluster_key     an API key, read and checked without a server
//! machine_token   the claims of a JWT, read without verification
//! exchange        a key for a token, at the Edge Function agent-token
//! holding         the token that is held: how long, and when for the next one
//! ```

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use secrecy::ExposeSecret;
use tendril_realtime::{AccessToken, Error, TokenFuture, TokenSource};
use tokio::time::{sleep, sleep_until};
use uuid::Uuid;

pub(crate) use super::credential::Credential;
use super::{
    credential::{Exchangeable, Held, Stamp},
    renewal::{Holding, Step},
};
pub(crate) use super::{
    exchange::{Exchange, Failure},
    machine_token::MachineToken,
};
use crate::{
    control_plane::health::{Access, Health},
    redaction::Redactor,
    telemetry,
};

/// How often a token file is checked while no request needs a token: a new key is in use within twice this.
const POLL_INTERVAL: Duration = Duration::from_secs(5);
/// How long an exchanged token is hidden after its end: lines that were written before are on their way.
const HIDDEN_AFTER: Duration = Duration::from_secs(60);

/// Gives the library the machine token: the one that the agent was given, or the one that its key was exchanged for. Clones
/// share it.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    credential: Credential,
    cluster_id: Uuid,
    exchange: Exchange,
    state: Mutex<State>,
    /// Its holder makes the one exchange that all wait for.
    exchanging: tokio::sync::Mutex<()>,
    /// What no log may show: learns every secret that is read or exchanged.
    hidden: Redactor,
    /// Receives its state.
    health: Health,
}

#[derive(Debug, Default)]
struct State {
    /// The file's stamp when it was last read with success.
    stamp: Option<Stamp>,
    /// The key or claim to exchange; none while the credential is a JWT.
    key: Option<Exchangeable>,
    holding: Holding,
    /// Why the file, as it is now, cannot be used. What was read before stays in use.
    unread: Option<String>,
}

impl Session {
    /// Over a credential of this cluster that was read once already.
    pub(crate) fn new(
        credential: Credential,
        cluster_id: Uuid,
        exchange: Exchange,
        hidden: Redactor,
        health: Health,
    ) -> Self {
        let (state, exchanging) = (Mutex::default(), tokio::sync::Mutex::default());
        let session = Self {
            inner: Arc::new(Inner { credential, cluster_id, exchange, state, exchanging, hidden, health }),
        };
        // No job may run before its log hides the secret; what is wrong with it is reported when it is used.
        let _read = session.inner.check(Instant::now());
        session
    }

    /// Whether the credential is an API key now.
    pub(crate) fn has_key(&self) -> bool {
        self.inner.state().key.is_some()
    }

    /// The token to use now. Errors: there is none; the message says why and what to do.
    pub(crate) async fn current(&self) -> Result<AccessToken, Error> {
        loop {
            match self.inner.check(Instant::now()) {
                Ok(Step::Use(token)) => return Ok(token),
                Ok(Step::Exchange) => self.inner.exchange().await,
                Ok(Step::Fail(failure)) => return Err(Error::token(failure)),
                Ok(Step::Nothing) => return Err(Error::token("no token was read yet")),
                Err(problem) => return Err(Error::token(problem)),
            }
        }
    }

    /// Exchanges the key before its token ends, and sees a file that has changed. `renewed` is called when there is another token
    /// than before.
    pub(crate) async fn renew(self, renewed: impl Fn()) {
        if !self.can_refresh() {
            return;
        }
        let (mut known, mut again) = (self.inner.state().holding.token().cloned(), false);
        loop {
            let _step = self.inner.check(Instant::now());
            self.inner.exchange().await;
            let (token, next) = {
                let state = self.inner.state();
                (state.holding.token().cloned(), state.holding.next())
            };
            let changed = token != known;
            known = token;
            // Published twice: a request that was under way when it changed may have been answered with the old one.
            if changed || again {
                renewed();
            }
            again = changed;
            let due = next.unwrap_or_else(|| Instant::now() + POLL_INTERVAL);
            tokio::select! {
                () = sleep(POLL_INTERVAL) => {}
                () = sleep_until(due.into()) => {}
            }
        }
    }
}

/// Whether a failure to get a token is one that a person has to fix.
pub(crate) fn is_refusal(error: &Error) -> bool {
    failure(error).is_some_and(Failure::is_refusal)
}

/// Whether the claim that an executor shows for its token is over: the deployment has another holder.
pub(crate) fn is_claim_over(error: &Error) -> bool {
    matches!(failure(error), Some(Failure::ClaimOver))
}

/// Why a key gave no token, where that is what failed.
pub(crate) fn failure(error: &Error) -> Option<&Failure> {
    std::error::Error::source(error)?.downcast_ref()
}

impl Inner {
    /// Reads the credential if it has changed, and decides what must be done for a token.
    fn check(&self, now: Instant) -> Result<Step, String> {
        let stamp = self.credential.stamp();
        let mut state = self.state();
        if state.stamp != Some(stamp) || state.unread.is_some() {
            let read = self.read(now);
            state.take(stamp, read, now);
            self.publish(&state);
        }
        match (state.holding.step(now), &state.unread) {
            // A JWT that is over, and no other can be read.
            (Step::Use(_) | Step::Nothing, Some(problem))
                if state.holding.is_over(now) || state.holding.token().is_none() =>
            {
                Err(problem.clone())
            }
            (step, _) => Ok(step),
        }
    }

    /// What the credential holds now, if it is of this agent's cluster.
    fn read(&self, now: Instant) -> Result<Held, String> {
        let text = self.credential.read()?;
        let held = self.credential.held_in(&text);
        // It is hidden even if it is refused now: it may be accepted later.
        if let Ok(Held::Token(_, claims)) = &held {
            self.hidden.hide_until(text.expose_secret(), end_of(claims, now) + HIDDEN_AFTER);
        } else {
            self.hidden.hide([text.expose_secret().to_owned()]);
        }
        let held = held?;
        let cluster = held.cluster_id();
        if cluster == self.cluster_id {
            return Ok(held);
        }
        Err(format!(
            "{} is now of cluster {cluster}, and this agent serves {}: give it a secret of that one, or restart the agent to move it",
            self.credential.name(),
            self.cluster_id
        ))
    }

    /// Exchanges the key if that is due; one exchange at a time.
    async fn exchange(&self) {
        let _exchanging = self.exchanging.lock().await;
        let sent = Instant::now();
        let key = {
            let state = self.state();
            // The holder before may have done it.
            state.key.clone().filter(|_| state.holding.is_due(sent))
        };
        let Some(key) = key else { return };
        // The error page of a gateway may repeat anything of the request.
        let clean = |message: &str| self.hidden.redact(message).into_owned();
        let outcome = self.exchange.request(&key).await.map_err(|failure| failure.map_message(clean));
        let now = Instant::now();
        let result = match &outcome {
            Ok(granted) => {
                let end = sent + granted.life + HIDDEN_AFTER;
                self.hidden.hide_until(granted.text.expose_secret(), end);
                tracing::info!(
                    seconds = granted.life.as_secs(),
                    "{} was exchanged for a machine token",
                    match key {
                        Exchangeable::Key(_) => "the API key",
                        Exchangeable::Claim(_) => "the claim",
                    }
                );
                "ok"
            }
            Err(failure) if failure.is_refusal() => {
                tracing::error!("{failure}");
                "refused"
            }
            Err(failure) => {
                tracing::warn!("{failure}");
                "failed"
            }
        };
        metrics::counter!(telemetry::EXCHANGES, "result" => result).increment(1);
        let mut state = self.state();
        // The answer to a key that was replaced meanwhile is of no interest: the new one is due now.
        if state.key.as_ref() == Some(&key) {
            match outcome {
                Ok(granted) => state.holding.granted(granted, sent, now),
                Err(failure) => state.holding.failed(failure, now),
            }
        }
        self.publish(&state);
    }

    /// Publishes it in the agent's health.
    fn publish(&self, state: &State) {
        let failure = state.holding.failure();
        let refused = state.unread.clone().or(failure.filter(|f| f.is_refusal()).map(ToString::to_string));
        self.health.access(Access {
            by: if state.key.is_some() { "api_key" } else { "jwt" },
            ends: state.holding.good_until(),
            problem: refused.clone().or(failure.map(ToString::to_string)),
            is_refused: refused.is_some(),
        });
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// What was read, or why nothing could be; the latter changes nothing but the report.
    fn take(&mut self, stamp: Stamp, read: Result<Held, String>, now: Instant) {
        let is_first = self.stamp.is_none();
        let held = match read {
            Ok(held) => held,
            Err(problem) => {
                if self.unread.as_ref() != Some(&problem) {
                    tracing::error!("{problem}");
                }
                self.unread = Some(problem);
                return;
            }
        };
        (self.stamp, self.unread) = (Some(stamp), None);
        let changed = match held {
            Held::Exchanged(key) => {
                let changed = self.key.as_ref() != Some(&key);
                if changed {
                    self.holding.key_changed(now);
                    self.key = Some(key);
                }
                changed
            }
            Held::Token(text, claims) => match AccessToken::new(text.expose_secret()) {
                Ok(token) => {
                    let changed = self.key.take().is_some() || self.holding.token() != Some(&token);
                    self.holding.given(token, Some(end_of(&claims, now)));
                    changed
                }
                Err(error) => {
                    self.unread = Some(error.to_string());
                    return;
                }
            },
        };
        if changed && !is_first {
            metrics::counter!(telemetry::TOKENS_READ).increment(1);
            tracing::info!("the token file has changed: what it holds now is used from now on");
        }
    }
}

/// When a JWT ends by the machine's clock.
fn end_of(claims: &MachineToken, now: Instant) -> Instant {
    let left = Duration::try_from(claims.expires_at.duration_since(Timestamp::now())).unwrap_or_default();
    // A validity longer than a clock can count is taken as a century.
    now.checked_add(left).unwrap_or(now + Duration::from_secs(100 * 365 * 24 * 3600))
}

impl TokenSource for Session {
    fn token(&self) -> TokenFuture<'_> {
        Box::pin(self.current())
    }

    fn invalidate(&self, token: &AccessToken) {
        self.inner.state().holding.refused(token, Instant::now());
    }

    fn can_refresh(&self) -> bool {
        self.has_key() || matches!(self.inner.credential, Credential::File(_))
    }
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
