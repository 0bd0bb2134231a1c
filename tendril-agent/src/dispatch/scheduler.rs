//! The jobs that run now: each in a task of its own, at most one per state, no more than the concurrency allows.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use tokio::{
    task::{Id, JoinSet},
    time::sleep,
};
use tracing::Instrument as _;

use crate::{
    control_plane::{
        backoff::pause_after,
        claim::{Claim, claim},
        lease::{Lease, Leases},
    },
    dispatch::queue::{Queue, Queued},
    execute::{attempt::Road, recovery::Leftover},
    os::failpoint::failpoint,
    process::cancellation::StopReason,
    telemetry,
    terraform::state::pending_push,
};

/// After a lost race one of more rows is picked, up to this many: agents that race then meet less often.
const WIDEST_CHOICE: usize = 512;
/// How long a row is left alone after a claim that failed for another reason than a lost race.
const PAUSE: Duration = Duration::from_secs(2);

/// Who is at work.
pub(crate) struct Crew {
    road: Road,
    leases: Leases,
    running: JoinSet<Outcome>,
    /// The state that each task works on.
    keys: HashMap<Id, String>,
    /// Tasks that settle what an earlier life left: they keep their state, and no place among the running jobs.
    settling: HashSet<Id>,
    /// Of how many rows the next one is picked.
    choice: usize,
}

/// What became of a row that was picked.
enum Outcome {
    /// It was claimed, and run to its end.
    Done,
    /// Somebody else has it.
    Lost,
    /// The claim failed; the row still waits.
    Waits(Queued),
}

impl Crew {
    pub(crate) fn new(road: Road, leases: Leases) -> Self {
        Self {
            road,
            leases,
            running: JoinSet::new(),
            keys: HashMap::new(),
            settling: HashSet::new(),
            choice: 1,
        }
    }

    /// Lets approved plans go on, as many as there is room for.
    pub(crate) fn admit(&self) {
        while self.at_work() < self.road.config.concurrency && self.road.approvals.admit_next() {
            self.gauge();
        }
    }

    /// Nothing new begins.
    pub(crate) fn drain(&self) {
        self.road.drain.begin();
    }

    /// Interrupts what still runs.
    pub(crate) fn interrupt(&self) {
        // First: a job whose claim is won now hears it from there.
        self.road.drain.interrupt();
        self.leases.stop_all(StopReason::ShuttingDown);
    }

    /// Interrupts what still runs again, and kills it.
    pub(crate) fn hasten(&self) {
        self.road.drain.hasten();
        self.leases.hasten_all();
    }

    /// Takes on as many jobs as there is room for.
    pub(crate) fn hire(&mut self, queue: &mut Queue) {
        while self.at_work() < self.road.config.concurrency {
            let busy = |key: &str| self.keys.values().any(|taken| taken == key);
            let Some(row) = queue.take(self.choice, busy) else { return };
            let key = row.state_key();
            let task = work(self.road.clone(), self.leases.clone(), row);
            let id = self.running.spawn(task).id();
            self.keys.insert(id, key);
            self.gauge();
        }
    }

    /// Takes care of an attempt of an earlier life; until then nobody else works on its state.
    pub(crate) fn adopt(&mut self, leftover: Leftover, lease: Option<Lease>) {
        metrics::counter!(telemetry::LEFTOVERS).increment(1);
        let key = leftover.claim.state_key.clone().unwrap_or_default();
        let waits = lease.is_some();
        let id = self.running.spawn(take_over(self.road.clone(), leftover, lease)).id();
        self.keys.insert(id, key);
        if !waits {
            self.settling.insert(id);
        }
    }

    /// Stores state that an earlier life could not store; until then nobody else works on it. Whoever settles an attempt
    /// that worked on it does so anyway.
    pub(crate) fn push_rescued(&mut self, key: String) {
        if self.keys.values().any(|taken| *taken == key) {
            return;
        }
        let road = self.road.clone();
        let state = road.config.state_backend.of(&road.config.state_dir, &key);
        let task = async move {
            pending_push::push(&road.config, &*road.runner, &state, &road.drain).await;
            Outcome::Done
        };
        let id = self.running.spawn(task).id();
        self.keys.insert(id, key);
        self.settling.insert(id);
    }

    /// How many jobs run. Those that wait for approval do not.
    fn at_work(&self) -> usize {
        self.running.len().saturating_sub(self.settling.len() + self.road.approvals.count())
    }

    /// Waits for the next job to end; answers a row that waits again. For ever, if nobody is at work.
    pub(crate) async fn one_ended(&mut self) -> Option<Queued> {
        let Some(ended) = self.running.join_next_with_id().await else { return std::future::pending().await };
        let mut again = None;
        let id = match ended {
            Ok((id, outcome)) => {
                match outcome {
                    Outcome::Done => self.choice = (self.choice / 2).max(1),
                    Outcome::Lost => self.choice = (self.choice * 4).min(WIDEST_CHOICE),
                    Outcome::Waits(row) => again = Some(row),
                }
                id
            }
            Err(error) => {
                tracing::error!(%error, "a job's task broke off; its lease runs out and the job is given up as lost");
                error.id()
            }
        };
        self.keys.remove(&id);
        self.settling.remove(&id);
        self.gauge();
        again
    }

    /// Waits until nobody is at work, and no command runs for the agent itself.
    pub(crate) async fn all_ended(&mut self) {
        let drain = self.road.drain.clone();
        while !self.is_idle() {
            self.one_ended().await;
        }
        loop {
            tokio::select! {
                () = drain.errands_ended() => return,
                _ = self.one_ended() => {}
            }
        }
    }

    /// Whether nobody is at work, or waits.
    pub(crate) fn is_idle(&self) -> bool {
        self.running.len() == self.settling.len()
    }

    #[expect(clippy::cast_precision_loss, reason = "at most 64 jobs run at the same time")]
    fn gauge(&self) {
        metrics::gauge!(telemetry::JOBS_RUNNING).set(self.at_work() as f64);
    }
}

async fn take_over(road: Road, leftover: Leftover, lease: Option<Lease>) -> Outcome {
    let job = if lease.is_some() { leftover.waiting_job(&road.rest).await } else { None };
    match (job, lease) {
        (Some(job), Some(lease)) => {
            tracing::info!(deployment = %job.id, attempt = job.attempt, "its plan waits for approval");
            let span = job.span();
            road.resume(job, &lease, leftover.workspace).instrument(span).await;
        }
        (_, lease) => {
            // It is not this agent's any more: the database need not hear of it.
            drop(lease);
            let key = leftover.claim.state_key.clone();
            leftover.settle(&road.config, &road.rest).await;
            if let Some(key) = key {
                let state = road.config.state_backend.of(&road.config.state_dir, &key);
                pending_push::push(&road.config, &*road.runner, &state, &road.drain).await;
            }
        }
    }
    Outcome::Done
}

async fn work(road: Road, leases: Leases, row: Queued) -> Outcome {
    if road.drain.has_begun() {
        return Outcome::Waits(row);
    }
    match claim(&road.rest, row.id, &road.config.agent_name, &road.drain).await {
        Ok(Claim::Won(job)) => {
            failpoint!("claim.won");
            metrics::counter!(telemetry::JOBS_CLAIMED).increment(1);
            tracing::info!(deployment = %job.id, attempt = job.attempt, "claimed");
            let lease = leases.hold(&job);
            // Won while the agent was told to end: it has the time that running jobs have, and hears what they heard.
            if let Some(reason) = road.drain.stop.requested() {
                lease.stop.request(reason);
            }
            let span = job.span();
            road.travel(job, &lease).instrument(span).await;
            Outcome::Done
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
                () = road.drain.begun() => {}
            }
            Outcome::Waits(row)
        }
    }
}
