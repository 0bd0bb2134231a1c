//! Jobs that wait for a person's word: the plan is made, and is applied once `approved_plan` in the row is its digest.
//!
//! The word comes with the live rows of the queue's watch, and is asked for now and then in case that a row was missed. A
//! job that waits does nothing; it keeps its state, but no place among the running jobs.

use std::{
    collections::HashMap,
    convert::Infallible,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde::Deserialize;
use tendril_realtime::Rest;
use tokio::{
    sync::{Notify, watch},
    time::sleep,
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{job::Job, pace::around, stop::Stop};

/// Between two questions about a job that waits.
const ASK: Duration = Duration::from_secs(20);

/// Every job that waits. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Approvals {
    /// By claim: the digest that was approved.
    waiting: Arc<Mutex<HashMap<Uuid, watch::Sender<Option<String>>>>>,
    /// A job began or ended to wait.
    changed: Arc<Notify>,
    /// The agent ends: what waits is left to its next life.
    closing: CancellationToken,
}

/// What ended the wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    /// The plan may be applied.
    Approved,
    /// The job is told to stop.
    Stopped,
    /// The agent ends, and the job goes on waiting.
    Closing,
}

impl Approvals {
    /// A row says that this plan is approved.
    pub(crate) fn tell(&self, claim_token: Uuid, plan: String) {
        if let Some(waiting) = self.waiting().get(&claim_token) {
            waiting.send_replace(Some(plan));
        }
    }

    /// How many jobs wait.
    pub(crate) fn count(&self) -> usize {
        self.waiting().len()
    }

    /// Waits until a job begins or ends to wait.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Ends every wait, now and later.
    pub(crate) fn close(&self) {
        self.closing.cancel();
    }

    /// Waits for the word about this plan.
    pub(crate) async fn wait(&self, rest: &Rest, job: &Job, plan: &str, stop: &Stop) -> Word {
        let (told, mut heard) = watch::channel(None);
        self.waiting().insert(job.claim_token, told.clone());
        let _place = Place { approvals: self, claim_token: job.claim_token };
        self.changed.notify_one();
        tokio::select! {
            biased;
            () = stop.wait() => Word::Stopped,
            () = self.closing.cancelled() => Word::Closing,
            // `told` is held here, so the channel cannot be closed.
            _ = heard.wait_for(|approved| approved.as_deref() == Some(plan)) => Word::Approved,
            never = ask(rest, job, &told) => match never {},
        }
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<Uuid, watch::Sender<Option<String>>>> {
        // Nothing that holds the lock can leave the map in halves.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place among those who wait.
struct Place<'a> {
    approvals: &'a Approvals,
    claim_token: Uuid,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.approvals.waiting().remove(&self.claim_token);
        self.approvals.changed.notify_one();
    }
}

/// Asks for ever. What the row says is told like a live row.
async fn ask(rest: &Rest, job: &Job, told: &watch::Sender<Option<String>>) -> Infallible {
    #[derive(Deserialize)]
    struct Row {
        approved_plan: Option<String>,
    }
    loop {
        let request = rest.from("deployments").select("approved_plan").eq("id", job.id);
        match request.eq("claim_token", job.claim_token).rows::<Row>().await {
            Ok(rows) => {
                if let Some(plan) = rows.into_iter().find_map(|row| row.approved_plan) {
                    told.send_replace(Some(plan));
                }
            }
            Err(error) => tracing::debug!(%error, "whether the plan is approved cannot be asked now"),
        }
        sleep(around(ASK)).await;
    }
}
