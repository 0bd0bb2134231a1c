//! The exchange: an API key in, a machine token out, by the project's Edge Function `agent-token`.

use std::{fmt, sync::OnceLock, time::Duration};

use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::json;
use tendril_realtime::{AccessToken, Error, ErrorKind, PostgrestError, Rest, Retry, rest::RetryPolicy};

use super::{credential::Exchangeable, machine_token::MachineToken};

/// The function's name.
const FUNCTION: &str = "agent-token";
/// How long one exchange may take. A function that was idle needs seconds to start, and itself queries the database.
const TIMEOUT: Duration = Duration::from_secs(15);

/// Where keys are exchanged.
pub(crate) struct Exchange {
    project: String,
    key: SecretString,
    /// Without a token of its own; made for the first exchange, as agents with a JWT need none.
    rest: OnceLock<Rest>,
}

/// What a good key gets.
pub(super) struct Granted {
    pub(super) token: AccessToken,
    /// The token's text, to be hidden.
    pub(super) text: SecretString,
    /// How long it is valid, from the moment of the request.
    pub(super) life: Duration,
    /// `Retry-After`: when the function may be called again.
    pub(super) renew_after: Duration,
}

/// Why there is no machine token for a key. Each message says what to do; none contains the key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Failure {
    /// The function checked the key. Unknown cluster and wrong key look the same, on purpose.
    #[error(
        "this API key opens no cluster of the project: give the agent the current key of its cluster (after a rotation the new one), and check that SUPABASE_URL is that cluster's project"
    )]
    WrongKey,
    /// The function checked the claim.
    #[error(
        "the claim of this deployment is over: it was given to another agent, or ended more than a day ago"
    )]
    ClaimOver,
    /// Final for the cluster.
    #[error("this cluster was revoked, which is final: make a new cluster and give the agent its API key")]
    ClusterRevoked,
    /// There is no such function.
    #[error(
        "the project has no Edge Function agent-token, which exchanges API keys (HTTP 404): deploy it with `supabase functions deploy agent-token`, and check SUPABASE_URL"
    )]
    NotDeployed,
    /// The function lacks a setting.
    #[error(
        "the Edge Function agent-token lacks a setting ({0:#}): set TENDRIL_SIGNING_KEY with `supabase secrets set`; the function's log names what is missing"
    )]
    Misconfigured(String),
    /// The gateway requires a JWT of every request.
    #[error(
        "the project's gateway refused the call before the Edge Function agent-token saw it ({0:#}): deploy it with verify_jwt = false (supabase/config.toml), and check SUPABASE_PUBLISHABLE_KEY"
    )]
    Gateway(String),
    /// An answer that the function does not give.
    #[error(
        "what answered as the Edge Function agent-token is not that function ({0:#}): deploy the one of this agent's version, and check SUPABASE_URL"
    )]
    Unusable(String),
    /// Too many exchanges.
    #[error(
        "the API key was exchanged too often (HTTP 429): the agent waits as the answer demands; make sure that nothing else uses this key"
    )]
    Limited {
        /// As the server demands.
        wait: Option<Duration>,
    },
    /// It did not work this time.
    #[error(
        "the Edge Function agent-token failed ({reason}): the agent tries again; check the function's log if it lasts"
    )]
    Unavailable {
        /// Status and message.
        reason: String,
        /// As the server demands.
        wait: Option<Duration>,
    },
    /// No connection.
    #[error(
        "the Edge Function agent-token cannot be reached ({0:#}): the agent tries again; check SUPABASE_URL, the name server, egress rules (NetworkPolicy, firewall) and HTTPS_PROXY if it lasts"
    )]
    Unreachable(String),
}

/// What the function answers to a valid key.
#[derive(Deserialize)]
struct Answer {
    access_token: String,
    expires_in: u64,
    #[serde(default)]
    refresh_after: u64,
}

impl Failure {
    /// Whether a person has to fix something, so that trying again cannot help by itself.
    pub(crate) fn is_refusal(&self) -> bool {
        !matches!(self, Self::Limited { .. } | Self::Unavailable { .. } | Self::Unreachable(_))
    }

    /// How long to wait before the next request, by the server's answer.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Limited { wait } | Self::Unavailable { wait, .. } => *wait,
            _ => None,
        }
    }

    /// The same, with the text of others in it changed.
    pub(super) fn map_message(self, change: impl Fn(&str) -> String) -> Self {
        match self {
            Self::Misconfigured(output) => Self::Misconfigured(change(&output)),
            Self::Gateway(output) => Self::Gateway(change(&output)),
            Self::Unusable(output) => Self::Unusable(change(&output)),
            Self::Unreachable(output) => Self::Unreachable(change(&output)),
            Self::Unavailable { reason, wait } => Self::Unavailable { reason: change(&reason), wait },
            output @ (Self::WrongKey
            | Self::ClaimOver
            | Self::ClusterRevoked
            | Self::NotDeployed
            | Self::Limited { .. }) => output,
        }
    }

    /// The failure for an error of the library.
    pub(super) fn of(error: &Error) -> Self {
        match error.kind() {
            ErrorKind::Postgrest(api) => Self::of_answer(api, error),
            ErrorKind::Decode { .. } => Self::Unusable(error.to_string()),
            _ => Self::Unreachable(error.to_string()),
        }
    }

    fn of_answer(api: &PostgrestError, error: &Error) -> Self {
        let wait = match error.retry() {
            Retry::After(wait) => Some(wait),
            _ => api.retry_after,
        };
        match (api.status, api.code.as_str()) {
            (401, "invalid_key") => Self::WrongKey,
            (401, "invalid_claim") => Self::ClaimOver,
            (403, "cluster_revoked") => Self::ClusterRevoked,
            (429, _) => Self::Limited { wait },
            (500, "misconfigured") => Self::Misconfigured(api.message.clone()),
            (404, _) => Self::NotDeployed,
            (401 | 403, _) => Self::Gateway(error.to_string()),
            (408 | 425 | 500.., _) => Self::Unavailable { reason: error.to_string(), wait },
            _ => Self::Unusable(error.to_string()),
        }
    }
}

impl Exchange {
    /// At a project, whose publishable key lets requests through its gateway. Nothing is sent yet.
    pub(crate) fn new(project: &str, key: &SecretString) -> Self {
        Self { project: project.to_owned(), key: key.clone(), rest: OnceLock::new() }
    }

    /// Makes one request.
    pub(super) async fn request(&self, shown: &Exchangeable) -> Result<Granted, Failure> {
        let version = env!("CARGO_PKG_VERSION");
        let body = match shown {
            Exchangeable::Key(key) => json!({"key": key.expose(), "version": version}),
            Exchangeable::Claim(claim) => {
                json!({"deployment_id": claim.deployment_id, "claim_token": claim.token, "version": version})
            }
        };
        let answer = self.rest()?.invoke(FUNCTION, &body).await.map_err(|error| Failure::of(&error))?;
        granted(answer.json().map_err(|error| Failure::of(&error))?, shown)
    }

    fn rest(&self) -> Result<&Rest, Failure> {
        if let Some(rest) = self.rest.get() {
            return Ok(rest);
        }
        let rest = Rest::builder(&self.project, self.key.expose_secret())
            .timeout(TIMEOUT)
            // Pauses are up to the session: it has an old token to work with meanwhile.
            .retries(RetryPolicy::NONE)
            .build()
            .map_err(|error| Failure::of(&error))?;
        Ok(self.rest.get_or_init(|| rest))
    }
}

impl fmt::Debug for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exchange").finish_non_exhaustive()
    }
}

/// A token that is valid for the key's or the claim's cluster. The machine's clock is not used: it may be wrong.
fn granted(answer: Answer, shown: &Exchangeable) -> Result<Granted, Failure> {
    let Answer { access_token, expires_in, refresh_after } = answer;
    let text = SecretString::from(access_token);
    let unusable = |what: &str| Failure::Unusable(what.to_owned());
    if MachineToken::cluster_of(text.expose_secret()) != Some(shown.cluster_id()) {
        return Err(unusable("its token is not of the key's cluster"));
    }
    if expires_in == 0 {
        return Err(unusable("its token is over at once"));
    }
    let token =
        AccessToken::new(text.expose_secret()).map_err(|error| Failure::Unusable(error.to_string()))?;
    // 70 % of the life, where the function sends no time.
    let renew_after = Some(refresh_after).filter(|after| (1..expires_in).contains(after));
    let renew_after =
        renew_after.map_or_else(|| Duration::from_secs(expires_in).mul_f64(0.7), Duration::from_secs);
    Ok(Granted { token, text, life: Duration::from_secs(expires_in), renew_after })
}

#[cfg(test)]
#[path = "exchange_tests.rs"]
mod tests;
