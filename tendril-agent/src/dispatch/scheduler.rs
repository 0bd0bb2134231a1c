//! The jobs that run now: each in a task of its own, at most one per state, no more than the concurrency allows.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use tokio::{
    task::{Id, JoinSet},
    time::sleep,
};
use tracing::Instrument as _;
use uuid::Uuid;

use crate::{
    control_plane::{Claim, ClaimRecord, Lease, claim, pause_after},
    dispatch::{
        queue::{Queue, Queued},
        supervisor::{Next, Supervisor},
    },
    execute::{OrphanedAttempt, Start},
    job::{ConfigSnapshot, Job, Phase},
    launch::{Executor, Launcher},
    os::failpoint,
    process::StopReason,
    telemetry,
};

/// After a lost race one of more rows is picked, up to this many: agents that race then meet less often.
const WIDEST_CHOICE: usize = 512;
/// How long a row is left alone after a claim that failed for another reason than a lost race.
const PAUSE: Duration = Duration::from_secs(2);

/// Starts jobs, and has the list of those that run.
pub(crate) struct Scheduler {
    supervisor: Supervisor,
    /// Jobs at the same time.
    concurrency: usize,
    running: JoinSet<Outcome>,
    /// The state that each task works on.
    keys: HashMap<Id, String>,
    /// Tasks that finalize what a previous run left: they occupy their state, and no slot of the running jobs.
    recovering: HashSet<Id>,
    /// Of how many rows the next one is picked.
    choice: usize,
}

/// What became of a row that was picked.
enum Outcome {
    /// It was claimed, and run to its end.
    Done(Uuid),
    /// Something that is no row of the queue has ended.
    Finalized,
    /// Another agent has it.
    Lost,
    /// The claim failed; the row still waits.
    Waits(Queued),
    /// The claim was out of turn; the row still waits.
    OutOfTurn(Queued),
}

/// What the end of a task means for the queue.
pub(crate) enum Ended {
    /// This row ran to its end: its stack is free.
    Job(Uuid),
    /// The row still waits.
    Waits(Queued),
    /// The row still waits for its turn.
    OutOfTurn(Queued),
    /// Nothing.
    Other,
}

impl Scheduler {
    pub(crate) fn new(supervisor: Supervisor, concurrency: usize) -> Self {
        Self {
            supervisor,
            concurrency,
            running: JoinSet::new(),
            keys: HashMap::new(),
            recovering: HashSet::new(),
            choice: 1,
        }
    }

    /// Lets approved plans go on, as many as there is room for.
    pub(crate) fn admit_approved(&self) {
        while self.running_count() < self.concurrency && self.supervisor.approvals.admit_next() {
            self.gauge();
        }
    }

    /// Nothing new begins.
    pub(crate) fn drain(&self) {
        self.supervisor.context.drain.begin();
    }

    /// Interrupts what still runs.
    pub(crate) fn interrupt(&self) {
        // First: a job whose claim is won now learns it from there.
        self.supervisor.context.drain.interrupt();
        self.supervisor.watched.stop_all(StopReason::ShuttingDown);
    }

    /// Interrupts what still runs again, and kills it.
    pub(crate) fn force(&self) {
        self.supervisor.context.drain.force();
        self.supervisor.watched.force_all();
    }

    /// Takes on as many jobs as there is room for.
    pub(crate) fn start_next(&mut self, queue: &mut Queue) {
        while self.running_count() < self.concurrency {
            let busy = |key: &str| self.keys.values().any(|taken| taken == key);
            let Some(row) = queue.take(self.choice, busy) else { return };
            let key = row.state_key().to_owned();
            let task = work(self.supervisor.clone(), row);
            let id = self.running.spawn(task).id();
            self.keys.insert(id, key);
            self.gauge();
        }
    }

    /// Takes care of an attempt of a previous run; until then no other job works on its state.
    pub(crate) fn resume_attempt(&mut self, orphan: OrphanedAttempt, lease: Option<Lease>) {
        metrics::counter!(telemetry::ORPHANED_ATTEMPTS).increment(1);
        let key = orphan.claim.state_key.clone().unwrap_or_default();
        let goes_on = lease.is_some();
        let id = self.spawn(orphan.claim.clone(), Next::Recover(orphan, lease), key);
        if !goes_on {
            self.recovering.insert(id);
        }
    }

    /// Takes on an executor that an earlier dispatcher started with such a launcher.
    pub(crate) fn adopt(&mut self, executor: Executor, launcher: Arc<dyn Launcher>) {
        let Executor { id, claim_token, state_key, version, .. } = &executor;
        tracing::info!(deployment = %id.deployment_id, attempt = id.attempt, version, "its executor is taken over");
        let job = Job {
            id: id.deployment_id,
            attempt: id.attempt,
            claim_token: *claim_token,
            config: ConfigSnapshot::default(),
            state_key: state_key.clone(),
        };
        let key = state_key.clone().unwrap_or_default();
        let supervisor = Supervisor { launcher, ..self.supervisor.clone() };
        self.spawn_with(supervisor, ClaimRecord::new(&job, Phase::Claimed), Next::Watch(executor), key);
        self.gauge();
    }

    fn spawn(&mut self, claim: ClaimRecord, next: Next, key: String) -> Id {
        self.spawn_with(self.supervisor.clone(), claim, next, key)
    }

    fn spawn_with(&mut self, supervisor: Supervisor, claim: ClaimRecord, next: Next, key: String) -> Id {
        let span = claim.job().span();
        let task = async move {
            let key = claim.state_key.clone().unwrap_or_default();
            supervisor.supervise(claim, next).await;
            // What an earlier dispatcher left may have ended without one that stored its state.
            if !key.is_empty() && !supervisor.leave.is_ending() {
                let context = &supervisor.context;
                // Boxed: what waits for weeks must be small.
                Box::pin(context.push_held(&context.settings.terraform.state(&key))).await;
            }
            Outcome::Finalized
        };
        let id = self.running.spawn(task.instrument(span)).id();
        self.keys.insert(id, key);
        id
    }

    /// Whether executors end with this process.
    pub(crate) fn ends_with_its_executors(&self) -> bool {
        self.supervisor.launcher.end_with_dispatcher()
    }

    /// Executors go on without this process.
    pub(crate) fn detach(&self) {
        self.supervisor.leave.detach.cancel();
    }

    /// What has not ended must end now, and leave on disk what is not stored.
    pub(crate) fn give_up(&self) {
        self.supervisor.leave.give_up.cancel();
    }

    /// Stores state that a previous run could not store; until then no other job works on it. A task that finalizes an attempt
    /// that worked on it does so anyway.
    pub(crate) fn push_errored_state(&mut self, key: String) {
        if self.keys.values().any(|taken| *taken == key) {
            return;
        }
        let context = self.supervisor.context.clone();
        let state = context.settings.terraform.state(&key);
        let task = async move {
            context.push_held(&state).await;
            Outcome::Finalized
        };
        let id = self.running.spawn(task).id();
        self.keys.insert(id, key);
        self.recovering.insert(id);
    }

    /// How many jobs run. Those that wait for approval do not.
    fn running_count(&self) -> usize {
        self.running.len().saturating_sub(self.recovering.len() + self.supervisor.approvals.count())
    }

    /// Waits for the next job to end. For ever, if no job runs.
    pub(crate) async fn next_finished(&mut self) -> Ended {
        let Some(ended) = self.running.join_next_with_id().await else { return std::future::pending().await };
        let mut event = Ended::Other;
        let id = match ended {
            Ok((id, outcome)) => {
                match outcome {
                    Outcome::Done(id) => {
                        self.choice = (self.choice / 2).max(1);
                        event = Ended::Job(id);
                    }
                    Outcome::Finalized => {}
                    Outcome::Lost => self.choice = (self.choice * 4).min(WIDEST_CHOICE),
                    Outcome::Waits(row) => event = Ended::Waits(row),
                    Outcome::OutOfTurn(row) => event = Ended::OutOfTurn(row),
                }
                id
            }
            Err(error) => {
                tracing::error!(%error, "a job's task broke off; its lease runs out and the job is given up as lost");
                error.id()
            }
        };
        self.keys.remove(&id);
        self.recovering.remove(&id);
        self.gauge();
        event
    }

    /// Waits until no job runs, and no command of the agent itself.
    pub(crate) async fn all_finished(&mut self) {
        let drain = self.supervisor.context.drain.clone();
        while !self.is_idle() {
            self.next_finished().await;
        }
        loop {
            tokio::select! {
                () = drain.background_tasks_ended() => return,
                _ = self.next_finished() => {}
            }
        }
    }

    /// Whether no job runs or waits.
    pub(crate) fn is_idle(&self) -> bool {
        self.running.len() == self.recovering.len()
    }

    #[expect(clippy::cast_precision_loss, reason = "at most 64 jobs run at the same time")]
    fn gauge(&self) {
        metrics::gauge!(telemetry::JOBS_RUNNING).set(self.running_count() as f64);
    }
}

async fn work(supervisor: Supervisor, row: Queued) -> Outcome {
    let context = supervisor.context.clone();
    if context.drain.has_begun() {
        return Outcome::Waits(row);
    }
    match claim(&context.rest, row.id, &context.settings.agent_name, &context.drain).await {
        Ok(Claim::Won(mut job)) => {
            job.state_key = row.stored_state_key();
            failpoint!("claim.won");
            metrics::counter!(telemetry::JOBS_CLAIMED).increment(1);
            tracing::info!(deployment = %job.id, attempt = job.attempt, "claimed");
            let span = job.span();
            let claim = ClaimRecord::new(&job, Phase::Claimed);
            supervisor.supervise(claim, Next::Launch(job, Start::Workspace, None)).instrument(span).await;
            Outcome::Done(row.id)
        }
        Ok(Claim::OutOfTurn(error)) => {
            metrics::counter!(telemetry::CLAIMS_LOST).increment(1);
            tracing::debug!(deployment = %row.id, %error, "a claim was out of turn");
            Outcome::OutOfTurn(row)
        }
        Ok(Claim::Lost) => {
            metrics::counter!(telemetry::CLAIMS_LOST).increment(1);
            Outcome::Lost
        }
        Err(error) => {
            metrics::counter!(telemetry::CLAIMS_FAILED).increment(1);
            tracing::warn!(deployment = %row.id, %error, "a claim failed: trying again");
            tokio::select! {
                () = sleep(pause_after(&error, PAUSE)) => {}
                () = context.drain.begun() => {}
            }
            Outcome::Waits(row)
        }
    }
}
