//! What a previous run of this agent left behind: lines that were not uploaded, results that were not stored.

use std::{io, path::Path, time::Duration};

use serde::Deserialize;
use tendril_realtime::Rest;
use tokio::{task::JoinSet, time::sleep};
use uuid::Uuid;

use crate::{
    control_plane::{
        Backoff, ClaimRecord, FinalStatus, Lease, Leases, Reporter, Written, contract::known,
        revocation::is_revoked,
    },
    execute::{attempt::Start, salvage::Leftover, settings::ExecuteSettings},
    job::{ConfigSnapshot, ErrorCode, Failure, Job, JobResult, Phase, Status},
    logs::{LogSink, LogSpool, LogWriter},
    os::{blocking, failpoint},
    process::{GracePeriod, TerminationStage, cgroup::Cgroup, discard_output_of, keeper, orphans},
    redaction::Redactor,
    telemetry,
    template::Workspace,
    terraform::{
        OutputReader, StepTiming,
        state::{ErroredState, LockOwner},
    },
};

/// Between two checks of an apply that goes on.
const LOOK_AFTER: Duration = Duration::from_secs(1);

/// An attempt of a previous run.
#[derive(Debug)]
pub(crate) struct OrphanedAttempt {
    pub(crate) workspace: Workspace,
    pub(crate) claim: ClaimRecord,
}

/// Everything that a previous run left.
pub(crate) fn orphaned_attempts(settings: &ExecuteSettings) -> Vec<OrphanedAttempt> {
    directories(settings).unwrap_or_else(|error| {
        tracing::error!(error = %format_args!("{error:#}"), "the work directory cannot be searched for what a previous run left");
        Vec::new()
    })
}

/// The attempts' directories, `<deployment>.<attempt>`. One that cannot be read or removed does not hide the others.
fn directories(settings: &ExecuteSettings) -> io::Result<Vec<OrphanedAttempt>> {
    let entries = std::fs::read_dir(&settings.work_dir)?.filter_map(|entry| {
        entry
            .inspect_err(|error| tracing::error!(error = %format_args!("{error:#}"), "an entry of the work directory cannot be read"))
            .ok()
    });
    let attempts = entries.map(|entry| entry.path()).filter(|path| is_attempt(path));
    Ok(attempts.filter_map(|path| found(Workspace::at(path))).collect())
}

/// What is left of an attempt. One without a claim was made a moment before the end, or was being removed: it holds nothing.
fn found(workspace: Workspace) -> Option<OrphanedAttempt> {
    match ClaimRecord::load(&workspace.claim_file()) {
        Ok(claim) => return Some(OrphanedAttempt { workspace, claim }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let shown = format!("{workspace:?}");
            if let Err(error) = workspace.remove() {
                tracing::error!(workspace = shown, error = %format_args!("{error:#}"), "what is left of an attempt cannot be removed");
            }
        }
        Err(error) => {
            tracing::error!(?workspace, error = %format_args!("{error:#}"), "a previous run's claim cannot be read; its directory stays");
        }
    }
    None
}

/// What is left of one attempt; none, if nothing is. Blocks.
pub(crate) fn orphaned_attempt(work_dir: &Path, name: &str) -> Option<OrphanedAttempt> {
    let root = work_dir.join(name);
    root.exists().then(|| found(Workspace::at(root))).flatten()
}

/// The job of a claim, if the database still counts it as this claim's. Repeats until there is an answer: the control plane was
/// there a moment ago.
pub(crate) async fn claimed_job(rest: &Rest, claim: &ClaimRecord) -> Option<Job> {
    claimed_row(rest, claim).await.map(|(job, _)| job)
}

/// The same, with the phase that the row has; none where it is one of a later contract.
pub(crate) async fn claimed_row(rest: &Rest, claim: &ClaimRecord) -> Option<(Job, Option<Phase>)> {
    #[derive(Deserialize)]
    struct Row {
        config_snapshot: ConfigSnapshot,
        #[serde(default, deserialize_with = "known")]
        phase: Option<Phase>,
    }
    let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(15));
    let ClaimRecord { deployment_id: id, attempt, claim_token, .. } = *claim;
    loop {
        let request = rest.from("deployments").select("config_snapshot,phase").eq("id", id);
        // Of an apply the true end is welcome, though it was given up as lost meanwhile.
        let open = [Status::Processing, Status::Failed].map(Status::as_str);
        let open = if claim.phase.changes_the_world() { &open[..] } else { &open[..1] };
        let request = request.eq("claim_token", claim_token).in_list("status", open.iter().copied());
        match request.rows::<Row>().await {
            Ok(rows) => {
                let row = rows.into_iter().next()?;
                let state_key = claim.state_key.clone();
                let job = Job { id, attempt, claim_token, config: row.config_snapshot, state_key };
                return Some((job, row.phase));
            }
            Err(error) if is_revoked(&error) => return None,
            Err(error) => {
                tracing::warn!(deployment = %id, error = %format_args!("{error:#}"), "whether a deployment is still ours cannot be read yet");
                sleep(backoff.after(&error)).await;
            }
        }
    }
}

impl OrphanedAttempt {
    /// Where its run goes on, if it can: its plan waits for approval, or its apply goes on, has ended in a way that is known, or
    /// never began. Blocks.
    pub(crate) fn goes_on_at(&self) -> Option<Start> {
        if self.workspace.result_file().exists() {
            return None;
        }
        match self.claim.phase {
            Phase::Approval => Some(Start::Approval),
            phase if phase.changes_the_world() => {
                let (exit_file, data_dir) = (self.workspace.exit_file(), self.workspace.data_dir());
                let never_began = self.claim.marks_begin && !keeper::may_have_begun(&exit_file, &data_dir);
                (keeper::is_stored(&exit_file) || never_began).then_some(Start::Apply)
            }
            _ => None,
        }
    }

    /// Whether its row shows the plan, so that nothing is to be done before somebody approves it.
    pub(crate) fn waits(&self) -> bool {
        self.claim.waits && self.goes_on_at() == Some(Start::Approval)
    }

    /// Holds the claim, if its run can go on.
    pub(crate) fn hold(&self, leases: &Leases) -> Option<Lease> {
        self.goes_on_at().map(|_| leases.hold(&self.claim.job()))
    }

    /// Removes what is left of a run whose row is nobody's concern any more.
    pub(crate) async fn discard(self, settings: &ExecuteSettings) {
        let workspace = self.workspace.clone();
        let cleared = Remains::clear_unread(settings, &self.workspace, &self.claim).await;
        let removed = match cleared {
            Ok(_) => blocking(move || workspace.remove()).await,
            Err(error) => Err(error),
        };
        if let Err(error) = removed {
            tracing::error!(error = %format_args!("{error:#}"), "what is left of a run cannot be removed");
        }
    }

    /// Waits until an apply has ended that goes on by itself, of a cluster that was revoked: no other agent works on it, and nobody
    /// reads its log any more.
    pub(crate) async fn apply_ended(&self) {
        let data_dir = self.workspace.data_dir();
        let find = move || Ok(orphans::of(&data_dir));
        // A full pipe must not hold it up.
        let _drained: JoinSet<()> =
            blocking(find.clone()).await.unwrap_or_default().into_iter().map(discard_output_of).collect();
        while !self.workspace.exit_file().exists() {
            if blocking(find.clone()).await.is_ok_and(|left| left.is_empty()) {
                return;
            }
            sleep(LOOK_AFTER).await;
        }
    }

    /// Ends what still runs, uploads and reports. Errors are logged; what is left stays for the next run.
    /// `secrets`: what no log of this agent may show.
    pub(crate) async fn finalize(self, settings: &ExecuteSettings, rest: &Rest, secrets: &Redactor) {
        let workspace = format!("{:?}", self.workspace);
        match self.finalize_all(settings, rest, secrets).await {
            Ok(()) => tracing::info!(workspace, "a previous run's attempt is finalized"),
            Err(error) => {
                tracing::error!(workspace, error = %format_args!("{error:#}"), "a previous run's attempt cannot be finalized; it stays for the next start");
            }
        }
    }

    async fn finalize_all(
        self,
        settings: &ExecuteSettings,
        rest: &Rest,
        secrets: &Redactor,
    ) -> io::Result<()> {
        failpoint!("recovery.found");
        let Self { workspace, claim } = self;
        let saved = FinalStatus::load(&workspace.result_file()).ok();
        let (of, at, known) = (settings.clone(), workspace.clone(), secrets.clone());
        let leftover = blocking(move || Ok(Leftover::of(&of, &known, &at))).await?;
        let remains = match &leftover {
            Some(leftover) => {
                let survivors = leftover.read_on(settings, &workspace).await?;
                let remains = Remains::clear(settings, &workspace, &claim).await;
                survivors.ended().await;
                remains?
            }
            None => Remains::clear_unread(settings, &workspace, &claim).await?,
        };
        failpoint!("recovery.cleared");
        let saved = saved.map(|end| with_errored_state(end, &remains.errored));
        let mut end = saved.or_else(|| lost_in_mid_run(&claim, &remains));
        if end.as_ref().is_none_or(|end| end.log_count.is_none()) {
            let chunks = upload(settings, rest, &workspace, &claim, leftover, end.is_some()).await?;
            failpoint!("recovery.uploaded");
            if let Some(end) = &mut end {
                end.log_count = Some(chunks);
                // If this run ends too, the next one must not add to a log that the row may have counted.
                let (end, file) = (end.clone(), workspace.result_file());
                blocking(move || end.save(&file)).await?;
                failpoint!("recovery.counted");
            }
        }
        if let Some(end) = end {
            let reporter = Reporter::new(rest.clone(), claim.deployment_id, claim.claim_token);
            match reporter.finish(&end).await {
                Written::Stored => {}
                Written::Refused(why) => {
                    tracing::warn!(deployment = %claim.deployment_id, why, "a previous run's result was refused");
                }
                Written::Revoked => return Err(io::Error::other("the cluster was revoked")),
            }
            failpoint!("recovery.stored");
        }
        blocking(move || workspace.remove()).await
    }
}

fn is_attempt(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.split_once('.'));
    name.is_some_and(|(id, attempt)| Uuid::parse_str(id).is_ok() && attempt.parse::<i32>().is_ok())
}

/// What was left of a run that was cut off.
struct Remains {
    /// How its processes ended, if they were still there.
    ended: Option<TerminationStage>,
    /// What became of state that was not stored.
    errored: ErroredState,
    /// Whether the apply is complete: its exit code says so.
    applied: bool,
}

impl Remains {
    /// Ends the processes gracefully, records which lock they may have left, and removes their files.
    async fn clear(
        settings: &ExecuteSettings,
        workspace: &Workspace,
        claim: &ClaimRecord,
    ) -> io::Result<Self> {
        let StepTiming { plan_cancel_grace, apply_cancel_grace, kill_grace, .. } = settings.terraform.timing;
        let graceful = if claim.phase.changes_the_world() { apply_cancel_grace } else { plan_cancel_grace };
        let grace_period = GracePeriod { graceful, forced: kill_grace };
        let state = settings.terraform.state(claim.state_key.as_deref().unwrap_or_default());
        let workspace = workspace.clone();
        let remains = blocking(move || {
            let ended = orphans::end(&workspace.data_dir(), grace_period);
            metrics::counter!(telemetry::ORPHANS_ENDED).increment(ended.is_some().into());
            // Those that hide as well.
            if let Some(Err(error)) = Cgroup::of(&workspace.name()).map(|group| group.end()) {
                tracing::warn!(%error, "the control group of a run cannot be ended");
            }
            if let Ok(owner) = LockOwner::of_previous_run(&workspace.lock_owner_file(), ended.is_some()) {
                owner.mark_stale(&state)?;
            }
            workspace.sweep();
            let applied = keeper::stored_code(&workspace.exit_file()) == Some(0);
            Ok(Self { ended, errored: state.clear_run(&workspace), applied })
        });
        remains.await
    }

    /// The same of processes whose output nobody reads any more. They must be able to write it.
    async fn clear_unread(
        settings: &ExecuteSettings,
        workspace: &Workspace,
        claim: &ClaimRecord,
    ) -> io::Result<Self> {
        let data_dir = workspace.data_dir();
        let drained: JoinSet<()> =
            blocking(move || Ok(orphans::of(&data_dir))).await?.into_iter().map(discard_output_of).collect();
        let remains = Self::clear(settings, workspace, claim).await;
        drop(drained);
        remains
    }
}

/// The end that a run had decided on, when a state is found that its workspace had the only copy of.
fn with_errored_state(end: FinalStatus, errored: &ErroredState) -> FinalStatus {
    let Some(explanation) =
        errored.explanation(false).filter(|_| end.error_code != Some(ErrorCode::StateNotStored))
    else {
        return end;
    };
    let before = end.error_message.as_deref().unwrap_or("Applied.");
    let message = format!("{explanation}\n{before}");
    let error_code = Some(ErrorCode::StateNotStored);
    FinalStatus { status: Status::Failed, error_code, error_message: Some(message), ..end }
}

/// The end of a run that was cut off. Before the apply there is none: the database puts the job back into the queue.
fn lost_in_mid_run(claim: &ClaimRecord, remains: &Remains) -> Option<FinalStatus> {
    if !claim.phase.changes_the_world() {
        return None;
    }
    let mut message = format!(
        "The agent was killed in phase {}. Resources may have been changed, and the state may still be locked: check both before you queue it again.",
        claim.phase.as_str()
    );
    if let Some(stage) = remains.ended {
        message = format!("{message} Its Terraform was still running: {stage}.");
    } else {
        message = format!(
            "{message} Its Terraform did not run any more when the agent was back: it ended without the agent, or was killed, or had not been started. The state shows how far it came, the log does not."
        );
    }
    if remains.applied {
        message = format!(
            "Applied. The agent was killed again and again after that, in phase {}: outputs are missing.",
            claim.phase.as_str()
        );
    }
    if let Some(explanation) = remains.errored.explanation(false) {
        message = format!("{message}\n{explanation}");
    }
    let result = JobResult::Failed(Failure::new(ErrorCode::AgentLost, message));
    Some(FinalStatus { applied: remains.applied, ..FinalStatus::new(&result, None, None) })
}

/// Uploads what the database does not have yet of the log, and a line that explains why it ends here.
async fn upload(
    settings: &ExecuteSettings,
    rest: &Rest,
    workspace: &Workspace,
    claim: &ClaimRecord,
    leftover: Option<Leftover>,
    ended: bool,
) -> io::Result<u64> {
    let (rules, log_dir) = (settings.spool, workspace.log_dir());
    let opened = match leftover {
        Some(leftover) => leftover.add(settings, workspace).await,
        None => blocking(move || LogSpool::salvage(&log_dir, rules)).await.map(|(spool, reader)| {
            (LogWriter::start(spool, None, Redactor::default(), OutputReader::default()), reader)
        }),
    };
    let (log, mut reader) = match opened {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        opened => opened?,
    };
    failpoint!("recovery.resumed");
    let mut sink = LogSink::new(rest.clone(), claim.deployment_id, claim.attempt, rules.flush_after);
    if !reader.skip_to(sink.last_stored().await)? {
        let annotation = "The machine went down before the last lines had reached its disk: up to half a second of them may be missing here.";
        log.annotate(annotation).await;
    }
    log.annotate(if ended {
        "The agent was restarted here; what it had read before is above."
    } else {
        "The agent was killed here, before anything was changed; the job goes back to the queue."
    })
    .await;
    drop(log);
    sink.upload(reader).await
}

#[cfg(test)]
#[path = "recovery_tests.rs"]
mod tests;
