//! Terraform's commands for one attempt: run, logged, judged; with the state's lock explained where it is in the way.

use std::{
    io,
    path::Path,
    time::{Duration, Instant},
};

use futures_util::future::BoxFuture;
use jiff::Timestamp;

use crate::{
    job::{
        failure::{ErrorCode, Failure},
        json::{Fields, Json},
        result::Findings,
        spec::{Job, JobSpec},
    },
    logs::writer::{LogWriter, StdoutCapture},
    os::{blocking::blocking, failpoint::failpoint, file_lock},
    process::{
        cancellation::StopSignal,
        file_sink::FileSink,
        keeper,
        runner::{Command, Exit, Runner, Sink, TerminationStage},
        stream::Stream,
    },
    redaction::redactor::Redactor,
    telemetry,
    template::workspace::Workspace,
    terraform::{
        apply_progress::ApplyProgress,
        command::{Step, grace_period, read_outputs},
        plan_changes::{self, PlannedChanges},
        provider_cache,
        settings::{StepTiming, TerraformSettings},
        state::{
            backend::State,
            lock::Lock,
            lock_owner::{LockOwner, during, who},
            lock_query,
            pending_push::{self, Push, StderrTail, Stored},
            state_dump::StateDumpFilter,
        },
        step_clock::StepClock,
    },
};

/// Why a run ended before its last stage.
#[derive(Debug)]
pub(crate) enum StageError {
    /// Something failed.
    Failed(Failure),
    /// A stop was requested: at this step, after these stages.
    Stopped(Step, TerminationStage, Option<i32>),
    /// The agent ends while the job waits for approval: its next run goes on waiting.
    Waiting,
}

impl From<Failure> for StageError {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// A job's log, and what must not be in it.
#[derive(Clone, Debug)]
pub(crate) struct Log {
    pub(crate) writer: LogWriter,
    pub(crate) redactor: Redactor,
    /// How far the apply got.
    pub(crate) progress: ApplyProgress,
}

/// Where the steps of one attempt are carried out.
pub(crate) struct TerraformExecutor<'a> {
    pub(crate) settings: &'a TerraformSettings,
    pub(crate) runner: &'a dyn Runner,
    pub(crate) job: &'a Job,
    pub(crate) spec: &'a JobSpec,
    pub(crate) workspace: &'a Workspace,
    pub(crate) state: &'a State,
    pub(crate) log: &'a Log,
    pub(crate) stop: &'a StopSignal,
}

impl TerraformExecutor<'_> {
    /// Backend, modules and providers; then state that an earlier run could not store is stored.
    pub(crate) async fn init(&self) -> Result<(), StageError> {
        self.announce(Step::Init).await;
        let lock = match self.settings.program.plugin_cache() {
            Some(dir) => tokio::select! {
                lock = file_lock::lock_provider_cache(dir) => Some(lock.map_err(|error| {
                    Failure::internal("the directory for providers cannot be used", &error)
                })?),
                () = self.stop.wait() => None,
            },
            None => None,
        };
        let (exit, findings) = self.carry_out(Step::Init, &self.log.writer, Duration::ZERO).await?;
        if lock.is_some() {
            let data_dir = self.workspace.data_dir();
            let mark = move || {
                provider_cache::mark_used(&data_dir);
                Ok(())
            };
            let marked = blocking(mark).await;
            marked
                .map_err(|error| Failure::internal("the directory for providers cannot be used", &error))?;
        }
        drop(lock);
        self.check_exit(Step::Init, exit, &findings)?;
        self.push_pending().await
    }

    /// A step that takes the state's lock: plan or apply. A lock that a dead attempt of ours left is removed.
    pub(crate) async fn locking_step(&self, step: Step) -> Result<Findings, StageError> {
        self.announce(step).await;
        let mut dead = self.state.stale_owners();
        loop {
            // What a dead attempt left is not waited for.
            let grace_period =
                if dead.is_empty() { self.settings.timing.lock_timeout } else { Duration::ZERO };
            let (exit, findings) = self.carry_out(step, &self.log.writer, grace_period).await?;
            let failed = !step.succeeded(exit.code) && self.stop.requested().is_none();
            let error = findings.error.as_deref().filter(|_| failed);
            let Some(lock) = error.and_then(|error| Lock::read(error, self.state.kind())) else {
                self.check_exit(step, exit, &findings)?;
                // We held the lock after the dead: it is not theirs any more.
                self.state.clear_stale();
                return Ok(findings);
            };
            let lock = lock_query::owner(self.state).await.unwrap_or(lock);
            if let Some(id) = lock.of_stale(&dead) {
                self.annotate(format!(
                    "The state is still locked by a dead attempt of this agent (lock {id}): it is unlocked."
                ))
                .await;
                self.unlock(id).await?;
                metrics::counter!(telemetry::LOCKS_REMOVED).increment(1);
                self.state.clear_stale();
            } else if dead.is_empty() {
                metrics::counter!(telemetry::LOCK_CONFLICTS).increment(1);
                let text = lock.explain(self.state, &who(), Timestamp::now());
                return Err(Failure::new(ErrorCode::StateLocked, text).into());
            }
            dead.clear();
        }
    }

    /// Writes the saved plan as JSON into a file. Errors: what Terraform says.
    pub(crate) async fn show_plan(&self, file: &Path) -> Result<(), StageError> {
        let fault = |error: io::Error| Failure::internal("the plan cannot be written as JSON", &error);
        let sink = FileSink::create(file).map_err(fault)?;
        let command = self.settings.program.show_plan(self.workspace, &self.settings.timing);
        let (exit, findings) = self.run(command, &sink).await?;
        self.check_exit(Step::Plan, exit, &findings)?;
        Ok(sink.finish().map_err(fault)?)
    }

    /// The outputs that may be shown. Their values never pass through the log.
    pub(crate) async fn outputs(&self) -> Result<Fields, StageError> {
        let capture = StdoutCapture::new(self.log.writer.clone());
        let (exit, findings) = self.carry_out(Step::Output, &capture, Duration::ZERO).await?;
        self.check_exit(Step::Output, exit, &findings)?;
        let read = capture.into_captured().and_then(|retained| Ok(read_outputs(&retained)?));
        let (public, sensitive) =
            read.map_err(|error| Failure::internal("the outputs cannot be read", &error))?;
        let strings = sensitive.iter().flat_map(Json::leaves).filter_map(Json::as_text).map(str::to_owned);
        self.log.redactor.hide(strings);
        Ok(public)
    }

    /// What the saved plan changes, resource by resource. Errors: the program cannot show it, which is no reason to fail.
    pub(crate) async fn planned_changes(&self) -> io::Result<PlannedChanges> {
        let shown = ShownPlan::default();
        let command = self.settings.program.show_plan(self.workspace, &self.settings.timing)?;
        let exit = self.runner.run(command, &shown, self.stop).await?;
        if exit.code != Some(0) {
            let output = self.log.redactor.redact(&shown.stderr.into_text()).into_owned();
            return Err(io::Error::other(output));
        }
        let retained = shown.stdout.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        if retained.len() > SHOWN_LIMIT {
            return Err(io::Error::other("it is larger than 32 MiB"));
        }
        let redactor = self.log.redactor.clone();
        blocking(move || Ok(plan_changes::read(&retained, &redactor)?)).await
    }

    /// Adds an annotation to the job's log.
    pub(crate) async fn annotate(&self, text: impl Into<String>) {
        self.log.writer.annotate(text).await;
    }

    /// Nothing is started once a stop is requested.
    pub(crate) fn go_on(&self, step: Step) -> Result<(), StageError> {
        match self.stop.requested() {
            None => Ok(()),
            Some(_) => Err(StageError::Stopped(step, TerminationStage::Untouched, None)),
        }
    }

    async fn announce(&self, step: Step) {
        self.annotate(format!("{} {}", self.settings.program.name(), step.name())).await;
    }

    async fn unlock(&self, id: &str) -> Result<(), StageError> {
        let command = self.settings.program.unlock(id, self.workspace, &self.settings.timing);
        self.background_task(command).await?.map_err(|why| {
            let key = self.state.key();
            let text = format!(
                "The state {key} is locked by a dead attempt of this agent, and cannot be unlocked: {why}"
            );
            Failure::new(ErrorCode::StateLocked, text).into()
        })
    }

    /// A plan against an older state would make everything again that the newer one knows: nothing is planned before what
    /// was pending is stored.
    async fn push_pending(&self) -> Result<(), StageError> {
        let fault = |error: io::Error| Failure::internal("the state directory cannot be used", &error);
        if let Some((place, why)) =
            pending_push::gather(self.settings, self.state, self.workspace).map_err(fault)?
        {
            return Err(Failure::new(
                ErrorCode::StateNotStored,
                format!(
                    "State of an earlier run is in no backend yet. The only copy is {}, in the agent's work directory, and cannot be moved to the agent's state directory: {why}\nNothing was planned. Fix the state directory; then queue the deployment again.",
                    place.display()
                ),
            )
            .into());
        }
        for file in self.state.pending().map_err(fault)? {
            self.go_on(Step::Plan)?;
            let push = Push {
                settings: self.settings,
                runner: self.runner,
                state: self.state,
                workspace: self.workspace,
                stop: self.stop,
                id: self.job.id,
                attempt: self.job.attempt,
            };
            match push.store(&file).await.map_err(fault)? {
                Stored::Done => {}
                Stored::Refused(why) => {
                    return Err(self.not_stored(&file, &self.log.redactor.redact(&why)).into());
                }
                Stored::Stopped(exit) => return Err(StageError::Stopped(Step::Init, exit.stage, exit.code)),
            }
            self.annotate(format!(
                "State of an earlier run that was saved in {} is stored now.",
                file.display()
            ))
            .await;
        }
        Ok(())
    }

    fn not_stored(&self, file: &Path, why: &str) -> Failure {
        let command = format!("terraform state push {}", file.display());
        Failure::new(
            ErrorCode::StateNotStored,
            format!(
                "State of an earlier run is not in the backend yet, and cannot be stored: {why}\nIt is saved in {} on the agent's volume. Nothing was planned. Compare it with the state in the backend; then store it or remove the file: {}",
                file.display(),
                self.state.by_hand(&command)
            ),
        )
    }

    /// A command about the state itself; where it fails, what it says.
    async fn background_task(&self, command: io::Result<Command>) -> Result<Result<(), String>, StageError> {
        let quote = StderrTail::default();
        let (exit, _) = self.run(command, &quote).await?;
        if exit.code == Some(0) {
            return Ok(Ok(()));
        }
        if self.stop.requested().is_some() {
            return Err(StageError::Stopped(Step::Init, exit.stage, exit.code));
        }
        Ok(Err(self.log.redactor.redact(&quote.into_text()).into_owned()))
    }

    /// Runs one step; until it ends, it is written down that it may hold the state's lock.
    async fn carry_out(
        &self,
        step: Step,
        sink: &dyn Sink,
        grace_period: Duration,
    ) -> Result<(Exit, Findings), StageError> {
        self.go_on(step)?;
        let _timed = Timed { step, since: Instant::now() };
        let timing = StepTiming { lock_timeout: grace_period, ..self.settings.timing };
        let command = self.settings.program.command(step, self.spec.action, self.workspace, &timing);
        let command = command.map(|command| match &self.settings.keeper {
            Some(program) if step == Step::Apply => {
                // Of an earlier try.
                keeper::begin(&self.workspace.exit_file());
                keeper::keep(command, program, &self.workspace.exit_file())
            }
            _ => command,
        });
        let limits = self.spec.timeouts.within(self.settings.timing.limits);
        let limit = match step {
            Step::Init => limits.init,
            Step::Plan => limits.plan,
            Step::Apply => limits.apply,
            Step::Output => None,
        };
        let clock = StepClock::start(sink);
        let sink: &dyn Sink = &clock;
        tokio::select! {
            ran = self.carry_out_command(step, command, sink, grace_period) => ran,
            never = clock.watch(step.name(), limit, limits.silence, self.stop) => match never {},
        }
    }

    async fn carry_out_command(
        &self,
        step: Step,
        command: io::Result<Command>,
        sink: &dyn Sink,
        grace_period: Duration,
    ) -> Result<(Exit, Findings), StageError> {
        let Some(operation) = step.operation() else { return self.run(command, sink).await };
        let owner = LockOwner::new(self.job.id, self.job.attempt, self.state, operation, grace_period);
        let dumps = StateDumpFilter::new(sink, self.state, self.workspace);
        self.as_owner(owner, step, &dumps, self.run(command, &dumps)).await
    }

    /// Takes over the apply that a previous run of the agent began, and that went on or has ended since.
    pub(crate) async fn adopt_apply(&self) -> Result<(), StageError> {
        let (exit_file, data_dir) = (self.workspace.exit_file(), self.workspace.data_dir());
        let disk = |error: io::Error| Failure::internal("the agent's work directory cannot be read", &error);
        let _timed = Timed { step: Step::Apply, since: Instant::now() };
        let owner = LockOwner::of_adopted(&self.workspace.lock_owner_file()).unwrap_or_else(|_| {
            let operation = Step::Apply.operation().unwrap_or_default();
            LockOwner::new(
                self.job.id,
                self.job.attempt,
                self.state,
                operation,
                self.settings.timing.lock_timeout,
            )
        });
        let grace_period = grace_period(Step::Apply, &self.settings.timing);
        let dumps = StateDumpFilter::new(&self.log.writer, self.state, self.workspace);
        let adopt = async {
            let exit =
                keeper::adopt(&exit_file, &data_dir, &dumps, self.stop, grace_period).await.map_err(disk)?;
            let exit = exit.ok_or_else(|| Failure::new(ErrorCode::AgentLost, LOST))?;
            Ok((exit, self.log.writer.findings().await))
        };
        let (exit, findings) = self.as_owner(owner, Step::Apply, &dumps, adopt).await?;
        self.check_exit(Step::Apply, exit, &findings)?;
        self.state.clear_stale();
        Ok(())
    }

    /// Runs a step that takes the state's lock; until it ends, it is written down that it may hold it.
    async fn as_owner(
        &self,
        owner: LockOwner,
        step: Step,
        dumps: &StateDumpFilter<'_>,
        ran: impl Future<Output = Result<(Exit, Findings), StageError>>,
    ) -> Result<(Exit, Findings), StageError> {
        let disk =
            |error: io::Error| Failure::internal("the agent's work directory cannot be written", &error);
        let left = |ran: &Result<(Exit, Findings), StageError>| {
            let abrupt = |exit: Exit| !step.succeeded(exit.code) && exit.was_abrupt();
            ran.as_ref().is_ok_and(|(exit, _)| abrupt(*exit)) || dumps.lock_left()
        };
        let ran =
            during(owner, self.workspace.lock_owner_file(), self.state, ran, left).await.map_err(disk)?;
        dumps.finalize().await.map_err(|error| self.state_lost(&error))?;
        ran
    }

    fn state_lost(&self, error: &io::Error) -> Failure {
        Failure::new(
            ErrorCode::StateNotStored,
            format!(
                "Terraform could write the state {} neither to its backend nor to a file and printed it, and the agent can keep it nowhere either ({error}). What was changed is not in the state: import it, or remove it by hand.",
                self.state.key()
            ),
        )
    }

    async fn run(
        &self,
        command: io::Result<Command>,
        sink: &dyn Sink,
    ) -> Result<(Exit, Findings), StageError> {
        let name = self.settings.program.name();
        let ran = match command {
            Ok(command) => {
                failpoint!("step.begins");
                self.runner.run(command, sink, self.stop).await
            }
            Err(error) => Err(error),
        };
        failpoint!("step.ended");
        let exit = ran.map_err(|error| Failure::internal(&format!("{name} cannot be started"), &error))?;
        Ok((exit, self.log.writer.findings().await))
    }

    fn check_exit(&self, step: Step, exit: Exit, findings: &Findings) -> Result<(), StageError> {
        // Nobody knows the exit code if what keeps it was killed. Terraform's last message says how the apply ended.
        let is_complete = step == Step::Apply && exit.code.is_none() && findings.is_complete;
        let exit = if is_complete { Exit { code: Some(0), ..exit } } else { exit };
        if self.stop.requested().is_some() {
            if let Some(stage) = exit.stage.name() {
                metrics::counter!(telemetry::STEPS_STOPPED, "stage" => stage).increment(1);
            }
            return Err(StageError::Stopped(step, exit.stage, exit.code));
        }
        if step.succeeded(exit.code) {
            return Ok(());
        }
        metrics::counter!(telemetry::STEPS_FAILED, "step" => step.name()).increment(1);
        let name = self.settings.program.name();
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
        if step == Step::Apply && findings.applied > 0 {
            let count = findings.applied;
            message = format!(
                "{message}\nApplied in part: {count} resources were changed before that, and are in the state."
            );
        }
        Err(Failure::new(ErrorCode::TerraformFailed, message).into())
    }
}

/// Of an apply whose end was not stored.
const LOST: &str = "The agent was killed while Terraform applied the plan, and so was what keeps Terraform's exit code. Resources may have been changed, and the state may still be locked: look at both before you queue it again.";

/// The longest plan that is shown.
const SHOWN_LIMIT: usize = 32 * 1024 * 1024;

/// Keeps what `show` prints. Nothing of it may reach the log: it holds the values of everything.
#[derive(Debug, Default)]
struct ShownPlan {
    stdout: std::sync::Mutex<Vec<u8>>,
    stderr: StderrTail,
}

impl Sink for ShownPlan {
    fn write(&self, stream: Stream, bytes: Vec<u8>) -> BoxFuture<'_, ()> {
        if stream != Stream::Stdout {
            return self.stderr.write(stream, bytes);
        }
        let mut retained = self.stdout.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if retained.len() <= SHOWN_LIMIT {
            retained.extend_from_slice(&bytes);
        }
        Box::pin(std::future::ready(()))
    }
}

/// Records how long a step took, when it is dropped.
struct Timed {
    step: Step,
    since: Instant,
}

impl Drop for Timed {
    fn drop(&mut self) {
        let took = self.since.elapsed().as_secs_f64();
        metrics::histogram!(telemetry::STEP_SECONDS, "step" => self.step.name()).record(took);
    }
}

#[cfg(test)]
#[path = "executor_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "errored_state_tests.rs"]
mod pending;

#[cfg(test)]
#[path = "forced_unlock_tests.rs"]
mod forced;

#[cfg(test)]
#[path = "soak_tests.rs"]
mod soak;

#[cfg(test)]
#[path = "s3_tests.rs"]
mod s3;
