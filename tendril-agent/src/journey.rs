//! One job from its claim to its stored end: workspace → init → plan → apply → output → report.

use std::{io, sync::Arc, time::Instant};

use serde_json::{Map, Value};
use tendril_realtime::Rest;
use tokio::task::{JoinHandle, spawn_blocking};

use crate::{
    config::Config,
    failpoint::failpoint,
    job::{Action, Ending, ErrorCode, Failure, Job, Order, Phase, state_key},
    lease::Lease,
    log_sink::LogSink,
    log_spool::LogSpool,
    log_writer::{Capture, Findings, LogWriter},
    redact::Redactor,
    report::{ClaimRecord, FinalStatus, ProgressBoard, Reporter, Written},
    runner::{Exit, Rung, Runner, Sink},
    state::State,
    stop::{Stop, StopReason},
    template::Template,
    terraform::{Step, message::Changes, read_outputs},
    workspace::Workspace,
};

/// What every job of this agent needs.
#[derive(Clone)]
pub(crate) struct Road {
    pub(crate) config: Arc<Config>,
    pub(crate) rest: Rest,
    pub(crate) runner: Arc<dyn Runner>,
    /// Values that no log of this agent may show.
    pub(crate) secrets: Arc<Vec<String>>,
}

/// Why a run ended before its last station.
enum Halt {
    /// Something failed.
    Failed(Failure),
    /// It was told to stop: at this step, after these rungs.
    Stopped(Step, Rung, Option<i32>),
}

impl From<Failure> for Halt {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// What a run left to say beside its ending.
#[derive(Default)]
struct Results {
    changes: Option<Changes>,
    outputs: Option<Map<String, Value>>,
}

impl Road {
    /// Takes a job to its end. Everything it learns is stored, or waits on disk for the next life of the agent.
    pub(crate) async fn travel(&self, job: Job, lease: &Lease) {
        let reporter = Reporter::new(self.rest.clone(), job.id, job.claim_token);
        match self.open_workspace(&job) {
            Ok((workspace, log, upload)) => {
                let end = self.run(&job, &workspace, log, &reporter, &lease.stop).await;
                self.report(workspace, end, upload, &reporter).await;
            }
            Err(error) => {
                let failure = Failure::internal("the agent's work directory cannot be used", &error);
                let end = FinalStatus::new(&Ending::Failed(failure), None, None);
                note_written(&reporter.finish(&end).await);
            }
        }
    }

    /// Makes the attempt's directory and sets its log in motion.
    fn open_workspace(&self, job: &Job) -> io::Result<(Workspace, Log, JoinHandle<io::Result<u64>>)> {
        let workspace = Workspace::create(&self.config.work_dir, job)?;
        failpoint!("workspace.made");
        ClaimRecord::new(job, Phase::Claimed).save(&workspace.claim_file())?;
        failpoint!("workspace.claimed");
        let rules = self.config.spool_rules();
        let (spool, reader) = LogSpool::create(&workspace.log_dir(), rules)?;
        failpoint!("workspace.logging");
        let sink = LogSink::new(self.rest.clone(), job.id, job.attempt, rules.flush_after);
        let upload = tokio::spawn(sink.upload(reader));
        let redactor = Redactor::default();
        redactor.hide(self.secrets.iter().cloned());
        let writer = LogWriter::start(spool, redactor.clone());
        Ok((workspace, Log { writer, redactor }, upload))
    }

    /// Runs the job, closes its log, and keeps its end on disk.
    async fn run(
        &self,
        job: &Job,
        workspace: &Workspace,
        log: Log,
        reporter: &Reporter,
        stop: &Stop,
    ) -> FinalStatus {
        let started = Instant::now();
        let board = ProgressBoard::start(reporter.clone(), stop.clone());
        let mut run =
            Run { road: self, job, workspace, log: &log, board: &board, stop, results: Results::default() };
        let halted = run.stations().await;
        let Results { changes, outputs } = run.results;
        let rescued = self.clear(job, workspace).await;
        let mut ending = ending(halted, stop.requested());
        if let (Some(place), Ending::Failed(failure)) = (&rescued, &mut ending) {
            let note = format!(
                "{}\nTerraform could not write the state to its backend. It is kept in {place}: push it before the next run.",
                failure.message
            );
            *failure = Failure::new(failure.code, note);
        }
        let took = started.elapsed().as_secs_f64();
        log.writer
            .remark(match &ending {
                Ending::Success => format!("Done in {took:.1} s."),
                Ending::Failed(failure) => format!("Failed after {took:.1} s: {}", failure.message),
                Ending::Cancelled(how) => format!("{how} ({took:.1} s)"),
            })
            .await;
        let outputs = outputs.map(|outputs| {
            outputs.into_iter().map(|(name, value)| (name, log.redactor.redact_json(value))).collect()
        });
        let mut end = FinalStatus::new(&ending, changes, outputs);
        end.error_message = end.error_message.map(|message| log.redactor.redact(&message).into_owned());
        failpoint!("ending.made");
        if let Err(error) = end.save(&workspace.ending_file()) {
            tracing::error!(%error, "the final status cannot be kept on disk; it is sent all the same");
        }
        failpoint!("ending.kept");
        end
    }

    /// Removes what Terraform worked on; answers where state that it could not store was kept.
    async fn clear(&self, job: &Job, workspace: &Workspace) -> Option<String> {
        let order = Order::parse(&job.config);
        let rescue = order.map_or_else(
            |_| self.config.state_dir.clone(),
            |order| self.state(job, &order).dir().to_path_buf(),
        );
        let workspace = workspace.clone();
        match blocking(move || workspace.clear_run(&rescue)).await {
            Ok(kept) => kept.map(|place| place.display().to_string()),
            Err(error) => {
                tracing::error!(%error, "a workspace cannot be removed");
                None
            }
        }
    }

    /// The last line first, then the status that says how many there are.
    async fn report(
        &self,
        workspace: Workspace,
        mut end: FinalStatus,
        upload: JoinHandle<io::Result<u64>>,
        reporter: &Reporter,
    ) {
        match upload.await {
            Ok(Ok(chunks)) => {
                failpoint!("ending.uploaded");
                end.log_count = Some(chunks);
                // A later life then knows that the log is complete, and adds nothing to it.
                if let Err(error) = end.save(&workspace.ending_file()) {
                    tracing::error!(%error, "the final status cannot be kept on disk; it is sent all the same");
                }
                failpoint!("ending.counted");
            }
            Ok(Err(error)) => tracing::error!(%error, "the log spool cannot be read; the log has a gap"),
            Err(error) => tracing::error!(%error, "the upload of the log broke off"),
        }
        metrics::counter!(crate::telemetry::JOBS_ENDED, "status" => end.status.as_str()).increment(1);
        note_written(&reporter.finish(&end).await);
        failpoint!("ending.stored");
        if let Err(error) = blocking(move || workspace.remove()).await {
            tracing::error!(%error, "a finished job's directory cannot be removed");
        }
        failpoint!("ending.removed");
    }

    fn state(&self, job: &Job, order: &Order) -> State {
        let key = state_key(&order.template, order.stack.as_deref(), job.id);
        self.config.state_backend.of(&self.config.state_dir, &key)
    }
}

/// A job's log, and what must not be in it.
struct Log {
    writer: LogWriter,
    redactor: Redactor,
}

/// One run through the stations.
struct Run<'a> {
    road: &'a Road,
    job: &'a Job,
    workspace: &'a Workspace,
    log: &'a Log,
    board: &'a ProgressBoard,
    stop: &'a Stop,
    results: Results,
}

impl Run<'_> {
    async fn stations(&mut self) -> Result<(), Halt> {
        let config = &self.road.config;
        let terraform = &config.terraform;
        self.remark(format!(
            "Attempt {} on agent {} with {} {}.",
            self.job.attempt,
            config.agent_name,
            terraform.name(),
            terraform.version()
        ))
        .await;
        let order = Order::parse(&self.job.config)?;
        self.lay_out(&order).await?;
        self.board.phase(Phase::Init);
        self.step(Step::Init, &order).await?;
        self.board.phase(Phase::Plan);
        if let Some(changes) = self.step(Step::Plan, &order).await?.changes {
            self.results.changes = Some(changes);
            self.board.plan(changes);
        }
        if order.action == Action::Plan {
            return Ok(());
        }
        self.enter(if order.action == Action::Destroy { Phase::Destroy } else { Phase::Apply }).await?;
        self.step(Step::Apply, &order).await?;
        if order.action == Action::Apply {
            self.board.phase(Phase::Output);
            self.results.outputs = Some(self.outputs(&order).await?);
        }
        Ok(())
    }

    /// Template, variables, backend.
    async fn lay_out(&self, order: &Order) -> Result<(), Halt> {
        let template = Template::open(&self.road.config.templates_dir, &order.template)?;
        self.log.redactor.hide(template.sensitive_values(&order.variables));
        template.check(&order.variables)?;
        let (workspace, variables) = (self.workspace.clone(), order.variables.clone());
        let state = self.road.state(self.job, order);
        let laid_out = blocking(move || Ok(workspace.lay_out(template.dir(), &variables, &state))).await;
        laid_out.map_err(|error| Failure::internal("the workspace cannot be prepared", &error))??;
        Ok(())
    }

    /// From here on the world is changed: the row and the disk must both say so first.
    async fn enter(&self, phase: Phase) -> Result<(), Halt> {
        let record = ClaimRecord::new(self.job, phase);
        let file = self.workspace.claim_file();
        blocking(move || record.save(&file))
            .await
            .map_err(|error| Failure::internal("the agent's work directory cannot be written", &error))?;
        failpoint!("apply.kept");
        self.board.phase(phase);
        self.board.settled().await;
        failpoint!("apply.settled");
        self.go_on(Step::Apply)
    }

    /// Runs one step to its end; its findings are the answer.
    async fn step(&self, step: Step, order: &Order) -> Result<Findings, Halt> {
        self.remark(format!("{} {}", self.road.config.terraform.name(), step.name())).await;
        let exit = self.execute(step, order, &self.log.writer).await?;
        let findings = self.log.writer.findings().await;
        self.judge(step, exit, &findings)?;
        Ok(findings)
    }

    /// The outputs that may be shown. Their values never pass through the log.
    async fn outputs(&self, order: &Order) -> Result<Map<String, Value>, Halt> {
        let capture = Capture::new(self.log.writer.clone());
        let exit = self.execute(Step::Output, order, &capture).await?;
        let findings = self.log.writer.findings().await;
        self.judge(Step::Output, exit, &findings)?;
        let read = capture.into_kept().and_then(|kept| Ok(read_outputs(&kept)?));
        let (public, sensitive) =
            read.map_err(|error| Failure::internal("the outputs cannot be read", &error))?;
        let strings = sensitive.iter().filter_map(Value::as_str).map(str::to_owned);
        self.log.redactor.hide(strings);
        Ok(public)
    }

    async fn execute(&self, step: Step, order: &Order, sink: &dyn Sink) -> Result<Exit, Halt> {
        self.go_on(step)?;
        let config = &self.road.config;
        let command = config.terraform.command(step, order.action, self.workspace, &config.timing);
        let exit = match command {
            Ok(command) => {
                failpoint!("step.begins");
                self.road.runner.run(command, sink, self.stop).await
            }
            Err(error) => Err(error),
        };
        failpoint!("step.ended");
        let what = || format!("{} {} cannot be started", config.terraform.name(), step.name());
        Ok(exit.map_err(|error| Failure::internal(&what(), &error))?)
    }

    fn judge(&self, step: Step, exit: Exit, findings: &Findings) -> Result<(), Halt> {
        if self.stop.requested().is_some() {
            return Err(Halt::Stopped(step, exit.rung, exit.code));
        }
        if step.succeeded(exit.code) {
            return Ok(());
        }
        let name = self.road.config.terraform.name();
        let mut message = findings.error.clone().unwrap_or_else(|| match exit.code {
            Some(code) => format!("{name} {} ended with exit code {code}; the log says more", step.name()),
            None => format!(
                "{name} {} was killed by a signal from outside the agent (out of memory?); the log says how far it came",
                step.name()
            ),
        });
        if findings.further_errors > 0 {
            let further = findings.further_errors;
            message = format!("{message}\n(and {further} more errors in the log)");
        }
        Err(Failure::new(ErrorCode::TerraformFailed, message).into())
    }

    /// Nothing is started once the job is told to stop.
    fn go_on(&self, step: Step) -> Result<(), Halt> {
        match self.stop.requested() {
            None => Ok(()),
            Some(_) => Err(Halt::Stopped(step, Rung::Untouched, None)),
        }
    }

    async fn remark(&self, text: String) {
        self.log.writer.remark(text).await;
    }
}

/// The ending that a run's last station means.
fn ending(halted: Result<(), Halt>, reason: Option<StopReason>) -> Ending {
    let (step, rung, code) = match halted {
        // A cancel that came after the last station found nothing to stop.
        Ok(()) => return Ending::Success,
        Err(Halt::Failed(failure)) => return Ending::Failed(failure),
        Err(Halt::Stopped(step, rung, code)) => (step.name(), rung, code),
    };
    let how = match (rung, code) {
        (Rung::Untouched, None) => format!("before {step} began"),
        (_, Some(0)) => format!("during {step}, which had completed"),
        (rung, _) => format!("during {step}: {rung}"),
    };
    match reason {
        Some(StopReason::Cancelled) | None => Ending::Cancelled(format!("Cancelled {how}.")),
        Some(StopReason::ShuttingDown) => Ending::Failed(Failure::new(
            ErrorCode::AgentStopped,
            format!("The agent was shut down {how}. Queue the deployment again."),
        )),
        Some(StopReason::Fenced) => {
            Ending::Failed(Failure::new(ErrorCode::AgentLost, format!("The agent lost its claim {how}.")))
        }
    }
}

fn note_written(written: &Written) {
    match written {
        Written::Stored => tracing::info!("the final status is stored"),
        Written::Refused(why) => {
            tracing::warn!(why, "the final status was refused: the job is somebody else's now");
        }
    }
}

/// Work on the disk, on a thread that may wait for it.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    spawn_blocking(work).await.map_err(io::Error::other)?
}

#[cfg(test)]
#[path = "journey_tests.rs"]
mod tests;
