//! One run through the stages: (source) → workspace → cost → init → plan → (approval) → apply → outputs.

use std::{sync::Arc, time::SystemTime};

use crate::{
    control_plane::{
        changes::ChangeReporter,
        final_status::{ClaimRecord, ProgressBoard},
    },
    cost::{
        estimator::{Estimate, Estimator},
        infracost::Found,
    },
    execute::{
        approval::{Approval, approval_of},
        attempt::JobContext,
        changes::ChangeTracker,
        hooks::{Hook, Hooks},
        registry::RunningJob,
    },
    job::{
        failure::{ErrorCode, Failure},
        json::Fields,
        result::Changes,
        source::{GitSource, Source},
        spec::{Action, Job, JobSpec},
        status::Phase,
    },
    os::{blocking::blocking, failpoint::failpoint},
    process::{cancellation::StopSignal, keeper, runner::TerminationStage},
    template::{definition::Template, git, workspace::Workspace},
    terraform::{
        command::Step,
        executor::{Log, StageError, TerraformExecutor},
        plan_digest::PlanDigest,
        state::backend::State,
    },
};

/// What a run left to say beside its result.
#[derive(Default)]
pub(crate) struct RunOutput {
    pub(crate) estimate: Option<Estimate>,
    pub(crate) changes: Option<Changes>,
    pub(crate) outputs: Option<Fields>,
    /// Of a template from Git.
    pub(crate) commit: Option<String>,
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
    pub(crate) results: RunOutput,
    /// The planned changes, once there are any.
    pub(crate) changes: Option<ChangeTracker>,
}

impl Run<'_> {
    /// From the first stage to the last.
    pub(crate) async fn begin(&mut self) -> Result<(), StageError> {
        let settings = Arc::clone(&self.context.settings);
        let greeting = format!(
            "Attempt {} on agent {} with {} {}.",
            self.job.attempt,
            settings.agent_name,
            settings.terraform.program.name(),
            settings.terraform.program.version()
        );
        self.log.writer.annotate(greeting).await;
        let spec = JobSpec::parse(&self.job.config)?;
        let state = self.context.state(&spec, self.job);
        if let Source::Git(source) = &spec.source {
            self.fetch(source).await?;
        }
        let template = self.lay_out(&spec, &state).await?;
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
        let template = self.template(&spec)?;
        let workspace = self.workspace.clone();
        let loaded = blocking(move || PlanDigest::load(&workspace)).await;
        let digest =
            loaded.map_err(|error| Failure::internal("the digests of the plan cannot be read", &error))?;
        self.check(&digest, &template).await?;
        self.results.changes = digest.changes;
        // The earlier executor may have ended before the row had them: nobody could approve.
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

    /// From the apply on, which an earlier executor began and Terraform went on with. If that executor ended before Terraform
    /// was started, the saved plan is applied now.
    pub(crate) async fn adopt(&mut self) -> Result<(), StageError> {
        let workspace = self.workspace.clone();
        let begun = blocking(move || Ok(has_begun(&workspace))).await;
        if !begun.map_err(|error| Failure::internal("the agent's work directory cannot be read", &error))? {
            return self.begin_apply().await;
        }
        self.log.writer.annotate("The agent was restarted; Terraform went on meanwhile.").await;
        let spec = JobSpec::parse(&self.job.config)?;
        let state = self.context.state(&spec, self.job);
        self.results.commit = self.workspace.stored_commit().ok();
        // Its log must not show what the template marks as sensitive.
        self.template(&spec)?;
        let workspace = self.workspace.clone();
        let digest = blocking(move || PlanDigest::load(&workspace)).await;
        self.results.changes = digest.ok().and_then(|digest| digest.changes);
        self.phase(apply_phase(&spec));
        let (_, tracker) = self.track(&self.executor(&spec, &state), self.results.changes).await;
        self.changes = tracker;
        self.executor(&spec, &state).adopt_apply().await?;
        self.report_applied();
        self.outputs(&spec, &state).await
    }

    /// Applies a plan whose apply an earlier executor entered, and did not begin.
    async fn begin_apply(&mut self) -> Result<(), StageError> {
        let name = self.context.settings.terraform.program.name();
        let text = format!("The agent was restarted before it had started {name} apply: it is started now.");
        self.log.writer.annotate(text).await;
        let spec = JobSpec::parse(&self.job.config)?;
        let state = self.context.state(&spec, self.job);
        self.results.commit = self.workspace.stored_commit().ok();
        let template = self.template(&spec)?;
        let workspace = self.workspace.clone();
        let loaded = blocking(move || PlanDigest::load(&workspace)).await;
        let digest =
            loaded.map_err(|error| Failure::internal("the digests of the plan cannot be read", &error))?;
        self.results.changes = digest.changes;
        let executor = self.executor(&spec, &state);
        let (_, tracker) = self.track(&executor, digest.changes).await;
        self.changes = tracker;
        self.change(&spec, &state, &digest, &template).await
    }

    /// Stores the planned changes as rows, and follows them from now on; answers the counts with what the rows add to them. A
    /// database of the contract before has no rows of changes.
    async fn track(
        &self,
        executor: &TerraformExecutor<'_>,
        summary: Option<Changes>,
    ) -> (Option<Changes>, Option<ChangeTracker>) {
        let Job { id, claim_token, .. } = *self.job;
        if self.job.state_key.is_none() {
            return (summary, None);
        }
        match executor.planned_changes().await {
            Ok(planned) => {
                let details = Some(planned.details);
                let reporter =
                    ChangeReporter { rest: self.context.rest.clone(), deployment_id: id, claim_token };
                let tracker = ChangeTracker::start(reporter, planned, self.log.progress.clone());
                (summary.map(|changes| Changes { details, ..changes }), Some(tracker))
            }
            Err(error) => {
                tracing::warn!(%error, "the saved plan cannot be shown: its changes are not stored as rows");
                (summary, None)
            }
        }
    }

    fn executor<'b>(&'b self, spec: &'b JobSpec, state: &'b State) -> TerraformExecutor<'b> {
        TerraformExecutor {
            settings: &self.context.settings.terraform,
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

    /// Asks the hook that sees the plan, if there is one.
    async fn post_plan(&self, spec: &JobSpec, state: &State) -> Result<(), StageError> {
        if !self.hooks().has(Hook::PostPlan) {
            return Ok(());
        }
        let file = self.workspace.data_dir().join("plan.json");
        self.executor(spec, state).show_plan(&file).await?;
        Ok(self.hooks().ask(Hook::PostPlan, spec, &[("TENDRIL_PLAN_JSON", file.into())]).await?)
    }

    /// The hook for failures; what it answers changes nothing.
    pub(crate) async fn on_failure(&self, failure: &Failure) {
        let spec = JobSpec::parse(&self.job.config).ok();
        let code = serde_json::to_value(failure.code).ok();
        let code = code.as_ref().and_then(|code| code.as_str()).unwrap_or_default();
        let message = self.log.redactor.redact(&failure.message).replace('\0', "\u{fffd}");
        let more = [("TENDRIL_ERROR_CODE", code.into()), ("TENDRIL_ERROR_MESSAGE", message.into())];
        self.hooks().tell(Hook::OnFailure, spec.as_ref(), &more).await;
    }

    /// Brings the template from its repository into the workspace.
    async fn fetch(&mut self, source: &GitSource) -> Result<(), StageError> {
        self.phase(Phase::Workspace);
        self.log.writer.annotate(format!("The template is fetched from {source}.")).await;
        let settings = &self.context.settings;
        let console = git::Console {
            settings: &settings.git,
            runner: &*self.context.runner,
            stop: self.stop,
            timeout: settings.git_timeout,
            root: &git::root(&settings.work_dir),
        };
        let fetched = console.check_out(source, self.workspace, &self.context.secrets).await;
        let git::Checkout { commit, cached } = fetched.map_err(|failure| {
            failure.map_or(
                StageError::Stopped(Step::Init, TerminationStage::Untouched, None),
                StageError::Failed,
            )
        })?;
        let how = if cached { ", which was here already" } else { "" };
        self.log.writer.annotate(format!("The template is of commit {commit}{how}.")).await;
        self.workspace
            .store_commit(&commit)
            .map_err(|error| Failure::internal("the agent's work directory cannot be written", &error))?;
        self.is_of(commit);
        Ok(())
    }

    /// The row says which commit is run.
    fn is_of(&mut self, commit: String) {
        self.board.commit(&commit);
        self.results.commit = Some(commit);
    }

    fn template(&self, spec: &JobSpec) -> Result<Template, Failure> {
        let template = match &spec.source {
            Source::BuiltIn(name) => Template::built_in(&self.context.settings.templates_dir, name)?,
            Source::Git(source) => Template::open(self.workspace.source_dir()).map_err(|error| {
                let text = format!("template.json of {source} cannot be read: {error}");
                Failure::new(ErrorCode::SourceInvalid, text)
            })?,
        };
        self.log.redactor.hide(template.sensitive_values(&spec.variables));
        Ok(template)
    }

    /// Template, variables, backend.
    async fn lay_out(&self, spec: &JobSpec, state: &State) -> Result<Template, StageError> {
        let template = self.template(spec)?;
        template.check(&spec.variables)?;
        let (workspace, variables) = (self.workspace.clone(), spec.variables.clone());
        let (from, state) = (template.dir().to_path_buf(), state.clone());
        let laid_out = blocking(move || {
            let laid_out = workspace.lay_out(&from, &variables);
            // Last: a template's own file of that name must not win.
            laid_out.is_ok().then(|| state.lay_out(&workspace.module_dir())).transpose()?;
            Ok(laid_out)
        })
        .await;
        laid_out.map_err(|error| Failure::internal("the workspace cannot be prepared", &error))??;
        Ok(template)
    }

    /// What it will cost is told before anybody is asked to approve it. What is destroyed costs nothing.
    async fn cost(&mut self, spec: &JobSpec) {
        if spec.action == Action::Destroy {
            return;
        }
        let runner = &self.context.runner;
        let settings = &self.context.settings.cost;
        if matches!(settings.infracost.found(), Found::Program(_)) {
            self.phase(Phase::Cost);
        }
        let (workspace, log, stop) = (self.workspace, self.log, self.stop);
        let estimator = Estimator { settings, runner: &**runner, workspace, log, stop };
        self.results.estimate = estimator.estimate().await;
        if let Some(estimate) = &self.results.estimate {
            let (status, cost) = estimate.columns();
            self.board.cost(status, &cost);
        }
    }

    /// Takes the digests of what was planned, and tells the row.
    async fn digest(&self, template: &Template, changes: Option<Changes>) -> Result<PlanDigest, StageError> {
        let (workspace, from) = (self.workspace.clone(), template.dir().to_path_buf());
        let digest = blocking(move || {
            let mut digest = PlanDigest::of(&workspace, &from)?;
            digest.changes = changes;
            digest.save(&workspace)?;
            Ok(digest)
        });
        let digest =
            digest.await.map_err(|error| Failure::internal("the saved plan cannot be read", &error))?;
        self.board.digest(&digest.plan);
        Ok(digest)
    }

    /// Installs the providers where the plan was made in another place, and they are there.
    #[cfg(feature = "kubernetes")]
    async fn install_again(&self, spec: &JobSpec, state: &State) -> Result<(), StageError> {
        let restored = self.workspace.restored_file();
        if restored.exists() {
            let executor = self.executor(spec, state);
            executor.go_on(Step::Init)?;
            executor.init().await?;
            drop(std::fs::remove_file(restored));
        }
        Ok(())
    }

    /// Refuses to go on if anything is not as it was when the plan was made.
    async fn check(&self, digest: &PlanDigest, template: &Template) -> Result<(), StageError> {
        let (workspace, from, digest) =
            (self.workspace.clone(), template.dir().to_path_buf(), digest.clone());
        let checked = blocking(move || Ok(digest.check(&workspace, &from))).await;
        Ok(checked.map_err(|error| Failure::internal("the saved plan cannot be checked", &error))??)
    }

    /// Shows the plan in the row, and leaves it to wait for its approval unless it is approved by then.
    async fn wait_for_approval(&self, digest: &PlanDigest) -> Result<(), StageError> {
        self.keep(Phase::Approval).await?;
        failpoint!("approval.kept");
        self.phase(Phase::Approval);
        self.log.writer.annotate(format!("The plan {} waits for approval.", digest.plan)).await;
        self.board.settled().await;
        failpoint!("approval.shown");
        self.ask_approval(digest).await
    }

    /// Asks whether the plan is approved. If it is not yet, the disk says that it waits, and until when.
    async fn ask_approval(&self, digest: &PlanDigest) -> Result<(), StageError> {
        match approval_of(&self.context.rest, self.job, &digest.plan, self.stop).await {
            Approval::Approved => {
                self.log.writer.annotate("The plan is approved.").await;
                Ok(())
            }
            Approval::Open(left) => {
                let expires_at = left.map(|left| SystemTime::now() + left);
                let record = ClaimRecord::new(self.job, Phase::Approval);
                self.save(ClaimRecord { waits: true, expires_at, ..record }).await?;
                Err(StageError::Waiting)
            }
            Approval::Expired => Err(approval_expired(self.job).into()),
            Approval::Stopped => Err(StageError::Stopped(Step::Apply, TerminationStage::Untouched, None)),
        }
    }

    /// Applies exactly what was planned.
    async fn change(
        &mut self,
        spec: &JobSpec,
        state: &State,
        digest: &PlanDigest,
        template: &Template,
    ) -> Result<(), StageError> {
        self.check(digest, template).await?;
        #[cfg(feature = "kubernetes")]
        self.install_again(spec, state).await?;
        self.enter(apply_phase(spec)).await?;
        let executor = self.executor(spec, state);
        executor.go_on(Step::Apply)?;
        executor.locking_step(Step::Apply).await?;
        self.report_applied();
        self.outputs(spec, state).await
    }

    /// The whole plan is applied.
    fn report_applied(&self) {
        if let Some(changes) = &self.changes {
            let settings = &self.context.settings.terraform;
            let variable = |name: &str| std::env::var(name).ok();
            let fingerprint = settings.backend.fingerprint(&settings.state_dir, variable).ok();
            changes.applied(settings.backend.kind().name(), fingerprint);
        }
    }

    /// Reads what was applied. What is destroyed has no outputs.
    async fn outputs(&mut self, spec: &JobSpec, state: &State) -> Result<(), StageError> {
        self.results.applied = true;
        if spec.action == Action::Apply {
            self.phase(Phase::Output);
            let outputs = self.executor(spec, state).outputs().await?;
            self.results.outputs = Some(outputs);
        }
        self.hooks().tell(Hook::PostApply, Some(spec), &[]).await;
        Ok(())
    }

    /// From here on the world is changed: the row and the disk must both say so first.
    async fn enter(&self, phase: Phase) -> Result<(), StageError> {
        self.keep(phase).await?;
        failpoint!("apply.kept");
        self.phase(phase);
        self.board.settled().await;
        failpoint!("apply.settled");
        Ok(())
    }

    /// The row and `/status` say in which phase the job is.
    fn phase(&self, phase: Phase) {
        self.place.phase(phase);
        self.board.phase(phase);
    }

    /// The disk says in which phase the job is.
    async fn keep(&self, phase: Phase) -> Result<(), StageError> {
        self.save(ClaimRecord::new(self.job, phase)).await
    }

    async fn save(&self, record: ClaimRecord) -> Result<(), StageError> {
        // Who leaves the mark is the parent process that keeps the exit code.
        let marks_begin = self.context.settings.terraform.keeper.is_some();
        let record = ClaimRecord { marks_begin, ..record };
        let file = self.workspace.claim_file();
        let stored = blocking(move || record.save(&file)).await;
        Ok(stored
            .map_err(|error| Failure::internal("the agent's work directory cannot be written", &error))?)
    }
}

/// Nobody approved the plan in time.
fn approval_expired(job: &Job) -> Failure {
    let seconds = job.config.parse().ok().and_then(|config| config.to_value().ok());
    let within = match seconds.as_ref().and_then(|config| config["approval_expires"].as_u64()) {
        Some(1) => "within a second".to_owned(),
        Some(seconds) => format!("within {seconds} seconds"),
        None => "in time".to_owned(),
    };
    let message = format!(
        "Nobody approved the plan {within} (config_snapshot.approval_expires). Nothing was changed: queue a new deployment."
    );
    Failure::new(ErrorCode::ApprovalExpired, message)
}

/// Whether an apply may have begun that an earlier executor entered. One of a version that leaves no mark may have.
fn has_begun(workspace: &Workspace) -> bool {
    let marks = ClaimRecord::load(&workspace.claim_file()).is_ok_and(|record| record.marks_begin);
    !marks || keeper::may_have_begun(&workspace.exit_file(), &workspace.data_dir())
}

/// What the row says while the plan is applied.
fn apply_phase(spec: &JobSpec) -> Phase {
    if spec.action == Action::Destroy { Phase::Destroy } else { Phase::Apply }
}

#[cfg(test)]
#[path = "stages_tests.rs"]
mod tests;
