//! Terraform's commands for one attempt: run, logged, judged; with the state's lock explained where it is in the way.

mod adoption;
mod exit;
mod pending_state;
mod saved_plan;

use std::{
    fs, io,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use secrecy::ExposeSecret as _;
use tokio::time::sleep;

use crate::{
    job::{ErrorCode, Failure, Fields, Findings, Job, JobSpec, Json},
    logs::LogWriter,
    os::{blocking, failpoint},
    process::{Command, Exit, FileSink, Runner, Sink, StopSignal, TerminationStage, keeper},
    redaction::Redactor,
    telemetry,
    template::Workspace,
    terraform::{
        apply_progress::ApplyProgress,
        command::{PLUGIN_CACHE_DIR, Step},
        dependency_lock::{self, DependencyLock},
        outputs::Outputs,
        pending_push::StderrTail,
        provider_cache::Filling,
        settings::TerraformSettings,
        state::{
            backend::State,
            creation_race::{self, CreationRace},
            lock::Lock,
            lock_owner::{LockOwner, during, suspects, who},
            lock_query,
            state_dump::StateDumpFilter,
        },
        step_timeout::StepTimeout,
        step_timing::StepTiming,
    },
};

/// Why a run ended before its last stage.
#[derive(Debug)]
pub(crate) enum StageError {
    /// Something failed.
    Failed(Failure),
    /// A stop was requested: at this step, after these stages.
    Stopped(Step, TerminationStage, Option<i32>),
    /// The agent ends while the job waits for approval: its next run continues to wait.
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
        let fault =
            |error: io::Error| Failure::internal("the directory for providers cannot be used", &error);
        let filling = match self.settings.program.plugin_cache() {
            Some(dir) => tokio::select! {
                filling = Filling::begin(dir, self.workspace) => Some(filling.map_err(fault)?),
                () = self.stop.wait() => None,
            },
            None => None,
        };
        let locked = self.dependency_lock().await;
        let ran = self.initialise().await;
        if let Some(filling) = filling {
            filling.end(self.workspace.data_dir()).await.map_err(fault)?;
        }
        let (exit, findings) = ran?;
        self.check_exit(Step::Init, exit, &findings)?;
        if let (Some(locked), Some(now)) = (locked, self.dependency_lock().await) {
            let added: Vec<&str> = now.added_to(&locked).collect();
            if !added.is_empty() {
                let text = format!(
                    "The template's dependency lock file names no version of {}: run {} init, and commit what it writes into {}",
                    added.join(", "),
                    self.settings.program.name(),
                    dependency_lock::FILE
                );
                return Err(Failure::new(ErrorCode::TerraformFailed, text).into());
            }
        }
        self.push_pending().await
    }

    async fn dependency_lock(&self) -> Option<DependencyLock> {
        let workspace = self.workspace.clone();
        blocking(move || Ok(DependencyLock::read(&workspace))).await.ok().flatten()
    }

    /// Again, where another run created the same objects of a state database in the same moment, and where the providers of others
    /// are in the way.
    async fn initialise(&self) -> Result<(Exit, Findings), StageError> {
        let mut next_try = 2;
        let mut cache = self.settings.program.plugin_cache();
        loop {
            let uncached: &[&str] = if cache.is_some() { &[] } else { &[PLUGIN_CACHE_DIR] };
            let (exit, findings) =
                self.carry_out_without(uncached, Step::Init, &self.log.writer, Duration::ZERO).await?;
            let failed = !Step::Init.succeeded(exit.code) && self.stop.requested().is_none();
            // A lock file whose checksums are not those of a cached provider, such as one with checksums of archives only: Terraform
            // writes the provider again, and the cached one is not the run's, or a program that runs.
            let is_in_the_way =
                |error: &str| cache.is_some_and(|dir| error.contains(&*dir.to_string_lossy()));
            if failed && findings.error.as_deref().is_some_and(is_in_the_way) {
                self.annotate(format!(
                    "A provider in the shared cache is not one that the dependency lock file knows, and cannot be replaced: {} init is run again without the cache. To use it, add this platform's checksums to the lock file (terraform providers lock).",
                    self.settings.program.name()
                ))
                .await;
                cache = None;
                continue;
            }
            let error = findings.error.as_deref().filter(|_| failed && next_try <= creation_race::TRIES);
            let race = error.and_then(|error| CreationRace::read(error, self.state.kind()));
            let Some(race) = race else { return Ok((exit, findings)) };
            self.annotate(format!(
                "Another run created {} of the state database in the same moment: {} init is run again.",
                race.what(),
                self.settings.program.name()
            ))
            .await;
            tokio::select! {
                () = sleep(creation_race::pause(next_try)) => {}
                () = self.stop.wait() => {}
            }
            next_try += 1;
        }
    }

    /// A step that takes the state's lock: plan or apply. A lock that a dead attempt of ours left is removed.
    pub(crate) async fn locking_step(&self, step: Step) -> Result<Findings, StageError> {
        self.announce(step).await;
        let stale = self.state.stale_owners();
        let mut dead = stale.clone();
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
            let lock = lock_query::described(self.state, lock).await;
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
                let text = lock.explain(self.state, &who(), &suspects(&stale), Timestamp::now());
                return Err(Failure::new(ErrorCode::StateLocked, text).into());
            }
            dead.clear();
        }
    }

    /// The outputs that may be shown. Their values never pass through the log.
    pub(crate) async fn outputs(&self) -> Result<Fields, StageError> {
        let fault = |error: io::Error| Failure::internal("the outputs cannot be read", &error);
        let file = self.workspace.outputs_file();
        let sink = FileSink::create(&file).map_err(fault)?.passing(&self.log.writer);
        let (exit, findings) = self.carry_out(Step::Output, &sink, Duration::ZERO).await?;
        self.check_exit(Step::Output, exit, &findings)?;
        sink.finish().map_err(fault)?;
        let read = blocking(move || {
            let outputs = Outputs::read(fs::File::open(&file)?)?;
            // They hold secrets, and nobody needs the file any more.
            fs::remove_file(&file)?;
            Ok(outputs)
        });
        let Outputs { public, sensitive, .. } = read.await.map_err(fault)?;
        let strings = sensitive.iter().flat_map(Json::leaves).filter_map(Json::as_text).map(str::to_owned);
        self.log.redactor.hide_large(strings.collect()).await;
        Ok(public)
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

    /// A command about the state itself; where it fails, its message.
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

    /// Runs one step; until it ends, a note records that it may hold the state's lock.
    async fn carry_out(
        &self,
        step: Step,
        sink: &dyn Sink,
        grace_period: Duration,
    ) -> Result<(Exit, Findings), StageError> {
        self.carry_out_without(&[], step, sink, grace_period).await
    }

    /// The same without these variables of the environment.
    async fn carry_out_without(
        &self,
        variables: &[&str],
        step: Step,
        sink: &dyn Sink,
        grace_period: Duration,
    ) -> Result<(Exit, Findings), StageError> {
        self.go_on(step)?;
        let _timed = Timed { step, since: Instant::now() };
        let timing = StepTiming { lock_timeout: grace_period, ..self.settings.timing };
        let mut command = self.settings.program.command(step, self.spec.action, self.workspace, &timing);
        if let (Step::Init, Ok(command)) = (step, &mut command) {
            self.give_registry_tokens(command)?;
        }
        if let Ok(command) = &mut command {
            command.env.retain(|name, _| !variables.iter().any(|variable| name == variable));
        }
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
        let clock = StepTimeout::start(sink);
        let sink: &dyn Sink = &clock;
        tokio::select! {
            ran = self.carry_out_command(step, command, sink, grace_period) => ran,
            never = clock.watch(step.name(), limit, limits.silence, self.stop) => match never {},
        }
    }

    /// Lets a command that runs nothing of the template fetch from private registries.
    fn give_registry_tokens(&self, command: &mut Command) -> Result<(), Failure> {
        let program = &self.settings.program;
        // They may have been replaced since the agent started.
        self.log.redactor.hide(program.registry_secrets());
        let tokens = program.registry_tokens().environment();
        let tokens = tokens.map_err(|problem| Failure::new(ErrorCode::Internal, problem))?;
        command.env.extend(tokens.into_iter().map(|(name, token)| (name, token.expose_secret().into())));
        Ok(())
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

    /// Runs a step that takes the state's lock; until it ends, a note records that it may hold it.
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
                "Terraform could write the state {} neither to its backend nor to a file and printed it, and the agent cannot save it either ({error}). What was changed is not in the state: import it, or remove it by hand.",
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
                self.state
                    .give_to(self.workspace)
                    .map_err(|error| Failure::internal("the state directory cannot be used", &error))?;
                failpoint!("step.begins");
                self.runner.run(command, sink, self.stop).await
            }
            Err(error) => Err(error),
        };
        failpoint!("step.ended");
        let exit = ran.map_err(|error| Failure::internal(&format!("{name} cannot be started"), &error))?;
        Ok((exit, self.log.writer.findings().await))
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
mod fixture;

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
