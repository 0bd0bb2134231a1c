//! What Terraform's commands are run with.

use std::path::PathBuf;

use crate::{
    process::SlotUsers,
    terraform::{
        command::Terraform,
        installed::TerraformDir,
        state::backend::{State, StateBackend},
        step_timing::StepTiming,
    },
};

/// The settings of this room; made by `config`.
#[derive(Clone, Debug)]
pub(crate) struct TerraformSettings {
    /// The program that was found and answered `version`.
    pub(crate) program: Terraform,
    /// Further versions, for runs that ask for one.
    pub(crate) dir: TerraformDir,
    /// The program that stores exit codes, if there is one.
    pub(crate) keeper: Option<PathBuf>,
    pub(crate) timing: StepTiming,
    /// Which backend stores the states.
    pub(crate) backend: StateBackend,
    /// One folder per state key.
    pub(crate) state_dir: PathBuf,
    /// One folder per attempt.
    pub(crate) work_dir: PathBuf,
    /// The users of runs, where they have users of their own.
    pub(crate) slot_users: Option<SlotUsers>,
}

impl TerraformSettings {
    /// The state with this key.
    pub(crate) fn state(&self, key: &str) -> State {
        self.backend.of(&self.state_dir, key)
    }
}
