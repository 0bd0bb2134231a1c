//! The program that estimates costs: which one is there, its arguments, and what it may see.
//!
//! There are two lines of it, and they have little in common. 0.10 (`infracost/infracost`) has `breakdown`, writes a file and
//! takes `INFRACOST_API_KEY`. 2.x (`infracost/cli`) has `scan`, writes to stdout and takes
//! `INFRACOST_CLI_AUTHENTICATION_TOKEN`; it knows `breakdown` too, but drops its flags silently. So the version is
//! read at the start, and each line of versions gets its own arguments.

use std::{
    collections::BTreeMap,
    env,
    ffi::OsString,
    fmt,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process_group};
use secrecy::ExposeSecret;
use serde::{Deserialize, Serialize};

use self::{cost_dir::CostDir, key::Key};
use crate::{
    os::program::find,
    process::{self, GracePeriod},
    terraform::environment,
};

pub(crate) mod cost_dir;
mod key;

/// How long `--version` may take.
const VERSION_LIMIT: Duration = Duration::from_secs(10);
/// What is looked for where no program is named.
const NAME: &str = "infracost";
/// How to have one.
const INSTALL: &str = "install infracost 0.10 or 2.x, name it with --infracost / TENDRIL_INFRACOST, or turn estimates off with \"off\"";
/// How to give it a key.
const GIVE_KEY: &str = "give it with TENDRIL_INFRACOST_KEY_FILE (--infracost-key-file) or TENDRIL_INFRACOST_KEY, or turn estimates off with TENDRIL_INFRACOST=off";

/// Which of the two lines it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Line {
    /// 0.10.
    Zero,
    /// 2.x.
    Two,
}

impl Line {
    /// The line of a version, if it is a known one.
    fn of(version: &str) -> Option<Self> {
        let mut numbers = version.split('.').map(|part| part.parse::<u64>().ok());
        match (numbers.next()??, numbers.next()??) {
            (0, 10) => Some(Self::Zero),
            (2, _) => Some(Self::Two),
            _ => None,
        }
    }

    /// The variable that holds its key.
    const fn key_name(self) -> &'static str {
        match self {
            Self::Zero => "INFRACOST_API_KEY",
            Self::Two => "INFRACOST_CLI_AUTHENTICATION_TOKEN",
        }
    }

    /// What it may inherit beside the machine's own settings. Prices are no secret and need no cloud account, so nothing of a
    /// cloud is in the list.
    const fn inherits(self) -> &'static [&'static str] {
        match self {
            Self::Zero => &[
                "INFRACOST_API_KEY",
                "INFRACOST_CURRENCY",
                "INFRACOST_PRICING_API_ENDPOINT",
                "INFRACOST_TLS_CA_CERT_FILE",
                "INFRACOST_TLS_INSECURE_SKIP_VERIFY",
                "INFRACOST_AWS_OVERRIDE_REGION",
                "INFRACOST_AZURE_OVERRIDE_REGION",
                "INFRACOST_GOOGLE_OVERRIDE_REGION",
                "INFRACOST_PARALLELISM",
            ],
            Self::Two => &[
                "INFRACOST_CLI_AUTHENTICATION_TOKEN",
                "INFRACOST_CLI_PRICING_API_KEY",
                "INFRACOST_CLI_PRICING_ENDPOINT",
                "INFRACOST_CLI_CURRENCY",
                "INFRACOST_CLI_ORG",
                "INFRACOST_CLI_PLUGIN_*",
            ],
        }
    }

    /// Whether it can look prices up with this environment: the public price list wants a key, another one may not.
    fn has_access(self, env: &BTreeMap<OsString, OsString>) -> bool {
        let is_set =
            |name: &str| env.get(OsString::from(name).as_os_str()).is_some_and(|value| !value.is_empty());
        let elsewhere = match self {
            Self::Zero => "INFRACOST_PRICING_API_ENDPOINT",
            Self::Two => "INFRACOST_CLI_PRICING_API_KEY",
        };
        is_set(self.key_name()) || is_set(elsewhere)
    }
}

/// The program, found and tried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    path: PathBuf,
    version: String,
    line: Line,
}

impl Program {
    /// Its version, such as `0.10.45`.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) const fn line(&self) -> Line {
        self.line
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "infracost {}", self.version)
    }
}

/// What is there to estimate costs with. As text: `infracost 0.10.45`, or why there is none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Found {
    /// It is not wanted.
    Off,
    /// There is none on this machine.
    Missing,
    /// There is one that cannot be used; the message says why, and how to fix it.
    Unusable(String),
    /// One that can be used.
    Program(Program),
}

impl Found {
    /// Looks for the program and reads its version. `off` turns it off; without a name it is looked for on PATH, and may be
    /// missing. Errors: one that was named is not there, or does not run.
    pub fn detect(named: Option<&str>) -> Result<Self, String> {
        if named == Some("off") {
            return Ok(Self::Off);
        }
        let Some(path) = find(named.unwrap_or(NAME)) else {
            return named.map_or(Ok(Self::Missing), |name| {
                Err(format!("--infracost / TENDRIL_INFRACOST: \"{name}\" is not an executable program on this machine: {INSTALL}"))
            });
        };
        let message = match ask_version(&path) {
            Ok(message) => message,
            Err(why) => {
                let sentence = format!("{} does not run ({why}): {INSTALL}", path.display());
                return if named.is_some() { Err(sentence) } else { Ok(Self::Unusable(sentence)) };
            }
        };
        Ok(match version_in(&message) {
            None => Self::Unusable(format!("{} does not print its version: {INSTALL}", path.display())),
            Some(version) => match Line::of(&version) {
                Some(line) => Self::Program(Program { path, version, line }),
                None => Self::Unusable(format!("this agent does not support infracost {version}: {INSTALL}")),
            },
        })
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("cost estimates are turned off on this agent"),
            Self::Missing => f.write_str("infracost is not installed where the agent runs"),
            Self::Unusable(why) => f.write_str(why),
            Self::Program(program) => program.fmt(f),
        }
    }
}

/// How costs are estimated on this agent.
#[derive(Clone, Debug)]
pub struct Infracost {
    found: Found,
    key: Option<Key>,
}

impl Infracost {
    /// From the settings. Errors: what was named cannot be used.
    pub(crate) fn from_values(
        program: Option<&str>,
        key: Option<&str>,
        key_file: Option<&str>,
    ) -> Result<Self, String> {
        let infracost = Self::with(Found::detect(program)?, key, key_file)?;
        if let (Found::Program(_), Some(key)) = (&infracost.found, &infracost.key) {
            key.read()?;
        }
        Ok(infracost)
    }

    /// With what was found before. A key file that cannot be read now prevents an estimate, and not a run. Errors: two keys.
    pub(crate) fn with(found: Found, key: Option<&str>, key_file: Option<&str>) -> Result<Self, String> {
        Ok(Self { found, key: Key::from_values(key, key_file)? })
    }

    /// None at all.
    #[cfg(test)]
    pub(crate) const fn missing() -> Self {
        Self { found: Found::Missing, key: None }
    }

    /// What is there.
    pub const fn found(&self) -> &Found {
        &self.found
    }

    /// What is wrong and how to fix it, if something is. That there is none, or that it is off, is not wrong.
    pub(crate) fn complaint(&self) -> Option<String> {
        match &self.found {
            Found::Off | Found::Missing => None,
            Found::Unusable(why) => Some(why.clone()),
            Found::Program(program) => self.access(program).err(),
        }
    }

    /// Values that no log may show, whether they are used or not.
    pub(crate) fn secrets(&self) -> Vec<String> {
        let own = self.key.as_ref().and_then(|key| key.read().ok());
        let names = [Line::Zero.key_name(), Line::Two.key_name(), "INFRACOST_CLI_PRICING_API_KEY"];
        let inherited = names.into_iter().filter_map(|name| env::var(name).ok());
        own.iter().map(|key| key.expose_secret().to_owned()).chain(inherited).collect()
    }

    /// The command that estimates what a module costs.
    ///
    /// # Errors
    /// There is no key, or it cannot be read; in a sentence.
    pub(crate) fn command(
        &self,
        program: &Program,
        module: PathBuf,
        cost_dir: &CostDir,
        grace_period: GracePeriod,
    ) -> Result<process::Command, String> {
        let mut env = self.access(program)?;
        cost_dir.finalize(program.line, &mut env);
        let command = process::Command {
            program: program.path.clone(),
            args: arguments(program.line, &cost_dir.estimate()),
            dir: module,
            env,
            grace_period,
            goes_on: None,
        };
        cost_dir
            .confine(command)
            .map_err(|error| format!("the agent's work directory cannot be used ({error})"))
    }

    /// What the program inherits, and its key.
    fn access(&self, program: &Program) -> Result<BTreeMap<OsString, OsString>, String> {
        let mut env = environment::inherited(program.line.inherits());
        if let Some(key) = &self.key {
            env.insert(program.line.key_name().into(), key.read()?.expose_secret().into());
        }
        if program.line.has_access(&env) {
            Ok(env)
        } else {
            Err(format!("{program} has no key ({}): {GIVE_KEY}", program.line.key_name()))
        }
    }
}

fn arguments(line: Line, estimate: &Path) -> Vec<OsString> {
    match line {
        Line::Zero => {
            let mut args: Vec<OsString> =
                ["breakdown", "--path", ".", "--format", "json", "--out-file"].map(OsString::from).into();
            args.push(estimate.into());
            args.extend(["--no-color", "--log-level", "warn"].map(OsString::from));
            args
        }
        // The first versions of the line write JSON anyway; later ones need a flag.
        Line::Two => ["scan", "--json", "."].map(OsString::from).into(),
    }
}

/// Always: no check for updates, no settings from a file that a template could bring.
fn quiet() -> [(OsString, OsString); 3] {
    [
        ("INFRACOST_SKIP_UPDATE_CHECK".into(), "true".into()),
        ("INFRACOST_DISABLE_ENVFILE".into(), "true".into()),
        ("NO_COLOR".into(), "1".into()),
    ]
}

/// What `--version` prints: `Infracost v0.10.45`, or `infracost version v2.0.0`.
fn ask_version(path: &Path) -> Result<String, String> {
    let mut command = Command::new(path);
    command
        .arg("--version")
        .env_clear()
        .envs(env::var_os("PATH").map(|path| ("PATH", path)))
        .env("HOME", "/nonexistent")
        .envs(quiet())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .process_group(0);
    let child = command.spawn().map_err(|error| error.to_string())?;
    let group = Pid::from_raw(child.id().cast_signed());
    let (sender, reported) = mpsc::channel();
    thread::spawn(move || {
        // Nobody listens any more once the time is over.
        let _late = sender.send(child.wait_with_output());
    });
    match reported.recv_timeout(VERSION_LIMIT) {
        Ok(Ok(output)) if output.status.success() => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        Ok(Ok(output)) => Err(format!("\"--version\" ended with {}", output.status)),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => {
            // The only error that can happen means that no process is left.
            let _gone = group.map(|group| kill_process_group(group, Signal::KILL));
            Err(format!("\"--version\" gave no answer in {VERSION_LIMIT:?}"))
        }
    }
}

/// The first version in the text, without its `v`.
fn version_in(message: &str) -> Option<String> {
    let is_version = |word: &&str| {
        let numbers = word.split(['-', '+']).next().unwrap_or_default();
        numbers.split('.').count() == 3 && numbers.split('.').all(|part| part.parse::<u32>().is_ok())
    };
    let words =
        message.split_whitespace().map(|word| word.trim_start_matches('v')).filter(|word| word.len() <= 40);
    words.filter(|word| word.is_ascii()).find(is_version).map(str::to_owned)
}

#[cfg(test)]
#[path = "infracost_tests.rs"]
mod tests;
