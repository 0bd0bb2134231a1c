//! From [`Cli`] to [`Config`]: read, validated, and tried on this machine, with every problem in one message.

use std::{fmt, net::SocketAddr, path::PathBuf, sync::Arc};

use secrecy::{ExposeSecret as _, SecretString};
use url::Url;
use uuid::Uuid;

pub(crate) use super::timing::Timing;
#[cfg(feature = "kubernetes")]
use crate::launch::kubernetes::KubernetesSettings;
use crate::{
    config::{
        args::Cli,
        handed_secrets::HandedSecrets,
        reader::{
            Reader, agent_name, concurrency, given, health_addr, log_format, plugin_cache, size, spool_limit,
            supabase_key, supabase_url,
        },
        slot_uids::SlotUids,
    },
    control_plane::{StateStore, auth::Credential},
    cost::{CostSettings, infracost::Infracost},
    dispatch::{ShutdownTiming, intake::Intake},
    execute::{
        ExecuteSettings,
        hooks::{self, HookSettings},
    },
    launch::{AttemptFile, LauncherKind, OnStop},
    logs::SpoolRules,
    observability::{
        Facts,
        logging::{self, LogFormat, LogSettings},
    },
    process::SlotUsers,
    redaction::Redactor,
    template::git::GitSettings,
    terraform::{
        StepTiming, Terraform, TerraformDir, TerraformSettings, environment::AllowList, state::StateBackend,
    },
};

/// Everything an agent needs to know; made once, never changed.
#[derive(Clone)]
pub struct Config {
    /// Base URL of the project.
    pub supabase_url: Url,
    /// The publishable key, sent as `apikey`.
    pub supabase_key: SecretString,
    /// Where the API key, or the machine token, comes from.
    pub credential: Credential,
    /// The cluster that it names.
    pub cluster_id: Uuid,
    /// Name in `claimed_by`.
    pub agent_name: String,
    /// One folder per template.
    pub templates_dir: PathBuf,
    /// From which Git hosts templates may come, and with which token.
    pub git: GitSettings,
    /// One folder per running attempt.
    pub work_dir: PathBuf,
    /// One folder per state key.
    pub state_dir: PathBuf,
    /// Programs that run at fixed places of each run.
    pub hook_dir: Option<PathBuf>,
    /// Which backend keeps the states.
    pub state_backend: StateBackend,
    /// Jobs at the same time.
    pub concurrency: usize,
    /// How runs become pods, where the launcher makes pods.
    #[cfg(feature = "kubernetes")]
    pub(crate) kubernetes: Option<KubernetesSettings>,
    /// How jobs are found.
    pub intake: Intake,
    /// Most that one job's log may take on disk while it waits for the control plane, in bytes.
    pub spool_limit: u64,
    /// Bytes in the work directory above which no job is claimed, and the one that takes most of it is stopped.
    pub work_limit: u64,
    /// The program that was found and answered `version`.
    pub terraform: Terraform,
    /// Further versions, for runs that ask for one.
    pub(crate) terraform_dir: TerraformDir,
    /// What estimates costs.
    pub infracost: Infracost,
    /// Address of the health server, if one is wanted.
    pub health_addr: Option<SocketAddr>,
    /// Form of the agent's own log.
    pub log_format: LogFormat,
    /// Filter of the agent's own log.
    pub log_filter: String,
    /// Every interval and grace period.
    pub timing: Timing,
    /// The agent's own program: with it, the end of an apply is known to a later run of the agent if this one dies. None in
    /// a process that is another program.
    pub keeper: Option<PathBuf>,
    /// The users of runs, where they have users of their own.
    pub(crate) slot_users: Option<SlotUsers>,
    /// Why they have none, where the agent is root and nothing is configured.
    pub(crate) no_slot_users: Option<String>,
    /// What is configured of them.
    pub(crate) slot_uids: SlotUids,
    /// Where jobs run. In a process that is another program (`keeper` is none) they run inside it.
    pub launcher: LauncherKind,
    /// What becomes of running jobs when the agent is told to stop.
    pub on_stop: OnStop,
    /// What executors are handed of the secrets that this process was started with.
    pub(crate) handed_secrets: Arc<HandedSecrets>,
    /// What no log may show.
    pub(crate) secrets: Redactor,
}

/// All that is wrong with a configuration. Each entry says what and how to fix it; none holds a secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigProblems(pub(super) Vec<String>);

impl ConfigProblems {
    /// The sentences, one per problem.
    pub fn sentences(&self) -> &[String] {
        &self.0
    }
}

impl fmt::Display for ConfigProblems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let things = if self.0.len() == 1 { "thing" } else { "things" };
        write!(f, "tendril-agent cannot start, {} {things} must be fixed:", self.0.len())?;
        self.0.iter().try_for_each(|problem| write!(f, "\n  * {problem}"))
    }
}

impl Config {
    /// Reads, validates and tries what the command line and the environment say.
    ///
    /// Reads the token file, looks into the templates directory, creates the work and state directories and runs
    /// `terraform version`, so that a fault is reported at the start and not by the first job.
    pub fn from_cli(cli: &Cli) -> Result<Self, ConfigProblems> {
        Self::read(cli, None)
    }

    /// The configuration of an executor: who it is comes from its attempt file, everything else from the command line that it
    /// shares with its dispatcher, which has tried it.
    pub(crate) fn for_executor(cli: &Cli, attempt: &AttemptFile) -> Result<Self, ConfigProblems> {
        let mut cli = cli.clone();
        cli.supabase_url = Some(attempt.supabase_url.clone());
        cli.supabase_key = Some(attempt.supabase_key.expose_secret().to_owned());
        cli.agent_name = Some(attempt.agent_name.clone());
        cli.health_addr = None;
        Self::read(&cli, Some(attempt))
    }

    fn read(cli: &Cli, attempt: Option<&AttemptFile>) -> Result<Self, ConfigProblems> {
        let mut reader = Reader { problems: Vec::new() };
        let supabase_url = reader.take(supabase_url(cli));
        let supabase_key = reader.take(supabase_key(cli));
        let credential = match attempt {
            Some(attempt) => Some(attempt.credential()),
            None => reader.take(Credential::from_values(
                given(cli.agent_token.as_ref()),
                given(cli.agent_token_file.as_ref()),
            )),
        };
        let cluster_id = match attempt {
            Some(attempt) => Some(attempt.cluster_id),
            None => credential.as_ref().and_then(|credential| reader.take(credential.cluster_id())),
        };
        let known = attempt.and_then(|attempt| attempt.terraform.clone());
        // What the dispatcher has examined, its executors need not.
        let [templates_dir, work_dir, state_dir] = reader.directories(cli, known.is_none());
        let git = reader.git(cli);
        let hook_dir = given(cli.hook_dir.as_ref()).map(PathBuf::from);
        if let Some(dir) = &hook_dir {
            reader.take(hooks::inspect(dir));
        }
        let concurrency = reader.take(concurrency(cli));
        let intake = reader.take(Intake::read(given(cli.intake.as_ref())));
        let spool_limit = reader.take(spool_limit(cli));
        let work_limit = reader.take(size(
            "--work-limit / TENDRIL_WORK_LIMIT",
            given(cli.work_limit.as_ref()).unwrap_or("10GiB"),
        ));
        let timing = Timing::read(cli, &mut reader.problems);
        let infracost = reader.infracost(cli, attempt.and_then(AttemptFile::known_infracost));
        let allow_list = reader.take(AllowList::with_extra(given(cli.terraform_env.as_ref()).unwrap_or("")));
        let terraform_dir = reader.terraform_dir(cli);
        let terraform = reader.terraform(cli, known, &terraform_dir);
        let registry_tokens = reader.registry_tokens(cli, attempt.is_none());
        let state_backend = reader
            .take(StateBackend::read(given(cli.state_backend.as_ref()), given(cli.state_config.as_ref())));
        let plugin_cache = work_dir.as_deref().and_then(|dir| reader.take(plugin_cache(cli, dir)));
        let agent_name = reader.take(agent_name(cli));
        let health_addr = reader.take(health_addr(cli));
        let log_format = reader.take(log_format(cli));
        let (launcher, on_stop) = reader.launcher(cli);
        let slot_uids = reader.take(SlotUids::read(given(cli.slot_uid_base.as_ref())));
        #[cfg(feature = "kubernetes")]
        let kubernetes = reader.kubernetes(cli, launcher, &timing, state_backend.as_ref());

        let config = || {
            Some(Self {
                supabase_url: supabase_url?,
                supabase_key: supabase_key?,
                credential: credential?,
                agent_name: agent_name?,
                cluster_id: cluster_id?,
                templates_dir: templates_dir?,
                git: git?,
                work_dir: work_dir?,
                state_dir: state_dir?,
                hook_dir,
                concurrency: concurrency?,
                #[cfg(feature = "kubernetes")]
                kubernetes,
                intake: intake?,
                spool_limit: spool_limit?,
                work_limit: work_limit?,
                terraform: terraform?
                    .allowing(allow_list?.for_backend(state_backend.as_ref()?.kind().environment()))
                    .with_registry_tokens(registry_tokens?)
                    .caching(plugin_cache?),
                terraform_dir,
                infracost: infracost?,
                state_backend: state_backend?,
                health_addr: health_addr?,
                log_format: log_format?,
                log_filter: given(cli.log_level.as_ref()).unwrap_or("info").to_owned(),
                timing,
                keeper: None,
                slot_users: attempt.and_then(|attempt| attempt.slot_users.clone()),
                no_slot_users: None,
                slot_uids: slot_uids?,
                launcher: launcher?,
                on_stop: on_stop?,
                handed_secrets: Arc::new(HandedSecrets::of_executors(cli)),
                secrets: Redactor::default(),
            })
        };
        match config() {
            Some(config) if reader.problems.is_empty() => {
                config.secrets.hide(config.terraform.secrets());
                config.secrets.hide(config.infracost.secrets());
                Ok(config)
            }
            _ => Err(ConfigProblems(reader.problems)),
        }
    }
}

impl Config {
    /// Installs the process's log, which hides the agent's secrets. A filter that cannot be read falls back to `info`; a
    /// second call changes nothing.
    pub fn install_log(&self) {
        logging::install(&LogSettings {
            filter: self.log_filter.clone(),
            format: self.log_format,
            cluster_id: self.cluster_id,
            secrets: self.secrets.clone(),
        });
    }

    /// What an attempt is run with.
    pub(crate) fn execute_settings(&self) -> ExecuteSettings {
        ExecuteSettings {
            agent_name: self.agent_name.clone(),
            templates_dir: self.templates_dir.clone(),
            work_dir: self.work_dir.clone(),
            spool: SpoolRules { flush_after: self.timing.log_flush, limit: self.spool_limit },
            git: self.git.clone(),
            git_timeout: self.timing.git,
            hooks: HookSettings { dir: self.hook_dir.clone(), timeout: self.timing.hook },
            terraform: self.terraform_settings(),
            cost: CostSettings {
                infracost: self.infracost.clone(),
                time_limit: self.timing.cost,
                work_dir: self.work_dir.clone(),
            },
            is_pod: false,
        }
    }

    /// What Terraform's commands are run with.
    pub(crate) fn terraform_settings(&self) -> TerraformSettings {
        let Timing { lock_timeout, plan_cancel_grace, apply_cancel_grace, kill_grace, .. } = self.timing;
        let limits = self.timing.limits();
        TerraformSettings {
            program: self.terraform.clone(),
            dir: self.terraform_dir.clone(),
            keeper: self.keeper.clone(),
            timing: StepTiming { lock_timeout, plan_cancel_grace, apply_cancel_grace, kill_grace, limits },
            backend: self.state_backend.clone(),
            state_dir: self.state_dir.clone(),
            work_dir: self.work_dir.clone(),
            slot_users: self.slot_users.clone(),
        }
    }

    /// Where states are kept, for the database to compare with the cluster's other agents.
    pub(crate) fn state_store(&self) -> Option<StateStore> {
        match self.state_backend.fingerprint(&self.state_dir, |name| std::env::var(name).ok()) {
            Ok(fingerprint) => Some(StateStore { backend: self.state_backend.kind().name(), fingerprint }),
            Err(error) => {
                tracing::error!(%error, "the state directory has no identity: other agents of the cluster are not compared with this one");
                None
            }
        }
    }

    /// How the end of the agent is spent.
    pub(crate) fn shutdown_timing(&self) -> ShutdownTiming {
        let timing = &self.timing;
        ShutdownTiming {
            grace: timing.shutdown_grace,
            flush_deadline: timing.flush_deadline,
            cancel_grace: timing.apply_cancel_grace.max(timing.plan_cancel_grace),
            kill_grace: timing.kill_grace,
        }
    }

    /// What `/status` shows of the settings.
    pub(crate) fn facts(&self) -> Facts {
        Facts {
            agent_name: self.agent_name.clone(),
            cluster_id: self.cluster_id,
            terraform: self.terraform_settings(),
            infracost: self.infracost.clone(),
            concurrency: self.concurrency,
            intake: self.intake,
            work_limit: self.work_limit,
        }
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Config");
        shown
            .field("supabase_url", &self.supabase_url.as_str())
            .field("supabase_key", &"[hidden]")
            .field("credential", &self.credential)
            .field("cluster_id", &self.cluster_id)
            .field("agent_name", &self.agent_name)
            .field("templates_dir", &self.templates_dir)
            .field("git", &self.git)
            .field("work_dir", &self.work_dir)
            .field("state_dir", &self.state_dir)
            .field("hook_dir", &self.hook_dir)
            .field("state_backend", &self.state_backend)
            .field("concurrency", &self.concurrency)
            .field("intake", &self.intake)
            .field("spool_limit", &self.spool_limit)
            .field("work_limit", &self.work_limit)
            .field("terraform", &self.terraform)
            .field("terraform_dir", &self.terraform_dir.path())
            .field("infracost", &self.infracost)
            .field("health_addr", &self.health_addr)
            .field("log_format", &self.log_format)
            .field("log_filter", &self.log_filter)
            .field("timing", &self.timing)
            .field("keeper", &self.keeper)
            .field("slot_users", &self.slot_users)
            .field("no_slot_users", &self.no_slot_users)
            .field("slot_uids", &self.slot_uids)
            .field("launcher", &self.launcher)
            .field("on_stop", &self.on_stop)
            .field("handed_secrets", &"[hidden]")
            .field("secrets", &self.secrets);
        #[cfg(feature = "kubernetes")]
        // A pod template may hold the values of variables.
        shown.field("kubernetes", &self.kubernetes.as_ref().map(|settings| &settings.image));
        shown.finish()
    }
}
