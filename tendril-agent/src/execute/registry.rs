//! Which jobs run now and how far each is, for `/status`.

use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use serde_json::{Value, json};
use uuid::Uuid;

use crate::job::{Job, Phase};

/// The jobs. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Registry {
    jobs: Arc<Mutex<BTreeMap<Uuid, Entry>>>,
    /// Where another process reads the phase of this process's one job.
    phase_file: Option<PathBuf>,
}

#[derive(Clone, Debug)]
struct Entry {
    deployment_id: Uuid,
    attempt: i32,
    state_key: Option<String>,
    phase: Phase,
    /// Where the phase is written, if the job runs in another process.
    elsewhere: Option<PathBuf>,
    since: Instant,
}

/// A job's place; given back when dropped.
#[derive(Debug)]
pub(crate) struct RunningJob {
    registry: Registry,
    claim_token: Uuid,
}

impl Registry {
    /// Of a process with one job, which writes the job's phase into this file for the process that started it.
    pub(crate) fn writing(phase_file: PathBuf) -> Self {
        Self { phase_file: Some(phase_file), ..Self::default() }
    }

    /// A job begins.
    pub(crate) fn enter(&self, job: &Job) -> RunningJob {
        self.add(job, None)
    }

    /// A job begins in another process, which writes its phase there.
    pub(crate) fn enter_elsewhere(&self, job: &Job, phase_file: PathBuf) -> RunningJob {
        self.add(job, Some(phase_file))
    }

    fn add(&self, job: &Job, elsewhere: Option<PathBuf>) -> RunningJob {
        let line = Entry {
            deployment_id: job.id,
            attempt: job.attempt,
            state_key: job.state_key(),
            phase: Phase::Claimed,
            elsewhere,
            since: Instant::now(),
        };
        self.jobs().insert(job.claim_token, line);
        RunningJob { registry: self.clone(), claim_token: job.claim_token }
    }

    /// One object for each job; nothing in it is secret.
    pub(crate) fn to_json(&self) -> Vec<Value> {
        let line = |line: &Entry| {
            let written = line.elsewhere.as_ref().and_then(|file| fs::read_to_string(file).ok());
            let written = written.and_then(|text| serde_json::from_str::<Phase>(&text).ok());
            json!({
                "deployment_id": line.deployment_id,
                "attempt": line.attempt,
                "state": line.state_key,
                "phase": written.unwrap_or(line.phase),
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
        if let Some(file) = &self.registry.phase_file
            && let Ok(text) = serde_json::to_string(&phase)
            && let Err(error) = fs::write(file.with_extension("new"), text)
                .and_then(|()| fs::rename(file.with_extension("new"), file))
        {
            tracing::debug!(%error, "the phase cannot be written for /status");
        }
    }
}

impl Drop for RunningJob {
    fn drop(&mut self) {
        self.registry.jobs().remove(&self.claim_token);
    }
}
