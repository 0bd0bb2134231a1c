//! Plans that wait for a person's approval. Each is one entry here: it has no process, no thread and no request of its own.
//!
//! An approval comes with the live rows of the queue's watch, and with the answer to each heartbeat, which names every plan that
//! waits. Once it is approved, a plan is resumed as soon as there is a place among the running jobs.

use std::{
    collections::{HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot, watch},
    time::sleep,
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::process::StopSignal;

/// How many plans are resumed at a time beside the running jobs: those that were cancelled, and those of an earlier dispatcher
/// whose rows may not show them.
const RESUMED: usize = 8;

/// Every plan that waits. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Approvals {
    waiting: Arc<Mutex<Waiting>>,
    /// A plan began or ended to wait, or is approved.
    changed: Arc<Notify>,
    /// The agent ends: what waits is left to its next run.
    closing: CancellationToken,
    resumed: Arc<Semaphore>,
}

#[derive(Debug, Default)]
struct Waiting {
    claims: HashSet<Uuid>,
    /// Approved, and without a place among the running jobs yet, in the order of their approvals.
    line: VecDeque<(Uuid, oneshot::Sender<()>)>,
}

/// What ended a wait.
#[derive(Debug)]
pub(crate) enum WaitEnd {
    /// The plan is approved, and has a place among the running jobs.
    Approved,
    /// The run is to stop, or the plan has expired. The permit is held until it has.
    Stopped(Option<OwnedSemaphorePermit>),
    /// The agent ends, and the plan continues to wait.
    Closing,
}

impl Default for Approvals {
    fn default() -> Self {
        Self {
            waiting: Arc::default(),
            changed: Arc::default(),
            closing: CancellationToken::new(),
            resumed: Arc::new(Semaphore::new(RESUMED)),
        }
    }
}

impl Approvals {
    /// How many plans wait, for their approval or for a place.
    pub(crate) fn count(&self) -> usize {
        self.waiting().claims.len()
    }

    /// Gives a place among the running jobs to the plan that was approved first. Answers whether there was one.
    pub(crate) fn admit_next(&self) -> bool {
        let mut waiting = self.waiting();
        while let Some((claim_token, admit)) = waiting.line.pop_front() {
            // From here on it counts as a running job. A wait that was given up has no receiver.
            if waiting.claims.contains(&claim_token) && admit.send(()).is_ok() {
                waiting.claims.remove(&claim_token);
                return true;
            }
        }
        false
    }

    /// Waits until a plan begins or ends to wait, or is approved.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Ends every wait, now and later.
    pub(crate) fn close(&self) {
        self.closing.cancel();
    }

    /// Waits for one of a few places beside the running jobs; none, if the agent ends.
    pub(crate) async fn few(&self) -> Option<OwnedSemaphorePermit> {
        tokio::select! {
            permit = Arc::clone(&self.resumed).acquire_owned() => permit.ok(),
            () = self.closing.cancelled() => None,
        }
    }

    /// Waits until the plan of this claim is approved, and then for a place; or until one of the signals requests a stop. `tried` is
    /// the approval that an executor found to be of another plan: it is none. `expires_at`: when the plan expires, so that an
    /// executor ends it.
    pub(crate) async fn wait(
        &self,
        claim_token: Uuid,
        expires_at: Option<SystemTime>,
        mut approved: watch::Receiver<Option<String>>,
        tried: &mut Option<String>,
        stops: [&StopSignal; 2],
    ) -> WaitEnd {
        self.waiting().claims.insert(claim_token);
        let entry = Entry { approvals: self, claim_token };
        self.changed.notify_one();
        let [one, other] = stops;
        let place = async {
            // The sender is there as long as the claim is held; without it no approval can come.
            let received =
                approved.wait_for(|plan| plan.is_some() && plan != tried).await.map(|plan| plan.clone());
            let Ok(plan) = received else { return std::future::pending().await };
            self.place(claim_token).await;
            plan
        };
        let expired = async {
            match expires_at {
                Some(at) => sleep(at.duration_since(SystemTime::now()).unwrap_or_default()).await,
                None => std::future::pending().await,
            }
        };
        let stopped = tokio::select! {
            biased;
            () = self.closing.cancelled() => return WaitEnd::Closing,
            () = one.wait() => true,
            () = other.wait() => true,
            () = expired => true,
            plan = place => {
                *tried = plan;
                false
            }
        };
        if !stopped {
            return WaitEnd::Approved;
        }
        let permit = self.few().await;
        drop(entry);
        if self.closing.is_cancelled() { WaitEnd::Closing } else { WaitEnd::Stopped(permit) }
    }

    /// Waits in line for a place.
    async fn place(&self, claim_token: Uuid) {
        let (admit, admitted) = oneshot::channel();
        self.waiting().line.push_back((claim_token, admit));
        self.changed.notify_one();
        let _admitted = admitted.await;
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // Nothing that holds the lock can leave the set in halves.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An entry among those who wait.
struct Entry<'a> {
    approvals: &'a Approvals,
    claim_token: Uuid,
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        self.approvals.waiting().claims.remove(&self.claim_token);
        self.approvals.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;
    use crate::process::StopReason;

    #[tokio::test]
    async fn an_approved_plan_goes_on_when_there_is_a_place_for_it() {
        let (approvals, approved) = (Approvals::default(), watch::Sender::new(None));
        let (claim, stop, mut tried) =
            (Uuid::from_u128(1), StopSignal::default(), Some("another".to_owned()));
        let received = approved.subscribe();
        let mut wait = Box::pin(approvals.wait(claim, None, received, &mut tried, [&stop, &stop]));
        assert!((&mut wait).now_or_never().is_none());
        assert_eq!(approvals.count(), 1);
        approved.send_replace(Some("another".to_owned()));
        assert!((&mut wait).now_or_never().is_none());
        assert!(!approvals.admit_next(), "the approval of another plan is none");
        approved.send_replace(Some("plan".to_owned()));
        assert!((&mut wait).now_or_never().is_none(), "it waits for a place");
        assert_eq!(approvals.count(), 1);
        assert!(approvals.admit_next());
        assert_eq!(approvals.count(), 0, "from here on it is a running job");
        assert!(matches!(wait.await, WaitEnd::Approved));
        assert_eq!(tried.as_deref(), Some("plan"));
    }

    #[tokio::test]
    async fn a_plan_that_expires_waits_no_longer() {
        let (approvals, sender, stop) =
            (Approvals::default(), watch::Sender::new(None), StopSignal::default());
        for expires_at in [SystemTime::UNIX_EPOCH, SystemTime::now() + std::time::Duration::from_millis(20)] {
            let (received, mut tried) = (sender.subscribe(), None);
            let wait = approvals.wait(Uuid::nil(), Some(expires_at), received, &mut tried, [&stop, &stop]);
            assert!(matches!(wait.await, WaitEnd::Stopped(Some(_))));
        }
    }

    #[tokio::test]
    async fn few_that_are_cancelled_are_resumed_at_a_time_and_none_once_the_agent_ends() {
        let approvals = Approvals::default();
        let stop = StopSignal::default();
        stop.request(StopReason::Cancelled);
        let sender = watch::Sender::new(None);
        let mut held = Vec::new();
        for n in 0..RESUMED {
            let (received, mut tried) = (sender.subscribe(), None);
            let claim = Uuid::from_u128(n as u128);
            held.push(approvals.wait(claim, None, received, &mut tried, [&stop, &stop]).await);
        }
        let (received, mut tried) = (sender.subscribe(), None);
        let wait = approvals.wait(Uuid::from_u128(99), None, received, &mut tried, [&stop, &stop]);
        tokio::pin!(wait);
        assert!((&mut wait).now_or_never().is_none());
        assert_eq!(approvals.count(), 1);
        held.pop();
        assert!(matches!((&mut wait).now_or_never(), Some(WaitEnd::Stopped(Some(_)))));
        approvals.close();
        let (received, mut tried) = (sender.subscribe(), None);
        let closed = approvals.wait(Uuid::from_u128(100), None, received, &mut tried, [&stop, &stop]).await;
        assert!(matches!(closed, WaitEnd::Closing));
        assert_eq!(approvals.count(), 0);
    }
}
