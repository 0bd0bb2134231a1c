//! The claims that this agent holds, and what the control plane says about them.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde::Deserialize;
use uuid::Uuid;

use crate::{
    contract::known,
    job::{Job, Status},
    stop::{Stop, StopReason},
};

/// Every claim of this agent. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Leases {
    held: Arc<Mutex<HashMap<Uuid, Stop>>>,
}

/// One held claim; given back when dropped.
#[derive(Debug)]
pub(crate) struct Lease {
    leases: Leases,
    claim_token: Uuid,
    /// How the job learns that it must end.
    pub(crate) stop: Stop,
}

/// What a heartbeat answers about one claim.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct ClaimState {
    /// The claim.
    pub(crate) claim_token: Uuid,
    /// Whether the database still counts it as this agent's running job.
    pub(crate) mine: bool,
    /// Whether the user asked to cancel it.
    #[serde(default)]
    pub(crate) cancel_requested: bool,
    /// The job's status; none where no job has this claim any more, or where it is one of a later contract.
    #[serde(default, deserialize_with = "known")]
    pub(crate) status: Option<Status>,
}

impl Leases {
    /// Holds the claim of a job that was won.
    pub(crate) fn hold(&self, job: &Job) -> Lease {
        let stop = Stop::default();
        self.held().insert(job.claim_token, stop.clone());
        Lease { leases: self.clone(), claim_token: job.claim_token, stop }
    }

    /// The claims to tell the database about.
    pub(crate) fn tokens(&self) -> Vec<Uuid> {
        self.held().keys().copied().collect()
    }

    /// Passes on what the database said.
    pub(crate) fn learn(&self, claims: &[ClaimState]) {
        for claim in claims {
            let Some(stop) = self.held().get(&claim.claim_token).cloned() else { continue };
            if let Some(reason) = claim.verdict() {
                stop.request(reason);
            }
        }
    }

    /// The user asked to cancel the job of this claim, if it is one of ours.
    pub(crate) fn cancel(&self, claim_token: Uuid) {
        if let Some(stop) = self.held().get(&claim_token) {
            stop.request(StopReason::Cancelled);
        }
    }

    /// Ends every job.
    pub(crate) fn stop_all(&self, reason: StopReason) {
        self.held().values().for_each(|stop| stop.request(reason));
    }

    /// Cuts every job's patience short.
    pub(crate) fn hasten_all(&self) {
        self.held().values().for_each(Stop::hasten);
    }

    fn held(&self) -> MutexGuard<'_, HashMap<Uuid, Stop>> {
        // Nothing that holds the lock can leave the map in halves.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.leases.held().remove(&self.claim_token);
    }
}

impl ClaimState {
    /// Whether the job must end, and why.
    fn verdict(&self) -> Option<StopReason> {
        match (self.mine, self.cancel_requested, self.status) {
            (true, true, _) | (false, _, Some(Status::Cancelled)) => Some(StopReason::Cancelled),
            // It was given up as lost while we could not be heard, and handed to nobody: the true result is still welcome.
            (true, false, _) | (false, _, Some(Status::Failed)) => None,
            (false, _, _) => Some(StopReason::Fenced),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn after(answer: &Value) -> Option<StopReason> {
        let leases = Leases::default();
        let job = Job { id: Uuid::nil(), attempt: 1, claim_token: Uuid::new_v4(), config: Value::Null };
        let lease = leases.hold(&job);
        let mut answer = answer.clone();
        answer["claim_token"] = json!(job.claim_token);
        leases.learn(&[serde_json::from_value(answer).unwrap()]);
        lease.stop.requested()
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
        let given_up = json!({"mine": false, "cancel_requested": false, "status": "FAILED"});
        assert_eq!(after(&given_up), None);
    }

    #[test]
    fn a_claim_is_told_until_it_is_dropped() {
        let leases = Leases::default();
        let job = Job { id: Uuid::nil(), attempt: 1, claim_token: Uuid::new_v4(), config: Value::Null };
        let lease = leases.hold(&job);
        assert_eq!(leases.tokens(), [job.claim_token]);
        leases.cancel(job.claim_token);
        assert_eq!(lease.stop.requested(), Some(StopReason::Cancelled));
        drop(lease);
        assert_eq!(leases.tokens(), [] as [Uuid; 0]);
    }
}
