//! A deployment's status and phase.

use serde::{Deserialize, Serialize};

/// `deployments.status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum Status {
    /// Waits for an agent.
    Queued,
    /// An agent holds it.
    Processing,
    /// Ended as requested.
    Success,
    /// Ended otherwise; `error_code` and `error_message` explain why.
    Failed,
    /// Ended on the user's request.
    Cancelled,
}

impl Status {
    /// As the column holds it.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "QUEUED",
            Self::Processing => "PROCESSING",
            Self::Success => "SUCCESS",
            Self::Failed => "FAILED",
            Self::Cancelled => "CANCELLED",
        }
    }
}

/// `deployments.phase`: where a running job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum Phase {
    /// The claim was won.
    Claimed,
    /// Template and variables are checked and laid out.
    Workspace,
    /// What it will cost is estimated.
    Cost,
    /// `terraform init`.
    Init,
    /// `terraform plan`.
    Plan,
    /// The saved plan waits for a person's approval.
    Approval,
    /// The saved plan is being applied.
    Apply,
    /// The saved plan of a destroy is being applied.
    Destroy,
    /// `terraform output`.
    Output,
    /// The last log lines and the final status are on their way.
    Report,
    /// The control plane got no heartbeat of the agent after apply began. No agent sets it itself.
    Unknown,
}

impl Phase {
    /// As the column holds it.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Claimed => "CLAIMED",
            Self::Workspace => "WORKSPACE",
            Self::Cost => "COST",
            Self::Init => "INIT",
            Self::Plan => "PLAN",
            Self::Approval => "APPROVAL",
            Self::Apply => "APPLY",
            Self::Destroy => "DESTROY",
            Self::Output => "OUTPUT",
            Self::Report => "REPORT",
            Self::Unknown => "UNKNOWN",
        }
    }

    /// From here on the job may have changed the world, and must not be run again by itself.
    pub(crate) const fn changes_the_world(self) -> bool {
        matches!(self, Self::Apply | Self::Destroy | Self::Output | Self::Report | Self::Unknown)
    }
}
