//! One RPC each 15 s while jobs run, each 60 s otherwise: the cluster is ONLINE, the leases are extended, lost jobs are queued again, and the state of each claim is
//! read.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use tendril_realtime::{Error, ErrorKind, Rest, Retry};
use tokio::time::{Instant, sleep};

use crate::{
    control_plane::{
        auth::session::{self, failure, is_claim_over},
        backoff::{Backoff, HeartbeatSchedule, retry_after},
        contract::{CONTRACT, FIRST, STACKS},
        health::Health,
        lease::{ClaimState, Leases},
        revocation::is_revoked,
    },
    process::StopReason,
    telemetry,
};

/// The longest that one heartbeat may take: an answer that comes later than the next heartbeat is of no use.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The longest that the good-bye may take.
const DEREGISTER_TIMEOUT: Duration = Duration::from_secs(5);

/// Idle agents send heartbeats this many times less often: only the cluster's status depends on them.
const IDLE: u32 = 4;
/// The longest pause after a refusal.
const REFUSED: Duration = Duration::from_secs(60);
/// How long after the first heartbeat a missing schedule of the reaper is reported.
const REAPER_GRACE: Duration = Duration::from_secs(150);

/// Sends the heartbeats of one agent.
#[derive(Clone, Debug)]
pub(crate) struct Heartbeat {
    pub(crate) rest: Rest,
    pub(crate) leases: Leases,
    pub(crate) health: Health,
    /// What it calls itself: a cluster may have several agents.
    pub(crate) agent_name: String,
    /// Where it stores states, for the database to compare with the cluster's other agents.
    pub(crate) state_store: Option<StateStore>,
    /// The contract whose heartbeat the database answered last: older ones have fewer arguments.
    pub(crate) contract: Arc<AtomicU32>,
    /// Mean time between two heartbeats while jobs run.
    pub(crate) period: Duration,
    /// In which time after the start the first one falls.
    pub(crate) spread: Duration,
}

/// Where an agent stores the states of its stacks.
#[derive(Clone, Debug)]
pub(crate) struct StateStore {
    /// As Terraform calls the backend.
    pub(crate) backend: &'static str,
    /// The same for agents whose states are the same.
    pub(crate) fingerprint: String,
}

/// What the database answers.
#[derive(Deserialize)]
struct Answer {
    claims: Vec<ClaimState>,
    #[serde(default)]
    reaped: u64,
    /// The contract that the database holds.
    #[serde(default = "first")]
    contract: u32,
    /// Why this agent may not claim, if it may not.
    #[serde(default)]
    refused: Option<Refused>,
    /// How many jobs of the cluster wait.
    #[serde(default)]
    queued: u64,
    /// The database's clock.
    #[serde(default)]
    now: Option<Timestamp>,
    /// Whether the database can send broadcasts. Of contract 3.
    #[serde(default)]
    broadcast: Option<bool>,
    /// Who notices agents that stop without a word. Of contract 3.
    #[serde(default)]
    reaper: Option<Reaper>,
}

#[derive(Deserialize)]
struct Refused {
    message: String,
    #[serde(default)]
    hint: String,
}

#[derive(Deserialize)]
struct Reaper {
    scheduled: bool,
}

const fn first() -> u32 {
    FIRST
}

impl Heartbeat {
    /// The first heartbeat proves the token. It is tried until it is accepted: what is refused now may be accepted once a person has
    /// fixed it, and an agent that ended would leave what an earlier run of it left.
    pub(crate) async fn first(&self) {
        let mut schedule = HeartbeatSchedule::starting(self.period, self.spread);
        let mut refusals = Refusals::new(self.period.max(self.spread));
        sleep(schedule.first()).await;
        while let Err(error) = self.send().await {
            let pause = if is_refusal(&error) {
                refusals.refused(&error)
            } else {
                tracing::warn!(error = %format_args!("{error:#}"), "the control plane does not answer yet: trying again");
                schedule.missed(retry_after(&error))
            };
            sleep(pause).await;
        }
        refusals.accepted();
    }

    /// Sends heartbeats for ever. Failures are reported and retried: they never end a running job.
    pub(crate) async fn run(self) {
        let mut schedule = HeartbeatSchedule::starting(self.period, self.spread);
        let begun = Instant::now();
        let mut reported = false;
        let mut refusals = Refusals::new(self.period);
        loop {
            self.pause(&mut schedule).await;
            while let Err(error) = self.send().await {
                let pause = if is_refusal(&error) {
                    // The leases of running jobs need the next heartbeat soon.
                    let pause = refusals.refused(&error);
                    if self.leases.is_empty() { pause } else { pause.min(self.period) }
                } else {
                    tracing::warn!(error = %format_args!("{error:#}"), "a heartbeat failed");
                    schedule.missed(retry_after(&error))
                };
                sleep(pause).await;
            }
            refusals.accepted();
            if !reported && begun.elapsed() > REAPER_GRACE && self.health.is_reaper_missing() {
                tracing::warn!("{NO_REAPER}");
                reported = true;
            }
        }
    }

    /// Beats for ever for the claims alone, the first time at once: of an executor.
    pub(crate) async fn keep_claims(self) {
        let mut schedule = HeartbeatSchedule::starting(self.period, self.spread);
        loop {
            while let Err(error) = self.send().await {
                if is_claim_over(&error) {
                    self.leases.stop_all(StopReason::Fenced);
                }
                tracing::warn!(error = %format_args!("{error:#}"), "the lease could not be extended");
                sleep(schedule.missed(retry_after(&error))).await;
            }
            sleep(schedule.answered()).await;
        }
    }

    /// Until the next heartbeat. An idle agent waits longer, until it holds a claim: its lease needs the next heartbeat soon.
    async fn pause(&self, schedule: &mut HeartbeatSchedule) {
        let pause = schedule.answered();
        if self.contract.load(Ordering::Relaxed) < STACKS || !self.leases.is_empty() {
            return sleep(pause).await;
        }
        tokio::select! {
            () = sleep(pause * IDLE) => {}
            () = self.leases.begun() => sleep(pause).await,
        }
    }

    /// Sets the cluster OFFLINE. Best effort: a silent agent is found out by its missing schedule.
    pub(crate) async fn deregister(&self) {
        let request = self
            .rest
            .rpc("agent_offline", &self.named(json!({})))
            .timeout(DEREGISTER_TIMEOUT)
            .idempotent(true);
        if let Err(error) = request.execute().await {
            tracing::warn!(error = %format_args!("{error:#}"), "the cluster could not be set OFFLINE");
        }
    }

    fn named(&self, mut arguments: Value) -> Value {
        let contract = self.contract.load(Ordering::Relaxed);
        if contract > FIRST {
            arguments["agent"] = json!(self.agent_name);
        }
        arguments
    }

    async fn call(&self) -> Result<Answer, Error> {
        let arguments = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "claim_tokens": self.leases.tokens(),
        });
        let mut arguments = self.named(arguments);
        if self.contract.load(Ordering::Relaxed) >= STACKS
            && let Some(StateStore { backend, fingerprint }) = &self.state_store
        {
            arguments["state_backend"] = json!(backend);
            arguments["backend_fingerprint"] = json!(fingerprint);
        }
        self.rest.rpc("agent_heartbeat", &arguments).timeout(TIMEOUT).idempotent(true).value().await
    }

    async fn send(&self) -> Result<(), Error> {
        let mut answer = self.call().await;
        // No function with these arguments: perhaps there is one of an older contract.
        while answer.as_ref().is_err_and(|error| error.postgrest().is_some_and(|api| api.code == "PGRST202"))
            && self.contract.load(Ordering::Relaxed) > FIRST
        {
            self.contract.fetch_sub(1, Ordering::Relaxed);
            answer = self.call().await;
        }
        match answer {
            Ok(answer) => {
                self.contract.store(answer.contract.min(CONTRACT), Ordering::Relaxed);
                metrics::counter!(telemetry::HEARTBEATS, "result" => "ok").increment(1);
                self.leases.learn(&answer.claims);
                if answer.reaped > 0 {
                    metrics::counter!(telemetry::JOBS_MOVED).increment(answer.reaped);
                    tracing::info!(jobs = answer.reaped, "jobs of lost agents were moved on");
                }
                self.health.learn_contract(answer.contract);
                self.health.learn_revocation(false);
                self.health.learn_heartbeat(answer.queued, answer.now, answer.broadcast);
                self.health.learn_reaper(answer.reaper.is_some_and(|reaper| !reaper.scheduled));
                self.health.learn_refusal(
                    answer.refused.map(|refused| format!("{} {}", refused.message, refused.hint)),
                );
                self.health.record_heartbeat();
                Ok(())
            }
            Err(error) => {
                let result = if is_refusal(&error) { "refused" } else { "failed" };
                metrics::counter!(telemetry::HEARTBEATS, "result" => result).increment(1);
                self.health.learn_revocation(is_revoked(&error));
                if is_refusal(&error) {
                    self.health.heartbeat_failed(&format!("{error}: {}", advice(&error)));
                } else {
                    self.health.heartbeat_failed(&error.to_string());
                }
                Err(error)
            }
        }
    }
}

/// What is refused is tried again, at longer and longer intervals, and logged when the reason changes.
#[derive(Debug)]
struct Refusals {
    backoff: Backoff,
    period: Duration,
    logged: Option<&'static str>,
}

impl Refusals {
    fn new(period: Duration) -> Self {
        Self { backoff: Backoff::new(period, REFUSED.max(period)), period, logged: None }
    }

    /// Answers when to try again.
    fn refused(&mut self, error: &Error) -> Duration {
        let advice = advice(error);
        let error = format_args!("{error:#}");
        if self.logged.replace(advice) == Some(advice) {
            tracing::debug!(%error, "{advice}");
        } else {
            tracing::error!(%error, "{advice}; this agent takes no job, and tries again until it is accepted");
        }
        self.backoff.next(None)
    }

    fn accepted(&mut self) {
        if self.logged.take().is_some() {
            tracing::info!("the control plane accepts this agent");
        }
        self.backoff = Backoff::new(self.period, REFUSED.max(self.period));
    }
}

/// What to do where the death of a cluster's only agent would go unnoticed.
pub(crate) const NO_REAPER: &str = "no schedule calls reap_lost_agents(): if this agent dies and no other one lives, its jobs stay PROCESSING and its \
    cluster ONLINE for ever. Enable pg_cron in the database and run `select tendril.schedule();`, or call reap_lost_agents() each 15 s as service_role from elsewhere";

/// Whether the server understood and refused. Trying again with the same token cannot help.
fn is_refusal(error: &Error) -> bool {
    session::is_refusal(error)
        || matches!(error.kind(), ErrorKind::Postgrest(_))
            && matches!(error.retry(), Retry::Never | Retry::RefreshToken)
}

/// What to do about a refusal.
pub(crate) fn advice(error: &Error) -> &'static str {
    if failure(error).is_some() {
        return "the agent's API key gets no machine token";
    }
    let Some(api) = error.postgrest() else { return "check the network and the project's status" };
    match (api.status, api.code.as_str()) {
        (_, "TD003") => {
            "the control plane does not know this token's cluster: use the API key or token of an existing cluster of this project"
        }
        (_, "TD004") => "this cluster was revoked: ask for a new cluster and its API key",
        (401, "PGRST303") => "the machine token has expired: give the agent a new one",
        (401, _) => {
            "the control plane does not accept the machine token or the API key: use those of this project"
        }
        (403, _) | (_, "42501") => {
            "the machine token's role may not do this: use a token with the role tendril_agent of this project"
        }
        (404, _) => {
            "the database lacks the agent's functions: apply supabase/migrations to it, and check SUPABASE_URL"
        }
        _ => "the control plane refused the heartbeat",
    }
}

#[cfg(test)]
#[path = "heartbeat_tests.rs"]
mod tests;
