//! Jobs that wait for a person's word: the plan is made, and is applied once `approved_plan` in the row is its digest.
//!
//! The approval comes with the live rows of the queue's watch, and with each heartbeat in case that a row was missed. A job
//! that waits does nothing; it keeps its state, but no place among the running jobs. Once it is approved it goes on as
//! soon as there is a place again.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tendril_realtime::Rest;
use tokio::sync::{Notify, oneshot, watch};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{control_plane::approval::expired, job::spec::Job, process::cancellation::StopSignal};

/// Every job that waits. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Approvals {
    waiting: Arc<Mutex<Waiting>>,
    /// A job began or ended to wait, or may go on.
    changed: Arc<Notify>,
    /// The agent ends: what waits is left to its next run.
    closing: CancellationToken,
}

#[derive(Debug, Default)]
struct Waiting {
    /// By claim: the digest that was approved.
    plans: HashMap<Uuid, watch::Sender<Option<String>>>,
    /// Approved, and without a place among the running jobs yet, in the spec of their approvals.
    line: VecDeque<(Uuid, oneshot::Sender<()>)>,
}

/// What ended the wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ApprovalDecision {
    /// The plan may be applied.
    Approved,
    /// A stop was requested.
    Stopped,
    /// Nobody approved it in time, and nobody can any more.
    Expired,
    /// The agent ends, and the job goes on waiting.
    Closing,
}

impl Approvals {
    /// A row says that this plan is approved.
    pub(crate) fn tell(&self, claim_token: Uuid, plan: String) {
        if let Some(waiting) = self.waiting().plans.get(&claim_token) {
            waiting.send_replace(Some(plan));
        }
    }

    /// How many jobs wait, for the word or for a place.
    pub(crate) fn count(&self) -> usize {
        self.waiting().plans.len()
    }

    /// Gives a place among the running jobs to the plan that was approved first. Answers whether there was one.
    pub(crate) fn admit_next(&self) -> bool {
        let mut waiting = self.waiting();
        while let Some((claim_token, admit_approved)) = waiting.line.pop_front() {
            // From here on it counts as a running job. Whoever gave up the wait is not there to hear it.
            if waiting.plans.contains_key(&claim_token) && admit_approved.send(()).is_ok() {
                waiting.plans.remove(&claim_token);
                return true;
            }
        }
        false
    }

    /// Waits until a job begins or ends to wait, or may go on.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Ends every wait, now and later.
    pub(crate) fn close(&self) {
        self.closing.cancel();
    }

    /// Waits for the word about this plan, and then for a place among the running jobs.
    pub(crate) async fn wait(
        &self,
        rest: &Rest,
        job: &Job,
        plan: &str,
        stop: &StopSignal,
    ) -> ApprovalDecision {
        let (told, mut heard) = watch::channel(None);
        self.waiting().plans.insert(job.claim_token, told.clone());
        let _place = WaitingEntry { approvals: self, claim_token: job.claim_token };
        self.changed.notify_one();
        tokio::select! {
            biased;
            () = stop.wait() => ApprovalDecision::Stopped,
            () = self.closing.cancelled() => ApprovalDecision::Closing,
            // `told` is held here, so the channel cannot be closed.
            () = async {
                drop(heard.wait_for(|approved| approved.as_deref() == Some(plan)).await);
                self.place(job.claim_token).await;
            } => ApprovalDecision::Approved,
            () = expired(rest, job, &told) => ApprovalDecision::Expired,
        }
    }

    /// Waits in line for a place.
    async fn place(&self, claim_token: Uuid) {
        let (admit_approved, admitted) = oneshot::channel();
        self.waiting().line.push_back((claim_token, admit_approved));
        self.changed.notify_one();
        let _admitted = admitted.await;
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // Nothing that holds the lock can leave the map in halves.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place among those who wait.
struct WaitingEntry<'a> {
    approvals: &'a Approvals,
    claim_token: Uuid,
}

impl Drop for WaitingEntry<'_> {
    fn drop(&mut self) {
        self.approvals.waiting().plans.remove(&self.claim_token);
        self.approvals.changed.notify_one();
    }
}
