//! The final status of a job, and who writes to its row.

use std::{io, path::Path, time::Duration};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tendril_realtime::{Error, ErrorKind, PostgrestError, Rest};
use tokio::time::sleep;
use uuid::Uuid;

use crate::{
    control_plane::{
        auth::session,
        backoff::Backoff,
        contract::known,
        revocation::{is_revoked, revoked},
    },
    job::{Changes, CostStatus, ErrorCode, Fields, JobResult, Json, Phase, Status},
    os::files::private_file,
};

/// The deployment and the claim that all writes carry.
#[derive(Clone, Debug)]
pub(crate) struct Reporter {
    rest: Rest,
    pub(super) id: Uuid,
    claim_token: Uuid,
}

/// The end of a job, as it is stored: first on disk, then in the row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct FinalStatus {
    pub(crate) status: Status,
    pub(crate) error_code: Option<ErrorCode>,
    pub(crate) error_message: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) plan_summary: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cost: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cost_status: Option<CostStatus>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) outputs: Option<Json>,
    /// Which commit of a Git repository was run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) template_commit: Option<String>,
    /// Whether the whole plan was applied, whatever came after that.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) applied: bool,
    /// The program that ran it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) terraform_version: Option<String>,
    /// Known once the last chunk is stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) log_count: Option<u64>,
}

impl FinalStatus {
    /// Of a result, with what the run produced.
    pub(crate) fn new(result: &JobResult, changes: Option<Changes>, outputs: Option<Fields>) -> Self {
        let (error_code, error_message) = match result {
            JobResult::Success => (None, None),
            JobResult::Failed(failure) => (Some(failure.code), Some(failure.message.clone())),
            JobResult::Cancelled(message) => (Some(ErrorCode::Cancelled), Some(message.clone())),
        };
        Self {
            status: result.status(),
            error_code,
            error_message,
            plan_summary: changes.map(|changes| json!(changes)),
            cost: None,
            cost_status: None,
            outputs: outputs.map(Json::Object),
            template_commit: None,
            applied: false,
            terraform_version: None,
            log_count: None,
        }
    }

    /// With the estimate of this run, if there was one.
    pub(crate) fn with_cost(self, estimate: Option<(CostStatus, Value)>) -> Self {
        let (cost_status, cost) = estimate.unzip();
        Self { cost, cost_status, ..self }
    }

    /// Saves it on disk until it is stored.
    pub(crate) fn save(&self, path: &Path) -> io::Result<()> {
        private_file(path, &serde_json::to_vec(self)?)
    }

    /// What a previous run stored.
    pub(crate) fn load(path: &Path) -> io::Result<Self> {
        Ok(serde_json::from_slice(&std::fs::read(path)?)?)
    }
}

/// What became of a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Written {
    /// The row has it.
    Stored,
    /// The claim is not ours any more, or the row is gone; the database's message.
    Refused(String),
    /// The cluster was revoked: nothing of it is stored any more.
    Revoked,
}

impl Reporter {
    /// For a job that was won.
    pub(crate) const fn new(rest: Rest, id: Uuid, claim_token: Uuid) -> Self {
        Self { rest, id, claim_token }
    }

    /// Stores the end: tries until the database takes or refuses it.
    pub(crate) async fn finish(&self, end: &FinalStatus) -> Written {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(15));
        let Json::Object(mut body) = Json::of(end) else { return Written::Refused("it is empty".to_owned()) };
        loop {
            match self.write(body.clone()).await {
                Ok(written) => return written,
                Err(error)
                    if is_about_content(&error)
                        && let Some(field) = leave_out(&mut body) =>
                {
                    tracing::error!(error = %format_args!("{error:#}"), field, "the final status is refused for its content: it is sent without that");
                }
                Err(error) => {
                    tracing::warn!(error = %format_args!("{error:#}"), "the final status is not stored yet: trying again");
                    sleep(backoff.after(&error)).await;
                }
            }
        }
    }

    /// One PATCH with the claim, without what a database of an earlier contract has no column for. Errors: it may be tried
    /// again.
    pub(super) async fn write(&self, mut body: Fields) -> Result<Written, Error> {
        body.insert("claim_token".to_owned(), Json::of(&self.claim_token));
        body = body.into_iter().map(|(name, value)| (name, value.without_nul())).collect();
        loop {
            match self.patch(&body).await {
                Err(error) if error.postgrest().and_then(|api| missing_column(api, &mut body)).is_some() => {
                    tracing::debug!(error = %format_args!("{error:#}"), "the database is older than this agent: written without that column");
                }
                written => return written,
            }
        }
    }

    async fn patch(&self, body: &Fields) -> Result<Written, Error> {
        #[derive(Deserialize)]
        struct Row {
            #[serde(default, deserialize_with = "known")]
            status: Option<Status>,
            #[serde(default, deserialize_with = "known")]
            phase: Option<Phase>,
        }
        // The same write twice changes nothing, so that the library may repeat it.
        let request = self
            .rest
            .from("deployments")
            .update(body)
            .eq("id", self.id)
            .select("status,phase")
            .idempotent(true);
        match request.rows::<Row>().await.map(|rows| rows.into_iter().next()) {
            Ok(None) if revoked(&self.rest).await? => Ok(Written::Revoked),
            Ok(None) => Ok(Written::Refused("there is no such deployment".to_owned())),
            // Progress of a job that was ended while we could not reach the database. The true result of an apply is still accepted.
            Ok(Some(Row { status: Some(ended @ (Status::Failed | Status::Cancelled)), phase }))
                if !body.contains_key("status") && !phase.is_none_or(Phase::changes_the_world) =>
            {
                Ok(Written::Refused(format!("the deployment is {} meanwhile", ended.as_str())))
            }
            Ok(Some(_)) => Ok(Written::Stored),
            Err(error) if is_revoked(&error) => Ok(Written::Revoked),
            Err(error) => match error.kind() {
                ErrorKind::Postgrest(api) if matches!(api.code.as_str(), "TD001" | "TD002") => {
                    Ok(Written::Refused(api.message.clone()))
                }
                _ if session::is_claim_over(&error) => Ok(Written::Refused(error.to_string())),
                _ => Err(error),
            },
        }
    }
}

/// Whether the database refuses what is written, and not that or when it is written.
pub(super) fn is_about_content(error: &Error) -> bool {
    error.postgrest().is_some_and(|api| {
        let sqlstate = api.code.len() == 5 && (api.code.starts_with("22") || api.code.starts_with("23"));
        api.status == 413 || sqlstate || api.code == "PGRST102"
    })
}

/// The message where the database refuses a job's own message.
const UNSTORABLE: &str = "What happened cannot be stored here: see the log.";

/// Makes a body smaller that is refused for its content: the least important of what it has goes. None: nothing is left to
/// leave out, and the status itself is never left out.
pub(super) fn leave_out(fields: &mut Fields) -> Option<&'static str> {
    for field in ["outputs", "cost", "plan_summary"] {
        if fields.remove(field).is_some_and(|value| value != Json::Null) {
            if field == "cost" {
                // A status without its figures would claim what nobody can see.
                fields.remove("cost_status");
            }
            return Some(field);
        }
    }
    let message = fields
        .get_mut("error_message")
        .filter(|message| message.as_text().is_some_and(|text| text != UNSTORABLE))?;
    *message = Json::String(UNSTORABLE.to_owned());
    Some("error_message")
}

/// Takes a field out of a body that, according to PostgREST, the table has no column for, and returns it. What every contract has
/// stays: a write without it would mean something else.
fn missing_column(api: &PostgrestError, fields: &mut Fields) -> Option<Json> {
    const ALWAYS: [&str; 4] = ["claim_token", "status", "phase", "log_count"];
    let column = (api.code == "PGRST204").then(|| api.message.split('\'').nth(1)).flatten()?;
    if ALWAYS.contains(&column) {
        return None;
    }
    fields.remove(column)
}

#[cfg(test)]
#[path = "final_status_tests.rs"]
mod tests;
