//! The agent as a customer runs it: a process of its own, with a URL, a key and a token.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tendril_examples::screen::{printable, span};
use tokio::{
    process::{Child, Command},
    time::timeout,
};

use crate::{Problem, control_plane::ControlPlane};

/// How long the agent may take to stop before it gets a second signal, and then is killed.
const TIMEOUT: Duration = Duration::from_secs(20);

/// So many lines of its log are shown when something went wrong.
const TAIL: usize = 20;

/// A running agent.
pub(crate) struct AgentProcess {
    child: Child,
    id: u32,
    log: PathBuf,
    /// Its work, its state and its log; removed at the end.
    _home: TempDir,
}

impl AgentProcess {
    /// Starts `tendril-agent`, which was built beside this program.
    pub(crate) fn start(url: &str, key: &str, token: &str) -> Result<Self, Problem> {
        let program = program()?;
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."));
        let home = tempfile::Builder::new().prefix("tendril-demo-").tempdir()?;
        let log = home.path().join("agent.log");
        let log_file = fs::File::create(&log)?;
        let mut command = Command::new(&program);
        command
            .env("PATH", program_path(root)?)
            .env("SUPABASE_URL", url)
            .env("SUPABASE_PUBLISHABLE_KEY", key)
            .env("TENDRIL_AGENT_TOKEN", token)
            .env("TENDRIL_TEMPLATES_DIR", root.join("templates"))
            .env("TENDRIL_WORK_DIR", home.path().join("work"))
            .env("TENDRIL_STATE_DIR", home.path().join("state"))
            .env("TENDRIL_AGENT_NAME", "demo-agent")
            // Its templates are those of this repository, and its programs may lie where no other user may enter.
            .env("TENDRIL_SLOT_UID_BASE", "off")
            // One agent alone need not wait so that many do not start at once.
            .env("TENDRIL_STARTUP_JITTER", "0s")
            // Whoever stops the demo should not wait for a deployment.
            .env("TENDRIL_SHUTDOWN_GRACE", "1s")
            .env("NO_COLOR", "1")
            // What the caller may have set for another agent.
            .env_remove("SUPABASE_ANON_KEY")
            .env_remove("TENDRIL_AGENT_TOKEN_FILE")
            .env_remove("TENDRIL_HEALTH_ADDR")
            .stdin(Stdio::null())
            .stdout(log_file.try_clone()?)
            .stderr(log_file)
            // Ctrl-C is for the demo, which then stops the agent gracefully.
            .process_group(0)
            .kill_on_drop(true);
        let child =
            command.spawn().map_err(|error| format!("{} cannot be started: {error}", program.display()))?;
        let id = child.id().ok_or("the agent has no process id")?;
        Ok(Self { child, id, log, _home: home })
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.id
    }

    /// Resolves with an error if it ends by itself.
    pub(crate) async fn ended(&mut self) -> Problem {
        match self.child.wait().await {
            Ok(status) => {
                format!("the agent ended by itself with {status}; the end of its log is above").into()
            }
            Err(error) => error.into(),
        }
    }

    /// Stops it as Kubernetes does, and prints how it went.
    pub(crate) async fn stop(&mut self, plane: &ControlPlane) -> Result<String, Problem> {
        let status = self.terminate().await?;
        if !status.success() {
            return Err(format!("the agent ended with {status}, not with 0").into());
        }
        let cluster = plane.cluster_status().await?;
        if cluster != "OFFLINE" {
            return Err(format!("the agent stopped, but its cluster is {cluster}, not OFFLINE").into());
        }
        Ok("the agent on SIGTERM with exit 0, its cluster is OFFLINE; then the stack".to_owned())
    }

    async fn terminate(&mut self) -> Result<ExitStatus, Problem> {
        // The second SIGTERM makes it interrupt its jobs.
        for _ in 0..2 {
            self.signal(Signal::TERM);
            if let Ok(status) = timeout(TIMEOUT, self.child.wait()).await {
                return Ok(status?);
            }
        }
        self.child.kill().await?;
        Err(format!("the agent did not stop within {} and was killed", span(2 * TIMEOUT)).into())
    }

    fn signal(&self, signal: Signal) {
        // A child that was waited for has no id any more: no other process is hit.
        let id = self.child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        if let Some(id) = id {
            let _ = kill_process(id, signal);
        }
    }

    /// Prints the end of its own log on stderr.
    pub(crate) fn print_tail(&self) {
        let log = fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<_> = log.lines().collect();
        let tail = &lines[lines.len().saturating_sub(TAIL)..];
        eprintln!("\nThe end of the agent's own log:");
        for line in tail {
            eprintln!("  {}", printable(line));
        }
        eprintln!();
    }
}

/// `target/debug/tendril-agent`, where this program is `target/debug/examples/demo`.
fn program() -> Result<PathBuf, Problem> {
    let own = env::current_exe()?;
    let dir = own.parent().and_then(Path::parent).ok_or("this program has no directory above it")?;
    let program = dir.join("tendril-agent");
    if program.is_file() {
        return Ok(program);
    }
    let how = if dir.ends_with("release") { " --release" } else { "" };
    Err(format!(
        "{} is missing: build it with `cargo build -p tendril-agent --bins{how}`, or start the demo with `make demo`",
        program.display()
    )
    .into())
}

/// The caller's PATH, and before it the programs that `make setup` fetched.
pub(crate) fn program_path(root: &Path) -> Result<std::ffi::OsString, Problem> {
    let callers = env::var_os("PATH").unwrap_or_default();
    let dirs = std::iter::once(root.join(".tools/bin")).chain(env::split_paths(&callers));
    Ok(env::join_paths(dirs)?)
}
