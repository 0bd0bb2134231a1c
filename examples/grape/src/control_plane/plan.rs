//! A plan as rows: what would change, attribute by attribute.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{deployment::Deployment, project::Project};
use crate::failure::Result;

/// What happens to one resource: a row of `deployment_changes`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Change {
    /// Its place in the plan.
    pub position: i64,
    /// The resource.
    pub address: String,
    /// `create`, `update`, `replace`, `delete`, `read`, `import`, `move`, `forget`, or `no-op`; `truncated` for the row that
    /// stands for those left out.
    pub action: String,
    /// Whether it was changed outside of Terraform.
    #[serde(default)]
    pub drift: bool,
    /// Attribute by attribute; sensitive values are masked by the agent.
    #[serde(default)]
    pub attributes: Value,
    /// `PLANNED`, `RUNNING`, `DONE` or `FAILED`.
    pub status: String,
    /// When its change began.
    #[serde(default)]
    pub started_at: Option<Timestamp>,
    /// How long it took.
    #[serde(default)]
    pub seconds: Option<f64>,
    /// Why it failed.
    #[serde(default)]
    pub error: Option<String>,
}

/// How one attribute changes.
#[derive(Debug, Clone, Deserialize)]
pub struct AttributeChange {
    /// Where it is in the resource.
    pub path: Value,
    /// The value before.
    #[serde(default)]
    pub before: Value,
    /// The value after.
    #[serde(default)]
    pub after: Value,
    /// Its values are hidden.
    #[serde(default)]
    pub sensitive: bool,
    /// It is known after the apply alone.
    #[serde(default)]
    pub unknown: bool,
    /// It makes the resource be replaced.
    #[serde(default)]
    pub requires_replace: bool,
}

impl Change {
    /// Terraform's sign for the action.
    pub fn sign(&self) -> &'static str {
        match self.action.as_str() {
            "create" => "+",
            "update" => "~",
            "replace" => "-/+",
            "delete" => "-",
            "read" => "<=",
            "import" => "&",
            "move" => "->",
            "forget" => ".",
            _ => "",
        }
    }

    /// The attributes that change; none where they are not rows of that kind.
    pub fn attributes(&self) -> Vec<AttributeChange> {
        let rows = self.attributes.as_array().into_iter().flatten();
        rows.filter_map(|row| serde_json::from_value(row.clone()).ok()).collect()
    }

    /// How many changes the marker row replaces.
    pub fn omitted(&self) -> Option<u64> {
        (self.action == "truncated")
            .then(|| self.attributes.get("omitted").and_then(Value::as_u64).unwrap_or(0))
    }
}

impl AttributeChange {
    /// Its path with dots.
    pub fn name(&self) -> String {
        match &self.path {
            Value::String(path) => path.clone(),
            Value::Array(parts) => {
                let part = |part: &Value| part.as_str().map_or_else(|| part.to_string(), str::to_owned);
                parts.iter().map(part).collect::<Vec<_>>().join(".")
            }
            other => other.to_string(),
        }
    }

    /// The change in one line, with long values cut.
    pub fn sentence(&self) -> String {
        let value = |value: &Value| {
            let text = value.to_string();
            if text.chars().count() > 60 {
                format!("{}…", text.chars().take(60).collect::<String>())
            } else {
                text
            }
        };
        let after = if self.unknown { "(known after apply)".to_owned() } else { value(&self.after) };
        let (before, after) = if self.sensitive {
            ("(sensitive)".to_owned(), "(sensitive)".to_owned())
        } else {
            (value(&self.before), after)
        };
        let replace = if self.requires_replace { "  # forces replacement" } else { "" };
        format!("{} = {before} → {after}{replace}", self.name())
    }
}

/// The changes of a deployment's last attempt; nothing where the database or the agent stores none.
///
/// # Errors
/// What the project answers.
pub async fn changes(project: &Project, row: &Deployment) -> Result<Option<Vec<Change>>> {
    if !project.has_stacks().await? {
        return Ok(None);
    }
    // The server cuts answers at a thousand rows.
    let mut all: Vec<Change> = Vec::new();
    loop {
        let after = all.last().map_or(-1, |change| change.position);
        let page = rows_after(project, row, after);
        match page.rows::<Change>().await {
            Ok(more) if more.is_empty() => break,
            Ok(more) => all.extend(more),
            Err(error) if matches!(error.code(), "PGRST205" | "42P01") => return Ok(None),
            Err(error) => return Err(error.into()),
        }
    }
    Ok((!all.is_empty() || row.plan_summary.is_none()).then_some(all))
}

fn rows_after(project: &Project, row: &Deployment, position: i64) -> tendril_realtime::rest::QueryBuilder {
    project
        .rest()
        .from("deployment_changes")
        .select("position,address,action,drift,attributes,status,started_at,seconds,error")
        .eq("deployment_id", row.id)
        .eq("attempt", row.attempt)
        .gt("position", position)
        .order("position")
        .limit(500)
}
