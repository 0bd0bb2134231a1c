//! Whether the plan of a run is approved: whether `approved_plan` in its row is the plan's digest.

use std::time::Duration;

use serde::Deserialize;
use tendril_realtime::{Error, Rest};
use tokio::time::sleep;

use crate::{
    control_plane::{ApprovalState, Backoff, approval_state, contract::known},
    job::{Job, Phase, Status},
    process::{StopReason, StopSignal},
};

/// The state of a plan's approval in its row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Approval {
    /// It may be applied.
    Approved,
    /// This plan is not approved. With the time that is left for it; none where it never expires.
    Open(Option<Duration>),
    /// It was not approved in time.
    Expired,
    /// The run is to stop.
    Stopped,
}

/// Reads the row, until there is an answer or the run must stop. A cancel in the row stops the run here.
pub(crate) async fn approval_of(rest: &Rest, job: &Job, plan: &str, stop: &StopSignal) -> Approval {
    let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(10));
    loop {
        let answer = tokio::select! {
            biased;
            () = stop.wait() => return Approval::Stopped,
            answer = poll(rest, job, plan) => answer,
        };
        let pause = match answer {
            Ok(Answer::Is(approval)) => return approval,
            Ok(Answer::Stop(reason)) => {
                stop.request(reason);
                return Approval::Stopped;
            }
            Ok(Answer::NotYet) => backoff.next(None),
            Err(error) => {
                tracing::warn!(error = %format_args!("{error:#}"), "whether the plan is approved cannot be read yet");
                backoff.after(&error)
            }
        };
        tokio::select! {
            () = stop.wait() => return Approval::Stopped,
            () = sleep(pause) => {}
        }
    }
}

enum Answer {
    Is(Approval),
    Stop(StopReason),
    /// The row does not show yet that the plan waits.
    NotYet,
}

async fn poll(rest: &Rest, job: &Job, plan: &str) -> Result<Answer, Error> {
    #[derive(Deserialize)]
    struct Row {
        #[serde(default, deserialize_with = "known")]
        status: Option<Status>,
        #[serde(default)]
        approved_plan: Option<String>,
        #[serde(default)]
        cancel_requested_at: Option<String>,
    }
    let request =
        rest.from("deployments").select("status,approved_plan,cancel_requested_at").eq("id", job.id);
    let rows = request.eq("claim_token", job.claim_token).rows::<Row>().await?;
    let is_approved = |approved: Option<&str>| approved == Some(plan);
    match rows.into_iter().next() {
        None | Some(Row { status: Some(Status::Failed | Status::Cancelled | Status::Success), .. }) => {
            return Ok(Answer::Stop(StopReason::Fenced));
        }
        Some(row) if row.cancel_requested_at.is_some() => return Ok(Answer::Stop(StopReason::Cancelled)),
        Some(row) if is_approved(row.approved_plan.as_deref()) => return Ok(Answer::Is(Approval::Approved)),
        Some(_) => {}
    }
    Ok(match approval_state(rest, job).await? {
        None => Answer::Is(Approval::Open(None)),
        Some(state) if is_approved(state.approved_plan.as_deref()) => Answer::Is(Approval::Approved),
        Some(ApprovalState { phase: Some(phase), .. })
            if phase != Phase::Approval && !phase.changes_the_world() =>
        {
            Answer::NotYet
        }
        Some(state) if state.is_expired() => Answer::Is(Approval::Expired),
        Some(state) => Answer::Is(Approval::Open(state.left())),
    })
}
