//! The agent's own condition: whether its loop runs, whether it can be given work, and what it is doing.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use tokio::{sync::watch, task::spawn_blocking, time::sleep};

use crate::control_plane::contract::Compatibility;

/// How often the loop shows that it runs.
pub(crate) const PULSE: Duration = Duration::from_secs(5);
/// How long it may fail to before it counts as wedged.
const WEDGED: Duration = Duration::from_secs(20);

/// The agent's own condition. Clones share it.
#[derive(Clone, Debug)]
pub struct Health {
    state: Arc<Mutex<State>>,
    heartbeats: watch::Sender<HeartbeatReport>,
}

/// What the last heartbeat reported about the intake of jobs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct HeartbeatReport {
    /// How many jobs of the cluster wait.
    pub(crate) queued: u64,
    /// When that was, by the database's clock. Of contract 3, like `broadcast`.
    pub(crate) now: Option<Timestamp>,
    /// Whether the database can send broadcasts to agents; none where it does not report it.
    pub(crate) broadcast: Option<bool>,
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) readiness: Readiness,
    pub(crate) started: Instant,
    /// When the loop last showed that it runs.
    pub(crate) pulse: Instant,
    /// When a thread for what blocks last took work.
    pub(crate) threads: Instant,
    /// When the control plane last answered a heartbeat.
    pub(crate) last_heartbeat: Option<Instant>,
    /// How many jobs wait in the queue.
    pub(crate) queued: usize,
    /// The contract that the database holds, by its last answer.
    pub(crate) contract: Option<u32>,
    /// Why the database lets this agent claim nothing.
    pub(crate) refused: Option<String>,
    /// Whether the cluster was revoked, by the last answer.
    pub(crate) is_revoked: bool,
    /// Whether a death of this agent would go unnoticed if it were the only one.
    pub(crate) reaper_missing: bool,
    /// The way by which jobs are found, once that has begun.
    pub(crate) way: Option<&'static str>,
    /// Whether new jobs arrive as events.
    pub(crate) is_live: bool,
    /// Set whenever the token, or what is known about it, changes.
    pub(crate) access: Access,
}

/// Why the agent can or cannot be given work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Readiness {
    /// No heartbeat was answered yet.
    Starting,
    /// The last heartbeat was answered.
    Ready,
    /// The last heartbeat was not.
    HeartbeatFailed(String),
    /// Another agent is active, and this one takes over when it ends.
    #[cfg(feature = "kubernetes")]
    StandingBy,
    /// The agent takes no more work.
    Draining,
}

impl Readiness {
    /// Whether another agent is active, and this one waits for its end.
    pub(crate) const fn is_standing_by(&self) -> bool {
        #[cfg(feature = "kubernetes")]
        let stands_by = matches!(self, Self::StandingBy);
        #[cfg(not(feature = "kubernetes"))]
        let stands_by = false;
        stands_by
    }
}

impl Default for Health {
    fn default() -> Self {
        let now = Instant::now();
        let state = State {
            readiness: Readiness::Starting,
            started: now,
            pulse: now,
            threads: now,
            last_heartbeat: None,
            queued: 0,
            contract: None,
            refused: None,
            is_revoked: false,
            reaper_missing: false,
            way: None,
            is_live: false,
            access: Access::default(),
        };
        Self { state: Arc::new(Mutex::new(state)), heartbeats: watch::Sender::default() }
    }
}

impl Health {
    /// A heartbeat was answered.
    pub(crate) fn record_heartbeat(&self) {
        self.state().last_heartbeat = Some(Instant::now());
        self.unless_draining(Readiness::Ready);
    }

    /// The database holds this contract. A change is logged.
    pub(crate) fn learn_contract(&self, database: u32) {
        if self.state().contract.replace(database) == Some(database) {
            return;
        }
        let compatibility = Compatibility::of(database);
        match (compatibility.sentence(), compatibility) {
            (None, _) => {}
            (Some(sentence), Compatibility::Newer(_)) => tracing::info!("{sentence}"),
            (Some(sentence), _) => tracing::warn!("{sentence}"),
        }
    }

    /// Why the database lets this agent claim nothing, by its last answer; none where it may. A change is logged.
    pub(crate) fn learn_refusal(&self, refused: Option<String>) {
        let before = std::mem::replace(&mut self.state().refused, refused.clone());
        match (&before, refused) {
            (None, Some(why)) => tracing::error!("this agent claims nothing: {why}"),
            (Some(_), None) => tracing::info!("this agent may claim again"),
            _ => {}
        }
    }

    /// Whether the cluster was revoked.
    pub(crate) fn learn_revocation(&self, is_revoked: bool) {
        self.state().is_revoked = is_revoked;
    }

    /// Whether nothing but other agents would notice the death of this one.
    pub(crate) fn learn_reaper(&self, is_missing: bool) {
        self.state().reaper_missing = is_missing;
    }

    /// Whether nothing but other agents would notice the death of this one, by the last answer.
    pub(crate) fn is_reaper_missing(&self) -> bool {
        self.state().reaper_missing
    }

    /// The contract that the database holds, once it is known.
    pub(crate) fn contract(&self) -> Option<u32> {
        self.state().contract
    }

    /// A heartbeat was not answered, or refused.
    pub(crate) fn heartbeat_failed(&self, why: &str) {
        self.unless_draining(Readiness::HeartbeatFailed(why.to_owned()));
    }

    /// The condition of the machine token now.
    pub(crate) fn access(&self, access: Access) {
        self.state().access = access;
    }

    /// Whether the token is the last one: a job that begins now may outlive it.
    pub(crate) fn is_revoked(&self) -> bool {
        let state = self.state();
        state.access.is_refused || state.refused.is_some() || state.is_revoked
    }

    /// Whether another agent is active.
    #[cfg(feature = "kubernetes")]
    pub(crate) fn stands_by(&self, is_standing_by: bool) {
        self.unless_draining(if is_standing_by { Readiness::StandingBy } else { Readiness::Starting });
    }

    /// No more work is taken.
    pub(crate) fn draining(&self) {
        self.state().readiness = Readiness::Draining;
    }

    /// The loop runs, and so many jobs wait.
    pub(crate) fn pulse(&self, queued: usize) {
        let mut state = self.state();
        (state.pulse, state.queued) = (Instant::now(), queued);
    }

    /// Shows for ever that the threads for what blocks still take work: without one, no log is written and no name is looked up.
    pub(crate) async fn watch_threads(self) {
        loop {
            if spawn_blocking(|| {}).await.is_ok() {
                self.state().threads = Instant::now();
            }
            sleep(PULSE).await;
        }
    }

    /// By which way jobs are found, and whether they arrive as events.
    pub(crate) fn intake(&self, way: &'static str, is_live: bool) {
        let mut state = self.state();
        (state.way, state.is_live) = (Some(way), is_live);
    }

    /// A heartbeat reported this.
    pub(crate) fn learn_heartbeat(&self, queued: u64, now: Option<Timestamp>, broadcast: Option<bool>) {
        self.heartbeats.send_replace(HeartbeatReport { queued, now, broadcast });
    }

    /// What heartbeats report from now on.
    pub(crate) fn heartbeats(&self) -> watch::Receiver<HeartbeatReport> {
        self.heartbeats.subscribe()
    }

    /// Whether work can be given, with the reason where it cannot.
    pub fn ready(&self) -> Result<(), String> {
        let state = self.state();
        match &state.readiness {
            Readiness::Ready => match state.refused.as_ref().or(state.access.problem.as_ref()) {
                Some(refused) if state.refused.is_some() => Err(refused.clone()),
                Some(problem) if state.access.is_refused => Err(problem.clone()),
                _ => Ok(()),
            },
            // A rollout must not wait for it.
            #[cfg(feature = "kubernetes")]
            Readiness::StandingBy => Ok(()),
            Readiness::Starting => Err("no heartbeat was answered yet".to_owned()),
            Readiness::HeartbeatFailed(why) => Err(format!("the last heartbeat failed: {why}")),
            Readiness::Draining => Err("the agent is stopping".to_owned()),
        }
    }

    /// Whether the loop runs, and work that blocks is done. That the control plane is away is no reason to restart an agent.
    pub fn alive(&self) -> Result<(), String> {
        self.alive_at(Instant::now())
    }

    fn alive_at(&self, now: Instant) -> Result<(), String> {
        let (pulse, threads) = {
            let state = self.state();
            (state.pulse, state.threads)
        };
        for (last, what) in
            [(pulse, "the main loop has not run"), (threads, "no thread was free for work that blocks")]
        {
            let silent = now.saturating_duration_since(last);
            if silent > WEDGED {
                return Err(format!("{what} for {} seconds", silent.as_secs()));
            }
        }
        Ok(())
    }

    fn unless_draining(&self, readiness: Readiness) {
        let mut state = self.state();
        if state.readiness != Readiness::Draining {
            state.readiness = readiness;
        }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        // Assignments are all that ever happens under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The condition of the machine token.
#[derive(Clone, Debug, Default)]
pub(crate) struct Access {
    /// What it has the token by: `jwt` or `api_key`.
    pub(crate) by: &'static str,
    /// When the token ends, where that is known.
    pub(crate) ends: Option<Instant>,
    /// Why there is no newer one, where there should be.
    pub(crate) problem: Option<String>,
    /// Whether a person has to fix it: then there will be no newer token.
    pub(crate) is_refused: bool,
}

impl Access {
    /// How long the token is good.
    pub(crate) fn left(&self) -> Option<Duration> {
        self.ends.map(|end| end.saturating_duration_since(Instant::now()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_without_a_thread_for_what_blocks_is_not_alive() {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().max_blocking_threads(1).build().unwrap();
        let health = Health::default();
        let (open, gate) = std::sync::mpsc::channel::<()>();
        let begun = health.state().threads;
        runtime.block_on(async {
            let taken = spawn_blocking(move || gate.recv().is_err());
            let watching = tokio::spawn(health.clone().watch_threads());
            sleep(Duration::from_millis(50)).await;
            assert_eq!(health.state().threads, begun);
            drop(open);
            assert!(taken.await.unwrap());
            while health.state().threads == begun {
                sleep(Duration::from_millis(1)).await;
            }
            watching.abort();
        });
        let later = Instant::now() + Duration::from_secs(30);
        health.state().pulse = later;
        assert!(health.alive_at(later).unwrap_err().contains("no thread was free"));
    }

    #[test]
    fn a_loop_that_stands_still_is_found_out_and_an_absent_control_plane_is_not() {
        let health = Health::default();
        health.heartbeat_failed("connection refused");
        let later = Instant::now() + Duration::from_secs(30);
        assert!(health.alive().is_ok());
        assert!(health.alive_at(later).unwrap_err().contains("has not run for 30 seconds"));
        health.pulse(0);
        assert!(health.alive().is_ok());
    }

    #[test]
    fn an_agent_whose_key_is_refused_is_not_ready_and_one_whose_function_is_away_is() {
        let health = Health::default();
        health.record_heartbeat();
        let access = |is_refused| Access { problem: Some("why".to_owned()), is_refused, ..Access::default() };
        health.access(access(false));
        assert_eq!((health.ready(), health.is_revoked()), (Ok(()), false));
        health.access(access(true));
        assert_eq!((health.ready(), health.is_revoked()), (Err("why".to_owned()), true));
        health.heartbeat_failed("HTTP 401");
        assert!(health.ready().unwrap_err().contains("HTTP 401"));
        health.record_heartbeat();
        health.access(Access::default());
        assert_eq!((health.ready(), health.is_revoked()), (Ok(()), false));
    }

    #[test]
    fn a_drain_is_final() {
        let health = Health::default();
        assert!(health.ready().is_err());
        health.record_heartbeat();
        health.ready().unwrap();
        health.draining();
        health.record_heartbeat();
        assert!(health.ready().unwrap_err().contains("stopping"));
    }
}
