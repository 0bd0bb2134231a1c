//! What is kept on disk of a claim.

use std::{io, path::Path, time::SystemTime};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    job::{ConfigSnapshot, Job, Phase},
    os::files::private_file,
};

/// What a later run must know about a claim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ClaimRecord {
    pub(crate) deployment_id: Uuid,
    pub(crate) attempt: i32,
    pub(crate) claim_token: Uuid,
    /// How far it got.
    pub(crate) phase: Phase,
    /// The state that it works on; none where `config_snapshot` names none that can be.
    #[serde(default)]
    pub(crate) state_key: Option<String>,
    /// Whether the row shows the plan, so that nothing is to be done before somebody approves it.
    #[serde(default)]
    pub(crate) waits: bool,
    /// Until when somebody may, by this machine's clock; none: for ever.
    #[serde(default)]
    pub(crate) expires_at: Option<SystemTime>,
    /// Whether its apply leaves a mark before it begins: without the mark it did not begin.
    #[serde(default)]
    pub(crate) marks_begin: bool,
}

impl ClaimRecord {
    /// Of a job that enters a phase.
    pub(crate) fn new(job: &Job, phase: Phase) -> Self {
        let Job { id, attempt, claim_token, .. } = *job;
        let state_key = job.state_key();
        Self {
            deployment_id: id,
            attempt,
            claim_token,
            phase,
            state_key,
            waits: false,
            expires_at: None,
            marks_begin: false,
        }
    }

    /// The job of this claim, without its configuration.
    pub(crate) fn job(&self) -> Job {
        Job {
            id: self.deployment_id,
            attempt: self.attempt,
            claim_token: self.claim_token,
            config: ConfigSnapshot::default(),
            state_key: self.state_key.clone(),
        }
    }

    /// Saves it on disk.
    pub(crate) fn save(&self, path: &Path) -> io::Result<()> {
        private_file(path, &serde_json::to_vec(self)?)
    }

    /// What a previous run stored.
    pub(crate) fn load(path: &Path) -> io::Result<Self> {
        Ok(serde_json::from_slice(&std::fs::read(path)?)?)
    }
}
