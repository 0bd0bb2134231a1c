//! One run through the stations: (source) → workspace → cost → init → plan → (approval) → apply → outputs.

use std::sync::Arc;

use serde_json::{Map, Value};

use crate::{
    control_plane::final_status::{ClaimRecord, ProgressBoard},
    cost::{
        estimator::{Estimate, Estimator},
        infracost::Found,
    },
    dispatch::registry::Place,
    execute::{approval::Word, attempt::Road},
    job::{
        source::{Origin, Source},
        spec::{Action, ErrorCode, Failure, Job, Order, Phase},
    },
    os::failpoint::failpoint,
    process::{cancellation::Stop, runner::Rung},
    template::{definition::Template, git, workspace::Workspace},
    terraform::{
        command::Step,
        executor::{Halt, Log, Workbench, blocking},
        messages::Changes,
        plan_digest::PlanSeal,
        state::backend::State,
    },
};

/// What a run left to say beside its ending.
#[derive(Default)]
pub(crate) struct Results {
    pub(crate) estimate: Option<Estimate>,
    pub(crate) changes: Option<Changes>,
    pub(crate) outputs: Option<Map<String, Value>>,
    /// Of a template from Git.
    pub(crate) commit: Option<String>,
}

/// One run.
pub(crate) struct Run<'a> {
    pub(crate) road: &'a Road,
    pub(crate) job: &'a Job,
    pub(crate) workspace: &'a Workspace,
    pub(crate) log: &'a Log,
    pub(crate) board: &'a ProgressBoard,
    pub(crate) place: &'a Place,
    pub(crate) stop: &'a Stop,
    pub(crate) results: Results,
}

impl Run<'_> {
    /// From the first station to the last.
    pub(crate) async fn begin(&mut self) -> Result<(), Halt> {
        let config = Arc::clone(&self.road.config);
        let greeting = format!(
            "Attempt {} on agent {} with {} {}.",
            self.job.attempt,
            config.agent_name,
            config.terraform.name(),
            config.terraform.version()
        );
        self.log.writer.remark(greeting).await;
        let order = Order::parse(&self.job.config)?;
        let state = self.road.state(&order, self.job);
        if let Origin::Git(source) = &order.origin {
            self.fetch(source).await?;
        }
        let template = self.lay_out(&order, &state).await?;
        self.cost(&order).await;
        let bench = self.bench(&order, &state);
        bench.go_on(Step::Init)?;
        self.phase(Phase::Init);
        bench.init().await?;
        self.phase(Phase::Plan);
        let changes = bench.locking_step(Step::Plan).await?.changes;
        if let Some(changes) = changes {
            self.board.plan(changes);
        }
        let seal = self.seal(&template, changes).await?;
        self.results.changes = changes;
        match order.action {
            Action::Plan => Ok(()),
            Action::Apply | Action::Destroy => {
                if order.approval {
                    self.approval(&seal).await?;
                }
                self.change(&order, &state, &seal, &template).await
            }
        }
    }

    /// From the approval on, in a later life of the agent than the one that made the plan.
    pub(crate) async fn resume(&mut self) -> Result<(), Halt> {
        self.log.writer.remark("The agent was restarted; the plan still waits for approval.").await;
        let order = Order::parse(&self.job.config)?;
        let state = self.road.state(&order, self.job);
        if matches!(order.origin, Origin::Git(_)) {
            let kept = self.workspace.kept_commit();
            self.is_of(
                kept.map_err(|error| Failure::internal("the template's commit cannot be read", &error))?,
            );
        }
        let template = self.template(&order)?;
        let workspace = self.workspace.clone();
        let loaded = blocking(move || PlanSeal::load(&workspace)).await;
        let seal =
            loaded.map_err(|error| Failure::internal("the digests of the plan cannot be read", &error))?;
        self.check(&seal, &template).await?;
        // The earlier life may have ended before the row had them: nobody could approve.
        if let Some(changes) = seal.changes {
            self.board.plan(changes);
        }
        self.board.sealed(&seal.plan);
        self.results.changes = seal.changes;
        self.approval(&seal).await?;
        self.change(&order, &state, &seal, &template).await
    }

    fn bench<'b>(&'b self, order: &'b Order, state: &'b State) -> Workbench<'b> {
        Workbench {
            config: &self.road.config,
            runner: &*self.road.runner,
            job: self.job,
            order,
            workspace: self.workspace,
            state,
            log: self.log,
            stop: self.stop,
        }
    }

    /// Brings the template from its repository into the workspace.
    async fn fetch(&mut self, source: &Source) -> Result<(), Halt> {
        self.phase(Phase::Workspace);
        self.log.writer.remark(format!("The template is fetched from {source}.")).await;
        let config = &self.road.config;
        let console = git::Console {
            settings: &config.git,
            runner: &*self.road.runner,
            stop: self.stop,
            timeout: config.timing.git,
            root: &git::root(&config.work_dir),
        };
        let fetched = console.check_out(source, self.workspace, &self.road.secrets).await;
        let git::Checkout { commit, kept } = fetched.map_err(|failure| {
            failure.map_or(Halt::Stopped(Step::Init, Rung::Untouched, None), Halt::Failed)
        })?;
        let how = if kept { ", which was here already" } else { "" };
        self.log.writer.remark(format!("The template is of commit {commit}{how}.")).await;
        self.workspace
            .keep_commit(&commit)
            .map_err(|error| Failure::internal("the agent's work directory cannot be written", &error))?;
        self.is_of(commit);
        Ok(())
    }

    /// The row says which commit is run.
    fn is_of(&mut self, commit: String) {
        self.board.commit(&commit);
        self.results.commit = Some(commit);
    }

    fn template(&self, order: &Order) -> Result<Template, Failure> {
        let template = match &order.origin {
            Origin::Carried(name) => Template::carried(&self.road.config.templates_dir, name)?,
            Origin::Git(source) => Template::open(self.workspace.source_dir()).map_err(|error| {
                let text = format!("template.json of {source} cannot be read: {error}");
                Failure::new(ErrorCode::SourceInvalid, text)
            })?,
        };
        self.log.redactor.hide(template.sensitive_values(&order.variables));
        Ok(template)
    }

    /// Template, variables, backend.
    async fn lay_out(&self, order: &Order, state: &State) -> Result<Template, Halt> {
        let template = self.template(order)?;
        template.check(&order.variables)?;
        let (workspace, variables) = (self.workspace.clone(), order.variables.clone());
        let (from, state) = (template.dir().to_path_buf(), state.clone());
        let laid_out = blocking(move || Ok(workspace.lay_out(&from, &variables, &state))).await;
        laid_out.map_err(|error| Failure::internal("the workspace cannot be prepared", &error))??;
        Ok(template)
    }

    /// What it will cost is told before anybody is asked to approve it. What is destroyed costs nothing.
    async fn cost(&mut self, order: &Order) {
        if order.action == Action::Destroy {
            return;
        }
        let Road { config, runner, .. } = self.road;
        if matches!(config.infracost.found(), Found::Program(_)) {
            self.phase(Phase::Cost);
        }
        let (workspace, log, stop) = (self.workspace, self.log, self.stop);
        let estimator = Estimator { config, runner: &**runner, workspace, log, stop };
        self.results.estimate = estimator.estimate().await;
        if let Some(estimate) = &self.results.estimate {
            self.board.cost(estimate);
        }
    }

    /// Takes the digests of what was planned, and tells the row.
    async fn seal(&self, template: &Template, changes: Option<Changes>) -> Result<PlanSeal, Halt> {
        let (workspace, from) = (self.workspace.clone(), template.dir().to_path_buf());
        let sealed = blocking(move || {
            let mut seal = PlanSeal::of(&workspace, &from)?;
            seal.changes = changes;
            seal.save(&workspace)?;
            Ok(seal)
        });
        let seal =
            sealed.await.map_err(|error| Failure::internal("the saved plan cannot be read", &error))?;
        self.board.sealed(&seal.plan);
        Ok(seal)
    }

    /// Refuses to go on if anything is not as it was when the plan was made.
    async fn check(&self, seal: &PlanSeal, template: &Template) -> Result<(), Halt> {
        let (workspace, from, sealed) = (self.workspace.clone(), template.dir().to_path_buf(), seal.clone());
        let checked = blocking(move || Ok(sealed.check(&workspace, &from))).await;
        Ok(checked.map_err(|error| Failure::internal("the saved plan cannot be checked", &error))??)
    }

    /// Waits for a person's word.
    async fn approval(&self, seal: &PlanSeal) -> Result<(), Halt> {
        self.keep(Phase::Approval).await?;
        failpoint!("approval.kept");
        self.phase(Phase::Approval);
        self.log.writer.remark(format!("The plan {} waits for approval.", seal.plan)).await;
        match self.road.approvals.wait(&self.road.rest, self.job, &seal.plan, self.stop).await {
            Word::Approved => {
                self.log.writer.remark("The plan is approved.").await;
                Ok(())
            }
            Word::Stopped => Err(Halt::Stopped(Step::Apply, Rung::Untouched, None)),
            Word::Closing => Err(Halt::Waiting),
        }
    }

    /// Applies exactly what was planned.
    async fn change(
        &mut self,
        order: &Order,
        state: &State,
        seal: &PlanSeal,
        template: &Template,
    ) -> Result<(), Halt> {
        self.check(seal, template).await?;
        self.enter(if order.action == Action::Destroy { Phase::Destroy } else { Phase::Apply }).await?;
        let bench = self.bench(order, state);
        bench.go_on(Step::Apply)?;
        bench.locking_step(Step::Apply).await?;
        if order.action == Action::Apply {
            self.phase(Phase::Output);
            let outputs = bench.outputs().await?;
            self.results.outputs = Some(outputs);
        }
        Ok(())
    }

    /// From here on the world is changed: the row and the disk must both say so first.
    async fn enter(&self, phase: Phase) -> Result<(), Halt> {
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
    async fn keep(&self, phase: Phase) -> Result<(), Halt> {
        let record = ClaimRecord::new(self.job, phase);
        let file = self.workspace.claim_file();
        let kept = blocking(move || record.save(&file)).await;
        Ok(kept.map_err(|error| Failure::internal("the agent's work directory cannot be written", &error))?)
    }
}

#[cfg(test)]
#[path = "stages_tests.rs"]
mod tests;
