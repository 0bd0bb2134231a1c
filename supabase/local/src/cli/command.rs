//! What the program does.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Command as Program, Stdio};
use std::time::{Duration, Instant};

use clap::{Args, Parser, Subcommand, ValueEnum};
use rustix::process::Signal;
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use super::options::Options;
use super::running::Running;
use crate::project::project_dir;

/// How often a process is checked while it starts or ends.
const LOOK: Duration = Duration::from_millis(20);

/// How long a start may take: initdb, migrations, a crash recovery.
const START: Duration = Duration::from_secs(120);

/// How long a stop may take.
const STOP: Duration = Duration::from_secs(30);

/// An error that ends a command; shown to its user.
type Failure = Box<dyn std::error::Error>;

/// Runs a local Supabase-compatible stack on a real PostgreSQL, for development and tests. Not for production.
///
/// Without a command it starts.
#[derive(Debug, Parser)]
#[command(name = "supabase-local", version, args_conflicts_with_subcommands = true)]
pub struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    start: Start,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start a stack, print where it is, and stop it on Ctrl-C or SIGTERM
    Start(Start),
    /// Print where the running stack is, and its keys
    Status {
        #[command(flatten)]
        which: Which,
        /// How to print it
        #[arg(long, short, value_enum, default_value_t = Output::Text)]
        output: Output,
    },
    /// Stop the running stack
    Stop(Which),
    /// Empty the database of the running stack, and apply the migrations and the seed anew
    Reset(Which),
}

#[derive(Debug, Args)]
struct Start {
    #[command(flatten)]
    options: Options,
    /// Leave it running in the background once it is ready
    #[arg(long)]
    detach: bool,
}

/// Which of several stacks.
#[derive(Debug, Args)]
struct Which {
    /// Port of its API [default: the only one that runs]
    #[arg(long, env = "SUPABASE_LOCAL_PORT")]
    port: Option<u16>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Output {
    /// For people
    Text,
    /// `NAME="value"` lines, for a shell or an .env file
    Env,
    /// One object
    Json,
}

/// Runs the command of the arguments.
///
/// # Errors
/// What went wrong, in a sentence for the user.
pub async fn run(arguments: Arguments) -> Result<(), Failure> {
    match arguments.command.unwrap_or(Command::Start(arguments.start)) {
        Command::Start(Start { detach: true, .. }) => detach(),
        Command::Start(Start { options, .. }) => serve(options).await,
        Command::Status { which, output } => say(&which.find()?.shown(output)),
        Command::Stop(which) => stop(&which.find()?),
        Command::Reset(which) => reset(&which.find()?),
    }
}

/// Runs a stack until it is stopped.
async fn serve(options: Options) -> Result<(), Failure> {
    // Before the start, so that an impatient Ctrl-C also ends it in good order.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut reset = signal(SignalKind::hangup())?;
    // Cleans up after those that were killed.
    Running::all()?;
    let mut options = options;
    for generation in 1.. {
        let stack = tokio::select! {
            stack = options.builder().start() => stack?,
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
        };
        let running = Running::of(&stack, generation);
        running.save()?;
        if generation == 1 {
            say(&format!("Started supabase-local. {}\n\n{}", project(), running.shown(Output::Text)))?;
        }
        let again = tokio::select! {
            _ = terminate.recv() => false,
            _ = interrupt.recv() => false,
            _ = reset.recv() => true,
        };
        // The same ports, whichever they were.
        options.keep_ports(&stack);
        stack.stop().await?;
        if !again {
            running.forget();
            break;
        }
        options.empty()?;
    }
    Ok(())
}

/// Which files a start without options uses.
fn project() -> String {
    project_dir().map_or_else(
        || "No directory supabase with migrations or a config.toml is here or above.".to_owned(),
        |dir| format!("The project is {}.", dir.display()),
    )
}

/// Starts the same program in the background, and waits until it is ready.
fn detach() -> Result<(), Failure> {
    let arguments = std::env::args_os().skip(1).filter(|argument| argument != "--detach");
    let log = tempfile::Builder::new().prefix("supabase-local-").suffix(".log").tempfile()?;
    let (file, log) = log.keep()?;
    let mut child = Program::new(std::env::current_exe()?)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(File::try_clone(&file)?)
        .stderr(file)
        // Ctrl-C in this terminal is not for it.
        .process_group(0)
        .spawn()?;
    let deadline = Instant::now() + START;
    loop {
        let pid = i32::try_from(child.id())?;
        if let Some(running) = Running::all()?.into_iter().find(|running| running.pid == pid) {
            return say(&format!(
                "Started supabase-local in the background; it writes to {}. {}\n\n{}",
                log.display(),
                project(),
                running.shown(Output::Text)
            ));
        }
        if child.try_wait()?.is_some() || Instant::now() > deadline {
            let output = std::fs::read_to_string(&log).unwrap_or_default();
            let output = output.trim().strip_prefix("supabase-local: ").unwrap_or(output.trim()).to_owned();
            // Without output, only the log file may explain it.
            return Err(
                if output.is_empty() { format!("it ended; see {}", log.display()) } else { output }.into()
            );
        }
        std::thread::sleep(LOOK);
    }
}

fn stop(running: &Running) -> Result<(), Failure> {
    running.signal(Signal::TERM);
    let deadline = Instant::now() + STOP;
    while running.is_alive() {
        if Instant::now() > deadline {
            return Err(format!("process {} does not end; end it by hand", running.pid).into());
        }
        std::thread::sleep(LOOK);
    }
    say(&format!("Stopped {}.\n", running.api_url))
}

fn reset(running: &Running) -> Result<(), Failure> {
    if running.data.is_none() {
        return Err(format!(
            "{} uses a database that it did not make, and does not empty it: drop and create that database yourself, then start \
             again",
            running.api_url
        )
        .into());
    }
    running.signal(Signal::HUP);
    let deadline = Instant::now() + START;
    loop {
        let now = Running::all()?.into_iter().find(|other| other.pid == running.pid);
        match now {
            Some(now) if now.generation > running.generation => {
                return say(&format!("Reset {}.\n", now.api_url));
            }
            None => return Err("it ended instead; see what it printed".into()),
            Some(_) if Instant::now() > deadline => return Err("it does not come back".into()),
            Some(_) => std::thread::sleep(LOOK),
        }
    }
}

impl Which {
    /// The stack that is meant.
    fn find(&self) -> Result<Running, Failure> {
        let mut all = Running::all()?;
        if let Some(port) = self.port {
            all.retain(|running| running.port() == Some(port));
        }
        match (all.len(), self.port) {
            (1, _) => Ok(all.remove(0)),
            (0, Some(port)) => Err(format!("no stack runs on port {port}").into()),
            (0, None) => Err("no stack runs: start one with `supabase-local start`".into()),
            _ => {
                let ports: Vec<String> =
                    all.iter().filter_map(Running::port).map(|port| port.to_string()).collect();
                Err(format!("several stacks run: choose one with --port ({})", ports.join(", ")).into())
            }
        }
    }
}

impl Running {
    /// What `status` prints.
    fn shown(&self, output: Output) -> String {
        let rows = [
            ("API URL", "SUPABASE_URL", &self.api_url),
            ("DB URL", "SUPABASE_DB_URL", &self.db_url),
            ("JWT secret", "SUPABASE_JWT_SECRET", &self.jwt_secret),
            ("anon key", "SUPABASE_ANON_KEY", &self.anon_key),
            ("service_role key", "SUPABASE_SERVICE_ROLE_KEY", &self.service_role_key),
            ("Publishable key", "SUPABASE_PUBLISHABLE_KEY", &self.publishable_key),
            ("Secret key", "SUPABASE_SECRET_KEY", &self.secret_key),
        ];
        let mut text = String::new();
        // Writing to a String cannot fail.
        match output {
            Output::Text => rows.iter().for_each(|(name, _, value)| {
                let _ = writeln!(text, "{name:>16}: {value}");
            }),
            Output::Env => rows.iter().for_each(|(_, name, value)| {
                let _ = writeln!(text, "{name}=\"{value}\"");
            }),
            Output::Json => {
                let object: serde_json::Map<_, _> =
                    rows.iter().map(|(_, name, value)| ((*name).to_owned(), json!(value))).collect();
                let _ = writeln!(text, "{:#}", serde_json::Value::Object(object));
            }
        }
        text
    }
}

/// Prints to standard output.
fn say(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}
