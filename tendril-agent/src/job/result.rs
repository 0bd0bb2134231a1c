//! How a job ended, and what its row has about the plan and the cost.

use serde::{Deserialize, Serialize};

use crate::job::{failure::Failure, status::Status};

/// How a job ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum JobResult {
    /// As requested.
    Success,
    /// Otherwise.
    Failed(Failure),
    /// On the user's request; the sentence explains how Terraform ended.
    Cancelled(String),
}

impl JobResult {
    /// The status of a row with this result.
    pub(crate) const fn status(&self) -> Status {
        match self {
            Self::Success => Status::Success,
            Self::Failed(_) => Status::Failed,
            Self::Cancelled(_) => Status::Cancelled,
        }
    }
}

/// `plan_summary`: numbers of resources.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Changes {
    /// New ones.
    pub(crate) add: u64,
    /// Changed ones.
    pub(crate) change: u64,
    /// Removed ones.
    pub(crate) remove: u64,
    /// Those that exist and are taken into the state.
    #[serde(default)]
    pub(crate) import: u64,
    /// More counts from the saved plan; none where it could not be shown.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub(crate) details: Option<PlanDetails>,
}

/// What a plan does beside adding, changing and removing: numbers of resources.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PlanDetails {
    /// Given another address.
    pub(crate) r#move: u64,
    /// Left alone from now on.
    pub(crate) forget: u64,
    /// Changed outside of Terraform since the last apply.
    pub(crate) drift: u64,
}

/// `deployments.cost_status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum CostStatus {
    /// Everything that costs is in the figures.
    Ok,
    /// Something is missing; `reason` explains what.
    Partial,
    /// There are no figures; `reason` explains why.
    Unavailable,
}

impl CostStatus {
    /// As the column holds it.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Partial => "PARTIAL",
            Self::Unavailable => "UNAVAILABLE",
        }
    }
}

/// What was found in the output of one program.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Findings {
    /// The last change summary.
    pub(crate) changes: Option<Changes>,
    /// Terraform's own explanation of what went wrong, redacted: its first errors.
    pub(crate) error: Option<String>,
    /// How many further errors there were.
    pub(crate) further_errors: usize,
    /// How many resources were changed.
    pub(crate) applied: usize,
    /// Whether Terraform has reported that the apply is complete.
    pub(crate) is_complete: bool,
}
