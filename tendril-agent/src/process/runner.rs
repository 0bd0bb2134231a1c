//! Runs one program in a process group of its own, and ends it gracefully when it must end early.
//!
//! The escalation: one SIGINT to the group (what Ctrl-C does: Terraform finishes what it is doing and saves its state,
//! providers ignore it, `local-exec` children end), then a grace period, then a second SIGINT, then SIGKILL to the group.
//! SIGTERM is never sent: providers die of it in the middle of a change.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fmt, fs, io,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::{Duration, Instant, SystemTime},
};

use futures_util::future::BoxFuture;
use rustix::{
    io::Errno,
    process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid},
};
use tokio::{
    process::Child,
    signal::unix::{Signal as Signals, SignalKind, signal},
    sync::watch,
    time::{sleep, timeout},
};

use crate::process::{
    cancellation::StopSignal, oom, output_pipe::output_pipe, pump::pump, sink::Sink, stream::Stream, zombies,
};

/// The least time between two interrupts: of two that come at once, a program sees one.
pub(crate) const BETWEEN_INTERRUPTS: Duration = Duration::from_secs(1);
/// Between two checks whether a program has ended, where no signal reports it.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// How long others may still write into a pipe after its program and the program's group are gone.
const DRAIN_LIMIT: Duration = Duration::from_secs(2);

/// Whether the program with this data directory still runs.
pub(crate) type GoesOn = fn(&Path) -> bool;

/// What to run.
#[derive(Clone, Debug)]
pub(crate) struct Command {
    /// The program's path.
    pub(crate) program: PathBuf,
    /// Its arguments.
    pub(crate) args: Vec<OsString>,
    /// Its working directory.
    pub(crate) dir: PathBuf,
    /// Its whole environment.
    pub(crate) env: BTreeMap<OsString, OsString>,
    /// How long it may take to end early.
    pub(crate) grace_period: GracePeriod,
    /// Of a program that stores the exit code of another one: whether that one still runs, by its data directory. If the keeper is
    /// killed, it is waited for.
    pub(crate) goes_on: Option<GoesOn>,
}

/// How long a program may take to end early.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GracePeriod {
    /// From the first interrupt to the second.
    pub(crate) graceful: Duration,
    /// From the second interrupt to the kill.
    pub(crate) forced: Duration,
}

/// How far the escalation was recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum TerminationStage {
    /// The program ended by itself.
    Untouched,
    /// It ended after one SIGINT.
    Interrupted,
    /// It ended after two.
    InterruptedTwice,
    /// It had to be killed.
    Killed,
}

impl TerminationStage {
    /// Whether it ended before it could tidy up: Terraform leaves after a second interrupt at once, with the state unsaved
    /// and its lock in place.
    pub(crate) const fn is_forced(self) -> bool {
        matches!(self, Self::InterruptedTwice | Self::Killed)
    }

    /// Its name in metrics; none where nothing was sent.
    pub(crate) const fn name(self) -> Option<&'static str> {
        match self {
            Self::Untouched => None,
            Self::Interrupted => Some("interrupted"),
            Self::InterruptedTwice => Some("interrupted_twice"),
            Self::Killed => Some("killed"),
        }
    }
}

impl fmt::Display for TerminationStage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Untouched => "it ended by itself",
            Self::Interrupted => "it ended after one interrupt (SIGINT)",
            Self::InterruptedTwice => "it ended after a second interrupt (SIGINT)",
            Self::Killed => "it did not end after two interrupts and was killed (SIGKILL)",
        })
    }
}

/// How far the escalation was recorded for the processes of an attempt: noted beside its data directory, so that a later run of
/// the agent continues from there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EscalationRecord {
    /// The stage that was reached.
    pub(crate) stage: TerminationStage,
    /// When.
    pub(crate) since: SystemTime,
}

impl EscalationRecord {
    /// The note's place.
    pub(crate) fn file(data_dir: &Path) -> PathBuf {
        data_dir.with_extension("interrupts")
    }

    /// What was noted; none, if nothing was sent yet.
    pub(crate) fn noted(data_dir: &Path) -> Option<Self> {
        let file = Self::file(data_dir);
        let stage = match fs::metadata(&file).ok()?.len() {
            1 => TerminationStage::Interrupted,
            _ => TerminationStage::InterruptedTwice,
        };
        Some(Self { stage, since: fs::metadata(&file).and_then(|meta| meta.modified()).ok()? })
    }

    /// A program begins: nothing was sent to it yet.
    fn begin(data_dir: &Path) {
        let _none = fs::remove_file(Self::file(data_dir));
    }

    /// Notes what is sent now. Not synced: after a power cut there is no process left.
    pub(crate) fn note(data_dir: &Path, stage: TerminationStage) {
        let sent = if stage == TerminationStage::Interrupted { "1" } else { "12" };
        if let Err(error) = fs::write(Self::file(data_dir), sent) {
            tracing::warn!(%error, "it cannot be noted that a program was interrupted");
        }
    }
}

/// How a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Exit {
    /// Its exit code; none if a signal ended it.
    pub(crate) code: Option<i32>,
    /// How far the escalation was recorded.
    pub(crate) stage: TerminationStage,
}

impl Exit {
    /// Whether a program that did not succeed may have ended without giving back what it held: a signal ended it, it was interrupted
    /// twice and left at once, or it crashed. Terraform exits with 1 where it gave up gracefully.
    pub(crate) fn was_abrupt(self) -> bool {
        self.stage >= TerminationStage::InterruptedTwice || self.code != Some(1)
    }
}

/// Runs programs: here, as children of this process. A runner elsewhere (a Kubernetes job) would implement it too.
pub(crate) trait Runner: Send + Sync {
    /// Runs a command to its end, or to its early end when `stop` is ordered. All it wrote is in the sink when this
    /// answers, and no process of its group is left.
    fn run<'a>(
        &'a self,
        command: Command,
        sink: &'a dyn Sink,
        stop: &'a StopSignal,
    ) -> BoxFuture<'a, io::Result<Exit>>;
}

/// Children of this process.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LocalRunner;

impl Runner for LocalRunner {
    fn run<'a>(
        &'a self,
        command: Command,
        sink: &'a dyn Sink,
        stop: &'a StopSignal,
    ) -> BoxFuture<'a, io::Result<Exit>> {
        Box::pin(run(command, sink, stop))
    }
}

async fn run(command: Command, sink: &dyn Sink, stop: &StopSignal) -> io::Result<Exit> {
    let (stdout, out) = output_pipe()?;
    let (stderr, err) = output_pipe()?;
    let mut program = tokio::process::Command::new(&command.program);
    program
        .args(&command.args)
        .current_dir(&command.dir)
        .env_clear()
        .envs(&command.env)
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(err)
        .process_group(0);
    let data_dir = command.env.get(OsStr::new("TF_DATA_DIR")).map(PathBuf::from);
    if let Some(data_dir) = &data_dir {
        EscalationRecord::begin(data_dir);
    }
    // Before the program begins: its end must not be missed.
    let ended = signal(SignalKind::child())?;
    let (child, pid, own) = zombies::spawn(&mut program)?;
    // A keeper is not what it keeps.
    if command.goes_on.is_none() {
        oom::prefer(pid);
    }
    let mut group = Group { pid: Some(pid), data_dir, send: kill_process_group };
    // It holds this end of the pipes, which would never end.
    drop(program);
    let goes_on = command.goes_on.zip(group.data_dir.clone());
    let mut child = Program { child, pid, ended, goes_on };
    let (over, is_over) = watch::channel(None);
    let pumps = async {
        tokio::join!(
            pump(stdout, Stream::Stdout, sink, is_over.clone()),
            pump(stderr, Stream::Stderr, sink, is_over)
        );
    };
    tokio::pin!(pumps);
    let mut drained = false;
    let stage = {
        let escalation = escalation(&mut child, &group, stop, command.grace_period);
        tokio::pin!(escalation);
        loop {
            tokio::select! {
                stage = &mut escalation => break stage?,
                () = &mut pumps, if !drained => drained = true,
            }
        }
    };
    // Processes that the program left would hold the pipes, and outlive the job. Its group's number cannot be given to
    // another one as long as the program is not waited for.
    group.kill();
    let status = child.wait().await?;
    drop(own);
    // Those that left the group, and those that cannot be found by their environment.
    zombies::kill_strays().await;
    over.send_replace(Some(Instant::now() + DRAIN_LIMIT));
    if !drained {
        pumps.await;
    }
    Ok(Exit { code: status.code(), stage })
}

/// A program whose end is seen before it is waited for.
struct Program {
    child: Child,
    pid: Pid,
    /// A child of this process has ended.
    ended: Signals,
    /// Of a program that stores the exit code of another one: the data directory of that one. If the keeper is killed, the
    /// other one still runs, and is waited for.
    goes_on: Option<(GoesOn, PathBuf)>,
}

impl Program {
    /// Waits until it has ended; its number is its own still.
    async fn ended(&mut self) -> io::Result<()> {
        const SEEN: WaitIdOptions =
            WaitIdOptions::EXITED.union(WaitIdOptions::NOHANG).union(WaitIdOptions::NOWAIT);
        loop {
            match waitid(WaitId::Pid(self.pid), SEEN) {
                Ok(None) | Err(Errno::INTR) => {}
                Ok(Some(status)) => {
                    let goes_on = |(goes_on, data_dir): &(GoesOn, PathBuf)| goes_on(data_dir);
                    if !(status.killed() && self.goes_on.as_ref().is_some_and(goes_on)) {
                        return Ok(());
                    }
                }
                Err(error) => return Err(error.into()),
            }
            // One signal may stand for several children.
            let _either = timeout(POLL_INTERVAL, self.ended.recv()).await;
        }
    }

    async fn wait(&mut self) -> io::Result<ExitStatus> {
        self.child.wait().await
    }
}

/// Waits for the program's end; once the stop is requested, escalates.
async fn escalation(
    child: &mut Program,
    group: &Group,
    stop: &StopSignal,
    grace_period: GracePeriod,
) -> io::Result<TerminationStage> {
    tokio::select! {
        ended = child.ended() => return ended.map(|()| TerminationStage::Untouched),
        () = stop.wait() => group.interrupt(TerminationStage::Interrupted),
    }
    let hurried = async {
        tokio::select! {
            () = sleep(grace_period.graceful) => {}
            ((), ()) = async { tokio::join!(stop.wait_forced(), sleep(BETWEEN_INTERRUPTS)) } => {}
        }
    };
    tokio::select! {
        ended = child.ended() => return ended.map(|()| TerminationStage::Interrupted),
        () = hurried => group.interrupt(TerminationStage::InterruptedTwice),
    }
    if let Ok(ended) = timeout(grace_period.forced, child.ended()).await {
        return ended.map(|()| TerminationStage::InterruptedTwice);
    }
    group.signal(Signal::KILL);
    child.ended().await.map(|()| TerminationStage::Killed)
}

/// The program's process group; killed when dropped, so that an abandoned run leaves nothing behind.
#[derive(Debug)]
struct Group {
    /// Its number, until it was killed: then it may be another's.
    pid: Option<Pid>,
    /// Where it is noted what was sent.
    data_dir: Option<PathBuf>,
    send: fn(Pid, Signal) -> rustix::io::Result<()>,
}

impl Group {
    fn interrupt(&self, stage: TerminationStage) {
        if let Some(data_dir) = &self.data_dir {
            EscalationRecord::note(data_dir, stage);
        }
        self.signal(Signal::INT);
    }

    /// Kills it, once: nothing is sent to this number any more.
    fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.pid = None;
    }

    fn signal(&self, signal: Signal) {
        // The only error that can happen means that no process is left.
        let _gone = self.pid.map(|pid| (self.send)(pid, signal));
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}

#[cfg(test)]
#[path = "runner_tests.rs"]
mod tests;
