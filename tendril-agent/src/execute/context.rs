//! What every job of this agent needs.

use std::sync::Arc;

use tendril_realtime::Rest;

use crate::{
    execute::{registry::Registry, settings::ExecuteSettings},
    job::{Job, JobSpec, state_key},
    process::{Drain, Runner},
    redaction::Redactor,
    terraform::state::State,
};

/// What every job of this agent needs.
#[derive(Clone)]
pub(crate) struct JobContext {
    pub(crate) settings: Arc<ExecuteSettings>,
    pub(crate) rest: Rest,
    pub(crate) runner: Arc<dyn Runner>,
    /// Who shows which jobs run.
    pub(crate) registry: Registry,
    /// What no log of this agent may show; each job's redactor is a child of it.
    pub(crate) secrets: Redactor,
    /// The end of the agent.
    pub(crate) drain: Drain,
}

impl JobContext {
    /// The state that a job works on.
    pub(crate) fn state(&self, spec: &JobSpec, job: &Job) -> State {
        let key = job
            .state_key
            .clone()
            .unwrap_or_else(|| state_key(&spec.source.key(), spec.stack.as_deref(), job.id));
        self.settings.terraform.state(&key)
    }
}
