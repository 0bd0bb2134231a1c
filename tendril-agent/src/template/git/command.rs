//! One command of Git: its whole environment, how long and how large it may get, and its output.
//!
//! The machine's and the user's own Git configuration is ignored, no helper, hook or filter runs, only one protocol is
//! allowed, and no redirect is followed. The token reaches Git through a program that Git calls ([`ASKPASS`]), which reads it
//! from its environment: it is never part of an address, an argument or a file.

use std::{
    collections::BTreeMap,
    env,
    ffi::OsString,
    fs, io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use futures_util::future::BoxFuture;
use secrecy::{ExposeSecret, SecretString};
use tokio::{task::spawn_blocking, time::sleep};
use url::Url;

use super::{fault::Fault, settings::GitSettings};
use crate::{
    os::files::{private_dir, usage},
    process::{Command, GracePeriod, Runner, Sink, StopReason, StopSignal, Stream},
};

/// Answers Git's request for a login to the one host that is being fetched from; a proxy that requests one gets nothing.
const ASKPASS: &str = r#"#!/bin/sh
case $1 in
"Username for '"*"//$TENDRIL_ASK_HOST': ") printf '%s\n' "$TENDRIL_ASK_USER" ;;
"Password for '"*"@$TENDRIL_ASK_HOST': ") printf '%s\n' "$TENDRIL_ASK_TOKEN" ;;
*) exit 1 ;;
esac
"#;

/// What Git inherits from the agent: where programs are, how the network is reached, whom TLS trusts.
const INHERITED: &[&str] = &[
    "PATH",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "no_proxy",
    "GIT_SSL_CAINFO",
    "GIT_SSL_CAPATH",
];

/// Git's own names for what other programs read.
const RENAMED: &[(&str, &str)] = &[("SSL_CERT_FILE", "GIT_SSL_CAINFO"), ("SSL_CERT_DIR", "GIT_SSL_CAPATH")];

/// Settings of every command. An empty helper removes those that were set before.
const SETTINGS: &[(&str, &str)] = &[
    ("protocol.allow", "never"),
    ("protocol.version", "2"),
    ("http.followRedirects", "false"),
    ("credential.helper", ""),
    ("core.hooksPath", "/dev/null"),
    ("core.attributesFile", "/dev/null"),
    ("core.fsmonitor", "false"),
    ("core.autocrlf", "false"),
    ("core.symlinks", "true"),
    ("submodule.recurse", "false"),
    ("fetch.recurseSubmodules", "false"),
    ("transfer.bundleURI", "false"),
    ("gc.auto", "0"),
    ("maintenance.auto", "false"),
];

/// What lets Git leave files out of the mirror.
const PARTIAL: &[(&str, &str)] =
    &[("remote.origin.promisor", "true"), ("remote.origin.partialclonefilter", "blob:none")];

/// The most that is stored of either stream.
const MOST: usize = 64 * 1024;
/// Between two looks how large it has become.
const POLL_INTERVAL: Duration = Duration::from_millis(250);
/// How long an interrupted command may take to end. It has nothing to lose.
const GRACE_PERIOD: GracePeriod =
    GracePeriod { graceful: Duration::from_secs(5), forced: Duration::from_secs(2) };

/// Where commands run, and for whom.
pub(crate) struct Console<'a> {
    pub(crate) settings: &'a GitSettings,
    pub(crate) runner: &'a dyn Runner,
    pub(crate) stop: &'a StopSignal,
    /// How long one command may take.
    pub(crate) timeout: Duration,
    /// The agent's directory for everything of Git.
    pub(crate) root: &'a Path,
}

/// The server that commands talk to.
pub(super) struct Remote {
    pub(super) address: Url,
    /// Read for this fetch.
    pub(super) token: Option<SecretString>,
}

/// What a command may do about what the mirror does not have. In a broken one, Git's attempt to get a commit that is missing
/// needs that commit, and starts itself for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Missing {
    /// It is an error.
    IsAnError,
    /// It may stay away: only files are left out.
    StaysAway,
    /// It is fetched when it is needed.
    IsFetched,
}

/// One command.
pub(super) struct Call<'a> {
    pub(super) args: Vec<OsString>,
    pub(super) missing: Missing,
    /// By this directory the processes that the command leaves are found and ended (see `orphans`).
    pub(super) owner: &'a Path,
    /// Variables of this command alone.
    pub(super) env: Vec<(&'static str, OsString)>,
    /// Directories that it fills.
    pub(super) fills: Vec<PathBuf>,
}

impl Console<'_> {
    /// Runs it to its end, or ends it gracefully; returns its stdout.
    pub(super) async fn run(&self, remote: &Remote, call: Call<'_>) -> Result<String, Fault> {
        if self.stop.requested().is_some() {
            return Err(Fault::Stopped);
        }
        let program = self.settings.program().map_err(Fault::NoProgram)?.to_path_buf();
        let home = self.root.join("home");
        private_dir(&home)?;
        let mut env = inherited(env::vars_os());
        env.extend(self.environment(remote, call.missing, &home)?);
        env.insert("TF_DATA_DIR".into(), call.owner.into());
        if call.missing != Missing::IsFetched {
            env.insert("GIT_NO_LAZY_FETCH".into(), "1".into());
        }
        env.extend(call.env.into_iter().map(|(name, value)| (name.into(), value)));
        let command =
            Command { program, args: call.args, dir: home, env, grace_period: GRACE_PERIOD, goes_on: None };
        let (own, tail) = (StopSignal::default(), OutputTail::default());
        let mut running = self.runner.run(command, &tail, &own);
        let fault = tokio::select! {
            exit = &mut running => {
                let exit = exit.map_err(Fault::NoProgram)?;
                drop(running);
                if exit.code != Some(0) {
                    return Err(Fault::read(&tail.stderr()));
                }
                // It may have been quicker than the looks.
                let limit = self.settings.limit;
                return if largest(&call.fills).await > limit { Err(Fault::TooLarge(limit)) } else { Ok(tail.stdout()) };
            }
            () = self.stop.wait() => Fault::Stopped,
            () = sleep(self.timeout) => Fault::TimedOut(self.timeout),
            fault = outgrown(&call.fills, self.settings.limit) => fault,
        };
        own.request(StopReason::Cancelled);
        // It ends because a stop was requested; its exit status does not matter.
        let _ended = running.await;
        Err(fault)
    }

    fn environment(
        &self,
        remote: &Remote,
        missing: Missing,
        home: &Path,
    ) -> io::Result<BTreeMap<OsString, OsString>> {
        let address = &remote.address;
        let fixed: [(&str, OsString); 10] = [
            ("HOME", home.into()),
            ("XDG_CONFIG_HOME", home.into()),
            ("LC_ALL", "C".into()),
            // The work directory may be inside of another repository.
            ("GIT_CEILING_DIRECTORIES", self.root.into()),
            ("GIT_CONFIG_NOSYSTEM", "1".into()),
            ("GIT_CONFIG_GLOBAL", "/dev/null".into()),
            ("GIT_ATTR_NOSYSTEM", "1".into()),
            ("GIT_TERMINAL_PROMPT", "0".into()),
            ("GIT_LITERAL_PATHSPECS", "1".into()),
            ("GIT_ALLOW_PROTOCOL", address.scheme().into()),
        ];
        let mut env: BTreeMap<OsString, OsString> =
            fixed.into_iter().map(|(name, value)| (name.into(), value)).collect();
        let protocol = format!("protocol.{}.allow", address.scheme());
        let own = [(protocol.as_str(), "always"), ("remote.origin.url", address.as_str())];
        let partial = if missing == Missing::IsAnError { &[] } else { PARTIAL };
        let settings = SETTINGS.iter().chain(partial).copied().chain(own);
        let mut count = 0_usize;
        for (name, value) in settings {
            env.insert(format!("GIT_CONFIG_KEY_{count}").into(), name.into());
            env.insert(format!("GIT_CONFIG_VALUE_{count}").into(), value.into());
            count += 1;
        }
        env.insert("GIT_CONFIG_COUNT".into(), count.to_string().into());
        if let Some(token) = &remote.token {
            let port = address.port().map_or_else(String::new, |port| format!(":{port}"));
            let host = format!("{}{port}", address.host_str().unwrap_or_default());
            env.insert("GIT_ASKPASS".into(), askpass(self.root)?.into());
            env.insert("TENDRIL_ASK_HOST".into(), host.into());
            env.insert("TENDRIL_ASK_USER".into(), self.settings.user().into());
            env.insert("TENDRIL_ASK_TOKEN".into(), token.expose_secret().into());
        }
        Ok(env)
    }
}

fn inherited(vars: impl IntoIterator<Item = (OsString, OsString)>) -> BTreeMap<OsString, OsString> {
    let all: BTreeMap<OsString, OsString> = vars.into_iter().collect();
    let same = INHERITED.iter().map(|name| (*name, *name));
    // Git's own name wins where both are set.
    let named = RENAMED.iter().copied().chain(same);
    named.filter_map(|(from, to)| Some((to.into(), all.get(&OsString::from(from))?.clone()))).collect()
}

/// Writes the program that Git calls, unless it is there; in one step, because others may be calling it.
fn askpass(root: &Path) -> io::Result<PathBuf> {
    let path = root.join("askpass");
    if fs::read(&path).is_ok_and(|text| text == ASKPASS.as_bytes()) {
        return Ok(path);
    }
    let mut file =
        tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o700)).tempfile_in(root)?;
    io::Write::write_all(&mut file, ASKPASS.as_bytes())?;
    // Closed before it is named: a program that is open for writing cannot be started.
    file.into_temp_path().persist(&path).map_err(|error| error.error)?;
    Ok(path)
}

/// Waits, for ever if need be, until one of the directories has become too large.
async fn outgrown(dirs: &[PathBuf], limit: u64) -> Fault {
    loop {
        sleep(POLL_INTERVAL).await;
        if largest(dirs).await > limit {
            return Fault::TooLarge(limit);
        }
    }
}

/// The disk use of the largest of these directories.
async fn largest(dirs: &[PathBuf]) -> u64 {
    let dirs = dirs.to_vec();
    let sizes = move || dirs.iter().map(|dir| usage(dir).bytes).max().unwrap_or_default();
    spawn_blocking(sizes).await.unwrap_or_default()
}

/// The output of a command: the end of each stream.
#[derive(Debug, Default)]
struct OutputTail(Mutex<[Vec<u8>; 2]>);

impl OutputTail {
    fn stdout(&self) -> String {
        self.text(0)
    }

    fn stderr(&self) -> String {
        self.text(1)
    }

    fn text(&self, stream: usize) -> String {
        let tail = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&tail[stream]).into_owned()
    }
}

impl Sink for OutputTail {
    fn write(&self, stream: Stream, bytes: Vec<u8>) -> BoxFuture<'_, ()> {
        let mut tail = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let stored = &mut tail[usize::from(stream == Stream::Stderr)];
        stored.extend_from_slice(&bytes);
        let over = stored.len().saturating_sub(MOST);
        stored.drain(..over);
        Box::pin(std::future::ready(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prompted(path: &Path, prompt: &str) -> Option<String> {
        let output = std::process::Command::new(path)
            .arg(prompt)
            .env_clear()
            .envs([
                ("TENDRIL_ASK_HOST", "h.example:99"),
                ("TENDRIL_ASK_USER", "u"),
                ("TENDRIL_ASK_TOKEN", "-n %s\\n"),
            ])
            .output()
            .unwrap();
        output.status.success().then(|| String::from_utf8(output.stdout).unwrap())
    }

    #[test]
    fn only_the_host_that_is_fetched_from_gets_the_token() {
        let dir = tempfile::tempdir().unwrap();
        let path = askpass(dir.path()).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(askpass(dir.path()).unwrap(), path);
        assert_eq!(prompted(&path, "Username for 'https://h.example:99': ").unwrap(), "u\n");
        assert_eq!(prompted(&path, "Password for 'https://u@h.example:99': ").unwrap(), "-n %s\\n\n");
        for prompt in [
            "Password for 'https://u@h.example': ",
            "Password for 'https://u@proxy.example:99': ",
            "Username for 'http://proxy.example:3128': ",
            "Password for 'https://u@h.example:99.evil.example': ",
            "Are you sure? ",
            "",
        ] {
            assert_eq!(prompted(&path, prompt), None, "{prompt}");
        }
    }

    #[test]
    fn of_the_agents_environment_git_sees_the_network_and_no_secret() {
        let pair = |name: &str, value: &str| (OsString::from(name), OsString::from(value));
        let vars = [
            pair("PATH", "/bin"),
            pair("https_proxy", "http://p"),
            pair("SSL_CERT_FILE", "/ca"),
            pair("TENDRIL_GIT_TOKEN", "s3cret"),
            pair("TENDRIL_AGENT_TOKEN", "s3cret"),
            pair("AWS_SECRET_ACCESS_KEY", "s3cret"),
            pair("GIT_SSL_NO_VERIFY", "1"),
            pair("GIT_TRACE", "1"),
            pair("LD_PRELOAD", "/x"),
        ];
        let stored = inherited(vars.clone());
        assert_eq!(
            stored,
            [pair("GIT_SSL_CAINFO", "/ca"), pair("PATH", "/bin"), pair("https_proxy", "http://p")].into()
        );
        let both = vars.into_iter().chain([pair("GIT_SSL_CAINFO", "/own")]);
        assert_eq!(inherited(both)[&OsString::from("GIT_SSL_CAINFO")], "/own");
    }
}
