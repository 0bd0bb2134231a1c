//! The command line.

use std::{fmt::Write as _, path::PathBuf, time::Duration};

use clap::{Args, CommandFactory as _, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use crate::{
    failure::FailureKind,
    output::{Format, style::ColorChoice},
    session::{auth::checked_key, profile::checked_name},
    variable::values::{Assignment, assignment},
};

/// Tendril from a terminal: sign in, deploy, follow, approve, and bring a cluster online.
#[derive(Debug, Parser)]
#[command(name = "grape", version, max_term_width = 100, after_long_help = exit_codes(), disable_help_subcommand = true)]
pub struct Cli {
    /// Options of every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Debug, Clone, Args)]
pub struct Global {
    /// Which profile (project and session) to use.
    #[arg(long, global = true, env = "GRAPE_PROFILE", value_name = "NAME", value_parser = checked_name)]
    pub profile: Option<String>,
    /// The form of the answer.
    #[arg(short, long, global = true, value_enum, default_value_t, env = "GRAPE_OUTPUT")]
    pub output: Format,
    /// When to colour; `NO_COLOR` is respected.
    #[arg(long, global = true, value_enum, default_value_t, value_name = "WHEN")]
    pub color: ColorChoice,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Sign in to a project.
    Login(Login),
    /// End the session.
    Logout,
    /// Say who is signed in, and where.
    Whoami,
    /// List profiles, or choose one.
    Profiles(Profiles),
    /// Bring a cluster online: Kubernetes, key, agent.
    Up(Box<Up>),
    /// Take away what `up` made.
    Down(Down),
    /// List clusters.
    Clusters,
    /// Make and change a cluster and its keys.
    #[command(subcommand)]
    Cluster(Cluster),
    /// List the templates that a cluster can run, or describe one.
    Templates(Templates),
    /// List stacks: what deployments work on.
    Stacks(OfCluster),
    /// List the newest deployments.
    Deployments(Deployments),
    /// Queue a deployment and follow it to its end.
    Deploy(Box<Deploy>),
    /// Show what a deployment would change, or has changed.
    Plan(Plan),
    /// Approve the plan of a deployment, which is then applied.
    Approve(Approve),
    /// Reject the plan of a deployment, which ends as CANCELLED.
    Reject(Reject),
    /// Ask for a deployment to be cancelled.
    Cancel(Cancel),
    /// Print the log of a deployment.
    Logs(Logs),
    /// A live table of clusters and deployments.
    Watch(Watch),
    /// Wait for the end of a deployment; the exit code is its result.
    Wait(Wait),
    /// Open a deployment's page in the portal.
    Open(Open),
    /// Print the completions of a shell.
    Completions {
        /// Which shell.
        shell: Shell,
    },
    /// Print the manual page, or write all of them into a directory.
    Man {
        /// Where to write grape.1 and one page for each command.
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
    },
}

/// Sign in.
#[derive(Debug, Args)]
pub struct Login {
    /// Base URL of the project, such as <https://abcd.supabase.co>.
    #[arg(long, env = "SUPABASE_URL")]
    pub url: Option<String>,
    /// The project's publishable (or anon) key.
    #[arg(long, env = "SUPABASE_PUBLISHABLE_KEY", value_parser = checked_key)]
    pub key: Option<String>,
    /// The address to sign in with.
    #[arg(long, env = "GRAPE_EMAIL")]
    pub email: Option<String>,
    /// Read the password from stdin instead of asking for it.
    #[arg(long)]
    pub password_stdin: bool,
    /// Base URL of the portal, for `grape open`.
    #[arg(long, value_name = "URL", env = "GRAPE_PORTAL_URL")]
    pub portal: Option<String>,
}

/// Profiles.
#[derive(Debug, Args)]
pub struct Profiles {
    /// What to do; without it they are listed.
    #[command(subcommand)]
    pub action: Option<ProfileAction>,
}

/// What to do with a profile.
#[derive(Debug, Subcommand)]
pub enum ProfileAction {
    /// Make a profile the current one.
    Use {
        /// Its name.
        #[arg(value_parser = checked_name)]
        name: String,
        /// Which cluster is meant where none is named.
        #[arg(long, value_name = "NAME")]
        cluster: Option<String>,
    },
    /// Sign out, and forget a profile.
    Remove {
        /// Its name.
        #[arg(value_parser = checked_name)]
        name: String,
    },
}

/// Which cluster.
#[derive(Debug, Clone, Args)]
pub struct OfCluster {
    /// Name or id of a cluster.
    #[arg(long, short, value_name = "NAME", env = "TENDRIL_CLUSTER")]
    pub cluster: Option<String>,
}

/// Clusters and their keys.
#[derive(Debug, Subcommand)]
pub enum Cluster {
    /// Add a cluster, and print the API key of its agents, this once.
    Create {
        /// Its name.
        name: String,
        /// Do not make a key yet.
        #[arg(long)]
        no_key: bool,
    },
    /// Say how a cluster and its keys are.
    Show {
        /// Name or id.
        name: String,
    },
    /// Make a next key beside the current one, and print it, this once; both work.
    Rotate {
        /// Name or id.
        name: String,
    },
    /// End a rotation: the next key becomes the only one.
    Promote {
        /// Name or id.
        name: String,
        /// Also if no agent has used the next key yet: agents with the old one lose access.
        #[arg(long)]
        unused: bool,
    },
    /// Revoke the keys of a cluster; its agents lose access within 15 minutes.
    Revoke {
        /// Name or id.
        name: String,
        /// Shut its agents out at once and for ever: the cluster cannot be used again.
        #[arg(long)]
        forever: bool,
        /// Do not ask.
        #[arg(long, short)]
        yes: bool,
    },
}

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
    /// A variable; its type is what the template's schema says. May be repeated.
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

/// How a Kubernetes cluster is reached and what is installed there.
#[derive(Debug, Clone, Args)]
pub struct Kubernetes {
    /// Context of kubectl; the current one with --skip-provision, otherwise the one of the cluster that was made.
    #[arg(long, value_name = "NAME")]
    pub context: Option<String>,
    /// Namespace of the agent.
    #[arg(long, value_name = "NAME", default_value = "tendril", value_parser = kubernetes_name)]
    pub namespace: String,
    /// Name of the Helm release, and of the Secret with the key.
    #[arg(long, value_name = "NAME", default_value = "tendril-agent", value_parser = kubernetes_name)]
    pub release: String,
}

/// Bring a cluster online.
#[derive(Debug, Args)]
pub struct Up {
    /// Name of the cluster, in AWS and in Tendril.
    #[arg(value_parser = cluster_name)]
    pub name: String,
    /// AWS region.
    #[arg(long, env = "AWS_REGION", required_unless_present_any = ["skip_provision", "template"])]
    pub region: Option<String>,
    /// The Kubernetes cluster is there already: install into it.
    #[arg(long, conflicts_with_all = ["template", "vars", "var_files"])]
    pub skip_provision: bool,
    /// Templates that make the Kubernetes cluster, in this order. An output of one is a variable of the next by its name.
    /// [default: vpc, eks-cluster, eks-node-group, eks-addons]
    #[arg(long, value_name = "NAME")]
    pub template: Vec<String>,
    /// A variable of those templates: of all that declare it, or with TEMPLATE.NAME=VALUE of one.
    #[arg(long = "var", value_name = "NAME=VALUE", value_parser = assignment)]
    pub vars: Vec<Assignment>,
    /// A file of variables, as JSON.
    #[arg(long = "var-file", value_name = "FILE")]
    pub var_files: Vec<PathBuf>,
    /// Directory of the templates.
    #[arg(long, value_name = "DIR", env = "TENDRIL_TEMPLATES_DIR", default_value = "templates")]
    pub templates_dir: PathBuf,
    /// The directory of Terraform's state, with one folder for each template. Do not delete it: `down` needs it.
    /// [default: clusters/NAME in grape's data directory]
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// Kubernetes.
    #[command(flatten)]
    pub kubernetes: Kubernetes,
    /// The agent's chart: a directory, or oci://….
    #[arg(long, value_name = "CHART", default_value = "tendril-agent/chart")]
    pub chart: String,
    /// Version of the chart, where it comes from a registry.
    #[arg(long, value_name = "VERSION")]
    pub chart_version: Option<String>,
    /// A file of values for the chart. May be repeated.
    #[arg(long = "values", value_name = "FILE")]
    pub values: Vec<PathBuf>,
    /// A value of the chart. May be repeated.
    #[arg(long = "set", value_name = "NAME=VALUE")]
    pub set: Vec<String>,
    /// How long the agent may take to come online.
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = time)]
    pub timeout: Duration,
    /// Do not ask before anything is applied.
    #[arg(long, short)]
    pub yes: bool,
}

/// Take away what `up` made.
#[derive(Debug, Args)]
pub struct Down {
    /// Name of the cluster.
    #[arg(value_parser = cluster_name)]
    pub name: String,
    /// Leave the Kubernetes cluster as it is.
    #[arg(long)]
    pub keep_kubernetes: bool,
    /// Do not uninstall the agent: for a Kubernetes cluster that is gone, or cannot be reached any more. A volume of the agent may be left.
    #[arg(long)]
    pub skip_agent: bool,
    /// The directory of Terraform's state.
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// Directory of the templates.
    #[arg(long, value_name = "DIR", env = "TENDRIL_TEMPLATES_DIR", default_value = "templates")]
    pub templates_dir: PathBuf,
    /// Answer the first question. The second is answered by --confirm.
    #[arg(long, short)]
    pub yes: bool,
    /// The cluster's name once more: the answer to the second question, for scripts.
    #[arg(long, value_name = "NAME")]
    pub confirm: Option<String>,
}

/// A time such as `30s`, `10m`, `2h`.
fn time(text: &str) -> Result<Duration, String> {
    let wrong = || "write a time such as 30s, 10m or 2h".to_owned();
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor = match &text[digits.len()..] {
        "s" | "" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return Err(wrong()),
    };
    let count: u64 = digits.parse().map_err(|_| wrong())?;
    // A year is more than anybody waits.
    count
        .checked_mul(factor)
        .filter(|seconds| *seconds <= 31_536_000)
        .map(Duration::from_secs)
        .ok_or_else(wrong)
}

/// A name in Kubernetes.
fn kubernetes_name(text: &str) -> Result<String, String> {
    let fits = text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    if fits && (1..=52).contains(&text.len()) && !text.starts_with('-') && !text.ends_with('-') {
        Ok(text.to_owned())
    } else {
        Err("use up to 52 lower-case letters, digits and hyphens, with a letter or digit at both ends"
            .to_owned())
    }
}

/// A name that AWS, Kubernetes and a file system take.
fn cluster_name(text: &str) -> Result<String, String> {
    let name = kubernetes_name(text)?;
    // A VPC of that name is made: the shortest limit of the templates.
    if name.len() > 31 || name.len() < 2 || !name.starts_with(|c: char| c.is_ascii_lowercase()) {
        return Err("use 2 to 31 characters, and begin with a letter".to_owned());
    }
    Ok(name)
}

/// The table of exit codes.
pub fn exit_codes() -> String {
    let mut text = "Exit codes:\n    0  done; of a deployment: SUCCESS\n".to_owned();
    for kind in FailureKind::ALL {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  {:>3}  {}", kind.exit_code(), kind.meaning());
    }
    text.push_str("\nEnvironment: GRAPE_TOKEN (a user's token, for CI) with SUPABASE_URL and SUPABASE_PUBLISHABLE_KEY, GRAPE_CONFIG_DIR, NO_COLOR.");
    text
}

/// The command line as clap knows it, for completions and manual pages.
pub fn command() -> clap::Command {
    Cli::command()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_made() {
        command().debug_assert();
    }

    #[test]
    fn a_time_has_a_unit() {
        assert_eq!(time("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(time("10m"), Ok(Duration::from_secs(600)));
        assert_eq!(time("2h"), Ok(Duration::from_secs(7200)));
        for text in ["", "m", "-1s", "1d", "1.5h", "99999999999999999999h", "9999999h"] {
            assert!(time(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_clusters_name_fits_everywhere_it_is_used() {
        for text in ["a", "A", "1a", "a_b", "-a", "a-", "../a", &"a".repeat(32)] {
            assert!(cluster_name(text).is_err(), "{text}");
        }
        assert!(cluster_name("prod-eu").is_ok());
    }

    #[test]
    fn every_exit_code_is_in_the_help_and_in_the_readme() {
        let text = exit_codes();
        let readme = include_str!("../README.md");
        let codes = text
            .split_once(":\n")
            .and_then(|(_, rest)| rest.split_once("\n\n"))
            .map(|(codes, _)| codes)
            .unwrap();
        assert!(readme.contains(codes), "README.md must have\n{codes}");
        for kind in FailureKind::ALL {
            assert!(text.contains(&format!("{:>3}  {}", kind.exit_code(), kind.meaning())), "{kind:?}");
        }
    }
}
