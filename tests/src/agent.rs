//! An agent of a cluster: as a process of its own, or as a task of this one.

use std::{
    fs,
    path::{Path, PathBuf},
};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tendril_agent::{Agent, AgentError, Cli, Config, Shutdown};
use tokio::{process::Command, task::JoinHandle};

use crate::{
    program::{self, Program},
    project::Project,
    wait::until,
    world::{fixtures, repository},
};

/// What an agent shall be started with. Every field may be changed before the start.
#[derive(Clone)]
pub struct AgentSetup {
    /// Flags and variables.
    pub cli: Cli,
    /// Further variables of the agent's process.
    pub env: Vec<(String, String)>,
}

/// The executors in a work directory.
#[derive(Debug)]
pub struct Executors {
    pub(crate) work_dir: PathBuf,
}

impl Executors {
    /// Of agents whose work directory is this one.
    pub fn in_work_dir(work_dir: &Path) -> Self {
        Self { work_dir: work_dir.to_owned() }
    }

    /// The process IDs of those that run.
    pub fn running(&self) -> Vec<Pid> {
        self.processes("execute")
    }

    /// The process IDs of the parents that store the exit codes of applies.
    pub fn keepers(&self) -> Vec<Pid> {
        self.processes("keep-exit")
    }

    fn processes(&self, command: &str) -> Vec<Pid> {
        let of_this_dir = |pid: &Pid| {
            let text = fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).unwrap_or_default();
            let args: Vec<_> = text.split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
            let dir = self.work_dir.to_string_lossy();
            args.iter().any(|arg| arg == command) && args.iter().any(|arg| arg.starts_with(&*dir))
        };
        let entries = fs::read_dir("/proc").expect("/proc").filter_map(Result::ok);
        let pids = entries.filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?));
        pids.filter(of_this_dir).collect()
    }

    /// Sends a signal to those that run.
    pub fn signal(&self, signal: Signal) {
        for pid in self.running() {
            // Whoever is gone needs none.
            let _gone = kill_process(pid, signal);
        }
    }

    /// Kills them, and the applies that would go on without them.
    pub(crate) fn end(&self) {
        self.signal(Signal::KILL);
        for keeper in self.keepers() {
            // Its group is the apply's too.
            let _gone = kill_process_group(keeper, Signal::KILL);
        }
    }

    /// Waits until there are so many; answers them.
    pub async fn are(&self, count: usize) -> Vec<Pid> {
        until("the executors are as many as expected", async || {
            let running = self.running();
            if running.len() == count { Ok(running) } else { Err(format!("{running:?}")) }
        })
        .await
    }
}

/// An agent in this process. Dropping it stops it at once.
#[derive(Debug)]
pub struct InsideAgent {
    shutdown: Shutdown,
    task: JoinHandle<Result<(), AgentError>>,
}

fn text(path: &Path) -> Option<String> {
    path.to_str().map(str::to_owned)
}

impl AgentSetup {
    pub(crate) fn new(project: &Project, dir: &Path, states: &Path, token: String) -> Self {
        let cli = Cli {
            supabase_url: Some(project.url.clone()),
            supabase_key: Some(project.anon_key.clone()),
            agent_token: Some(token),
            templates_dir: text(&fixtures("templates")),
            work_dir: text(&dir.join("work")),
            state_dir: text(states),
            agent_name: Some("scenario".to_owned()),
            // One agent is no crowd.
            startup_jitter: Some("0s".to_owned()),
            // Templates write into the test's own directories.
            slot_uid_base: Some("off".to_owned()),
            ..Cli::default()
        };
        Self { cli, env: Vec::new() }
    }

    /// Another token.
    #[must_use]
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.cli.agent_token = Some(token.into());
        self
    }

    /// The token from a file.
    #[must_use]
    pub fn token_file(mut self, file: &Path) -> Self {
        self.cli.agent_token = None;
        self.cli.agent_token_file = text(file);
        self
    }

    /// Another way to the project.
    #[must_use]
    pub fn url(mut self, url: impl Into<String>) -> Self {
        self.cli.supabase_url = Some(url.into());
        self
    }

    /// Other templates.
    #[must_use]
    pub fn templates(mut self, dir: &Path) -> Self {
        self.cli.templates_dir = text(dir);
        self
    }

    /// Jobs at the same time.
    #[must_use]
    pub fn concurrency(mut self, jobs: usize) -> Self {
        self.cli.concurrency = Some(jobs.to_string());
        self
    }

    /// Jobs are found by broadcasts.
    #[must_use]
    pub fn by_broadcast(mut self) -> Self {
        self.cli.intake = Some("broadcast".to_owned());
        self
    }

    /// Jobs are found by row changes.
    #[must_use]
    pub fn by_row_changes(mut self) -> Self {
        self.cli.intake = Some("postgres_changes".to_owned());
        self
    }

    /// The agent's name in `claimed_by`.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.cli.agent_name = Some(name.into());
        self
    }

    /// Runs have users of their own, with a range of IDs that no other test has, and with private shared places: this directory, in
    /// which the work directory and the states are, must not be below one of those.
    #[must_use]
    pub fn with_users_of_runs(mut self, dir: &Path) -> Self {
        self.cli.slot_uid_base = Some((200_000 + std::process::id() % 50_000 * 20_000).to_string());
        self.cli.work_dir = text(&dir.join("work"));
        self.cli.state_dir = text(&dir.join("state"));
        self
    }

    /// Another program instead of terraform.
    #[must_use]
    pub fn terraform(mut self, program: &Path) -> Self {
        self.cli.terraform = text(program);
        self
    }

    /// The stand-in instead of terraform: it answers in milliseconds.
    #[must_use]
    pub fn stand_in(self) -> Self {
        self.terraform(&fixtures("terraform-stand-in"))
    }

    /// A further variable of the agent's process.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.env.push((name.to_owned(), value.into()));
        self
    }

    /// The narrator instead of terraform: it prints the lines of a [`Story`](crate::Story).
    #[must_use]
    pub fn narrator(self) -> Self {
        self.terraform(&fixtures("terraform-narrator"))
    }

    /// Jobs run inside the agent, and not in processes of their own.
    #[must_use]
    pub fn in_process(self) -> Self {
        self.env("TENDRIL_LAUNCHER", "in-process")
    }

    /// The executors of this agent.
    pub fn executors(&self) -> Executors {
        Executors { work_dir: self.cli.work_dir.clone().expect("a work directory").into() }
    }

    /// Starts the agent's program. It sees nothing of this process's environment but PATH, and runs the terraform of
    /// `make setup` where there is none on PATH.
    pub fn start(&self) -> Program {
        self.start_program(&program::agent())
    }

    /// Starts a copy of a program of the agent, at this path.
    pub fn start_copy_of(&self, program: &Path, path: &Path) -> Program {
        fs::copy(program, path).expect("a copy of the program");
        self.start_program(path)
    }

    /// Starts the agent with its fail points and jobs inside it, unless they have another launcher, and kills it at one of them: the
    /// name, and which time it comes there.
    pub fn start_to_die_at(&self, point: &str, time: u64) -> Program {
        let has_launcher = self.env.iter().any(|(name, _)| name == "TENDRIL_LAUNCHER");
        let mut doomed = if has_launcher { self.clone() } else { self.clone().in_process() };
        doomed.env.push(("TENDRIL_FAILPOINT".to_owned(), format!("{point}:{time}")));
        doomed.start_program(&program::agent_with_failpoints())
    }

    /// Starts the agent with its fail points: the first of its processes that comes there for the so-many-th time dies, and
    /// `once` is made.
    pub fn start_with_mortal_executors(&self, point: &str, time: u64, once: &Path) -> Program {
        let mortal = self
            .clone()
            .env("TENDRIL_FAILPOINT", format!("{point}:{time}"))
            .env("TENDRIL_FAILPOINT_ONCE", once.to_string_lossy());
        mortal.start_program(&program::agent_with_failpoints())
    }

    /// Starts this program as the agent.
    pub fn start_program(&self, program: &Path) -> Program {
        let mut command = program_without_environment(program);
        command.envs(self.variables()).envs(self.env.iter().map(|(name, value)| (name, value)));
        Program::start("tendril-agent", command)
    }

    /// Starts `tendril-agent doctor` with the same settings.
    pub fn doctor(&self) -> Program {
        let mut command = program_without_environment(&program::agent());
        command.envs(self.variables()).envs(self.env.iter().map(|(name, value)| (name, value))).arg("doctor");
        Program::start("tendril-agent doctor", command)
    }

    /// Starts the agent as a task of this process.
    pub fn start_inside(&self) -> InsideAgent {
        let config = Config::from_cli(&self.cli).unwrap_or_else(|problems| panic!("{problems}"));
        let agent = Agent::new(config).expect("an agent");
        let shutdown = Shutdown::new();
        let task = tokio::spawn(agent.run(shutdown.clone()));
        InsideAgent { shutdown, task }
    }

    fn variables(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let cli = &self.cli;
        [
            ("SUPABASE_URL", &cli.supabase_url),
            ("SUPABASE_PUBLISHABLE_KEY", &cli.supabase_key),
            ("TENDRIL_AGENT_TOKEN", &cli.agent_token),
            ("TENDRIL_AGENT_TOKEN_FILE", &cli.agent_token_file),
            ("TENDRIL_TEMPLATES_DIR", &cli.templates_dir),
            ("TENDRIL_WORK_DIR", &cli.work_dir),
            ("TENDRIL_STATE_DIR", &cli.state_dir),
            ("TENDRIL_CONCURRENCY", &cli.concurrency),
            ("TENDRIL_INTAKE", &cli.intake),
            ("TENDRIL_TERRAFORM", &cli.terraform),
            ("TENDRIL_AGENT_NAME", &cli.agent_name),
            ("TENDRIL_LOG", &cli.log_level),
            ("TENDRIL_SPOOL_LIMIT", &cli.spool_limit),
            ("TENDRIL_STARTUP_JITTER", &cli.startup_jitter),
            ("TENDRIL_HEARTBEAT", &cli.heartbeat),
            ("TENDRIL_SLOT_UID_BASE", &cli.slot_uid_base),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name, value.as_deref()?)))
    }
}

/// A command that sees nothing but PATH.
pub(crate) fn program_without_environment(program: &Path) -> Command {
    let mut dirs = vec![repository(".tools/bin")];
    dirs.extend(std::env::var_os("PATH").iter().flat_map(std::env::split_paths).collect::<Vec<PathBuf>>());
    let mut command = Command::new(program);
    command.env_clear().env("PATH", std::env::join_paths(dirs).expect("a PATH"));
    command
}

impl InsideAgent {
    /// Stops as SIGTERM would, and waits for the end.
    pub async fn stop(mut self) {
        self.shutdown.drain();
        (&mut self.task).await.expect("the agent's task").expect("the agent ends well");
    }
}

impl Drop for InsideAgent {
    fn drop(&mut self) {
        self.task.abort();
    }
}
