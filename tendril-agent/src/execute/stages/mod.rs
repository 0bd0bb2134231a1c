//! One run through the stages: (source) → workspace → cost → init → plan → (approval) → apply → outputs.

mod apply;
mod approval;
mod plan;
mod template;

use crate::{
    control_plane::{ClaimRecord, ProgressBoard},
    cost::Estimate,
    execute::{
        changes::ChangeTracker,
        context::JobContext,
        hooks::{Hook, Hooks},
        registry::RunningJob,
    },
    job::{Action, Changes, Failure, Fields, Job, JobSpec, Phase, source::Source},
    os::blocking,
    process::StopSignal,
    template::Workspace,
    terraform::{Log, PlanDigest, StageError, Step, TerraformExecutor, TerraformSettings, state::State},
};

/// What a run produced beside its result.
#[derive(Default)]
pub(crate) struct RunOutput {
    pub(crate) estimate: Option<Estimate>,
    pub(crate) changes: Option<Changes>,
    pub(crate) outputs: Option<Fields>,
    /// Of a template from Git.
    pub(crate) commit: Option<String>,
    /// The program that runs it.
    pub(crate) program: Option<String>,
    /// Whether the apply is complete.
    pub(crate) applied: bool,
}

/// One run.
pub(crate) struct Run<'a> {
    pub(crate) context: &'a JobContext,
    pub(crate) job: &'a Job,
    pub(crate) workspace: &'a Workspace,
    pub(crate) log: &'a Log,
    pub(crate) board: &'a ProgressBoard,
    pub(crate) place: &'a RunningJob,
    pub(crate) stop: &'a StopSignal,
    /// With the program of this run, once it is chosen.
    pub(crate) terraform: TerraformSettings,
    pub(crate) results: RunOutput,
    /// The planned changes, once there are any.
    pub(crate) changes: Option<ChangeTracker>,
}

impl Run<'_> {
    /// From the first stage to the last.
    pub(crate) async fn begin(&mut self) -> Result<(), StageError> {
        let spec = JobSpec::parse(&self.job.config);
        self.greet(spec.as_ref().ok()).await;
        let spec = spec?;
        let state = self.context.state(&spec, self.job);
        if let Source::Git(source) = &spec.source {
            self.fetch(source).await?;
        }
        let template = self.lay_out(&spec, &state).await?;
        self.choose_program(&spec).await?;
        self.check_state_version(&state).await?;
        self.cost(&spec).await;
        let executor = self.executor(&spec, &state);
        executor.go_on(Step::Init)?;
        self.phase(Phase::Init);
        self.hooks().ask(Hook::PreInit, &spec, &[]).await?;
        self.context.hold_pending(&state).await;
        executor.init().await?;
        self.context.release_stored(&state).await;
        self.phase(Phase::Plan);
        self.hooks().ask(Hook::PrePlan, &spec, &[]).await?;
        let summary = executor.locking_step(Step::Plan).await?.changes;
        let (changes, tracker) = self.track(&executor, summary).await;
        self.changes = tracker;
        if let Some(changes) = changes {
            self.board.plan(changes);
        }
        let digest = self.digest(&template, changes).await?;
        self.results.changes = changes;
        self.post_plan(&spec, &state).await?;
        match spec.action {
            Action::Plan => Ok(()),
            Action::Apply | Action::Destroy => {
                if spec.approval {
                    if let Some(changes) = &mut self.changes {
                        changes.stored().await;
                    }
                    self.wait_for_approval(&digest).await?;
                }
                self.change(&spec, &state, &digest, &template).await
            }
        }
    }

    /// The first line of the log.
    async fn greet(&self, spec: Option<&JobSpec>) {
        let program = match spec {
            Some(spec) if !self.has_one_program(spec) => String::new(),
            _ => format!(" with {}", self.terraform.program.title()),
        };
        let (attempt, agent) = (self.job.attempt, &self.context.settings.agent_name);
        self.log.writer.annotate(format!("Attempt {attempt} on agent {agent}{program}.")).await;
    }

    /// From the approval on, with the plan that an earlier executor made.
    pub(crate) async fn resume(&mut self) -> Result<(), StageError> {
        let shown = ClaimRecord::load(&self.workspace.claim_file()).is_ok_and(|record| record.waits);
        if !shown {
            self.log.writer.annotate("The agent was restarted; the plan still waits for approval.").await;
        }
        let spec = JobSpec::parse(&self.job.config)?;
        let state = self.context.state(&spec, self.job);
        if matches!(spec.source, Source::Git(_)) {
            let stored = self.workspace.stored_commit();
            self.is_of(
                stored.map_err(|error| Failure::internal("the template's commit cannot be read", &error))?,
            );
        }
        let template = self.template(&spec).await?;
        self.log.writer.catch_up().await;
        self.same_program().await?;
        let workspace = self.workspace.clone();
        let loaded = blocking(move || PlanDigest::load(&workspace)).await;
        let digest =
            loaded.map_err(|error| Failure::internal("the digests of the plan cannot be read", &error))?;
        self.check(&digest, &template).await?;
        self.results.changes = digest.changes;
        // The earlier executor may have ended before the row had them: the plan could not be approved.
        if !shown {
            if let Some(changes) = digest.changes {
                self.board.plan(changes);
            }
            self.board.digest(&digest.plan);
        }
        let executor = self.executor(&spec, &state);
        if shown {
            self.ask_approval(&digest).await?;
            let (_, tracker) = self.track(&executor, digest.changes).await;
            self.changes = tracker;
        } else {
            let (_, tracker) = self.track(&executor, digest.changes).await;
            self.changes = tracker;
            if let Some(changes) = &mut self.changes {
                changes.stored().await;
            }
            self.wait_for_approval(&digest).await?;
        }
        self.change(&spec, &state, &digest, &template).await
    }

    fn executor<'b>(&'b self, spec: &'b JobSpec, state: &'b State) -> TerraformExecutor<'b> {
        TerraformExecutor {
            settings: &self.terraform,
            runner: &*self.context.runner,
            job: self.job,
            spec,
            workspace: self.workspace,
            state,
            log: self.log,
            stop: self.stop,
        }
    }

    fn hooks(&self) -> Hooks<'_> {
        Hooks {
            settings: &self.context.settings.hooks,
            runner: &*self.context.runner,
            job: self.job,
            workspace: self.workspace,
            log: self.log,
            stop: self.stop,
        }
    }

    /// The hook for failures; what it answers changes nothing.
    pub(crate) async fn on_failure(&self, failure: &Failure) {
        let spec = JobSpec::parse(&self.job.config).ok();
        let code = serde_json::to_value(failure.code).ok();
        let code = code.as_ref().and_then(|code| code.as_str()).unwrap_or_default();
        let message = self.log.redactor.redact(&failure.message).replace('\0', "\u{fffd}");
        let more = [("TENDRIL_ERROR_CODE", code.into()), ("TENDRIL_ERROR_MESSAGE", message.into())];
        self.hooks().notify(Hook::OnFailure, spec.as_ref(), &more).await;
    }

    /// Shows the job's phase in the row and on `/status`.
    fn phase(&self, phase: Phase) {
        self.place.phase(phase);
        self.board.phase(phase);
    }

    /// Saves the job's phase on disk.
    async fn save_phase(&self, phase: Phase) -> Result<(), StageError> {
        self.save(ClaimRecord::new(self.job, phase)).await
    }

    async fn save(&self, record: ClaimRecord) -> Result<(), StageError> {
        // The mark is made by the keeper process, which stores the exit code.
        let marks_begin = self.terraform.keeper.is_some();
        let record = ClaimRecord { marks_begin, ..record };
        let file = self.workspace.claim_file();
        let stored = blocking(move || record.save(&file)).await;
        Ok(stored
            .map_err(|error| Failure::internal("the agent's work directory cannot be written", &error))?)
    }
}

#[cfg(test)]
#[path = "stages_tests.rs"]
mod tests;
