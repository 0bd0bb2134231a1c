//! Secrets that the process was started with: taken out of its environment and its arguments, which others can read for as long
//! as it runs.
//!
//! A process cannot change what it was started with. So it starts its own program again, in the same process and with the same
//! process ID: without the secrets, which the new one reads from its standard input, a file in memory. An executor gets its
//! secrets from its dispatcher in the same way.

use std::{
    env,
    ffi::OsString,
    fs::{File, OpenOptions},
    io::{self, Read as _, Seek as _, Write as _},
    os::unix::process::CommandExt as _,
    process::{Command, Stdio},
};

use rustix::fs::{MemfdFlags, memfd_create};
use serde::{Deserialize, Serialize};

use crate::config::args::Cli;

/// Set where the secrets are in the standard input.
pub(crate) const MARK: &str = "TENDRIL_SECRETS_ON_STDIN";
/// The variables that hold a secret, and the flags.
pub(crate) const VARIABLES: [&str; 3] = ["TENDRIL_AGENT_TOKEN", "TENDRIL_GIT_TOKEN", "TENDRIL_INFRACOST_KEY"];
const FLAGS: [&str; 3] = ["--agent-token", "--git-token", "--infracost-key"];

/// The secrets, as they were written.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct HandedSecrets {
    #[serde(default)]
    pub(crate) agent_token: Option<String>,
    #[serde(default)]
    pub(crate) git_token: Option<String>,
    #[serde(default)]
    pub(crate) infracost_key: Option<String>,
}

impl HandedSecrets {
    fn of(cli: &Cli) -> Self {
        Self {
            agent_token: cli.agent_token.clone(),
            git_token: cli.git_token.clone(),
            infracost_key: cli.infracost_key.clone(),
        }
    }

    /// What executors get of them: no token, for they have their own.
    pub(crate) fn of_executors(cli: &Cli) -> Self {
        Self { agent_token: None, ..Self::of(cli) }
    }

    fn is_empty(&self) -> bool {
        self.agent_token.is_none() && self.git_token.is_none() && self.infracost_key.is_none()
    }

    /// A standard input that holds them.
    pub(crate) fn as_input(&self) -> io::Result<Stdio> {
        let mut file = File::from(memfd_create("secrets", MemfdFlags::CLOEXEC)?);
        file.write_all(&serde_json::to_vec(self)?)?;
        file.rewind()?;
        Ok(file.into())
    }

    /// Reads and removes what [`as_input`](Self::as_input) gave this process.
    fn read() -> io::Result<Self> {
        let mut file = OpenOptions::new().read(true).write(true).open("/proc/self/fd/0")?;
        let mut text = Vec::new();
        file.read_to_end(&mut text)?;
        file.set_len(0)?;
        Ok(serde_json::from_slice(&text)?)
    }
}

/// Reads the secrets that this process got in its standard input; has the process start again without those in its environment
/// and its arguments, if there are any. Errors: the secrets cannot be read, or the process cannot start itself.
pub(crate) fn take(cli: &mut Cli) -> io::Result<()> {
    if env::var_os(MARK).is_some() {
        let secrets = HandedSecrets::read()?;
        cli.agent_token = secrets.agent_token.or(cli.agent_token.take());
        cli.git_token = secrets.git_token.or(cli.git_token.take());
        cli.infracost_key = secrets.infracost_key.or(cli.infracost_key.take());
        return Ok(());
    }
    let secrets = HandedSecrets::of(cli);
    if secrets.is_empty() {
        return Ok(());
    }
    let mut args = env::args_os();
    let name = args.next().unwrap_or_default();
    let mut command = Command::new("/proc/self/exe");
    command.arg0(name).args(without_secrets(args)).env(MARK, "1").stdin(secrets.as_input()?);
    for variable in VARIABLES {
        command.env_remove(variable);
    }
    Err(command.exec())
}

/// The arguments without the secrets in them.
pub(crate) fn without_secrets(args: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut kept = Vec::new();
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        let text = arg.to_string_lossy();
        if FLAGS.contains(&text.as_ref()) {
            let _value = args.next();
        } else if !FLAGS.iter().any(|flag| text.strip_prefix(flag).is_some_and(|rest| rest.starts_with('=')))
        {
            kept.push(arg);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_keep_everything_but_their_secrets() {
        let args = [
            "--agent-token",
            "tdl_x",
            "--concurrency=3",
            "--git-token=y",
            "--work-dir",
            "/w",
            "--agent-token-file",
            "/t",
        ];
        let kept = without_secrets(args.map(OsString::from));
        assert_eq!(kept, ["--concurrency=3", "--work-dir", "/w", "--agent-token-file", "/t"]);
    }
}
