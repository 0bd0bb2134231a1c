//! What the agent knows about itself: whether its loop runs, whether it can be given work, and what it is at.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tokio::{task::spawn_blocking, time::sleep};

use crate::{
    config::settings::Config,
    control_plane::contract::{CONTRACT, Compatibility},
    dispatch::{disk_guard::DiskGuard, registry::Registry},
    execute::approval::Approvals,
    telemetry,
};

/// How often the loop shows that it runs.
pub(crate) const PULSE: Duration = Duration::from_secs(5);
/// How long it may fail to before it counts as wedged.
const WEDGED: Duration = Duration::from_secs(20);

/// What the agent knows about itself. Clones share it.
#[derive(Clone, Debug)]
pub struct Health {
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    readiness: Readiness,
    started: Instant,
    /// When the loop last showed that it runs.
    pulse: Instant,
    /// When a thread for what blocks last took work.
    threads: Instant,
    /// When the control plane last answered a heartbeat.
    heard: Option<Instant>,
    /// How many jobs wait in the queue.
    queued: usize,
    /// The contract that the database holds, by its last answer.
    contract: Option<u32>,
    /// Whether jobs are told of as they come.
    is_live: bool,
    /// Set whenever the token, or what is known about it, changes.
    access: Access,
}

/// Why the agent can or cannot be given work.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Readiness {
    /// No heartbeat was answered yet.
    Starting,
    /// The last heartbeat was answered.
    Ready,
    /// The last heartbeat was not.
    Unheard(String),
    /// The agent takes no more work.
    Draining,
}

impl Default for Health {
    fn default() -> Self {
        let now = Instant::now();
        let state = State {
            readiness: Readiness::Starting,
            started: now,
            pulse: now,
            threads: now,
            heard: None,
            queued: 0,
            contract: None,
            is_live: false,
            access: Access::default(),
        };
        Self { state: Arc::new(Mutex::new(state)) }
    }
}

impl Health {
    /// A heartbeat was answered.
    pub(crate) fn heard(&self) {
        self.state().heard = Some(Instant::now());
        self.unless_draining(Readiness::Ready);
    }

    /// The database holds this contract. It is said when it is news.
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

    /// The contract that the database holds, once it has said it.
    pub(crate) fn contract(&self) -> Option<u32> {
        self.state().contract
    }

    /// A heartbeat was not answered, or refused.
    pub(crate) fn unheard(&self, why: &str) {
        self.unless_draining(Readiness::Unheard(why.to_owned()));
    }

    /// How it stands with the machine token now.
    pub(crate) fn access(&self, access: Access) {
        self.state().access = access;
    }

    /// Whether the token is the last one: a job that begins now may outlive it.
    pub(crate) fn is_revoked(&self) -> bool {
        self.state().access.is_refused
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

    /// Whether jobs are told of as they come.
    pub(crate) fn intake(&self, is_live: bool) {
        self.state().is_live = is_live;
    }

    /// Whether work can be given, with the reason where it cannot.
    pub fn ready(&self) -> Result<(), String> {
        let state = self.state();
        match &state.readiness {
            Readiness::Ready => match &state.access.problem {
                Some(problem) if state.access.is_refused => Err(problem.clone()),
                _ => Ok(()),
            },
            Readiness::Starting => Err("no heartbeat was answered yet".to_owned()),
            Readiness::Unheard(why) => Err(format!("the last heartbeat failed: {why}")),
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

    fn state(&self) -> MutexGuard<'_, State> {
        // Assignments are all that ever happens under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How the agent stands with its machine token.
#[derive(Clone, Debug, Default)]
pub(crate) struct Access {
    /// What it has the token by: `jwt` or `api_key`.
    pub(crate) by: &'static str,
    /// When the token ends, where that is known.
    pub(crate) ends: Option<Instant>,
    /// Why there is no newer one, where there should be.
    pub(crate) problem: Option<String>,
    /// Whether somebody has to fix it: then the token is the last one.
    pub(crate) is_refused: bool,
}

impl Access {
    /// How long the token is good.
    fn left(&self) -> Option<Duration> {
        self.ends.map(|end| end.saturating_duration_since(Instant::now()))
    }
}

/// Everything that `/status` shows and `/metrics` measures when it is asked.
#[derive(Clone)]
pub(crate) struct Panel {
    pub(crate) config: Arc<Config>,
    pub(crate) health: Health,
    pub(crate) registry: Registry,
    pub(crate) approvals: Approvals,
    pub(crate) disk: DiskGuard,
}

impl Panel {
    /// `/status`. Nothing in it is secret.
    pub(super) fn status(&self) -> Value {
        let config = &self.config;
        let ready = self.health.ready();
        let state = self.health.state();
        json!({
            "agent": config.agent_name,
            "version": env!("CARGO_PKG_VERSION"),
            "cluster_id": config.cluster_id,
            "contract": {
                "agent": CONTRACT,
                "database": state.contract,
                "note": state.contract.and_then(|database| Compatibility::of(database).sentence()),
            },
            "terraform": {"program": config.terraform.name(), "version": config.terraform.version()},
            "infracost": config.infracost.found().to_string(),
            "cost_estimates_unavailable_because": config.infracost.complaint(),
            "state_backend": config.state_backend.kind().name(),
            "uptime_seconds": state.started.elapsed().as_secs(),
            "ready": ready.is_ok(),
            "not_ready_because": ready.err(),
            "token": {
                "by": state.access.by,
                "seconds_left": state.access.left().map(|left| left.as_secs()),
                "problem": state.access.problem,
            },
            "last_heartbeat_seconds_ago": state.heard.map(|heard| heard.elapsed().as_secs()),
            "concurrency": config.concurrency,
            "intake": {"way": config.intake.name(), "live": state.is_live},
            "jobs_queued": state.queued,
            "jobs": self.registry.to_json(),
            "jobs_waiting_for_approval": self.approvals.count(),
            "work_dir": {"bytes": self.disk.used(), "limit": config.work_limit, "full": self.disk.is_full()},
            "errored_states": self.pending(),
        })
    }

    /// Sets the gauges that are true at this moment only.
    pub(super) fn measure(&self) {
        let ready = self.health.ready().is_ok();
        let pending = self.pending().len();
        let state = self.health.state();
        let set = |name: &'static str, value: f64| metrics::gauge!(name).set(value);
        set(telemetry::READY, f64::from(u8::from(ready)));
        set(telemetry::DRAINING, f64::from(u8::from(state.readiness == Readiness::Draining)));
        set(telemetry::LOOP_AGE, state.pulse.elapsed().as_secs_f64());
        set(telemetry::UPTIME, state.started.elapsed().as_secs_f64());
        set(telemetry::HEARTBEAT_AGE, state.heard.unwrap_or(state.started).elapsed().as_secs_f64());
        set(telemetry::INTAKE_LIVE, f64::from(u8::from(state.is_live)));
        set(telemetry::TOKEN_LEFT, state.access.left().unwrap_or_default().as_secs_f64());
        set(telemetry::JOBS_QUEUED, count(state.queued));
        set(telemetry::JOBS_WAITING, count(self.approvals.count()));
        set(telemetry::ERRORED_STATES, count(pending));
        set(telemetry::MEMORY, memory().unwrap_or_default());
        set(telemetry::DESCRIPTORS, count(std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)));
    }

    /// Where states are that could not be written to their backend.
    fn pending(&self) -> Vec<PathBuf> {
        let keys = crate::terraform::state::pending_push::kept(&self.config.state_dir);
        let of = |key: &String| self.config.state_backend.of(&self.config.state_dir, key).pending();
        keys.iter().filter_map(|key| of(key).ok()).flatten().collect()
    }
}

#[expect(clippy::cast_precision_loss, reason = "no agent counts to 2^53")]
fn count(number: usize) -> f64 {
    number as f64
}

/// Resident memory of this process, in bytes.
fn memory() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024.0)
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
        health.unheard("connection refused");
        let later = Instant::now() + Duration::from_secs(30);
        assert!(health.alive().is_ok());
        assert!(health.alive_at(later).unwrap_err().contains("has not run for 30 seconds"));
        health.pulse(0);
        assert!(health.alive().is_ok());
    }

    #[test]
    fn an_agent_whose_key_is_refused_is_not_ready_and_one_whose_function_is_away_is() {
        let health = Health::default();
        health.heard();
        let access = |is_refused| Access { problem: Some("why".to_owned()), is_refused, ..Access::default() };
        health.access(access(false));
        assert_eq!((health.ready(), health.is_revoked()), (Ok(()), false));
        health.access(access(true));
        assert_eq!((health.ready(), health.is_revoked()), (Err("why".to_owned()), true));
        health.unheard("HTTP 401");
        assert!(health.ready().unwrap_err().contains("HTTP 401"));
        health.heard();
        health.access(Access::default());
        assert_eq!((health.ready(), health.is_revoked()), (Ok(()), false));
    }

    #[test]
    fn a_drain_is_final() {
        let health = Health::default();
        assert!(health.ready().is_err());
        health.heard();
        health.ready().unwrap();
        health.draining();
        health.heard();
        assert!(health.ready().unwrap_err().contains("stopping"));
    }
}
