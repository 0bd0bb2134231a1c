//! Arguments of `up` and `down`.

use std::{path::PathBuf, time::Duration};

use clap::Args;

use super::value::{cluster_name, kubernetes_name, time};
use crate::variable::values::{Assignment, assignment};

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

/// Remove what `up` made.
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
