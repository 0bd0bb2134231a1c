//! What the database says about the approval of one plan: whether a person approved it, and until when one may.
//!
//! Approvals arrive with live rows and with each heartbeat, which asks for all claims at once. One request more is made when the
//! wait begins, and one at the moment at which the plan expires.

use std::time::Duration;

use serde::Deserialize;
use serde_json::json;
use tendril_realtime::{Error, Rest};
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until},
};

use crate::{
    control_plane::{
        backoff::{Backoff, around},
        contract::known,
    },
    job::{spec::Job, status::Phase},
};

/// The longest that one request may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Between two requests to a database of the contract before, whose heartbeat says nothing of approvals.
const POLL: Duration = Duration::from_secs(20);
/// Nothing expires later than this. It bounds what is added to a clock.
const LONGEST: f64 = 366.0 * 24.0 * 3600.0;

/// What the database answers.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
struct Approval {
    approved_plan: Option<String>,
    /// What the row says: that the plan waits may be on its way to it.
    #[serde(default, deserialize_with = "known")]
    phase: Option<Phase>,
    /// Until the plan expires, by the database's clock; none: never.
    #[serde(default)]
    seconds_left: Option<f64>,
}

/// Passes on the plan that the database says is approved, and returns once none was in time: then none can be any more. Where a
/// plan never expires it does not return.
pub(crate) async fn expired(rest: &Rest, job: &Job, approved: &watch::Sender<Option<String>>) {
    let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(15));
    loop {
        let asked = Instant::now();
        match ask(rest, job).await {
            Ok(Some(Approval { approved_plan: Some(plan), .. })) => {
                approved.send_replace(Some(plan));
                return std::future::pending().await;
            }
            // The row does not say yet that the plan waits.
            Ok(Some(Approval { phase: Some(phase), .. }))
                if phase != Phase::Approval && !phase.changes_the_world() =>
            {
                sleep(backoff.next(None)).await;
            }
            Ok(Some(Approval { seconds_left: None, .. })) => return std::future::pending().await,
            Ok(Some(Approval { seconds_left: Some(left), .. })) if left <= 0.0 => return,
            Ok(Some(Approval { seconds_left: Some(left), .. })) => {
                backoff.reset();
                // A moment later, so that the database's clock is past it too.
                let left = Duration::from_secs_f64(left.min(LONGEST)) + Duration::from_millis(50);
                sleep_until(asked + left).await;
            }
            Ok(None) => poll(rest, job, approved).await,
            Err(error) => {
                tracing::debug!(error = %format_args!("{error:#}"), "whether the plan is approved cannot be asked now");
                sleep(backoff.after(&error)).await;
            }
        }
    }
}

/// None: the database is of the contract before.
async fn ask(rest: &Rest, job: &Job) -> Result<Option<Approval>, Error> {
    let arguments = json!({"deployment_id": job.id, "claim_token": job.claim_token});
    let request = rest.rpc("agent_approval", &arguments).timeout(TIMEOUT).idempotent(true);
    match request.value::<Approval>().await {
        Ok(approval) => Ok(Some(approval)),
        Err(error) if error.postgrest().is_some_and(|api| api.code == "PGRST202" || api.status == 404) => {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Asks once in the way of the contract before, and waits until the next time.
async fn poll(rest: &Rest, job: &Job, approved: &watch::Sender<Option<String>>) {
    let request = rest.from("deployments").select("approved_plan").eq("id", job.id);
    match request.eq("claim_token", job.claim_token).timeout(TIMEOUT).rows::<Approval>().await {
        Ok(rows) => {
            if let Some(plan) = rows.into_iter().find_map(|row| row.approved_plan) {
                approved.send_replace(Some(plan));
            }
        }
        Err(error) => {
            tracing::debug!(error = %format_args!("{error:#}"), "whether the plan is approved cannot be asked now");
        }
    }
    sleep(around(POLL)).await;
}
