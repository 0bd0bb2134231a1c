//! Claims a QUEUED row, unless another agent was first: one conditional PATCH, and a read of the row where its answer was lost.

use std::time::Duration;

use serde::Deserialize;
use serde_json::json;
use tendril_realtime::{Error, ErrorKind, Rest};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::{
    control_plane::{backoff::Backoff, contract::known},
    job::{ConfigSnapshot, Job, Status},
    os::failpoint,
    process::Drain,
};

/// The columns of a claim.
const COLUMNS: &str = "status,claim_token,attempt,config_snapshot";
/// How long the row of an unanswered claim is read. After it the lease is over, and the row goes back to the queue by itself.
const REREAD_LIMIT: Duration = Duration::from_secs(60);

/// How long an abandoned request may still reach the database.
const ON_ITS_WAY: Duration = Duration::from_secs(5);

/// What became of a claim.
#[derive(Debug)]
pub(crate) enum Claim {
    /// The row is ours.
    Won(Job),
    /// Another agent has it, or it is gone.
    Lost,
    /// It still waits, and is not next in its stack: another deployment of the stack is older or runs, or another agent holds
    /// the only copy of its state.
    OutOfTurn(Error),
}

/// `errcode` of a claim that is out of turn.
const OUT_OF_TURN: &str = "TD006";

#[derive(Deserialize)]
struct Row {
    #[serde(deserialize_with = "known")]
    status: Option<Status>,
    claim_token: Option<Uuid>,
    attempt: i32,
    config_snapshot: ConfigSnapshot,
}

/// Tries to take one row. Once the drain has begun no claim is sent any more, not even again. Errors: it was not taken,
/// and may be tried again.
pub(crate) async fn claim(rest: &Rest, id: Uuid, agent_name: &str, drain: &Drain) -> Result<Claim, Error> {
    if drain.has_begun() {
        return Ok(Claim::Lost);
    }
    let claim_token = Uuid::new_v4();
    let wanted = json!({
        "status": Status::Processing,
        "claim_token": claim_token,
        "claimed_by": agent_name,
    });
    let request = rest.from("deployments").update(&wanted).eq("id", id).eq("status", Status::Queued.as_str());
    let answer = tokio::select! {
        biased;
        answer = request.select(COLUMNS).rows::<Row>() => answer,
        // The transport would repeat what was not carried out. What is on its way may be carried out still.
        () = drain.begun() => return reread_once(rest, id, claim_token).await,
    };
    failpoint!("claim.answered");
    match answer {
        Ok(rows) => Ok(evaluate(id, claim_token, rows)),
        Err(error) if error.code() == OUT_OF_TURN => Ok(Claim::OutOfTurn(error)),
        Err(error) if may_have_happened(&error) => {
            tracing::warn!(deployment = %id, error = %format_args!("{error:#}"), "the answer to a claim was lost: checking whether it was won");
            reread(rest, id, claim_token, error).await
        }
        Err(error) => Err(error),
    }
}

/// Reads the row until an answer comes: only the row shows whether the PATCH was executed.
async fn reread(rest: &Rest, id: Uuid, claim_token: Uuid, lost: Error) -> Result<Claim, Error> {
    let give_up = Instant::now() + REREAD_LIMIT;
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
    loop {
        let answer = rest.from("deployments").select(COLUMNS).eq("id", id).rows::<Row>().await;
        match answer {
            // It was not carried out, and the row still waits.
            Ok(rows) if rows.iter().any(|row| row.status == Some(Status::Queued)) => return Err(lost),
            Ok(rows) => return Ok(evaluate(id, claim_token, rows)),
            Err(error) if Instant::now() >= give_up => return Err(error),
            Err(error) => sleep(backoff.after(&error)).await,
        }
    }
}

/// Reads the row for as long as an abandoned request can reach the database: won or not, it is not claimed again.
async fn reread_once(rest: &Rest, id: Uuid, claim_token: Uuid) -> Result<Claim, Error> {
    let give_up = Instant::now() + ON_ITS_WAY;
    loop {
        let last = Instant::now() >= give_up;
        match rest.from("deployments").select(COLUMNS).eq("id", id).rows::<Row>().await {
            Ok(rows) if last || rows.iter().all(|row| row.status != Some(Status::Queued)) => {
                return Ok(evaluate(id, claim_token, rows));
            }
            Err(error) if last => return Err(error),
            _ => sleep(Duration::from_millis(500)).await,
        }
    }
}

fn evaluate(id: Uuid, claim_token: Uuid, rows: Vec<Row>) -> Claim {
    let ours = |row: &Row| row.status == Some(Status::Processing) && row.claim_token == Some(claim_token);
    match rows.into_iter().find(ours) {
        Some(row) => Claim::Won(Job {
            id,
            attempt: row.attempt,
            claim_token,
            config: row.config_snapshot,
            state_key: None,
        }),
        None => Claim::Lost,
    }
}

/// Whether the PATCH may have been carried out although no good answer came.
fn may_have_happened(error: &Error) -> bool {
    match error.kind() {
        ErrorKind::Connect { .. } | ErrorKind::InvalidInput { .. } | ErrorKind::Token { .. } => false,
        ErrorKind::Postgrest(api) => api.status >= 500,
        _ => true,
    }
}

#[cfg(test)]
#[path = "claim_tests.rs"]
mod tests;
