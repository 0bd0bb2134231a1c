//! What a plan leaves: its changes as rows, its digests, its cost, and the answer of the hook that sees it.

use crate::{
    control_plane::ChangeReporter,
    cost::{Estimator, infracost::Found},
    execute::{changes::ChangeTracker, hooks::Hook, stages::Run},
    job::{Action, Changes, Failure, Job, JobSpec, Phase},
    os::blocking,
    template::Template,
    terraform::{PlanDigest, StageError, TerraformExecutor, state::State},
};

impl Run<'_> {
    /// The cost is shown before anyone approves the plan. What is destroyed costs nothing.
    pub(super) async fn cost(&mut self, spec: &JobSpec) {
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

    /// Stores the planned changes as rows, and follows them from now on; answers the counts with what the rows add to them. A
    /// database of the contract before has no rows of changes.
    pub(super) async fn track(
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

    /// Takes the digests of what was planned, and shows them in the row.
    pub(super) async fn digest(
        &self,
        template: &Template,
        changes: Option<Changes>,
    ) -> Result<PlanDigest, StageError> {
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

    /// Refuses to go on if anything is not as it was when the plan was made.
    pub(super) async fn check(&self, digest: &PlanDigest, template: &Template) -> Result<(), StageError> {
        let (workspace, from, digest) =
            (self.workspace.clone(), template.dir().to_path_buf(), digest.clone());
        let checked = blocking(move || Ok(digest.check(&workspace, &from))).await;
        Ok(checked.map_err(|error| Failure::internal("the saved plan cannot be checked", &error))??)
    }

    /// Runs the hook that sees the plan, if there is one.
    pub(super) async fn post_plan(&self, spec: &JobSpec, state: &State) -> Result<(), StageError> {
        if !self.hooks().has(Hook::PostPlan) {
            return Ok(());
        }
        let file = self.workspace.plan_json_file();
        self.executor(spec, state).show_plan(&file).await?;
        let (workspace, readable) = (self.workspace.clone(), file.clone());
        let shared = blocking(move || workspace.let_user_read(&readable)).await;
        shared.map_err(|error| Failure::internal("the plan cannot be written as JSON", &error))?;
        Ok(self.hooks().ask(Hook::PostPlan, spec, &[("TENDRIL_PLAN_JSON", file.into())]).await?)
    }
}
