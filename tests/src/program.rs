//! A program that runs beside the test: where it is, what it prints, how it ends.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    sync::OnceLock,
};

use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, BufReader},
    process::{Child, Command},
    sync::watch,
    task::JoinHandle,
};

use crate::wait::within;

/// A running program. Dropping it kills it; in a failing test it shows what it printed.
#[derive(Debug)]
pub struct Program {
    name: String,
    child: Child,
    lines: watch::Sender<Vec<String>>,
    readers: Vec<JoinHandle<()>>,
}

impl Program {
    /// Starts a command with its output captured, line by line, both streams in one.
    pub fn start(name: &str, mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{name} cannot be started: {error}"));
        let lines = watch::Sender::new(Vec::new());
        let (out, err) = (child.stdout.take().expect("stdout"), child.stderr.take().expect("stderr"));
        let readers = vec![tokio::spawn(read(out, lines.clone())), tokio::spawn(read(err, lines.clone()))];
        Self { name: name.to_owned(), child, lines, readers }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id().expect("it runs")
    }

    /// Everything that it printed so far.
    pub fn output(&self) -> String {
        self.lines.borrow().join("\n")
    }

    /// Every line that it printed so far.
    pub fn lines(&self) -> Vec<String> {
        self.lines.borrow().clone()
    }

    /// Waits for a line that fits, and answers the first one.
    pub async fn line(&self, what: &str, fits: impl Fn(&str) -> bool) -> String {
        let mut lines = self.lines.subscribe();
        let found = lines.wait_for(|lines| lines.iter().any(|line| fits(line)));
        let what = format!("{} prints {what}", self.name);
        let lines = within(&what, found).await.expect("its output is read");
        lines.iter().find(|line| fits(line)).cloned().expect("it was there")
    }

    /// Waits for a line that contains this.
    pub async fn says(&self, part: &str) -> String {
        self.line(&format!("\"{part}\""), |line| line.contains(part)).await
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw).expect("a process id");
        kill_process(pid, signal).expect("the signal is sent");
    }

    /// Waits until it has ended and everything that it printed is read.
    pub async fn ended(&mut self) -> ExitStatus {
        let what = format!("{} ends", self.name);
        let status = within(&what, self.child.wait()).await.expect("its exit status");
        for reader in self.readers.drain(..) {
            within("the end of its output", reader).await.expect("its output is read");
        }
        status
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- {} printed:\n{}\n---", self.name, self.output());
        }
    }
}

async fn read(stream: impl AsyncRead + Unpin, lines: watch::Sender<Vec<String>>) {
    let mut stream = BufReader::new(stream).lines();
    while let Ok(Some(line)) = stream.next_line().await {
        lines.send_modify(|lines| lines.push(line));
    }
}

/// Where a program is that the agent would find by its name.
pub fn on_path(name: &str) -> PathBuf {
    let dirs = env::var_os("PATH").unwrap_or_default();
    let dirs = std::iter::once(crate::repository(".tools/bin")).chain(env::split_paths(&dirs));
    dirs.map(|dir| dir.join(name)).find(|path| path.is_file()).unwrap_or_else(|| panic!("no {name} on PATH"))
}

/// The agent's program, as the sources are now. `TENDRIL_AGENT_BIN` names another one.
pub fn agent() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let named = env::var_os("TENDRIL_AGENT_BIN").map(PathBuf::from);
    let build = || up_to_date("tendril-agent", &["--bin", "tendril-agent", "--example", "listen"]);
    BUILT.get_or_init(|| named.unwrap_or_else(build)).clone()
}

/// The agent with its fail points, as the sources are now.
pub fn agent_with_failpoints() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let target = ["--features", "tendril-agent/failpoints", "--example", "failpoints"];
    BUILT.get_or_init(|| up_to_date("examples/failpoints", &target)).clone()
}

/// An example's program, as the sources are now.
pub fn example(name: &str) -> PathBuf {
    up_to_date(&format!("examples/{name}"), &["--example", name])
}

/// A program in the directory that this test was built into. A test run of one package does not build the programs of
/// another, so a missing or stale one is built here: as a part of the workspace and with an example, because Cargo then chooses
/// the features of dependencies that it chooses for the tests, and builds no dependency twice.
fn up_to_date(name: &str, target: &[&str]) -> PathBuf {
    let test = env::current_exe().expect("this program's path");
    let dir = test.ancestors().nth(2).expect("the target directory").to_owned();
    let program = dir.join(name);
    if is_stale(&program) {
        let mut cargo = std::process::Command::new(env::var_os("CARGO").unwrap_or("cargo".into()));
        cargo.args(["build", "--quiet", "--workspace"]).args(target).current_dir(env!("CARGO_MANIFEST_DIR"));
        if dir.ends_with("release") {
            cargo.arg("--release");
        }
        let built = cargo.output().expect("cargo runs");
        let errors = String::from_utf8_lossy(&built.stderr);
        let by_hand = target.join(" ");
        assert!(
            built.status.success(),
            "`cargo build --workspace {by_hand}` failed, and the test needs it:\n{errors}"
        );
    }
    assert!(
        program.is_file(),
        "`cargo build --workspace {}` made no {}",
        target.join(" "),
        program.display()
    );
    program
}

/// Whether a program is missing, or older than a file that it was made from (Cargo lists them beside it).
fn is_stale(program: &Path) -> bool {
    let modified = |path: &Path| fs::metadata(path).and_then(|meta| meta.modified()).ok();
    let (Some(made), Ok(list)) = (modified(program), fs::read_to_string(program.with_extension("d"))) else {
        return true;
    };
    let sources = list.split_once(": ").map_or("", |(_, sources)| sources);
    sources.split_whitespace().any(|source| modified(Path::new(source)).is_none_or(|changed| changed > made))
}
