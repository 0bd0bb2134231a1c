//! What the dispatcher does for one claimed deployment: it starts an executor, waits for its end, and starts another one when
//! the plan is approved, or when the executor died and the run can go on.

use std::{
    ops::ControlFlow,
    sync::Arc,
    time::{Duration, SystemTime},
};

use futures_util::future::BoxFuture;
use tokio::{sync::OwnedSemaphorePermit, time::sleep};
use tokio_util::sync::CancellationToken;

use crate::{
    control_plane::{ClaimRecord, FinalStatus, Lease, Leases, Reporter, approval_state, revocation::revoked},
    dispatch::approvals::{Approvals, WaitEnd},
    execute::{JobContext, OrphanedAttempt, Start, claimed_job, claimed_row, orphaned_attempt},
    job::{ErrorCode, Failure, Job, JobResult, Phase},
    launch::{AttemptId, End, Executor, LaunchError, Launched, Launcher, Origin, Request},
    os::blocking,
    process::{GracePeriod, TerminationStage, orphans},
    template::Workspace,
    terraform::StepTiming,
};

/// How often an attempt is tried again whose executor died.
const LIVES: u32 = 5;
/// Pause before an executor is started again that could not be started, or died; grows with each time.
const PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(15);
/// How long an executor may take to end after it was told to give up.
const GIVE_UP: Duration = Duration::from_secs(1);
/// How often a new run is tried to be started before it fails.
const LAUNCHES: u32 = 6;

/// What supervising needs. Clones share it.
#[derive(Clone)]
pub(crate) struct Supervisor {
    /// For what the dispatcher does itself: what is left of runs, and states that are not stored.
    pub(crate) context: JobContext,
    pub(crate) launcher: Arc<dyn Launcher>,
    pub(crate) origin: Arc<Origin>,
    pub(crate) approvals: Approvals,
    /// The claims that this process's heartbeat extends: those without an executor that does.
    pub(crate) leases: Leases,
    /// Every claim of this agent: a request about one is passed on to its executor.
    pub(crate) watched: Leases,
    pub(crate) leave: Leave,
}

/// The end of the dispatcher before that of its executors. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Leave {
    /// Executors go on without it.
    pub(crate) detach: CancellationToken,
    /// Executors must end now, and leave on disk what is not stored.
    pub(crate) give_up: CancellationToken,
}

impl Leave {
    /// Whether the dispatcher ends, and executors may go on.
    pub(crate) fn is_ending(&self) -> bool {
        self.detach.is_cancelled() || self.give_up.is_cancelled()
    }
}

/// What comes next for a deployment.
pub(crate) enum Next {
    /// An executor is started. The permit, if there is one, is held until it has ended.
    Launch(Job, Start, Option<OwnedSemaphorePermit>),
    /// An executor runs.
    Watch(Executor),
    /// The plan waits for its approval.
    Wait(Option<Lease>),
    /// An earlier dispatcher left this, and no executor runs.
    Recover(OrphanedAttempt, Option<Lease>),
    /// Nothing.
    Over,
}

impl Supervisor {
    /// Takes a deployment to its end, or to the end of the dispatcher.
    pub(crate) async fn supervise(&self, claim: ClaimRecord, mut next: Next) {
        let watched = self.watched.hold(&claim.job());
        // Won while the agent was being stopped: it has the time of running jobs, and gets the same stop request.
        if let Some(reason) = self.context.drain.stop.requested() {
            watched.stop.request(reason);
        }
        let (mut deaths, mut tried) = (0, None);
        loop {
            // Boxed one by one: what waits for weeks must be small.
            let step: BoxFuture<'_, Next> = match next {
                Next::Over => return,
                Next::Wait(lease) => Box::pin(self.wait(&claim, &watched, lease, &mut tried)),
                Next::Launch(job, start, permit) => {
                    Box::pin(self.run(&claim, &watched, job, start, permit, &mut deaths))
                }
                Next::Watch(executor) => Box::pin(self.watch(&claim, &watched, executor, &mut deaths)),
                Next::Recover(orphan, lease) => Box::pin(self.recover(orphan, lease, None)),
            };
            next = step.await;
        }
    }

    async fn run(
        &self,
        claim: &ClaimRecord,
        watched: &Lease,
        job: Job,
        start: Start,
        permit: Option<OwnedSemaphorePermit>,
        deaths: &mut u32,
    ) -> Next {
        let Some(executor) = self.launch(&job, start).await else { return Next::Over };
        drop(job);
        let next = self.watch(claim, watched, executor, deaths).await;
        drop(permit);
        next
    }

    /// Starts an executor. None: the run has failed because none can be started, or the dispatcher ends.
    async fn launch(&self, job: &Job, start: Start) -> Option<Executor> {
        let mut lease = None;
        let mut tries = 0;
        loop {
            let (attempt, token) = self.origin.attempt(job, start);
            // A launch may wait for its place, and the dispatcher not for that.
            #[cfg(feature = "kubernetes")]
            let answer = tokio::select! {
                answer = self.launcher.launch(attempt, token) => answer,
                () = self.leave.detach.cancelled() => return None,
            };
            #[cfg(not(feature = "kubernetes"))]
            let answer = self.launcher.launch(attempt, token).await;
            let error = match answer {
                Ok(started) => {
                    if matches!(started, Launched::Already(_)) {
                        tracing::info!("its executor runs already");
                    }
                    return Some(started.executor());
                }
                Err(error) => error,
            };
            tries += 1;
            let is_final = matches!(error, LaunchError::Refused(_)) || tries >= LAUNCHES;
            // What an earlier executor left is not given up: it can be started later.
            if is_final && start == Start::Workspace {
                tracing::error!(%error, "no executor can be started: the deployment fails");
                let failure = Failure::internal(
                    "no executor can be started for this run",
                    &std::io::Error::other(error),
                );
                let end = FinalStatus::new(&JobResult::Failed(failure), None, None);
                let _written =
                    Reporter::new(self.context.rest.clone(), job.id, job.claim_token).finish(&end).await;
                return None;
            }
            tracing::warn!(%error, "the executor is not started yet: trying again");
            lease.get_or_insert_with(|| self.leases.hold(job));
            tokio::select! {
                () = sleep((PAUSE * tries).min(LONGEST_PAUSE)) => {}
                () = self.leave.detach.cancelled() => return None,
                () = self.leave.give_up.cancelled() => return None,
            }
        }
    }

    /// Waits for an executor's end, and passes on what is ordered meanwhile.
    async fn watch(
        &self,
        claim: &ClaimRecord,
        watched: &Lease,
        executor: Executor,
        deaths: &mut u32,
    ) -> Next {
        let Executor { id, ended: mut end, .. } = executor;
        let (mut stopped, mut forced, mut gave_up) = (false, false, false);
        let end = loop {
            let request = tokio::select! {
                end = &mut end => break end,
                () = self.leave.detach.cancelled() => return Next::Over,
                () = watched.stop.wait(), if !stopped => {
                    stopped = true;
                    watched.stop.requested().and_then(Request::of)
                }
                () = watched.stop.wait_forced(), if !forced => {
                    forced = true;
                    Some(Request::Force)
                }
                () = self.leave.give_up.cancelled(), if !gave_up => {
                    gave_up = true;
                    Some(Request::GiveUp)
                }
                () = sleep(GIVE_UP), if gave_up => {
                    tracing::warn!("an executor does not end: it is killed; its programs may go on");
                    if let Err(error) = self.launcher.kill(id).await {
                        tracing::error!(%error, "an executor cannot be killed");
                    }
                    None
                }
            };
            if let Some(request) = request
                && let Err(error) = self.launcher.ask(id, request).await
            {
                tracing::error!(%error, "a request cannot be passed on to an executor");
            }
        };
        match end {
            End::Stored | End::StateKept | End::StateStored | End::StateLost => {
                self.forget(id).await;
                Next::Over
            }
            End::Waiting => {
                let lease = self.leases.hold(&claim.job());
                self.forget(id).await;
                Next::Wait(Some(lease))
            }
            // The next run of the agent continues with what is left.
            _ if self.leave.give_up.is_cancelled() => Next::Over,
            End::Kept => self.after_death(claim, id, None, deaths).await,
            End::Died(how) => self.after_death(claim, id, Some(how), deaths).await,
        }
    }

    async fn forget(&self, id: AttemptId) {
        if let Err(error) = self.launcher.forget(id).await {
            tracing::warn!(%error, "an executor that has ended cannot be forgotten");
        }
    }

    /// What becomes of an attempt whose executor ended before the attempt did.
    async fn after_death(
        &self,
        claim: &ClaimRecord,
        id: AttemptId,
        how: Option<String>,
        deaths: &mut u32,
    ) -> Next {
        let lease = self.leases.hold(&claim.job());
        if let Some(how) = &how {
            *deaths += 1;
            tracing::error!(deaths = *deaths, "{how}");
        }
        let work_dir = self.context.settings.work_dir.clone();
        let found = blocking(move || Ok(orphaned_attempt(&work_dir, &id.to_string()))).await.ok().flatten();
        if let Some(orphan) = found {
            self.forget(id).await;
            let lives = *deaths <= LIVES;
            if how.is_some() && lives {
                self.pause(*deaths).await;
            }
            return self.recover(orphan, Some(lease), Some(lives)).await;
        }
        // It died before it had made its directory, or after it had removed it; or somebody else removed it. Only the row knows.
        let ended = self.end_without_directory(&claim.job()).await;
        self.forget(id).await;
        let Some((job, phase)) = claimed_row(&self.context.rest, claim).await else { return Next::Over };
        let how = how.unwrap_or_default();
        let failure = if phase.is_none_or(Phase::changes_the_world) {
            let ended =
                ended.map(|stage| format!(" Its Terraform was still running: {stage}.")).unwrap_or_default();
            Failure::new(
                ErrorCode::AgentLost,
                format!(
                    "The executor of this run died, and the run's directory in the agent's work directory was removed or cannot be read.{ended} Resources may have been changed, and the state may still be locked: check both before you queue it again."
                ),
            )
        } else if *deaths <= LIVES {
            self.pause(*deaths).await;
            return Next::Launch(job, Start::Workspace, None);
        } else {
            Failure::internal("the executor of this run died again and again", &std::io::Error::other(how))
        };
        let end = FinalStatus::new(&JobResult::Failed(failure), None, None);
        let _written = Reporter::new(self.context.rest.clone(), job.id, job.claim_token).finish(&end).await;
        Next::Over
    }

    /// Ends the programs of a run of which nothing is left but them.
    async fn end_without_directory(&self, job: &Job) -> Option<TerminationStage> {
        let settings = &self.context.settings;
        let StepTiming { apply_cancel_grace, kill_grace, .. } = settings.terraform.timing;
        let grace_period = GracePeriod { graceful: apply_cancel_grace, forced: kill_grace };
        let data_dir = Workspace::at(settings.work_dir.join(job.attempt_name())).data_dir();
        blocking(move || Ok(orphans::end(&data_dir, grace_period))).await.ok().flatten()
    }

    async fn pause(&self, deaths: u32) {
        // The first time it goes on at once.
        let pause = (PAUSE * deaths.saturating_sub(1).pow(2)).min(LONGEST_PAUSE);
        tokio::select! {
            () = sleep(pause) => {}
            () = self.leave.give_up.cancelled() => {}
        }
    }

    /// Goes on with what is left of an attempt, or ends it. `lives`: whether it may go on after a death; none where the
    /// dispatcher itself is new, and others may be resumed at the same time.
    async fn recover(&self, orphan: OrphanedAttempt, lease: Option<Lease>, lives: Option<bool>) -> Next {
        let work_dir = self.context.settings.work_dir.clone();
        let name = orphan.claim.job().attempt_name();
        let looked = blocking(move || {
            let found = orphaned_attempt(&work_dir, &name);
            Ok(found.map(|orphan| (orphan.waits(), orphan.goes_on_at())))
        });
        let Some((waits, goes_on_at)) = looked.await.ok().flatten() else { return Next::Over };
        if waits {
            return Next::Wait(lease);
        }
        // Boxed: an agent with thousands of waiting plans looks at all of them when it starts.
        Box::pin(self.resume(orphan, goes_on_at, lease, lives)).await
    }

    /// Goes on with an attempt that does not wait, or ends it.
    async fn resume(
        &self,
        orphan: OrphanedAttempt,
        goes_on_at: Option<Start>,
        lease: Option<Lease>,
        lives: Option<bool>,
    ) -> Next {
        if let Some(start) = goes_on_at.filter(|_| lives != Some(false)) {
            let permit = match (lives, start) {
                (None, Start::Approval) => match self.approvals.few().await {
                    None => return Next::Over,
                    permit => permit,
                },
                _ => None,
            };
            // Nobody answers, and the agent ends: its next run goes on.
            let ControlFlow::Continue(job) = self.claimed_job(&orphan.claim).await else { return Next::Over };
            if let Some(job) = job {
                tracing::info!(deployment = %job.id, attempt = job.attempt, ?start, "its run goes on");
                return Next::Launch(job, start, permit);
            }
            if start == Start::Apply && matches!(revoked(&self.context.rest).await, Ok(true)) {
                tokio::select! {
                    () = orphan.apply_ended() => {}
                    () = self.context.drain.begun() => return Next::Over,
                }
            }
        }
        // Before the apply it is given up: the database puts the job back into the queue once nobody holds it.
        drop(lease);
        let key = orphan.claim.state_key.clone();
        let JobContext { settings, rest, secrets, .. } = &self.context;
        orphan.finalize(settings, rest, secrets).await;
        if let Some(key) = key {
            self.context.push_held(&self.context.settings.terraform.state(&key)).await;
        }
        Next::Over
    }

    /// The job of a claim, if the database still counts it as this claim's. Breaks if the agent ends before there is an answer.
    async fn claimed_job(&self, claim: &ClaimRecord) -> ControlFlow<(), Option<Job>> {
        tokio::select! {
            job = claimed_job(&self.context.rest, claim) => ControlFlow::Continue(job),
            () = self.context.drain.begun() => ControlFlow::Break(()),
        }
    }

    /// The record of a claim on disk.
    async fn stored_claim(&self, claim: &ClaimRecord) -> Option<ClaimRecord> {
        let (work_dir, name) = (self.context.settings.work_dir.clone(), claim.job().attempt_name());
        let found = blocking(move || Ok(orphaned_attempt(&work_dir, &name))).await.ok().flatten();
        found.map(|orphan| orphan.claim)
    }

    /// When the plan of a claim expires, as the database says; none, if it never does, or nobody answers: then the database ends it.
    async fn expires_at(&self, claim: &ClaimRecord) -> Option<SystemTime> {
        let state = approval_state(&self.context.rest, &claim.job()).await.ok().flatten()?;
        if state.is_expired() {
            return Some(SystemTime::now());
        }
        state.left().map(|left| SystemTime::now() + left)
    }

    /// Waits for the approval of a plan.
    async fn wait(
        &self,
        claim: &ClaimRecord,
        watched: &Lease,
        lease: Option<Lease>,
        tried: &mut Option<String>,
    ) -> Next {
        let lease = lease.unwrap_or_else(|| self.leases.hold(&claim.job()));
        let stops = [&watched.stop, &lease.stop];
        let approved = lease.approved.clone();
        let expires_at = match self.stored_claim(claim).await {
            Some(stored) => stored.expires_at,
            // What waits elsewhere has nothing on this disk.
            None => Box::pin(self.expires_at(claim)).await,
        };
        let permit = match self.approvals.wait(claim.claim_token, expires_at, approved, tried, stops).await {
            WaitEnd::Closing => return Next::Over,
            WaitEnd::Approved => None,
            WaitEnd::Stopped(permit) => permit,
        };
        Box::pin(self.waited(claim, lease, permit)).await
    }

    /// What comes next for a plan that waits no longer.
    async fn waited(&self, claim: &ClaimRecord, lease: Lease, permit: Option<OwnedSemaphorePermit>) -> Next {
        let ControlFlow::Continue(job) = self.claimed_job(claim).await else { return Next::Over };
        if let Some(job) = job {
            return Next::Launch(job, Start::Approval, permit);
        }
        // Of a revoked cluster everything stays on disk.
        if matches!(revoked(&self.context.rest).await, Ok(true)) {
            return Next::Over;
        }
        // Its row is over, or another's: nobody waits for this plan any more.
        drop(lease);
        tracing::info!(deployment = %claim.deployment_id, "its plan does not wait for approval any more");
        let (work_dir, name) = (self.context.settings.work_dir.clone(), claim.job().attempt_name());
        let found = blocking(move || Ok(orphaned_attempt(&work_dir, &name))).await.ok().flatten();
        if let Some(orphan) = found {
            orphan.discard(&self.context.settings).await;
        }
        Next::Over
    }
}
