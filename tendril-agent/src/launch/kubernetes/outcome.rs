//! What becomes of a run whose executor died: only this dispatcher knows, as nothing of it is left.
//!
//! Before the apply began the deployment is queued again by the database, once, unless it would end in the same way. In the
//! apply the row is `UNKNOWN` for as long as the executor may run on, and says what happened.

use std::time::Duration;

use serde::Deserialize;
use serde_json::json;
use tendril_realtime::Rest;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::{
    control_plane::{Backoff, FinalStatus, Reporter, Written, contract::known},
    job::{ErrorCode, Failure, JobResult, Phase, Status},
    launch::{
        attempt_file::AttemptId,
        kubernetes::{claims::Claims, death::Death},
    },
    telemetry,
};

/// A deployment is queued again once; the database counts.
const ATTEMPTS: i32 = 2;
/// What an executor begins with that was asked to stop, and cannot know why.
const UNEXPLAINED: &str = "The agent was shut down";
/// Between two looks whether a run that nobody sees has ended.
const LOOK_AT_END: Duration = Duration::from_secs(3);
/// And once it is clear that this takes long.
const LOOK_LATER: Duration = Duration::from_secs(15);
/// How long the database may take to give up a run in its apply that nobody hears of, and somewhat more.
const GIVEN_UP_WITHIN: Duration = Duration::from_secs(13 * 60);

/// Where a run was.
#[derive(Clone, Debug, Deserialize)]
struct Row {
    #[serde(default, deserialize_with = "known")]
    status: Option<Status>,
    #[serde(default, deserialize_with = "known")]
    phase: Option<Phase>,
    error_message: Option<String>,
}

/// Writes what the death of a run's executor means; answers whether it was counted, now or by an earlier dispatcher.
pub(crate) async fn death(
    rest: &Rest,
    claims: &Claims,
    id: AttemptId,
    claim_token: Uuid,
    death: &Death,
) -> bool {
    tracing::error!(deployment = %id.deployment_id, attempt = id.attempt, "{}", death.sentence);
    let Some(Row { phase, error_message, .. }) = running(rest, id, claim_token).await else { return false };
    // An earlier dispatcher may have said, and counted, it already.
    if !error_message.is_some_and(|said| said.starts_with(&death.sentence)) {
        death.count();
    }
    let is_applying = phase.is_some_and(Phase::changes_the_world);
    let failure = match (is_applying, death.repeats_as) {
        (true, code) if death.is_certain => {
            let text = format!(
                "{} This was during the apply: what it changed last may be missing in the state. Plan again, and compare. A lock that it left on the state is removed by the next run of its stack.",
                death.sentence
            );
            Failure::new(code.unwrap_or(ErrorCode::AgentLost), text)
        }
        // It may run on where nobody sees it. The database says UNKNOWN once its lease is over, and takes its late result.
        (true, _) => {
            claims.say(id, claim_token, Some(&death.sentence)).await;
            return true;
        }
        (false, Some(code)) => Failure::new(code, death.sentence.clone()),
        (false, None) if id.attempt >= ATTEMPTS => {
            Failure::new(ErrorCode::AgentLost, format!("{} It was the second attempt.", death.sentence))
        }
        // Once its lease is over the database queues it again.
        (false, None) => {
            claims.say(id, claim_token, Some(&death.sentence)).await;
            return true;
        }
    };
    finish(rest, id, claim_token, &JobResult::Failed(failure)).await;
    true
}

/// Waits for the end of a run that may go on where nobody sees it, and adds why it was asked to stop, or is not heard of; answers whether
/// it added that to its end.
pub(crate) async fn amend_within(
    claims: &Claims,
    id: AttemptId,
    claim_token: Uuid,
    why: &Death,
    grace: Duration,
) -> bool {
    let begun = Instant::now();
    while let Some(row) = running(claims.rest(), id, claim_token).await {
        explain_silence(claims, id, claim_token, &row, &why.sentence).await;
        if begun.elapsed() >= grace.max(GIVEN_UP_WITHIN) {
            return false;
        }
        sleep(if begun.elapsed() < Duration::from_secs(60) { LOOK_AT_END } else { LOOK_LATER }).await;
    }
    amend(claims.rest(), id, claim_token, why).await
}

/// Whether the row of a run that nobody sees is over, or another's. If it is not, and the database found that nobody extends its lease,
/// the row says why.
pub(crate) async fn is_over_in_silence(claims: &Claims, id: AttemptId, claim_token: Uuid, why: &str) -> bool {
    match row(claims.rest(), id, claim_token).await {
        Ok(Some(row)) => {
            explain_silence(claims, id, claim_token, &row, why).await;
            false
        }
        Ok(None) => true,
        Err(_) => false,
    }
}

/// What the database says of a run that it does not hear of is that its agent is silent. The cause goes before that, once.
async fn explain_silence(claims: &Claims, id: AttemptId, claim_token: Uuid, row: &Row, why: &str) {
    let said = row.error_message.as_deref().unwrap_or_default();
    if row.phase == Some(Phase::Unknown) && !said.starts_with(why) {
        claims.say(id, claim_token, Some(format!("{why} {said}").trim_end())).await;
    }
}

/// Adds to the end of a run why it was asked to stop, once; answers whether it did. Nothing depends on it: what cannot be written is not
/// written.
pub(crate) async fn amend(rest: &Rest, id: AttemptId, claim_token: Uuid, why: &Death) -> bool {
    #[derive(Deserialize)]
    struct Ended {
        error_message: Option<String>,
    }
    let of_claim = |error: &tendril_realtime::Error| {
        tracing::debug!(deployment = %id.deployment_id, error = %format_args!("{error:#}"), "why a run was stopped cannot be written");
    };
    let request = rest
        .from("deployments")
        .select("error_message")
        .eq("id", id.deployment_id)
        .eq("claim_token", claim_token)
        .eq("status", "FAILED")
        .eq("error_code", "AGENT_STOPPED");
    let said = match request.rows::<Ended>().await {
        Ok(rows) => rows.into_iter().next().and_then(|row| row.error_message),
        Err(error) => {
            of_claim(&error);
            return false;
        }
    };
    // Once: another dispatcher may have seen more of it.
    let Some(said) = said.filter(|said| said.starts_with(UNEXPLAINED)) else { return false };
    tracing::warn!(deployment = %id.deployment_id, attempt = id.attempt, "{}", why.sentence);
    let said = said.replacen(UNEXPLAINED, "It was stopped", 1);
    let code = why.repeats_as.unwrap_or(ErrorCode::AgentStopped);
    let failure = Failure::new(code, format!("{} {said}", why.sentence));
    let request = rest
        .from("deployments")
        .update(&json!({
            "status": "FAILED", "error_code": failure.code, "error_message": failure.message, "claim_token": claim_token,
        }))
        .eq("id", id.deployment_id)
        .eq("status", "FAILED")
        .eq("error_code", "AGENT_STOPPED")
        .idempotent(true);
    match request.execute().await {
        Ok(_) => true,
        Err(error) => {
            of_claim(&error);
            false
        }
    }
}

/// Stores the end of a run that has no executor.
pub(crate) async fn finish(rest: &Rest, id: AttemptId, claim_token: Uuid, result: &JobResult) {
    let end = FinalStatus::new(result, None, None);
    let written = Reporter::new(rest.clone(), id.deployment_id, claim_token).finish(&end).await;
    if written == Written::Stored {
        metrics::counter!(telemetry::JOBS_ENDED, "status" => end.status.as_str()).increment(1);
    }
}

/// The row of a run; none, if it is over, or another's.
async fn running(rest: &Rest, id: AttemptId, claim_token: Uuid) -> Option<Row> {
    let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));
    loop {
        match row(rest, id, claim_token).await {
            Ok(row) => return row,
            Err(error) => {
                tracing::debug!(error = %format_args!("{error:#}"), "a run's row cannot be read yet");
                sleep(backoff.after(&error)).await;
            }
        }
    }
}

/// The same, asked once.
async fn row(rest: &Rest, id: AttemptId, claim_token: Uuid) -> Result<Option<Row>, tendril_realtime::Error> {
    let request = rest
        .from("deployments")
        .select("status,phase,error_message")
        .eq("id", id.deployment_id)
        .eq("claim_token", claim_token);
    let rows = request.rows::<Row>().await?;
    Ok(rows.into_iter().find(|row| row.status == Some(Status::Processing)))
}
