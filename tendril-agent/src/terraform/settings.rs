//! What Terraform's commands are run with.

use std::{path::PathBuf, time::Duration};

use crate::job::timeouts::Timeouts;
use crate::terraform::{
    command::Terraform,
    state::backend::{State, StateBackend},
};

/// How long a step may take to end early, and to wait for a lock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StepTiming {
    /// How long a command waits for a state lock that another one holds.
    pub(crate) lock_timeout: Duration,
    /// First interrupt to second interrupt, while nothing is being changed.
    pub(crate) plan_cancel_grace: Duration,
    /// First interrupt to second interrupt, while resources are being changed.
    pub(crate) apply_cancel_grace: Duration,
    /// Second interrupt to SIGKILL of the process group.
    pub(crate) kill_grace: Duration,
    /// How long a step may take at most.
    pub(crate) limits: Timeouts,
}

/// The settings of this room; made by `config`.
#[derive(Clone, Debug)]
pub(crate) struct TerraformSettings {
    /// The program that was found and answered `version`.
    pub(crate) program: Terraform,
    /// The program that keeps exit codes, if there is one.
    pub(crate) keeper: Option<PathBuf>,
    pub(crate) timing: StepTiming,
    /// Which backend keeps the states.
    pub(crate) backend: StateBackend,
    /// One folder per state key.
    pub(crate) state_dir: PathBuf,
    /// One folder per attempt.
    pub(crate) work_dir: PathBuf,
}

impl TerraformSettings {
    /// The state with this key.
    pub(crate) fn state(&self, key: &str) -> State {
        self.backend.of(&self.state_dir, key)
    }
}
