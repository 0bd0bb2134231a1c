//! The approval of one plan in the database: whether a person approved it, and until when one may.
//!
//! Approvals arrive with live rows and with each heartbeat, which covers all claims at once. One more request is made when the
//! wait begins, and one at the moment at which the plan expires.

use std::time::Duration;

use serde::Deserialize;
use serde_json::json;
use tendril_realtime::{Error, Rest};

use crate::{
    control_plane::contract::known,
    job::{Job, Phase},
};

/// The longest that one request may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Nothing expires later than this. It bounds what is added to a clock.
const LONGEST: f64 = 366.0 * 24.0 * 3600.0;

/// What the database answers.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub(crate) struct ApprovalState {
    /// The digest of the plan that was approved.
    pub(crate) approved_plan: Option<String>,
    /// The phase in the row: that the plan waits may not be stored there yet.
    #[serde(default, deserialize_with = "known")]
    pub(crate) phase: Option<Phase>,
    /// Until the plan expires, by the database's clock; none: never.
    #[serde(default)]
    seconds_left: Option<f64>,
}

impl ApprovalState {
    /// Whether the plan cannot be approved any more.
    pub(crate) fn is_expired(&self) -> bool {
        self.approved_plan.is_none() && self.seconds_left.is_some_and(|left| left <= 0.0)
    }

    /// Until the plan expires; none: never.
    pub(crate) fn left(&self) -> Option<Duration> {
        let left = self.seconds_left.filter(|left| *left > 0.0)?;
        // A moment later, so that the database's clock is past it too.
        Some(Duration::from_secs_f64(left.min(LONGEST)) + Duration::from_millis(50))
    }
}

/// Reads it once. None: the database has an older contract, in which plans do not expire.
pub(crate) async fn approval_state(rest: &Rest, job: &Job) -> Result<Option<ApprovalState>, Error> {
    let arguments = json!({"deployment_id": job.id, "claim_token": job.claim_token});
    let request = rest.rpc("agent_approval", &arguments).timeout(TIMEOUT).idempotent(true);
    match request.value::<ApprovalState>().await {
        Ok(approval) => Ok(Some(approval)),
        Err(error) if error.postgrest().is_some_and(|api| api.code == "PGRST202" || api.status == 404) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
