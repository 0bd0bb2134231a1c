//! The command line: every flag has an environment twin and a line in `--help`.
//!
//! All values are text here. [`crate::config::settings`] reads them, so that one message can list every problem at once instead of
//! the first one that a parser met.

use std::{ffi::OsString, path::PathBuf};

use clap::Parser;

/// What the process can do beside running.
#[derive(Clone, Debug, PartialEq, Eq, clap::Subcommand)]
pub enum Task {
    /// Checks everything that an agent needs, prints what is wrong and how to fix it, and ends
    Doctor,
    /// Runs one claimed attempt to its end; for the agent's own use. Exit codes: 0 the result is stored · 10 the plan waits for approval · 11 the result is still on disk · 2 the configuration or the attempt file must be fixed
    #[command(hide = true)]
    Execute {
        /// The attempt file
        #[arg(long)]
        attempt: PathBuf,
    },
    /// Becomes the user of one run, and then a program; for the agent's own use
    #[command(hide = true)]
    RunAs {
        /// ID of the user, and of its own group
        #[arg(long)]
        uid: u32,
        /// Another group
        #[arg(long = "group")]
        groups: Vec<u32>,
        /// What the program finds at the private places
        #[arg(long)]
        tmp: Option<PathBuf>,
        /// A directory of all users that is private to the run
        #[arg(long = "private")]
        private_places: Vec<PathBuf>,
        /// Start nothing: print which of these paths the user cannot reach
        #[arg(long)]
        tries: bool,
        /// The program and its arguments
        #[arg(last = true, required = true)]
        command: Vec<OsString>,
    },
    /// Runs a program and stores its exit code in a file; for the agent's own use
    #[command(hide = true)]
    KeepExit {
        /// Where the exit code is stored
        exit_file: PathBuf,
        /// The program and its arguments
        #[arg(last = true, required = true)]
        command: Vec<OsString>,
    },
}

/// The flags and variables of the process, as text.
#[derive(Clone, Default, Parser)]
#[command(
    name = "tendril-agent",
    version,
    disable_version_flag = true,
    about = "Runs Terraform in your own cloud for a Supabase control plane",
    after_help = "Exit codes: 0 stopped on request · 1 the control plane refused this agent, or it failed while running · 2 the configuration must be fixed. `doctor`: 0 everything is well · 2 something must be fixed"
)]
pub struct Cli {
    /// What to do instead of running
    #[command(subcommand)]
    pub command: Option<Task>,

    /// Print the agent's own version, and end
    #[arg(short = 'V', action = clap::ArgAction::Version)]
    pub short_version: Option<bool>,

    /// Print the versions of the agent, of the contract with the database and of the programs that it uses, and end
    #[arg(long)]
    pub version: bool,

    /// Base URL of the Supabase project, such as <https://abcd.supabase.co>
    #[arg(long, value_name = "URL", env = "SUPABASE_URL")]
    pub supabase_url: Option<String>,

    /// Publishable (or legacy anon) key of the project; `SUPABASE_ANON_KEY` is read too
    #[arg(long, value_name = "KEY", env = "SUPABASE_PUBLISHABLE_KEY", hide_env_values = true)]
    pub supabase_key: Option<String>,

    /// The older name of the publishable key; used where the newer one is not set
    #[arg(long, value_name = "KEY", env = "SUPABASE_ANON_KEY", hide_env_values = true, hide = true)]
    pub supabase_anon_key: Option<String>,

    /// API key (`tdl_…`) of this cluster, or a machine token (a JWT). Other users of the machine can read a flag: prefer the variable or the file
    #[arg(long, value_name = "TOKEN", env = "TENDRIL_AGENT_TOKEN", hide_env_values = true)]
    pub agent_token: Option<String>,

    /// File that holds the API key, or the machine token; read again whenever it changes
    #[arg(long, value_name = "FILE", env = "TENDRIL_AGENT_TOKEN_FILE")]
    pub agent_token_file: Option<String>,

    /// Directory with one Terraform template per folder
    #[arg(long, value_name = "DIR", env = "TENDRIL_TEMPLATES_DIR", default_value = "templates")]
    pub templates_dir: Option<String>,

    /// Where templates may be fetched from, comma separated: hosts (`github.com`, or with a port), owners (`github.com/acme/*`) or repositories. Nowhere when not set
    #[arg(long, value_name = "HOSTS", env = "TENDRIL_GIT_HOSTS")]
    pub git_hosts: Option<String>,

    /// Token that may read these repositories. Other users of the machine can read a flag: prefer the variable or the file
    #[arg(long, value_name = "TOKEN", env = "TENDRIL_GIT_TOKEN", hide_env_values = true)]
    pub git_token: Option<String>,

    /// File that holds that token; read again for every fetch
    #[arg(long, value_name = "FILE", env = "TENDRIL_GIT_TOKEN_FILE")]
    pub git_token_file: Option<String>,

    /// Entries of --git-hosts to which the token is sent; all of them when not set
    #[arg(long, value_name = "HOSTS", env = "TENDRIL_GIT_TOKEN_FOR")]
    pub git_token_for: Option<String>,

    /// User name that goes with the token
    #[arg(long, value_name = "NAME", env = "TENDRIL_GIT_USER", default_value = "x-access-token")]
    pub git_user: Option<String>,

    /// How long one command of Git may take
    #[arg(long, value_name = "TIME", env = "TENDRIL_GIT_TIMEOUT", default_value = "5m")]
    pub git_timeout: Option<String>,

    /// The most disk space for the mirror of one repository, and for one template from it
    #[arg(long, value_name = "SIZE", env = "TENDRIL_GIT_LIMIT", default_value = "1GiB")]
    pub git_limit: Option<String>,

    /// Directory of running jobs: workspaces, and log lines that are not uploaded yet. Only one agent may use it
    #[arg(long, value_name = "DIR", env = "TENDRIL_WORK_DIR", default_value = "/var/lib/tendril/work")]
    pub work_dir: Option<String>,

    /// Directory of the Terraform state of stacks without a remote backend. It must be on a persistent volume
    #[arg(long, value_name = "DIR", env = "TENDRIL_STATE_DIR", default_value = "/var/lib/tendril/state")]
    pub state_dir: Option<String>,

    /// Where Terraform state is stored: `local`, `s3`, `http`, `pg` or `kubernetes`
    #[arg(long, value_name = "BACKEND", env = "TENDRIL_STATE_BACKEND", default_value = "local")]
    pub state_backend: Option<String>,

    /// The backend's settings that all states share: a JSON object, or a file that holds one. No credentials: they
    /// reach the backend through the environment
    #[arg(long, value_name = "JSON", env = "TENDRIL_STATE_CONFIG")]
    pub state_config: Option<String>,

    /// Directory where Terraform keeps downloaded providers for later runs [default: `plugins` in the work directory]
    #[arg(long, value_name = "DIR", env = "TENDRIL_PLUGIN_CACHE_DIR")]
    pub plugin_cache_dir: Option<String>,

    /// How many jobs may run at the same time (1 to 64)
    #[arg(long, value_name = "N", env = "TENDRIL_CONCURRENCY", default_value = "2")]
    pub concurrency: Option<String>,

    /// Where jobs run: `local`, as processes of their own that go on if the agent dies or is replaced; `in-process`, inside the agent; or `kubernetes`, each in a pod of a Job
    #[arg(long, value_name = "WHERE", env = "TENDRIL_LAUNCHER", default_value = "local")]
    pub launcher: Option<String>,

    /// Where the agent is root, each run's programs have a user of their own: the first of these IDs, which no user of the machine may have, or `off` for root. With an ID the agent does not start where such users cannot be had; without it, it warns and runs templates as root [default: 70000, where the agent is root]
    #[arg(long, value_name = "ID", env = "TENDRIL_SLOT_UID_BASE")]
    pub slot_uid_base: Option<String>,

    /// What SIGTERM does to running jobs: `drain` (see --shutdown-grace), or `detach`: they go on, and the next start takes them over
    #[arg(long, value_name = "WHAT", env = "TENDRIL_ON_STOP", default_value = "drain")]
    pub on_stop: Option<String>,

    /// Image of the pods of runs: this agent's own, with its tag or digest
    #[cfg(feature = "kubernetes")]
    #[arg(long, value_name = "IMAGE", env = "TENDRIL_RUN_IMAGE")]
    pub run_image: Option<String>,

    /// When a node pulls that image: `Always`, `IfNotPresent` or `Never`
    #[cfg(feature = "kubernetes")]
    #[arg(long, value_name = "POLICY", env = "TENDRIL_RUN_IMAGE_PULL_POLICY")]
    pub run_image_pull_policy: Option<String>,

    /// Namespace of the runs [default: that of the agent's service account, or of the kubeconfig]
    #[cfg(feature = "kubernetes")]
    #[arg(long, value_name = "NAME", env = "TENDRIL_RUN_NAMESPACE")]
    pub run_namespace: Option<String>,

    /// File with the rules by which a stack's runs get a service account, limits and nodes: a list in YAML or JSON. A stack that no rule matches is refused
    #[cfg(feature = "kubernetes")]
    #[arg(long, value_name = "FILE", env = "TENDRIL_SERVICE_ACCOUNT_MAP")]
    pub service_account_map: Option<String>,

    /// File with what every pod of a run has in addition: a `PodTemplateSpec` in YAML or JSON whose container is `run`
    #[cfg(feature = "kubernetes")]
    #[arg(long, value_name = "FILE", env = "TENDRIL_POD_TEMPLATE")]
    pub pod_template: Option<String>,

    /// How long the pod of a run may take to start
    #[cfg(feature = "kubernetes")]
    #[arg(long, value_name = "TIME", env = "TENDRIL_POD_START_DEADLINE", default_value = "10m")]
    pub pod_start_deadline: Option<String>,

    /// How long a finished Job is kept, with its pod and log
    #[cfg(feature = "kubernetes")]
    #[arg(long, value_name = "TIME", env = "TENDRIL_KEEP_FINISHED_RUNS", default_value = "1h")]
    pub keep_finished_runs: Option<String>,

    /// `PersistentVolumeClaim` (`ReadWriteMany`) for plans that wait for approval, and states that their backend does not take [default: Secrets]
    #[cfg(feature = "kubernetes")]
    #[arg(long, value_name = "NAME", env = "TENDRIL_PLAN_VOLUME_CLAIM")]
    pub plan_volume_claim: Option<String>,

    /// Service account that may create Secrets and nothing else: runs that have to store a plan or a state get a token of it that ends with their pod
    #[cfg(feature = "kubernetes")]
    #[arg(long, value_name = "NAME", env = "TENDRIL_PLAN_ACCOUNT", default_value = "tendril-plans")]
    pub plan_account: Option<String>,

    /// Name of the Lease whose holder is at work, where several of these agents share a cluster
    #[cfg(feature = "kubernetes")]
    #[arg(long, value_name = "NAME", env = "TENDRIL_LEASE")]
    pub lease: Option<String>,

    /// How long that Lease holds without being renewed: so long nothing is claimed after the holder has died
    #[cfg(feature = "kubernetes")]
    #[arg(long, value_name = "TIME", env = "TENDRIL_LEASE_DURATION", default_value = "60s")]
    pub lease_duration: Option<String>,

    /// How long the holder works on without having renewed it; less than --lease-duration [default: five sixths of it]
    #[cfg(feature = "kubernetes")]
    #[arg(long, value_name = "TIME", env = "TENDRIL_LEASE_RENEW_DEADLINE")]
    pub lease_renew_deadline: Option<String>,

    /// How jobs are found: `auto` (broadcasts, or row changes where there are none), `broadcast`, or `postgres_changes`
    #[arg(long, value_name = "WAY", env = "TENDRIL_INTAKE", default_value = "auto")]
    pub intake: Option<String>,

    /// The most disk space for one job's log while it waits for the control plane; beyond it the middle of the log is dropped
    #[arg(long, value_name = "SIZE", env = "TENDRIL_SPOOL_LIMIT", default_value = "256MiB")]
    pub spool_limit: Option<String>,

    /// Disk use of the work directory above which no job is claimed, and the one that takes most of it is stopped
    #[arg(long, value_name = "SIZE", env = "TENDRIL_WORK_LIMIT", default_value = "10GiB")]
    pub work_limit: Option<String>,

    /// The first request is sent at a random moment of this time after the start, so that many agents do not start at once
    #[arg(long, value_name = "TIME", env = "TENDRIL_STARTUP_JITTER", default_value = "20s")]
    pub startup_jitter: Option<String>,

    /// Time between two heartbeats (1s to 20s): a job's lease lasts 60s
    #[arg(long, value_name = "TIME", env = "TENDRIL_HEARTBEAT", default_value = "15s")]
    pub heartbeat: Option<String>,

    /// How long Terraform waits for a state that is locked
    #[arg(long, value_name = "TIME", env = "TENDRIL_LOCK_TIMEOUT", default_value = "2m")]
    pub lock_timeout: Option<String>,

    /// The time from SIGTERM to the agent's end, such as `90s`, `10m`: for two thirds of it running jobs continue, then
    /// they are interrupted. A second SIGTERM interrupts them at once, a third shortens the time that they get to stop
    #[arg(long, value_name = "TIME", env = "TENDRIL_SHUTDOWN_GRACE", default_value = "10m")]
    pub shutdown_grace: Option<String>,

    /// How long an interrupted `plan` may take to stop before it is interrupted again
    #[arg(long, value_name = "TIME", env = "TENDRIL_PLAN_CANCEL_GRACE", default_value = "5m")]
    pub plan_cancel_grace: Option<String>,

    /// How long an interrupted `apply` may take to stop before it is interrupted again
    #[arg(long, value_name = "TIME", env = "TENDRIL_APPLY_CANCEL_GRACE", default_value = "20m")]
    pub apply_cancel_grace: Option<String>,

    /// The longest that `terraform init` may take; a deployment may set less (`config_snapshot.timeouts`). 0s: no limit
    #[arg(long, value_name = "TIME", env = "TENDRIL_INIT_TIMEOUT", default_value = "30m")]
    pub init_timeout: Option<String>,

    /// The longest that `terraform plan` may take. 0s: no limit
    #[arg(long, value_name = "TIME", env = "TENDRIL_PLAN_TIMEOUT", default_value = "2h")]
    pub plan_timeout: Option<String>,

    /// The longest that `terraform apply` may take. 0s: no limit
    #[arg(long, value_name = "TIME", env = "TENDRIL_APPLY_TIMEOUT", default_value = "24h")]
    pub apply_timeout: Option<String>,

    /// The longest that any of these may have no output (lines such as "Still creating..." do not count). 0s: no limit
    #[arg(long, value_name = "TIME", env = "TENDRIL_SILENCE_TIMEOUT", default_value = "0s")]
    pub silence_timeout: Option<String>,

    /// Directory of hooks: pre-init, pre-plan, post-plan, post-apply, on-failure. A failing pre- or post-plan hook forbids the apply
    #[arg(long, value_name = "DIR", env = "TENDRIL_HOOK_DIR")]
    pub hook_dir: Option<String>,

    /// How long one hook may take
    #[arg(long, value_name = "TIME", env = "TENDRIL_HOOK_TIMEOUT", default_value = "5m")]
    pub hook_timeout: Option<String>,

    /// Program to run: a path, or a name on PATH [default: `terraform`, else `tofu`]
    #[arg(long, value_name = "PROGRAM", env = "TENDRIL_TERRAFORM")]
    pub terraform: Option<String>,

    /// Directory of further versions, as `1.11.4/terraform` or `terraform_1.11.4` (or `tofu`): for deployments that ask for one (`config_snapshot.terraform_version`), and templates whose `required_version` the program above does not fit
    #[arg(long, value_name = "DIR", env = "TENDRIL_TERRAFORM_DIR")]
    pub terraform_dir: Option<String>,

    /// Terraform CLI configuration (mirrors, credentials helpers) that every run uses
    #[arg(long, value_name = "FILE", env = "TENDRIL_TERRAFORM_CONFIG")]
    pub terraform_config: Option<String>,

    /// Further environment variables that Terraform may see, comma separated; `NAME_*` stands for a prefix. What is in them is hidden in logs, but for `NAME:shown`
    #[arg(long, value_name = "NAMES", env = "TENDRIL_TERRAFORM_ENV")]
    pub terraform_env: Option<String>,

    /// Files with tokens for private registries, as `HOST=FILE`, comma separated; read again for every run. `terraform init` alone gets them
    #[arg(long, value_name = "HOST=FILE", env = "TENDRIL_TERRAFORM_TOKEN_FILE")]
    pub terraform_token_file: Option<String>,

    /// Program that estimates costs: a path, or a name on PATH; `off` for none [default: `infracost`, if there is one]
    #[arg(long, value_name = "PROGRAM", env = "TENDRIL_INFRACOST")]
    pub infracost: Option<String>,

    /// Key of infracost's price list. Other users of the machine can read a flag: prefer the variable or the file
    #[arg(long, value_name = "KEY", env = "TENDRIL_INFRACOST_KEY", hide_env_values = true)]
    pub infracost_key: Option<String>,

    /// File that holds the key of infracost's price list; read again for every estimate
    #[arg(long, value_name = "FILE", env = "TENDRIL_INFRACOST_KEY_FILE")]
    pub infracost_key_file: Option<String>,

    /// How long the estimate of a job's cost may take (1s to 90s)
    #[arg(long, value_name = "TIME", env = "TENDRIL_COST_TIMEOUT", default_value = "90s")]
    pub cost_timeout: Option<String>,

    /// Address for /healthz, /readyz, /status and /metrics, such as 0.0.0.0:8080; off when not set
    #[arg(long, value_name = "ADDR", env = "TENDRIL_HEALTH_ADDR")]
    pub health_addr: Option<String>,

    /// Name of this agent in the `claimed_by` column [default: the host name]
    #[arg(long, value_name = "NAME", env = "TENDRIL_AGENT_NAME")]
    pub agent_name: Option<String>,

    /// `human` or `json`
    #[arg(long, value_name = "FORMAT", env = "TENDRIL_LOG_FORMAT", default_value = "human")]
    pub log_format: Option<String>,

    /// `error`, `warn`, `info`, `debug`, `trace`, or a filter such as `tendril_agent=debug,warn`
    #[arg(long, value_name = "LEVEL", env = "TENDRIL_LOG", default_value = "info")]
    pub log_level: Option<String>,
}
