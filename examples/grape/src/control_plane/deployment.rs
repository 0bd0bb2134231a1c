//! Deployments: queued, looked up, approved, cancelled.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tendril_realtime::{col, watch::Query};
use uuid::Uuid;

use super::project::Project;
use crate::failure::{Failure, FailureKind, Result};

/// The columns of each contract: rights are per column, so they have to be named.
const COLUMNS: &str = "id,cluster_id,config_snapshot,status,phase,attempt,claimed_by,claimed_at,cancel_requested_at,\
                       created_at,started_at,finished_at,plan_summary,plan_sha256,approved_plan,approved_at,cost,cost_status,\
                       outputs,log_count,error_code,error_message";
/// What a table of many shows.
const SHORT_COLUMNS: &str = "id,cluster_id,config_snapshot,status,phase,attempt,claimed_at,created_at,started_at,finished_at,\
                             plan_summary,log_count,error_code";
/// What contract 3 adds.
const NEW_COLUMNS: &str = ",state_key,approval_comment,cancel_comment,approval_expires_at";

/// A row of `deployments`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Deployment {
    /// Made by the client that queues it.
    pub id: Uuid,
    /// Where it runs.
    pub cluster_id: Uuid,
    /// What it runs.
    pub config_snapshot: Value,
    /// `QUEUED`, `PROCESSING`, `SUCCESS`, `FAILED` or `CANCELLED`.
    pub status: String,
    /// Where a claimed one is, or where it ended.
    pub phase: Option<String>,
    /// How often it was claimed.
    pub attempt: i32,
    /// Name of the agent that claimed it.
    #[serde(default)]
    pub claimed_by: Option<String>,
    /// When the last attempt began, by the database's clock as all times here.
    #[serde(default)]
    pub claimed_at: Option<Timestamp>,
    /// When its cancellation was requested.
    #[serde(default)]
    pub cancel_requested_at: Option<Timestamp>,
    /// When it was queued.
    pub created_at: Timestamp,
    /// When the first attempt began.
    #[serde(default)]
    pub started_at: Option<Timestamp>,
    /// When it ended.
    #[serde(default)]
    pub finished_at: Option<Timestamp>,
    /// Counts of the plan: `add`, `change`, `remove` and others.
    #[serde(default)]
    pub plan_summary: Option<Map<String, Value>>,
    /// Digest of the plan that waits for approval.
    #[serde(default)]
    pub plan_sha256: Option<String>,
    /// Digest of the plan that was approved.
    #[serde(default)]
    pub approved_plan: Option<String>,
    /// When it was approved.
    #[serde(default)]
    pub approved_at: Option<Timestamp>,
    /// What it will cost, by infracost.
    #[serde(default)]
    pub cost: Option<Value>,
    /// What `cost` is worth.
    #[serde(default)]
    pub cost_status: Option<String>,
    /// What the template put out, without the sensitive values.
    #[serde(default)]
    pub outputs: Option<Map<String, Value>>,
    /// How many chunks of log the last attempt has; written with the final status.
    pub log_count: i64,
    /// The code of its failure.
    #[serde(default)]
    pub error_code: Option<String>,
    /// Why it failed, in a sentence.
    #[serde(default)]
    pub error_message: Option<String>,
    /// The stack it works on.
    #[serde(default)]
    pub state_key: Option<String>,
    /// The comment of the approval.
    #[serde(default)]
    pub approval_comment: Option<String>,
    /// The comment of the rejection.
    #[serde(default)]
    pub cancel_comment: Option<String>,
    /// Until when the plan can be approved.
    #[serde(default)]
    pub approval_expires_at: Option<Timestamp>,
}

impl Deployment {
    /// Whether no more will happen.
    pub fn is_finished(&self) -> bool {
        matches!(self.status.as_str(), "SUCCESS" | "FAILED" | "CANCELLED")
    }

    /// Whether its plan waits for a person.
    pub fn waits_for_approval(&self) -> bool {
        self.status == "PROCESSING"
            && self.phase.as_deref() == Some("APPROVAL")
            && self.plan_sha256.is_some()
            && self.approved_plan.is_none()
            && self.cancel_requested_at.is_none()
    }

    /// Its status or phase.
    pub fn state(&self) -> &str {
        match (self.status.as_str(), self.phase.as_deref()) {
            ("PROCESSING", Some(phase)) => phase,
            (status, _) => status,
        }
    }

    /// What it runs: a template, or a repository.
    pub fn template(&self) -> String {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let git = || {
            let source = self.config_snapshot.get("source")?;
            let path = source.get("path").and_then(text).map_or_else(String::new, |path| format!("//{path}"));
            Some(format!("{}{path}", source.get("git").and_then(text)?))
        };
        self.config_snapshot.get("template").and_then(text).or_else(git).unwrap_or_default()
    }

    /// The stack's name, where it was given one.
    pub fn stack(&self) -> Option<&str> {
        self.config_snapshot.get("stack").and_then(Value::as_str)
    }

    /// `plan`, `apply` or `destroy`.
    pub fn action(&self) -> &str {
        self.config_snapshot.get("action").and_then(Value::as_str).unwrap_or("apply")
    }

    /// The counts of its plan as Terraform prints them; nothing where there is no plan.
    pub fn summary(&self) -> Option<String> {
        let counts = self.plan_summary.as_ref()?;
        let count = |name: &str| counts.get(name).and_then(Value::as_u64).unwrap_or(0);
        let mut parts = vec![
            format!("{} to add", count("add")),
            format!("{} to change", count("change")),
            format!("{} to destroy", count("remove")),
        ];
        for (name, message) in [
            ("import", "to import"),
            ("move", "to move"),
            ("forget", "to forget"),
            ("drift", "changed outside"),
        ] {
            if count(name) > 0 {
                parts.push(format!("{} {message}", count(name)));
            }
        }
        Some(parts.join(", "))
    }

    /// The code of its failure, where that is more specific than the status.
    pub fn reason(&self) -> Option<&str> {
        self.error_code.as_deref().filter(|code| *code != self.status)
    }

    /// The exit code for its end.
    ///
    /// # Errors
    /// For any end but success.
    pub fn outcome(&self) -> Result<()> {
        match self.status.as_str() {
            "SUCCESS" => Ok(()),
            "CANCELLED" => {
                Err(Failure::new(FailureKind::DeploymentCancelled, "The deployment was cancelled.").shown())
            }
            _ => Err(Failure::new(FailureKind::DeploymentFailed, "The deployment failed.").shown()),
        }
    }
}

/// The columns that this database has.
async fn columns(project: &Project, columns: &str) -> Result<String> {
    let more = if project.has_stacks().await? { NEW_COLUMNS } else { "" };
    Ok(format!("{columns}{more}"))
}

/// One deployment, to watch.
///
/// # Errors
/// What the project answers.
pub async fn query_one(project: &Project, id: Uuid) -> Result<Query> {
    Ok(Query::table("deployments").select(columns(project, COLUMNS).await?).immutable_eq("id", id))
}

/// The deployments since a time, to watch.
pub fn query_since(since: Timestamp, cluster: Option<Uuid>) -> Query {
    let query = Query::table("deployments").select(SHORT_COLUMNS).gt("created_at", since);
    match cluster {
        Some(cluster) => query.immutable_eq("cluster_id", cluster),
        None => query,
    }
}

/// The newest deployments.
///
/// # Errors
/// What the project answers.
pub async fn newest(project: &Project, cluster: Option<Uuid>, limit: u64) -> Result<Vec<Deployment>> {
    let rows = project.rest().from("deployments").select(&columns(project, SHORT_COLUMNS).await?);
    let rows = match cluster {
        Some(cluster) => rows.eq("cluster_id", cluster),
        None => rows,
    };
    Ok(rows.order(col("created_at").desc()).limit(limit).rows().await?)
}

/// The deployment with this id, or with an id that begins like this.
///
/// # Errors
/// [`FailureKind::NotFound`]; [`FailureKind::Usage`] for what is no id, or the beginning of several.
pub async fn find(project: &Project, requested: &str) -> Result<Deployment> {
    let (first, last) = id_range(requested)?;
    let rows = project.rest().from("deployments").select(&columns(project, COLUMNS).await?);
    let mut found: Vec<Deployment> =
        rows.gte("id", first).lte("id", last).order(col("created_at").desc()).limit(3).rows().await?;
    match found.len() {
        1 => Ok(found.remove(0)),
        0 => Err(Failure::new(FailureKind::NotFound, format!("You have no deployment `{requested}`."))
            .next("`grape deployments` lists the newest; `grape whoami` shows who you are.")),
        _ => Err(Failure::new(FailureKind::Usage, format!("Several deployments begin with `{requested}`."))
            .next("Give more digits of the id.")),
    }
}

/// The least and the greatest id that begin with these digits.
fn id_range(requested: &str) -> Result<(Uuid, Uuid)> {
    let digits: String = requested.trim().chars().filter(|c| *c != '-').collect();
    let fits = digits.len() >= 4 && digits.len() <= 32 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    let filled =
        |fill: char| Uuid::try_parse(&format!("{digits}{}", fill.to_string().repeat(32 - digits.len())));
    if fits && let (Ok(first), Ok(last)) = (filled('0'), filled('f')) {
        return Ok((first, last));
    }
    Err(Failure::new(FailureKind::Usage, format!("`{requested}` is not the id of a deployment.")).next(
        "An id looks like 083451eb-0da1-4298-9da9-a3bfccf34238; its first digits, four at least, will do.",
    ))
}

/// Queues a deployment. The id is made by the caller, who can so listen before anything happens.
///
/// # Errors
/// Errors of the database.
pub async fn queue(project: &Project, id: Uuid, cluster: Uuid, snapshot: &Value) -> Result<()> {
    let row = json!({ "id": id, "cluster_id": cluster, "config_snapshot": snapshot });
    Ok(project.rest().from("deployments").insert(&row).execute().await.map(drop)?)
}

/// Approves the plan with this digest.
///
/// # Errors
/// Errors of the database: another plan waits by now, or none.
pub async fn approve(project: &Project, row: &Deployment, comment: Option<&str>) -> Result<()> {
    let mut change = json!({ "approved_plan": row.plan_sha256 });
    if let Some(comment) = comment {
        comment_needs_contract(project).await?;
        change["approval_comment"] = comment.into();
    }
    let update = project.rest().from("deployments").update(&change).eq("id", row.id).idempotent(true);
    match update.execute().await {
        Err(error) if error.code() == "TD005" => {
            Err(Failure::new(FailureKind::Refused, "That is not the plan that waits for approval any more.")
                .next(format!("Review it again: `grape plan {}`.", row.id))
                .caused_by(error))
        }
        other => Ok(other.map(drop)?),
    }
}

/// Requests the cancellation of a deployment. Harmless when it has ended.
///
/// # Errors
/// Errors of the database.
pub async fn cancel(project: &Project, id: Uuid, comment: Option<&str>) -> Result<()> {
    // Any time will do: the database sets its own.
    let mut change = json!({ "cancel_requested_at": "now" });
    if let Some(comment) = comment {
        comment_needs_contract(project).await?;
        change["cancel_comment"] = comment.into();
    }
    let update = project.rest().from("deployments").update(&change).eq("id", id).idempotent(true);
    Ok(update.execute().await.map(drop)?)
}

async fn comment_needs_contract(project: &Project) -> Result<()> {
    if project.has_stacks().await? {
        return Ok(());
    }
    let contract = project.contract().await?;
    Err(Failure::new(
        FailureKind::Refused,
        format!("The project's database has contract {contract}, which stores no comments."),
    )
    .next("Leave out -m, or apply the project's newer migrations: `supabase db push`."))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deployment(value: Value) -> Deployment {
        let mut row = json!({
            "id": Uuid::nil(), "cluster_id": Uuid::nil(), "config_snapshot": { "template": "hello" }, "status": "PROCESSING",
            "phase": "APPROVAL", "attempt": 1, "created_at": "2026-11-29T12:00:00Z", "log_count": 0, "plan_sha256": "ab",
        });
        if let (Some(row), Value::Object(value)) = (row.as_object_mut(), value) {
            row.extend(value);
        }
        serde_json::from_value(row).unwrap()
    }

    #[test]
    fn a_plan_waits_until_it_is_approved_or_rejected() {
        assert!(deployment(json!({})).waits_for_approval());
        assert!(!deployment(json!({ "approved_plan": "ab" })).waits_for_approval());
        assert!(!deployment(json!({ "cancel_requested_at": "2026-11-29T12:00:00Z" })).waits_for_approval());
        assert!(!deployment(json!({ "phase": "PLAN" })).waits_for_approval());
        assert!(!deployment(json!({ "status": "CANCELLED" })).waits_for_approval());
    }

    #[test]
    fn the_beginning_of_an_id_is_a_range_of_ids() {
        let (first, last) = id_range("083451EB-0d").unwrap();
        assert_eq!(first.to_string(), "083451eb-0d00-0000-0000-000000000000");
        assert_eq!(last.to_string(), "083451eb-0dff-ffff-ffff-ffffffffffff");
        for text in ["", "abc", "hello", "0834 51", &"a".repeat(33)] {
            assert_eq!(id_range(text).unwrap_err().kind(), FailureKind::Usage, "{text}");
        }
    }

    #[test]
    fn what_a_plan_does_beside_changes_is_said_too() {
        let row = deployment(json!({ "plan_summary": { "add": 1, "change": 0, "remove": 2, "import": 3 } }));
        assert_eq!(row.summary().unwrap(), "1 to add, 0 to change, 2 to destroy, 3 to import");
    }

    #[test]
    fn a_template_from_git_is_named_by_its_address() {
        let git = json!({ "config_snapshot": { "source": { "git": "https://a.co/b.git", "path": "net" } } });
        assert_eq!(deployment(git).template(), "https://a.co/b.git//net");
    }
}
