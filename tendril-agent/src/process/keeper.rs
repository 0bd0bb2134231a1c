//! A small parent process that stores the exit code of a program whose agent may be killed.
//!
//! ```text
//! agent ── keeper (`tendril-agent keep-exit`) ── terraform apply
//! ```
//!
//! The keeper is in the program's process group, has the same pipes as its output, and waits. It holds a lock on
//! `exit.lock` for as long as it lives, writes `exit.begun` before it starts the program, and `exit.json` last. If the agent dies, nothing happens to the program; a
//! later run of the agent finds the keeper by its lock, reads on where the pipes are, and learns the exit code. The keeper
//! stays until its pipes are empty, so that no line is lost: what was read from them is in the attempt's journal.
//!
//! Orphans below the keeper become its children, and it kills them when the program has ended: however a process hides, it
//! does not outlive the program, also where no agent lives that could look for it.

use std::{
    ffi::{OsStr, OsString},
    fs::{self, File},
    io::{self, Write as _},
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use rustix::{
    io::ioctl_fionread,
    process::{Pid, Signal, getpid, getppid, kill_process},
};
use serde::{Deserialize, Serialize};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
    time::sleep,
};

use crate::{
    os::{
        blocking,
        file_lock::{is_taken, take_watched},
        files::{open_lock, private_file, remove_durably},
    },
    process::{
        cancellation::StopSignal,
        oom, orphans,
        output_pipe::pipe_of,
        process_table::Process,
        pump::{deliver_rest, pump},
        runner::{Command, EscalationRecord, Exit, GoesOn, GracePeriod, TerminationStage},
        sink::Sink,
        stream::Stream,
        zombies::{self, adopt_orphans, kill_strays, reap_orphans},
    },
};

/// The subcommand of the agent that is a keeper.
pub(crate) const SUBCOMMAND: &str = "keep-exit";
/// Between two looks whether a keeper has ended, or whether its pipes are empty.
const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// The same in the first moment after the program's end, when its agent is about to read the rest.
const SHORT_POLL: Duration = Duration::from_millis(1);
/// How long an agent that lives may take to read the rest of a program's output.
const READ_LIMIT: Duration = Duration::from_secs(30);
/// Between two looks whether the program of a killed keeper has ended.
const LOOK_AFTER: Duration = Duration::from_millis(500);
/// How long a keeper may take from its start to its lock.
const START: Duration = Duration::from_secs(5);
/// The exit code of a program that cannot be started.
const CANNOT_START: u8 = 126;

/// How a program ended, as its keeper writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct StoredExit {
    /// Its exit code; none if a signal ended it.
    code: Option<i32>,
}

/// The same command, with a keeper for its parent. `program` is the agent's own.
pub(crate) fn keep(command: Command, program: &Path, exit_file: &Path) -> Command {
    let mut args: Vec<OsString> =
        vec![SUBCOMMAND.into(), exit_file.into(), "--".into(), command.program.into()];
    args.extend(command.args);
    let goes_on: GoesOn = |data_dir| !orphans::of(data_dir).is_empty();
    Command { program: program.to_path_buf(), args, goes_on: Some(goes_on), ..command }
}

/// Runs a program, stores its exit code, and ends as it ended.
///
/// Its input, output, environment and process group are the program's too. Signals that are sent to the group are the
/// program's business.
pub(crate) fn keep_exit(exit_file: &Path, program: &OsStr, args: &[OsString]) -> ExitCode {
    let agent = getppid();
    let stored = tokio::runtime::Builder::new_current_thread().enable_all().build().and_then(|runtime| {
        let lock = lock(exit_file)?;
        // Durable before the program begins: without it, the program never ran.
        private_file(&begun_file(exit_file), b"")?;
        if let Err(error) = adopt_orphans(true) {
            eprintln!("processes that leave {} cannot be found by their descent: {error}", program.display());
        }
        let ran = runtime.block_on(run(program, args));
        let exit = match &ran {
            Ok(exit) => *exit,
            Err(_) => StoredExit { code: Some(CANNOT_START.into()) },
        };
        private_file(exit_file, &serde_json::to_vec(&exit)?)?;
        let exit = ran?;
        runtime.block_on(kill_strays());
        // A pipe that nobody holds is gone with what is in it. Whoever started this reads the rest; where nobody does, it waits
        // for a later run of the agent.
        let ended = Instant::now();
        let is_awaited = || getppid() != agent || ended.elapsed() < READ_LIMIT;
        while is_awaited() && exit_file.exists() && !are_empty() {
            std::thread::sleep(if ended.elapsed() < POLL_INTERVAL { SHORT_POLL } else { POLL_INTERVAL });
        }
        drop(lock);
        Ok(exit)
    });
    match stored {
        Ok(StoredExit { code: Some(code) }) => ExitCode::from(u8::try_from(code).unwrap_or(1)),
        Ok(StoredExit { code: None }) => {
            // As the program ended: by a signal.
            let _dead = kill_process(getpid(), Signal::KILL);
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("{} cannot be run: {error}", program.display());
            ExitCode::from(CANNOT_START)
        }
    }
}

/// Takes the lock that shows that the keeper lives, and writes its process ID there.
fn lock(exit_file: &Path) -> io::Result<File> {
    let mut file = open_lock(&lock_file(exit_file))?;
    if !take_watched(&file)? {
        return Err(io::Error::other("another process stores its exit code"));
    }
    file.set_len(0)?;
    write!(file, "{}", getpid().as_raw_nonzero())?;
    Ok(file)
}

fn lock_file(exit_file: &Path) -> PathBuf {
    exit_file.with_extension("lock")
}

fn begun_file(exit_file: &Path) -> PathBuf {
    exit_file.with_extension("begun")
}

/// Removes what an earlier program with this exit file left.
pub(crate) fn begin(exit_file: &Path) {
    // After a power cut it would be taken for the end of the program that begins now.
    if let Err(error) = remove_durably([exit_file, &begun_file(exit_file)]) {
        tracing::warn!(%error, "the exit code of an earlier try cannot be removed");
    }
}

/// Whether a program may have been started with this exit file: it was, or its keeper is about to.
pub(crate) fn may_have_begun(exit_file: &Path, data_dir: &Path) -> bool {
    begun_file(exit_file).exists() || is_stored(exit_file) || !orphans::of(data_dir).is_empty()
}

async fn run(program: &OsStr, args: &[OsString]) -> io::Result<StoredExit> {
    // A handler, and not "ignore", which the program would inherit.
    let mut ignored = Vec::new();
    for kind in [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup(), SignalKind::quit()] {
        ignored.push(signal(kind)?);
    }
    let (mut child, pid, _own) = zombies::spawn(tokio::process::Command::new(program).args(args))?;
    oom::prefer(pid);
    let status = tokio::select! {
        status = child.wait() => status?,
        // Nobody waits for them here but at the end: without a signal handler they stay zombies until then.
        Err(error) = reap_orphans() => {
            eprintln!("orphans cannot be waited for: {error}");
            child.wait().await?
        }
    };
    debug_assert!(status.code().is_some() || status.signal().is_some());
    Ok(StoredExit { code: status.code() })
}

/// Whether everything was read that is in the pipes of this process. What is no pipe holds nothing back.
fn are_empty() -> bool {
    let left = |read: rustix::io::Result<u64>| read.unwrap_or(0);
    left(ioctl_fionread(io::stdout())) + left(ioctl_fionread(io::stderr())) == 0
}

/// Whether a program was started with this exit file, and its end is known or will be.
pub(crate) fn is_stored(exit_file: &Path) -> bool {
    exit_file.exists() || matches!(keeper_of(exit_file), Ok(Some(_)))
}

/// The exit code that a keeper has stored; none where it stored none, or a signal ended the program.
pub(crate) fn stored_code(exit_file: &Path) -> Option<i32> {
    let stored: StoredExit = serde_json::from_slice(&fs::read(exit_file).ok()?).ok()?;
    stored.code
}

/// The keeper that lives; none, if there is none.
fn keeper_of(exit_file: &Path) -> io::Result<Option<Process>> {
    let path = lock_file(exit_file);
    let file = match File::open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    if !is_taken(&file)? {
        return Ok(None);
    }
    let pid = fs::read_to_string(&path)?.trim().parse().ok().and_then(Pid::from_raw);
    // Its ID is its own for as long as it has the lock.
    let keeper = pid.and_then(Process::with_id);
    Ok(keeper.filter(|_| is_taken(&file).unwrap_or(true)))
}

/// Takes over a program that a previous run of the agent started: its output from where nobody has read it, and its end.
/// None, if its end was not stored. Must be called inside a runtime.
///
/// An escalation that had begun goes on from the stage that the previous run had reached.
pub(crate) async fn adopt(
    exit_file: &Path,
    data_dir: &Path,
    sink: &dyn Sink,
    stop: &StopSignal,
    grace_period: GracePeriod,
) -> io::Result<Option<Exit>> {
    let (over, is_over) = watch::channel(None);
    let mut stage =
        EscalationRecord::noted(data_dir).map_or(TerminationStage::Untouched, |noted| noted.stage);
    let keeper = found(exit_file, data_dir).await?;
    if let Some(keeper) = keeper {
        let pumps = async {
            tokio::join!(
                read(keeper, 1, Stream::Stdout, sink, is_over.clone()),
                read(keeper, 2, Stream::Stderr, sink, is_over)
            )
        };
        let end = async {
            let ended = ended(exit_file, data_dir);
            tokio::pin!(ended);
            let stopped = tokio::select! {
                ended = &mut ended => return ended.map(|()| None),
                () = stop.wait() => {
                    let data_dir = data_dir.to_path_buf();
                    blocking(move || Ok(orphans::end(&data_dir, grace_period))).await?
                }
            };
            ended.await?;
            Ok::<_, io::Error>(stopped)
        };
        let end = async {
            let end = end.await;
            over.send_replace(Some(Instant::now() + POLL_INTERVAL));
            end
        };
        let (_, stopped) = tokio::join!(pumps, end);
        stage = stopped?.unwrap_or(stage);
    } else {
        tokio::join!(deliver_rest(Stream::Stdout, sink), deliver_rest(Stream::Stderr, sink));
    }
    match fs::read(exit_file) {
        Ok(stored) => {
            let StoredExit { code } = serde_json::from_slice(&stored)?;
            Ok(Some(Exit { code, stage }))
        }
        // The keeper was killed with its program; or before it, and all that the program wrote was read: its last message may say
        // how it ended.
        Err(error)
            if error.kind() == io::ErrorKind::NotFound
                && (stage == TerminationStage::Killed || keeper.is_some()) =>
        {
            Ok(Some(Exit { code: None, stage }))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Reads on where nobody has read the output of a process.
async fn read(
    process: Process,
    descriptor: u8,
    stream: Stream,
    sink: &dyn Sink,
    is_over: watch::Receiver<Option<Instant>>,
) {
    let pipe = pipe_of(&process, descriptor).and_then(|pipe| pipe.into_nonblocking_fd().ok());
    match pipe {
        Some(pipe) => pump(pipe, stream, sink, is_over).await,
        None => deliver_rest(stream, sink).await,
    }
}

/// The keeper, if it lives. One that has just been started is waited for.
async fn found(exit_file: &Path, data_dir: &Path) -> io::Result<Option<Process>> {
    let deadline = Instant::now() + START;
    loop {
        if let Some(keeper) = keeper_of(exit_file)? {
            return Ok(Some(keeper));
        }
        if exit_file.exists() || Instant::now() >= deadline || orphans::of(data_dir).is_empty() {
            return Ok(None);
        }
        sleep(POLL_INTERVAL).await;
    }
}

/// Waits until the keeper has ended; if it was killed, until its program has.
async fn ended(exit_file: &Path, data_dir: &Path) -> io::Result<()> {
    while keeper_of(exit_file)?.is_some() {
        sleep(POLL_INTERVAL).await;
    }
    while !exit_file.exists() && goes_on(data_dir).await? {
        sleep(LOOK_AFTER).await;
    }
    Ok(())
}

async fn goes_on(data_dir: &Path) -> io::Result<bool> {
    let data_dir = data_dir.to_path_buf();
    blocking(move || Ok(!orphans::of(&data_dir).is_empty())).await
}
