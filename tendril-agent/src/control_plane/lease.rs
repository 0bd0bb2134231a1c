//! The claims that this agent holds, and their state in the control plane.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde::Deserialize;
use tokio::sync::{Notify, watch};
use uuid::Uuid;

use crate::{
    control_plane::contract::known,
    job::{Job, Phase, Status, job_span},
    os::DiskPressure,
    process::{StopReason, StopSignal},
};

/// How many cancels, and approvals, of claims that this agent does not hold are stored. They are rare, and most are of other agents of the cluster.
const EARLY: usize = 256;

/// Every claim of this agent. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Leases {
    held: Arc<Mutex<HashMap<Uuid, Held>>>,
    /// Claims that are not held here and whose jobs are cancelled: the cancel may overtake the answer to the claim.
    early: Arc<Mutex<VecDeque<Uuid>>>,
    /// Claims that are not held here and whose plans are approved: the approval may overtake the end of the plan's executor.
    early_approvals: Arc<Mutex<VecDeque<(Uuid, String)>>>,
    /// Set for each claim that is held from now on.
    begun: Arc<Notify>,
}

/// Cancels and the loss of a claim reach its job here.
#[derive(Clone, Debug)]
struct Held {
    /// The name of the job's directory.
    attempt: String,
    stop: StopSignal,
    phase_mismatch: Arc<Notify>,
    approved: watch::Sender<Option<String>>,
    /// For lines of the log. A span for each claim would live for as long as a plan waits.
    job: (Uuid, i32),
}

/// One held claim; given back when dropped.
#[derive(Debug)]
pub(crate) struct Lease {
    leases: Leases,
    claim_token: Uuid,
    /// How the job learns that it must end.
    pub(crate) stop: StopSignal,
    /// How it learns that its row has the phase `UNKNOWN`: it has to report its phase again.
    pub(crate) phase_mismatch: Arc<Notify>,
    /// The digest of the plan that a person approved, as far as it is known.
    pub(crate) approved: watch::Receiver<Option<String>>,
}

/// What a heartbeat answers about one claim.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct ClaimState {
    /// The claim.
    pub(crate) claim_token: Uuid,
    /// Whether the database still counts it as this agent's running job.
    pub(crate) mine: bool,
    /// Whether the user requested its cancellation.
    #[serde(default)]
    pub(crate) cancel_requested: bool,
    /// The job's status; none where no job has this claim any more, or where it is one of a later contract.
    #[serde(default, deserialize_with = "known")]
    pub(crate) status: Option<Status>,
    /// The phase in the row; none where it is one of a later contract.
    #[serde(default, deserialize_with = "known")]
    pub(crate) phase: Option<Phase>,
    /// The plan that a person approved. Of contract 3.
    #[serde(default)]
    pub(crate) approved_plan: Option<String>,
}

impl Leases {
    /// Holds the claim of a job that was won.
    pub(crate) fn hold(&self, job: &Job) -> Lease {
        let held = Held {
            attempt: job.attempt_name(),
            stop: StopSignal::default(),
            phase_mismatch: Arc::default(),
            approved: watch::Sender::new(None),
            job: (job.id, job.attempt),
        };
        self.held().insert(job.claim_token, held.clone());
        self.begun.notify_one();
        // Read after the claim is held: a cancel reaches the lease, or is found here.
        if self.early().contains(&job.claim_token) {
            held.stop.request(StopReason::Cancelled);
        }
        let mut early = self.early_approvals();
        if let Some(at) = early.iter().position(|(token, _)| *token == job.claim_token) {
            held.approved.send_replace(early.remove(at).map(|(_, plan)| plan));
        }
        drop(early);
        Lease {
            leases: self.clone(),
            claim_token: job.claim_token,
            stop: held.stop,
            phase_mismatch: held.phase_mismatch,
            approved: held.approved.subscribe(),
        }
    }

    /// The claims that the heartbeat reports.
    pub(crate) fn tokens(&self) -> Vec<Uuid> {
        self.held().keys().copied().collect()
    }

    /// Passes on what the database answered.
    pub(crate) fn learn(&self, claims: &[ClaimState]) {
        for claim in claims {
            let Some(held) = self.held().get(&claim.claim_token).cloned() else { continue };
            if let Some(reason) = claim.stop_reason() {
                if reason == StopReason::Fenced && held.stop.requested().is_none() {
                    let _job = job_span(held.job.0, held.job.1).entered();
                    tracing::warn!(
                        deployment_claim = %claim.claim_token, status = ?claim.status,
                        "the control plane does not count this claim as ours any more: its run is ended gracefully"
                    );
                }
                held.stop.request(reason);
            } else if claim.phase == Some(Phase::Unknown) {
                held.phase_mismatch.notify_one();
            }
            if claim.mine && claim.approved_plan.is_some() {
                held.approved.send_replace(claim.approved_plan.clone());
            }
        }
    }

    /// A person approved the plan of this claim, which may be one that this agent is about to hold, or another's.
    pub(crate) fn approve(&self, claim_token: Uuid, plan: String) {
        let mut early = self.early_approvals();
        if let Some(held) = self.held().get(&claim_token) {
            held.approved.send_replace(Some(plan));
            return;
        }
        early.retain(|(token, _)| *token != claim_token);
        early.truncate(EARLY - 1);
        early.push_front((claim_token, plan));
    }

    /// An approval that reached an earlier holder of a claim. One that has come since then is newer.
    fn pass_on(&self, claim_token: Uuid, plan: String) {
        let holder = self.held().get(&claim_token).map(|held| held.approved.clone());
        match holder {
            Some(approved) => {
                approved.send_if_modified(|known| {
                    let is_new = known.is_none();
                    known.get_or_insert(plan);
                    is_new
                });
            }
            None => self.approve(claim_token, plan),
        }
    }

    /// The user requested the cancellation of this claim's job, which may be one that this agent is about to hold, or another's.
    pub(crate) fn cancel(&self, claim_token: Uuid) {
        let mut early = self.early();
        match self.held().get(&claim_token) {
            Some(held) => held.stop.request(StopReason::Cancelled),
            None if early.contains(&claim_token) => {}
            None => {
                early.truncate(EARLY - 1);
                early.push_front(claim_token);
            }
        }
    }

    /// Ends the job of this attempt, which takes most of the disk; unless one is result already, and about to make room.
    pub(crate) fn evict(&self, attempt: &str, pressure: DiskPressure) {
        let held = self.held();
        if held.values().all(|held| held.stop.requested().is_none())
            && let Some(held) = held.values().find(|held| held.attempt == attempt)
        {
            tracing::error!(attempt, "{pressure}: it is stopped");
            held.stop.request(StopReason::DiskFull(pressure));
        }
    }

    /// Waits until a claim is held that was not at the last call.
    pub(crate) async fn begun(&self) {
        self.begun.notified().await;
    }

    /// Whether no job is held.
    pub(crate) fn is_empty(&self) -> bool {
        self.held().is_empty()
    }

    /// Ends every job.
    pub(crate) fn stop_all(&self, reason: StopReason) {
        self.held().values().for_each(|held| held.stop.request(reason));
    }

    /// Cuts every job's grace period short.
    pub(crate) fn force_all(&self) {
        self.held().values().for_each(|held| held.stop.force());
    }

    fn early_approvals(&self) -> MutexGuard<'_, VecDeque<(Uuid, String)>> {
        self.early_approvals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn early(&self) -> MutexGuard<'_, VecDeque<Uuid>> {
        self.early.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn held(&self) -> MutexGuard<'_, HashMap<Uuid, Held>> {
        // Nothing that holds the lock can leave the map in halves.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let is_this = |held: &Held| Arc::ptr_eq(&held.phase_mismatch, &self.phase_mismatch);
        let mut held = self.leases.held();
        // The same claim may be held again by now.
        if held.get(&self.claim_token).is_some_and(is_this) {
            held.remove(&self.claim_token);
        }
        drop(held);
        // An approval that came while a run ended is for the next holder of its claim.
        let approved = self.approved.borrow().clone();
        if let Some(plan) = approved {
            self.leases.pass_on(self.claim_token, plan);
        }
    }
}

impl ClaimState {
    /// Whether the job must end, and why.
    fn stop_reason(&self) -> Option<StopReason> {
        let apply_began = self.phase.is_none_or(Phase::changes_the_world);
        match (self.mine, self.cancel_requested, self.status) {
            (true, true, _) | (false, _, Some(Status::Cancelled)) => Some(StopReason::Cancelled),
            (true, false, _) => None,
            // It was given up as lost while we could not reach the database, and not given to another agent: the true result is still accepted. But
            // what was given up before its apply began must not begin it: the user has read that nothing was changed.
            (false, _, Some(Status::Failed)) if apply_began => None,
            (false, _, _) => Some(StopReason::Fenced),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn job() -> Job {
        Job {
            id: Uuid::nil(),
            attempt: 1,
            claim_token: Uuid::new_v4(),
            config: crate::job::ConfigSnapshot::default(),
            state_key: None,
        }
    }

    fn after(answer: &Value) -> Option<StopReason> {
        let (leases, job) = (Leases::default(), job());
        let lease = leases.hold(&job);
        let mut answer = answer.clone();
        answer["claim_token"] = json!(job.claim_token);
        leases.learn(&[serde_json::from_value(answer).unwrap()]);
        lease.stop.requested()
    }

    #[test]
    fn an_approval_that_comes_while_a_run_ends_is_for_whoever_holds_its_claim_next() {
        let (leases, job) = (Leases::default(), job());
        let (run, next) = (leases.hold(&job), leases.hold(&job));
        drop(run);
        assert_eq!(leases.tokens(), [job.claim_token], "it is held still");
        leases.approve(job.claim_token, "plan".to_owned());
        drop(next);
        assert!(leases.tokens().is_empty());
        let wait = leases.hold(&job);
        assert_eq!(wait.approved.borrow().as_deref(), Some("plan"));
        let later = leases.hold(&job);
        leases.approve(job.claim_token, "newer".to_owned());
        drop(wait);
        assert_eq!(later.approved.borrow().as_deref(), Some("newer"));
    }

    #[test]
    fn what_the_database_says_decides() {
        let ours = json!({"mine": true, "cancel_requested": false, "status": "PROCESSING"});
        assert_eq!(after(&ours), None);
        let cancelled = json!({"mine": true, "cancel_requested": true, "status": "PROCESSING"});
        assert_eq!(after(&cancelled), Some(StopReason::Cancelled));
        let handed_on =
            json!({"mine": false, "deployment_id": null, "cancel_requested": false, "status": null});
        assert_eq!(after(&handed_on), Some(StopReason::Fenced));
        let of_a_later_contract = |mine| json!({"mine": mine, "status": "SUSPENDED", "suspended_by": "x"});
        assert_eq!(after(&of_a_later_contract(true)), None);
        assert_eq!(after(&of_a_later_contract(false)), Some(StopReason::Fenced));
        let given_up = |phase: &str| json!({"mine": false, "cancel_requested": false, "status": "FAILED", "phase": phase});
        assert_eq!(after(&given_up("APPLY")), None);
        assert_eq!(after(&given_up("UNKNOWN")), None);
        assert_eq!(after(&given_up("PLAN")), Some(StopReason::Fenced));
        assert_eq!(after(&given_up("APPROVAL")), Some(StopReason::Fenced));
    }

    #[tokio::test]
    async fn a_job_of_which_the_row_says_unknown_is_asked_where_it_is() {
        let (leases, job) = (Leases::default(), job());
        let lease = leases.hold(&job);
        let answer =
            json!({"claim_token": job.claim_token, "mine": true, "status": "PROCESSING", "phase": "UNKNOWN"});
        leases.learn(&[serde_json::from_value(answer).unwrap()]);
        lease.phase_mismatch.notified().await;
        assert_eq!(lease.stop.requested(), None);
    }

    #[test]
    fn one_job_at_a_time_makes_room() {
        let leases = Leases::default();
        let pressure = DiskPressure { used: 2, limit: 1, free: 9, own: 2, inodes: None };
        let job = |n| Job {
            id: Uuid::from_u128(n),
            attempt: 1,
            claim_token: Uuid::from_u128(n),
            config: crate::job::ConfigSnapshot::default(),
            state_key: None,
        };
        let (one, two) = (leases.hold(&job(1)), leases.hold(&job(2)));
        leases.evict("somebody-else.1", pressure);
        assert_eq!((one.stop.requested(), two.stop.requested()), (None, None));
        leases.evict(&job(2).attempt_name(), pressure);
        leases.evict(&job(1).attempt_name(), pressure);
        assert_eq!(
            (one.stop.requested(), two.stop.requested()),
            (None, Some(StopReason::DiskFull(pressure)))
        );
    }

    #[test]
    fn a_cancel_that_overtakes_the_answer_to_its_claim_is_kept() {
        let (leases, job) = (Leases::default(), job());
        leases.cancel(job.claim_token);
        for _ in 1..EARLY {
            leases.cancel(Uuid::new_v4());
        }
        assert_eq!(leases.hold(&job).stop.requested(), Some(StopReason::Cancelled));
        leases.cancel(Uuid::new_v4());
        assert_eq!(leases.early().len(), EARLY, "cancels of others take no room for ever");
    }

    #[test]
    fn an_approval_that_comes_before_its_plan_waits_is_kept() {
        let (leases, job) = (Leases::default(), job());
        leases.approve(job.claim_token, "old".to_owned());
        leases.approve(job.claim_token, "plan".to_owned());
        for _ in 1..EARLY {
            leases.approve(Uuid::new_v4(), "another".to_owned());
        }
        let lease = leases.hold(&job);
        assert_eq!(lease.approved.borrow().as_deref(), Some("plan"));
        leases.approve(job.claim_token, "later".to_owned());
        assert_eq!(lease.approved.borrow().as_deref(), Some("later"));
        drop(lease);
        assert_eq!(
            leases.hold(&job).approved.borrow().as_deref(),
            Some("later"),
            "it is for the next holder"
        );
        for _ in 0..2 * EARLY {
            leases.approve(Uuid::new_v4(), "another".to_owned());
        }
        assert_eq!(leases.early_approvals().len(), EARLY);
    }

    #[test]
    fn a_claim_is_told_until_it_is_dropped() {
        let (leases, job) = (Leases::default(), job());
        let lease = leases.hold(&job);
        assert_eq!(leases.tokens(), [job.claim_token]);
        leases.cancel(job.claim_token);
        assert_eq!(lease.stop.requested(), Some(StopReason::Cancelled));
        drop(lease);
        assert_eq!(leases.tokens(), [] as [Uuid; 0]);
    }
}
