//! Reads the values of flags one by one, and collects what is wrong with them.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use secrecy::SecretString;
use url::Url;

use super::{args::Cli, preflight};
#[cfg(feature = "kubernetes")]
use super::{kubernetes, timing::Timing};
use crate::{
    control_plane::auth::MachineToken,
    cost::infracost::{Found, Infracost},
    launch::{LauncherKind, OnStop},
    observability::logging::LogFormat,
    template::git::{GitSettings, Written},
    terraform::{KnownTerraform, RegistryTokens, Terraform, TerraformDir},
};
#[cfg(feature = "kubernetes")]
use crate::{launch::kubernetes::KubernetesSettings, terraform::state::StateBackend};

/// Collects problems while values are read, so that the last one is found as surely as the first.
pub(super) struct Reader {
    pub(super) problems: Vec<String>,
}

impl Reader {
    pub(super) fn take<T>(&mut self, value: Result<T, String>) -> Option<T> {
        value.map_err(|problem| self.problems.push(problem)).ok()
    }

    /// Where templates, jobs and states are.
    pub(super) fn directories(&mut self, cli: &Cli, are_examined: bool) -> [Option<PathBuf>; 3] {
        let templates = self.directory("--templates-dir", cli.templates_dir.as_ref());
        let [work, state] =
            [("--work-dir", &cli.work_dir), ("--state-dir", &cli.state_dir)].map(|(flag, dir)| {
                let dir = self.directory(flag, dir.as_ref());
                if let Some(dir) = dir.as_ref().filter(|_| are_examined) {
                    self.take(preflight::writable(flag, dir));
                }
                dir
            });
        if let Some(dir) = templates.as_ref().filter(|_| are_examined) {
            self.take(preflight::templates(dir));
        }
        [templates, work, state]
    }

    pub(super) fn directory(&mut self, flag: &str, value: Option<&String>) -> Option<PathBuf> {
        let value = given(value).ok_or_else(|| format!("{flag} is empty: name a directory"));
        let path = self.take(value)?;
        let absolute = std::path::absolute(path)
            .map_err(|error| format!("{flag} {path}: cannot be made absolute ({error})"));
        self.take(absolute)
    }

    /// Where jobs run, and what SIGTERM does to them.
    pub(super) fn launcher(&mut self, cli: &Cli) -> (Option<LauncherKind>, Option<OnStop>) {
        let launcher = self.take(LauncherKind::read(given(cli.launcher.as_ref())));
        let on_stop = self.take(OnStop::read(given(cli.on_stop.as_ref()), launcher));
        (launcher, on_stop)
    }

    /// How runs become pods, where the launcher makes pods.
    #[cfg(feature = "kubernetes")]
    pub(super) fn kubernetes(
        &mut self,
        cli: &Cli,
        launcher: Option<LauncherKind>,
        timing: &Timing,
        state: Option<&StateBackend>,
    ) -> Option<KubernetesSettings> {
        if launcher != Some(LauncherKind::Kubernetes) {
            return None;
        }
        let read = kubernetes::read(cli, timing, state.map(StateBackend::kind));
        read.map_err(|mut problems| self.problems.append(&mut problems)).ok()
    }

    pub(super) fn terraform_dir(&mut self, cli: &Cli) -> TerraformDir {
        let Some(dir) = given(cli.terraform_dir.as_ref()) else { return TerraformDir::default() };
        let absolute = std::path::absolute(dir)
            .map_err(|error| format!("--terraform-dir {dir}: cannot be made absolute ({error})"));
        self.take(absolute).map(TerraformDir::at).unwrap_or_default()
    }

    /// `known`: what the dispatcher found; its executors need not look again.
    pub(super) fn terraform(
        &mut self,
        cli: &Cli,
        known: Option<KnownTerraform>,
        dir: &TerraformDir,
    ) -> Option<Terraform> {
        let cli_config = given(cli.terraform_config.as_ref()).map(Path::new);
        if let Some(KnownTerraform { program, product, version }) = known {
            return Some(Terraform::new(program, product, version, cli_config.map(Path::to_path_buf)));
        }
        self.take(preflight::terraform_dir(dir));
        self.take(preflight::terraform(given(cli.terraform.as_ref()), dir, cli_config))
    }

    /// The files are tried at the start of the agent. A run that cannot read one ends with that reason.
    pub(super) fn registry_tokens(&mut self, cli: &Cli, tries: bool) -> Option<RegistryTokens> {
        let read = RegistryTokens::read(given(cli.terraform_token_file.as_ref()).unwrap_or_default());
        let read = read.map_err(|mut problems| self.problems.append(&mut problems)).ok();
        if let Some(tokens) = read.as_ref().filter(|_| tries) {
            self.problems.append(&mut tokens.problems());
        }
        read
    }

    /// `known`: what the dispatcher found; asking a program for its version takes its time.
    pub(super) fn infracost(&mut self, cli: &Cli, known: Option<Found>) -> Option<Infracost> {
        let [program, key, key_file] =
            [&cli.infracost, &cli.infracost_key, &cli.infracost_key_file].map(|value| given(value.as_ref()));
        self.take(match known {
            Some(found) => Infracost::with(found, key, key_file),
            None => Infracost::from_values(program, key, key_file),
        })
    }

    pub(super) fn git(&mut self, cli: &Cli) -> Option<GitSettings> {
        let limit = |text| self.take(size("--git-limit / TENDRIL_GIT_LIMIT", text));
        let written = Written {
            limit: given(cli.git_limit.as_ref()).and_then(limit),
            hosts: given(cli.git_hosts.as_ref()),
            token: given(cli.git_token.as_ref()),
            token_file: given(cli.git_token_file.as_ref()),
            token_for: given(cli.git_token_for.as_ref()),
            user: given(cli.git_user.as_ref()),
        };
        GitSettings::read(&written).map_err(|mut problems| self.problems.append(&mut problems)).ok()
    }
}

/// A value that is set and not blank: an empty variable in a manifest means "not set".
pub(super) fn given(value: Option<&String>) -> Option<&str> {
    value.map(|text| text.trim()).filter(|text| !text.is_empty())
}

pub(super) fn supabase_url(cli: &Cli) -> Result<Url, String> {
    let text = given(cli.supabase_url.as_ref()).ok_or(
        "SUPABASE_URL (--supabase-url) is not set: give the project's URL, such as https://abcd.supabase.co",
    )?;
    let advice =
        "SUPABASE_URL (--supabase-url) must be the project's base URL, such as https://abcd.supabase.co";
    // The text itself is not repeated: a URL can hold a password.
    let url = Url::parse(text).map_err(|error| format!("{advice}: this one is not a URL ({error})"))?;
    if !matches!(url.scheme(), "https" | "http") || url.host().is_none() {
        return Err(format!("{advice}: this one has the scheme \"{}\"", url.scheme()));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(format!("{advice}: take the user name and password out of it"));
    }
    Ok(url)
}

pub(super) fn supabase_key(cli: &Cli) -> Result<SecretString, String> {
    let key = given(cli.supabase_key.as_ref()).or(given(cli.supabase_anon_key.as_ref())).ok_or(
        "SUPABASE_PUBLISHABLE_KEY (--supabase-key, or the older SUPABASE_ANON_KEY) is not set: \
         copy the publishable key from the project's API settings",
    )?;
    if !key.chars().all(|c| c.is_ascii_graphic()) {
        return Err("SUPABASE_PUBLISHABLE_KEY (--supabase-key) holds a space or a control character: copy the key again"
            .to_owned());
    }
    let is_secret = key.starts_with("sb_secret_")
        || MachineToken::role_of(key).is_some_and(|role| role == "service_role");
    if is_secret {
        return Err(
            "SUPABASE_PUBLISHABLE_KEY (--supabase-key) holds a secret key: an agent must never have one. \
                    Use the publishable (or anon) key, and roll the secret key"
                .to_owned(),
        );
    }
    Ok(SecretString::from(key))
}

pub(super) fn concurrency(cli: &Cli) -> Result<usize, String> {
    let text = given(cli.concurrency.as_ref()).unwrap_or("2");
    let most = LauncherKind::read(given(cli.launcher.as_ref())).map_or(64, LauncherKind::most);
    match text.parse() {
        Ok(n) if (1..=most).contains(&n) => Ok(n),
        _ => {
            Err(format!("--concurrency / TENDRIL_CONCURRENCY is \"{text}\": write a number from 1 to {most}"))
        }
    }
}

/// At least 1 MiB, so that a chunk has room beside its neighbours.
pub(super) fn spool_limit(cli: &Cli) -> Result<u64, String> {
    size("--spool-limit / TENDRIL_SPOOL_LIMIT", given(cli.spool_limit.as_ref()).unwrap_or("256MiB"))
}

/// A size such as `256MiB`.
pub(super) fn size(name: &str, text: &str) -> Result<u64, String> {
    const MIB: u64 = 1024 * 1024;
    let units = [("KiB", 1024), ("MiB", MIB), ("GiB", 1024 * MIB), ("", 1)];
    let bytes = units.into_iter().find_map(|(unit, factor)| {
        text.strip_suffix(unit)?.trim_end().parse::<u64>().ok()?.checked_mul(factor)
    });
    bytes
        .filter(|bytes| *bytes >= MIB)
        .ok_or_else(|| format!("{name} is \"{text}\": write a size of at least 1MiB, such as 256MiB or 2GiB"))
}

pub(super) fn plugin_cache(cli: &Cli, work_dir: &Path) -> Result<PathBuf, String> {
    let Some(dir) = given(cli.plugin_cache_dir.as_ref()) else { return Ok(work_dir.join("plugins")) };
    let dir = std::path::absolute(dir)
        .map_err(|error| format!("--plugin-cache-dir {dir}: cannot be made absolute ({error})"))?;
    preflight::writable("--plugin-cache-dir", &dir)?;
    Ok(dir)
}

pub(super) fn health_addr(cli: &Cli) -> Result<Option<SocketAddr>, String> {
    given(cli.health_addr.as_ref())
        .map(|text| {
            text.parse().map_err(|_| {
                format!("--health-addr / TENDRIL_HEALTH_ADDR is \"{text}\": write an address and a port, such as 0.0.0.0:8080")
            })
        })
        .transpose()
}

pub(super) fn log_format(cli: &Cli) -> Result<LogFormat, String> {
    match given(cli.log_format.as_ref()).unwrap_or("human") {
        "human" => Ok(LogFormat::Human),
        "json" => Ok(LogFormat::Json),
        other => {
            Err(format!("--log-format / TENDRIL_LOG_FORMAT is \"{other}\": write \"human\" or \"json\""))
        }
    }
}

/// Longer names the database does not take.
const LONGEST_NAME: usize = 200;

pub(super) fn agent_name(cli: &Cli) -> Result<String, String> {
    let host = || rustix::system::uname().nodename().to_string_lossy().into_owned();
    let name = given(cli.agent_name.as_ref()).map_or_else(host, str::to_owned);
    if name.chars().count() > LONGEST_NAME {
        return Err(format!(
            "--agent-name / TENDRIL_AGENT_NAME is longer than {LONGEST_NAME} characters: give a shorter one"
        ));
    }
    Ok(name)
}
