//! A project with a user, their `grape`, and agents. Needs the agent: `cargo build -p tendril-agent --bins`.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use std::{
    env, fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use expectrl::{Expect as _, session::OsSession};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use supabase_local::Stack;
use tempfile::TempDir;
use tendril_realtime::{AccessToken, Rest};
use tokio::runtime::Runtime;
use uuid::Uuid;

/// The user who signs in.
pub const EMAIL: &str = "ada@example.com";
/// Their password.
pub const PASSWORD: &str = "correct horse";
/// How long anything may take.
pub const TIMEOUT: Duration = Duration::from_secs(90);

/// A local stack, a user, a home of their own.
pub struct World {
    pub stack: Option<Stack>,
    pub home: TempDir,
    pub runtime: Runtime,
    pub user: Uuid,
}

impl World {
    /// A project in which the user has an account.
    pub fn new() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let runtime = Runtime::new().unwrap();
        let stack = runtime.block_on(Stack::builder().start()).unwrap();
        let mut world =
            Self { stack: Some(stack), home: tempfile::tempdir().unwrap(), runtime, user: Uuid::nil() };
        let answer = world.auth("signup", &json!({ "email": EMAIL, "password": PASSWORD }));
        world.user = answer["user"]["id"].as_str().unwrap().parse().unwrap();
        world
    }

    /// One in which they are signed in.
    pub fn signed_in() -> Self {
        let world = Self::new();
        let output = world.run_with(&["login", "--email", EMAIL, "--password-stdin"], PASSWORD.as_bytes());
        assert!(output.status.success(), "{}", text(&output));
        world
    }

    pub fn stack(&self) -> &Stack {
        self.stack.as_ref().unwrap()
    }

    /// A request to Auth.
    pub fn auth(&self, path: &str, body: &Value) -> Value {
        let stack = self.stack();
        let url = format!("{}/auth/v1/{path}", stack.api_url());
        let request =
            reqwest::Client::new().post(url).header("apikey", stack.anon_key()).body(body.to_string());
        self.runtime.block_on(async {
            let answer = request.send().await.unwrap().error_for_status().unwrap();
            serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap()
        })
    }

    /// The REST interface as the user.
    pub fn rest(&self) -> Rest {
        self.rest_as(&self.stack().mint_user(&self.user.to_string()))
    }

    /// The REST interface with a token.
    pub fn rest_as(&self, token: &str) -> Rest {
        let stack = self.stack();
        let builder = Rest::builder(stack.api_url(), stack.anon_key());
        builder.token_source(AccessToken::new(token).unwrap()).build().unwrap()
    }

    /// A command of `grape` that sees nothing of this process's environment.
    pub fn grape(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_grape"));
        command
            .args(arguments)
            .env_clear()
            .env("PATH", path(&[]))
            .env("HOME", self.home.path())
            .env("GRAPE_CONFIG_DIR", self.config())
            .env("SUPABASE_URL", self.stack().api_url())
            .env("SUPABASE_PUBLISHABLE_KEY", self.stack().anon_key())
            .env("TERM", "xterm-256color")
            .current_dir(repository(""));
        command
    }

    /// Where sessions are.
    pub fn config(&self) -> PathBuf {
        self.home.path().join("config")
    }

    /// Runs a command to its end, without a terminal.
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.run_with(arguments, b"")
    }

    /// Runs a command that reads something.
    pub fn run_with(&self, arguments: &[&str], input: &[u8]) -> Output {
        finish(self.grape(arguments), input)
    }

    /// Runs a command that must succeed and answer JSON.
    pub fn json(&self, arguments: &[&str]) -> Value {
        let output = self.run(&[arguments, &["--output", "json"]].concat());
        assert!(output.status.success(), "{arguments:?}: {}", text(&output));
        serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{arguments:?}: {error}: {}", text(&output)))
    }

    /// Runs a command that must fail; answers exit code and stderr.
    pub fn fails(&self, arguments: &[&str]) -> (i32, String) {
        let output = self.run(arguments);
        let err = String::from_utf8(output.stderr.clone()).unwrap();
        assert!(!output.status.success(), "{arguments:?}: {}", text(&output));
        (output.status.code().unwrap(), err)
    }

    /// A command on a terminal of its own.
    pub fn terminal(&self, arguments: &[&str]) -> OsSession {
        let mut session = OsSession::spawn(self.grape(arguments)).unwrap();
        session.get_process_mut().set_window_size(120, 40).unwrap();
        session.set_expect_timeout(Some(TIMEOUT));
        session
    }

    /// Makes a cluster; answers its id and key.
    pub fn cluster(&self, name: &str) -> (Uuid, String) {
        let made = self.json(&["cluster", "create", name]);
        (made["cluster"]["id"].as_str().unwrap().parse().unwrap(), made["key"].as_str().unwrap().to_owned())
    }

    /// Starts a real agent of a cluster, and waits until that is ONLINE.
    pub fn agent(&self, cluster: Uuid) -> Agent {
        let token = self.stack().mint_machine(&cluster.to_string());
        let agent = Agent::start(self.stack(), &token, self.home.path());
        Self::wait_for("the cluster is ONLINE", || {
            let clusters = self.json(&["clusters"]);
            clusters
                .as_array()
                .unwrap()
                .iter()
                .any(|row| row["id"] == cluster.to_string() && row["status"] == "ONLINE")
        });
        agent
    }

    /// Waits until something is so.
    pub fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
        let end = Instant::now() + TIMEOUT;
        while !is_so() {
            assert!(Instant::now() < end, "in vain: {what}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(stack) = self.stack.take() {
            let _ = self.runtime.block_on(stack.stop());
        }
    }
}

/// A running agent; ends with the test.
pub struct Agent(Child);

impl Agent {
    fn start(stack: &Stack, token: &str, home: &Path) -> Self {
        let log = fs::File::create(home.join("agent.log")).unwrap();
        let mut command = Command::new(agent_program());
        command
            .env_clear()
            .env("PATH", path(&[]))
            .env("SUPABASE_URL", stack.api_url())
            .env("SUPABASE_PUBLISHABLE_KEY", stack.anon_key())
            .env("TENDRIL_AGENT_TOKEN", token)
            .env("TENDRIL_TEMPLATES_DIR", repository("templates"))
            .env("TENDRIL_WORK_DIR", home.join("work"))
            .env("TENDRIL_STATE_DIR", home.join("state"))
            .env("TENDRIL_AGENT_NAME", "vine-1")
            .env("TENDRIL_STARTUP_JITTER", "0s")
            .env("TENDRIL_SHUTDOWN_GRACE", "1s")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        Self(command.spawn().unwrap())
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        signal(self.0.id(), Signal::TERM);
        let _ = self.0.wait();
    }
}

/// Sends a signal to a process that was started here.
pub fn signal(id: u32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(id.cast_signed()) {
        let _ = kill_process(pid, signal);
    }
}

/// The agent's program, beside the test's own.
pub fn agent_program() -> PathBuf {
    let program = env::current_exe().unwrap().ancestors().nth(2).unwrap().join("tendril-agent");
    assert!(program.is_file(), "{} is missing: run `cargo build -p tendril-agent --bins`", program.display());
    program
}

/// A file of the repository.
pub fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap().join(path)
}

/// A PATH with these directories before the tools of the repository and the caller's.
pub fn path(first: &[PathBuf]) -> std::ffi::OsString {
    let callers = env::var_os("PATH").unwrap_or_default();
    let dirs = first.iter().cloned().chain([repository(".tools/bin")]).chain(env::split_paths(&callers));
    env::join_paths(dirs).unwrap()
}

/// Runs a command to its end.
pub fn finish(mut command: Command, input: &[u8]) -> Output {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // A command that reads nothing may be gone already.
    let _ = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}

/// Everything that a command printed.
pub fn text(output: &Output) -> String {
    format!(
        "{}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// Waits for a command on a terminal to end; answers its exit code.
pub fn exit_code(mut session: OsSession) -> i32 {
    session.expect(expectrl::Eof).unwrap();
    match session.get_process().wait().unwrap() {
        expectrl::process::unix::WaitStatus::Exited(_, code) => code,
        other => panic!("{other:?}"),
    }
}
