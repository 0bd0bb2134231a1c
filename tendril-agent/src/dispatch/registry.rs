//! Which jobs run now and how far each is, for whoever asks on `/status`.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use serde_json::{Value, json};
use uuid::Uuid;

use crate::job::spec::{Job, Phase};

/// The jobs. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Roster {
    jobs: Arc<Mutex<BTreeMap<Uuid, Line>>>,
}

#[derive(Clone, Debug)]
struct Line {
    deployment_id: Uuid,
    attempt: i32,
    state_key: Option<String>,
    phase: Phase,
    since: Instant,
}

/// A job's place; given back when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    roster: Roster,
    claim_token: Uuid,
}

impl Roster {
    /// A job begins.
    pub(crate) fn enter(&self, job: &Job) -> Place {
        let line = Line {
            deployment_id: job.id,
            attempt: job.attempt,
            state_key: job.state_key(),
            phase: Phase::Claimed,
            since: Instant::now(),
        };
        self.jobs().insert(job.claim_token, line);
        Place { roster: self.clone(), claim_token: job.claim_token }
    }

    /// One object for each job; nothing in it is secret.
    pub(crate) fn to_json(&self) -> Vec<Value> {
        let line = |line: &Line| {
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

    fn jobs(&self) -> MutexGuard<'_, BTreeMap<Uuid, Line>> {
        // Nothing that holds the lock can leave the map in halves.
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// The job entered a phase.
    pub(crate) fn phase(&self, phase: Phase) {
        if let Some(line) = self.roster.jobs().get_mut(&self.claim_token) {
            line.phase = phase;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.roster.jobs().remove(&self.claim_token);
    }
}
