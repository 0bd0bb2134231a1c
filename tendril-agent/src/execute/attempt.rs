//! One job from its claim to its stored end: workspace → cost → init → plan → apply → output → report.

use std::{io, time::Instant};

use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;
use tracing::Instrument as _;

use crate::{
    control_plane::{
        ClaimRecord, FinalStatus, Lease, ProgressBoard, Reporter, Written, revocation::is_kept_on_disk,
    },
    execute::{
        context::JobContext,
        directory_watch::stop_without,
        stages::{Run, RunOutput},
    },
    job::{ErrorCode, Failure, Fields, Job, JobResult, JobSpec, Phase},
    logs::{LogSink, LogSpool, LogWriter},
    os::{blocking, failpoint},
    process::{Journal, StopReason, TerminationStage, cgroup, orphans},
    telemetry,
    template::Workspace,
    terraform::{ApplyProgress, Log, OutputReader, StageError, state::ErroredState},
};

impl JobContext {
    /// Takes a job to its end, or to the wait for its approval. All results are stored, or wait on disk for the next run of the
    /// attempt.
    pub(crate) async fn run(&self, job: Job, lease: &Lease, start: Start) -> RunEnd {
        let opened = match start {
            Start::Workspace => self.open_workspace(&job).await,
            Start::Approval | Start::Apply => self.reopen_workspace(&job).await,
        };
        let reporter = Reporter::new(self.rest.clone(), job.id, job.claim_token);
        match opened {
            Ok(Opened { workspace, log, upload }) => {
                let ended = self.run_stages(&job, &workspace, log, &reporter, lease, start).await;
                let Some(end) = ended else {
                    // Its log so far is stored first.
                    drop(upload.await);
                    return RunEnd::Waiting;
                };
                self.report(workspace, end, upload, &reporter).await;
            }
            Err(error) => {
                let failure = Failure::internal("the agent's work directory cannot be used", &error);
                let end = FinalStatus::new(&JobResult::Failed(failure), None, None);
                note_written(&reporter.finish(&end).await);
            }
        }
        RunEnd::Stored
    }

    /// Creates the attempt's directory and starts its log.
    async fn open_workspace(&self, job: &Job) -> io::Result<Opened> {
        let rules = self.settings.spool;
        let (work_dir, made) = (self.settings.work_dir.clone(), job.clone());
        let users = self.settings.terraform.slot_users.clone();
        let (workspace, journal, spool, reader) = blocking(move || {
            let workspace = Workspace::create(&work_dir, &made)?;
            users.map_or(Ok(()), |users| workspace.assign_user(&users))?;
            failpoint!("workspace.made");
            ClaimRecord::new(&made, Phase::Claimed).save(&workspace.claim_file())?;
            failpoint!("workspace.claimed");
            let journal = Journal::create(&workspace.journal_dir())?;
            let (spool, reader) = LogSpool::create(&workspace.log_dir(), rules)?;
            failpoint!("workspace.logging");
            Ok((workspace, journal, spool, reader))
        })
        .await?;
        let sink = LogSink::new(self.rest.clone(), job.id, job.attempt, rules.flush_after);
        let upload = tokio::spawn(sink.upload(reader).in_current_span());
        Ok(Opened { workspace, log: self.log(spool, journal), upload })
    }

    /// Starts the log of an attempt that a previous run left.
    async fn reopen_workspace(&self, job: &Job) -> io::Result<Opened> {
        let rules = self.settings.spool;
        let workspace = Workspace::at(self.settings.work_dir.join(job.attempt_name()));
        let (log_dir, journal_dir) = (workspace.log_dir(), workspace.journal_dir());
        let (spool, mut reader) = blocking(move || LogSpool::resume(&log_dir, rules)).await?;
        let journal = Journal::resume(&journal_dir, spool.offsets());
        let mut sink = LogSink::new(self.rest.clone(), job.id, job.attempt, rules.flush_after);
        let upload = async move {
            reader.skip_to(sink.last_stored().await)?;
            sink.upload(reader).await
        };
        let upload = tokio::spawn(upload.in_current_span());
        Ok(Opened { workspace, log: self.log(spool, journal), upload })
    }

    fn log(&self, spool: LogSpool, journal: Journal) -> Log {
        let redactor = self.secrets.child();
        let progress = ApplyProgress::default();
        let reader = OutputReader::collecting(progress.clone());
        let writer = LogWriter::start(spool, Some(journal), redactor.clone(), reader);
        Log { writer, redactor, progress }
    }

    /// Runs the job, closes its log, and saves its final status on disk; none, if it waits for approval and the agent ends.
    async fn run_stages(
        &self,
        job: &Job,
        workspace: &Workspace,
        log: Log,
        reporter: &Reporter,
        lease: &Lease,
        start: Start,
    ) -> Option<FinalStatus> {
        let started = Instant::now();
        let stop = &lease.stop;
        let board = ProgressBoard::start(reporter.clone(), lease);
        let place = self.registry.enter(job);
        let mut run = Run {
            context: self,
            job,
            workspace,
            log: &log,
            board: &board,
            place: &place,
            stop,
            terraform: self.settings.terraform.clone(),
            results: RunOutput::default(),
            changes: None,
        };
        let stages = async {
            match start {
                Start::Workspace => run.begin().await,
                Start::Approval => run.resume().await,
                Start::Apply => run.adopt().await,
            }
        };
        let outcome = tokio::select! {
            outcome = stages => outcome,
            never = stop_without(workspace.dir(), stop) => match never {},
        };
        if matches!(outcome, Err(StageError::Waiting)) {
            if let Some(changes) = run.changes.take() {
                changes.finish().await;
            }
            return None;
        }
        if let Err(StageError::Failed(failure)) = &outcome
            && stop.requested().is_none()
        {
            run.on_failure(failure).await;
        }
        if let Some(changes) = run.changes.take() {
            changes.finish().await;
        }
        let RunOutput { estimate, changes, outputs, commit, program, applied } = run.results;
        let outputs: Option<Fields> = outputs.map(|outputs| {
            outputs.into_iter().map(|(name, value)| (name, value.redacted(&log.redactor))).collect()
        });
        let cost = estimate.map(|estimate| estimate.columns());
        let status_of = |result: &JobResult| {
            let mut end = FinalStatus::new(result, changes, outputs.clone()).with_cost(cost.clone());
            end.template_commit.clone_from(&commit);
            end.applied = applied;
            end.terraform_version.clone_from(&program);
            end.error_message = end.error_message.map(|message| log.redactor.redact(&message).into_owned());
            end
        };
        let result = result(outcome, stop.requested());
        let result = if applied { after_apply(result) } else { result };
        // The status must be on disk before the workspace is removed.
        save(&status_of(&result), workspace).await;
        let pending = self.clear(job, workspace).await;
        let result = with_errored_state(result, &pending, self.settings.is_pod);
        let took = started.elapsed().as_secs_f64();
        metrics::histogram!(telemetry::JOB_SECONDS).record(took);
        log.writer
            .annotate(match &result {
                JobResult::Success => format!("Done in {took:.1} s."),
                JobResult::Failed(failure) => format!("Failed after {took:.1} s: {}", failure.message),
                JobResult::Cancelled(how) => format!("{how} ({took:.1} s)"),
            })
            .await;
        let end = status_of(&result);
        failpoint!("final_status.made");
        save(&end, workspace).await;
        failpoint!("final_status.saved");
        Some(end)
    }

    /// Removes Terraform's files; returns what became of state that it could not store.
    async fn clear(&self, job: &Job, workspace: &Workspace) -> ErroredState {
        let Ok(spec) = JobSpec::parse(&job.config) else { return ErroredState::Nothing };
        let (state, workspace) = (self.state(&spec, job), workspace.clone());
        let cleared = blocking(move || {
            // Nothing may work in a directory that is being removed, or outlive its job.
            orphans::kill(&workspace.data_dir());
            cgroup::kill_others();
            workspace.sweep();
            Ok(state.clear_run(&workspace))
        });
        cleared.await.unwrap_or_else(|error| {
            tracing::error!(error = %format_args!("{error:#}"), "the removal of a workspace broke off");
            ErroredState::Nothing
        })
    }

    /// The last line first, then the status with the number of chunks.
    async fn report(
        &self,
        workspace: Workspace,
        mut end: FinalStatus,
        upload: JoinHandle<io::Result<u64>>,
        reporter: &Reporter,
    ) {
        match upload.await {
            Ok(Ok(chunks)) => {
                failpoint!("final_status.uploaded");
                end.log_count = Some(chunks);
                // A later run then knows that the log is complete, and adds nothing to it.
                save(&end, &workspace).await;
                failpoint!("final_status.counted");
            }
            Ok(Err(error)) if is_kept_on_disk(&error) => tracing::warn!("{error}"),
            Ok(Err(error)) => {
                tracing::error!(error = %format_args!("{error:#}"), "the log spool cannot be read; the log has a gap");
            }
            Err(error) => {
                tracing::error!(error = %format_args!("{error:#}"), "the upload of the log broke off");
            }
        }
        metrics::counter!(telemetry::JOBS_ENDED, "status" => end.status.as_str()).increment(1);
        let written = reporter.finish(&end).await;
        note_written(&written);
        if written == Written::Revoked {
            return;
        }
        failpoint!("final_status.stored");
        if let Err(error) = blocking(move || workspace.remove()).await {
            tracing::error!(error = %format_args!("{error:#}"), "a finished job's directory cannot be removed");
        }
        failpoint!("final_status.removed");
    }
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RunEnd {
    /// The final status is stored, or was refused.
    Stored,
    /// The plan waits for approval.
    Waiting,
}

/// Where a run begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Start {
    /// At the first stage.
    Workspace,
    /// At the approval, with the plan that an earlier executor made.
    Approval,
    /// In the apply, which an earlier executor began or was about to begin.
    Apply,
}

/// An attempt whose log has started.
struct Opened {
    workspace: Workspace,
    log: Log,
    /// Ends with the number of stored chunks.
    upload: JoinHandle<io::Result<u64>>,
}

/// Adds where the only copy of the newest state is. However the run ended, no other agent may plan against an older one: the row
/// gets `STATE_NOT_STORED`, and the database holds the stack for this agent.
fn with_errored_state(result: JobResult, errored: &ErroredState, is_pod: bool) -> JobResult {
    let Some(explanation) = errored.explanation(is_pod) else { return result };
    // First, so that it is not what is cut off of a long message.
    let text = match result {
        JobResult::Cancelled(how) => format!("{explanation}\n{how}"),
        JobResult::Failed(Failure { message, .. }) => format!("{explanation}\n{message}"),
        JobResult::Success => format!("Applied.\n{explanation}"),
    };
    JobResult::Failed(Failure::new(ErrorCode::StateNotStored, text))
}

/// Adds that what failed or was stopped came after the apply.
fn after_apply(result: JobResult) -> JobResult {
    match result {
        JobResult::Success => JobResult::Success,
        JobResult::Cancelled(how) => {
            JobResult::Cancelled(format!("{how} The apply was complete before that."))
        }
        JobResult::Failed(Failure { code, message }) => {
            JobResult::Failed(Failure::new(code, format!("Applied. What failed came after it:\n{message}")))
        }
    }
}

const DIRECTORY_REMOVED: &str = "The run's directory in the agent's work directory was removed";

/// The result that a run's last stage means.
fn result(outcome: Result<(), StageError>, reason: Option<StopReason>) -> JobResult {
    let (step, stage, code) = match outcome {
        // A cancel that came after the last stage found nothing to stop.
        Ok(()) => return JobResult::Success,
        // Without its directory anything can fail.
        Err(StageError::Failed(failure)) if reason == Some(StopReason::DirectoryRemoved) => {
            let text = format!("{DIRECTORY_REMOVED} meanwhile. {}", failure.message);
            return JobResult::Failed(Failure::new(ErrorCode::AgentLost, text));
        }
        Err(StageError::Failed(failure)) => return JobResult::Failed(failure),
        Err(StageError::Stopped(step, stage, code)) => (step.name(), stage, code),
        // It has no result yet; the deployment may be run again.
        Err(StageError::Waiting) => ("apply", TerminationStage::Untouched, None),
    };
    let how = match (stage, code) {
        (TerminationStage::Untouched, None) => format!("before {step} began."),
        (_, Some(0)) => format!("during {step}, which had completed."),
        (stage, _) if stage.is_forced() => format!("during {step}: {stage}.{}", what_is_left(step)),
        (stage, _) => format!("during {step}: {stage}."),
    };
    match reason {
        Some(StopReason::Cancelled) | None => JobResult::Cancelled(format!("Cancelled {how}")),
        Some(StopReason::ShuttingDown) => JobResult::Failed(Failure::new(
            ErrorCode::AgentStopped,
            format!("The agent was shut down {how} Queue the deployment again."),
        )),
        Some(StopReason::DiskFull(pressure)) => JobResult::Failed(Failure::new(
            ErrorCode::DiskFull,
            format!(
                "{pressure}. It was stopped {how} Let it write less or raise the limit, then queue it again."
            ),
        )),
        Some(StopReason::TimedOut(expired)) => {
            JobResult::Failed(Failure::new(ErrorCode::TimedOut, format!("{expired}. It was stopped {how}")))
        }
        Some(StopReason::Fenced) => {
            JobResult::Failed(Failure::new(ErrorCode::AgentLost, format!("The agent lost its claim {how}")))
        }
        Some(StopReason::DirectoryRemoved) => JobResult::Failed(Failure::new(
            ErrorCode::AgentLost,
            format!("{DIRECTORY_REMOVED} {how} The end of its log is missing."),
        )),
    }
}

/// The final status of a job is on disk before it is sent.
async fn save(end: &FinalStatus, workspace: &Workspace) {
    let (end, file) = (end.clone(), workspace.result_file());
    if let Err(error) = blocking(move || end.save(&file)).await {
        tracing::error!(error = %format_args!("{error:#}"), "the final status cannot be saved on disk; it is sent all the same");
    }
}

/// What a Terraform that was forced to end may have left.
fn what_is_left(step: &str) -> &'static str {
    match step {
        "apply" => {
            " What it changed last may be missing in the state: compare them. A lock that it left is removed by this agent's next run of the same state."
        }
        "plan" => " A lock that it left is removed by this agent's next run of the same state.",
        _ => "",
    }
}

fn note_written(written: &Written) {
    match written {
        Written::Stored => tracing::info!("the final status is stored"),
        Written::Revoked => {
            tracing::warn!("the cluster was revoked: the result stays in the work directory (result.json)");
        }
        Written::Refused(why) => {
            tracing::warn!(why, "the final status was refused: the job is somebody else's now");
        }
    }
}

#[cfg(test)]
#[path = "attempt_tests.rs"]
mod tests;
