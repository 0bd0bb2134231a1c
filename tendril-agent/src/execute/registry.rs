//! Which jobs run now and how far each is, for whoever asks on `/status`.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use serde_json::{Value, json};
use uuid::Uuid;

use crate::job::{spec::Job, status::Phase};

/// The jobs. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Registry {
    jobs: Arc<Mutex<BTreeMap<Uuid, Entry>>>,
}

#[derive(Clone, Debug)]
struct Entry {
    deployment_id: Uuid,
    attempt: i32,
    state_key: Option<String>,
    phase: Phase,
    since: Instant,
}

/// A job's place; given back when dropped.
#[derive(Debug)]
pub(crate) struct RunningJob {
    registry: Registry,
    claim_token: Uuid,
}

impl Registry {
    /// A job begins.
    pub(crate) fn enter(&self, job: &Job) -> RunningJob {
        let line = Entry {
            deployment_id: job.id,
            attempt: job.attempt,
            state_key: job.state_key(),
            phase: Phase::Claimed,
            since: Instant::now(),
        };
        self.jobs().insert(job.claim_token, line);
        RunningJob { registry: self.clone(), claim_token: job.claim_token }
    }

    /// One object for each job; nothing in it is secret.
    pub(crate) fn to_json(&self) -> Vec<Value> {
        let line = |line: &Entry| {
            json!({
                "deployment_id": line.deployment_id,
                "attempt": line.attempt,
                "state": line.state_key,
                "phase": line.phase,
                "seconds": line.since.elapsed().as_secs(),
            })
        };
        self.jobs().values().map(line).collect()
    }

    fn jobs(&self) -> MutexGuard<'_, BTreeMap<Uuid, Entry>> {
        // Nothing that holds the lock can leave the map in halves.
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RunningJob {
    /// The job entered a phase.
    pub(crate) fn phase(&self, phase: Phase) {
        if let Some(line) = self.registry.jobs().get_mut(&self.claim_token) {
            line.phase = phase;
        }
    }
}

impl Drop for RunningJob {
    fn drop(&mut self) {
        self.registry.jobs().remove(&self.claim_token);
    }
}
