//! The apply of a saved plan, and what follows it. An earlier executor may have begun it.

use crate::{
    control_plane::ClaimRecord,
    execute::{hooks::Hook, stages::Run},
    job::{Action, Failure, JobSpec, Phase},
    os::{blocking, failpoint},
    process::keeper,
    template::{Template, Workspace},
    terraform::{PlanDigest, StageError, Step, state::State},
};

impl Run<'_> {
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
        self.template(&spec).await?;
        if let Err(failure) = self.same_program().await {
            // Any version reads the outputs of what is applied.
            tracing::warn!(failure = failure.message, "an apply goes on with another program");
        }
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
        let spec = JobSpec::parse(&self.job.config)?;
        self.same_program().await?;
        let name = self.terraform.program.name();
        let text = format!("The agent was restarted before it had started {name} apply: it is started now.");
        self.log.writer.annotate(text).await;
        let state = self.context.state(&spec, self.job);
        self.results.commit = self.workspace.stored_commit().ok();
        let template = self.template(&spec).await?;
        self.log.writer.catch_up().await;
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

    /// Applies exactly what was planned.
    pub(super) async fn change(
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
            let settings = &self.terraform;
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
        self.hooks().notify(Hook::PostApply, Some(spec), &[]).await;
        Ok(())
    }

    /// From here on resources are changed: the row and the disk must both show it first.
    async fn enter(&self, phase: Phase) -> Result<(), StageError> {
        self.save_phase(phase).await?;
        failpoint!("apply.saved");
        self.phase(phase);
        self.board.flushed().await;
        failpoint!("apply.flushed");
        Ok(())
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
}

/// Whether an apply may have begun that an earlier executor entered. One of a version that leaves no mark may have.
fn has_begun(workspace: &Workspace) -> bool {
    let marks = ClaimRecord::load(&workspace.claim_file()).is_ok_and(|record| record.marks_begin);
    !marks || keeper::may_have_begun(&workspace.exit_file(), &workspace.data_dir())
}

/// The phase in the row while the plan is applied.
fn apply_phase(spec: &JobSpec) -> Phase {
    if spec.action == Action::Destroy { Phase::Destroy } else { Phase::Apply }
}
