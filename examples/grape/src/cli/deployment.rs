//! Arguments of the commands about deployments and what they are made of.

use std::{path::PathBuf, time::Duration};

use clap::{Args, ValueEnum};

use super::{account::OfCluster, value::time};
use crate::variable::values::{Assignment, assignment};

/// Templates.
#[derive(Debug, Args)]
pub struct Templates {
    /// Describe this one, with its variables.
    pub name: Option<String>,
    /// Whose.
    #[command(flatten)]
    pub of: OfCluster,
    /// Read the templates of this directory instead of what the cluster's agents published.
    #[arg(long, value_name = "DIR")]
    pub templates_dir: Option<PathBuf>,
}

/// Deployments.
#[derive(Debug, Args)]
pub struct Deployments {
    /// Whose.
    #[command(flatten)]
    pub of: OfCluster,
    /// How many.
    #[arg(long, short = 'n', default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=1000))]
    pub limit: u64,
}

/// Until when to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Until {
    /// Until it has ended.
    #[default]
    End,
    /// Until its plan waits for approval (exit code 22), or it has ended.
    Approval,
}

/// Queue a deployment.
#[derive(Debug, Args)]
#[allow(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
#[command(group(clap::ArgGroup::new("what").required(true).args(["template", "git"])))]
pub struct Deploy {
    /// A template of the cluster: `grape templates` lists them.
    pub template: Option<String>,
    /// A template in a Git repository instead, on a host that the agent allows.
    #[arg(long, value_name = "URL")]
    pub git: Option<String>,
    /// Branch, tag or commit of the repository.
    #[arg(long = "ref", value_name = "REF", requires = "git")]
    pub git_ref: Option<String>,
    /// Folder in the repository.
    #[arg(long, value_name = "PATH", requires = "git")]
    pub path: Option<String>,
    /// Where it runs.
    #[command(flatten)]
    pub of: OfCluster,
    /// Which state it works on; deployments of one stack run one after the other.
    #[arg(long, short)]
    pub stack: Option<String>,
    /// A variable; its type comes from the template's schema. May be repeated.
    #[arg(long = "var", value_name = "NAME=VALUE", value_parser = assignment)]
    pub vars: Vec<Assignment>,
    /// A file of variables, as JSON; `-` is stdin. May be repeated.
    #[arg(long = "var-file", value_name = "FILE")]
    pub var_files: Vec<PathBuf>,
    /// Plan only: nothing is changed.
    #[arg(long, conflicts_with = "destroy")]
    pub plan: bool,
    /// Remove everything of the stack.
    #[arg(long)]
    pub destroy: bool,
    /// The plan waits for `grape approve`.
    #[arg(long)]
    pub approval: bool,
    /// Print the id and do not follow.
    #[arg(long, short)]
    pub detach: bool,
    /// How far to follow.
    #[arg(long, value_enum, default_value_t)]
    pub until: Until,
    /// Put the time of writing before each line of the log.
    #[arg(long)]
    pub timestamps: bool,
    /// Take schemas from this directory instead of what the cluster's agents published.
    #[arg(long, value_name = "DIR")]
    pub templates_dir: Option<PathBuf>,
    /// Do not ask before a destroy.
    #[arg(long, short)]
    pub yes: bool,
}

/// Show a plan.
#[derive(Debug, Args)]
pub struct Plan {
    /// Id of a deployment, or its first digits.
    pub id: String,
    /// Leave out the attributes.
    #[arg(long)]
    pub short: bool,
}

/// Approve a plan.
#[derive(Debug, Args)]
pub struct Approve {
    /// Id of a deployment, or its first digits.
    pub id: String,
    /// A comment that is stored with the approval.
    #[arg(long, short, value_name = "TEXT")]
    pub message: Option<String>,
    /// Approve this plan and no other: `plan_sha256` of `grape plan -o json`.
    #[arg(long, value_name = "SHA256")]
    pub plan: Option<String>,
    /// Do not ask.
    #[arg(long, short)]
    pub yes: bool,
}

/// Reject a plan.
#[derive(Debug, Args)]
pub struct Reject {
    /// Id of a deployment, or its first digits.
    pub id: String,
    /// Why; stored with the deployment.
    #[arg(long, short, value_name = "TEXT")]
    pub message: Option<String>,
}

/// Cancel a deployment.
#[derive(Debug, Args)]
pub struct Cancel {
    /// Id of a deployment, or its first digits.
    pub id: String,
    /// Why; stored with the deployment.
    #[arg(long, short, value_name = "TEXT")]
    pub message: Option<String>,
}

/// Print a log.
#[derive(Debug, Args)]
pub struct Logs {
    /// Id of a deployment, or its first digits.
    pub id: String,
    /// Go on until the deployment ends. Ctrl-C leaves the deployment alone.
    #[arg(long, short)]
    pub follow: bool,
    /// Put the time of writing before each line.
    #[arg(long)]
    pub timestamps: bool,
    /// This attempt instead of the last one.
    #[arg(long, value_name = "N", conflicts_with = "follow")]
    pub attempt: Option<i32>,
}

/// A live table.
#[derive(Debug, Args)]
pub struct Watch {
    /// Of one cluster only.
    #[command(flatten)]
    pub of: OfCluster,
    /// Deployments of so many hours.
    #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u32).range(1..=8760))]
    pub hours: u32,
}

/// Wait for an end.
#[derive(Debug, Args)]
pub struct Wait {
    /// Id of a deployment, or its first digits.
    pub id: String,
    /// How far to wait.
    #[arg(long, value_enum, default_value_t)]
    pub until: Until,
    /// The longest to wait, such as `30s`, `10m`, `2h`; then the exit code is 23.
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub timeout: Option<Duration>,
}

/// Open a page.
#[derive(Debug, Args)]
pub struct Open {
    /// Id of a deployment, or its first digits.
    pub id: String,
    /// Print the address only.
    #[arg(long)]
    pub print: bool,
}
