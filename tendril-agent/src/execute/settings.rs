//! What an attempt is run with.

use std::{path::PathBuf, time::Duration};

use crate::{
    cost::CostSettings, execute::hooks::HookSettings, logs::SpoolRules, template::git::GitSettings,
    terraform::TerraformSettings,
};

/// The settings of this room; made by `config`.
#[derive(Clone, Debug)]
pub(crate) struct ExecuteSettings {
    /// Name of the agent, for the log.
    pub(crate) agent_name: String,
    /// One folder per template.
    pub(crate) templates_dir: PathBuf,
    /// One folder per attempt.
    pub(crate) work_dir: PathBuf,
    /// How a log is stored on disk.
    pub(crate) spool: SpoolRules,
    /// From which Git hosts templates may come.
    pub(crate) git: GitSettings,
    /// How long one command of Git may take.
    pub(crate) git_timeout: Duration,
    /// Programs that run at fixed places of each run.
    pub(crate) hooks: HookSettings,
    pub(crate) terraform: TerraformSettings,
    pub(crate) cost: CostSettings,
    /// Whether the state directory goes with the pod of this run.
    pub(crate) is_pod: bool,
}
