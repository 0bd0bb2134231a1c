//! Processes that lost their parent: they become children of the agent, which waits for them when they have ended, and ends those
//! that a job has left.
//!
//! The agent is process 1, as it is in its container, or else gets them from the kernel ([`adopt_orphans`]): however a process of a
//! job hides (a session of its own, a clean environment, a fork in between), it cannot get away from its ancestor.
//!
//! A plain "wait for any child" would also take the exit codes of the agent's own children, which tokio waits for. So every
//! child of the agent is started through [`spawn`], which writes it down in the same moment, and the reaper leaves those.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    fs, io,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    sync::{
        Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use rustix::{
    io::Errno,
    process::{
        Pid, Signal, WaitId, WaitIdOptions, WaitOptions, geteuid, getpid, kill_process, set_child_subreaper,
        waitid, waitpid,
    },
};
use tokio::{
    process::{Child, Command},
    signal::unix::{SignalKind, signal},
    time::{sleep, timeout},
};

use crate::{
    process::{
        process_owner::{self, environment_of, users_of},
        process_table::Process,
    },
    telemetry,
};

/// Several zombies can hide behind one signal: now and then it is looked without one.
const ROUND: Duration = Duration::from_secs(5);
/// How often the remaining processes are killed until none is left, and the pause between two tries.
const KILLS: u32 = 100;
const PAUSE: Duration = Duration::from_millis(20);
/// How long children are killed as fast as it goes, before `/proc` is searched.
const QUICK: Duration = Duration::from_millis(20);
/// How many of them in one look.
const NEWEST: usize = 64;

/// The children that somebody in this process waits for. A process has one set of children, so there is one list.
static OWN: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());

/// A child is waited for as long as this lives.
#[derive(Debug)]
pub(crate) struct Own(i32);

impl Drop for Own {
    fn drop(&mut self) {
        own().remove(&self.0);
    }
}

fn own() -> MutexGuard<'static, BTreeSet<i32>> {
    // Nothing that holds the lock can leave the set in halves.
    OWN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts a child that its caller waits for. Errors: it cannot be started.
pub(crate) fn spawn(command: &mut Command) -> io::Result<(Child, Pid, Own)> {
    // Held over the start: a child that ends at once must not be taken for an orphan.
    let mut own = own();
    let child = command.spawn()?;
    let id = child.id().map(u32::cast_signed).unwrap_or_default();
    let pid =
        Pid::from_raw(id).ok_or_else(|| io::Error::other("the program ended before it could be watched"))?;
    own.insert(id);
    Ok((child, pid, Own(id)))
}

/// Whether what a program of this process leaves behind is killed when the program has ended. Not where programs run in
/// processes of their own: what a dead one of them leaves is another's.
static KILLS_STRAYS: AtomicBool = AtomicBool::new(false);
/// Whether orphans become children of this process.
static ADOPTS: AtomicBool = AtomicBool::new(false);
/// The attempts that run in processes of their own.
static ATTEMPTS: OnceLock<Attempts> = OnceLock::new();

/// Where attempts are.
struct Attempts {
    /// Each has a directory here.
    work_dir: PathBuf,
    /// Each that has an executor has an entry here, until nobody goes on with it.
    executors: PathBuf,
}

impl Attempts {
    /// Whether this is the data directory of one that somebody goes on with. Its directory may have been removed.
    fn have(&self, data_dir: &Path) -> bool {
        let Ok(below) = data_dir.strip_prefix(&self.work_dir) else { return false };
        data_dir.exists() || below.iter().next().is_some_and(|name| self.executors.join(name).exists())
    }
}

/// From now on the orphans among this process's descendants become its children. `kills_strays`: whether they are killed when
/// the programs that left them have ended. Errors: the kernel has no such thing.
pub(crate) fn adopt_orphans(kills_strays: bool) -> io::Result<()> {
    if !getpid().is_init() {
        set_child_subreaper(Some(getpid()))?;
    }
    KILLS_STRAYS.store(kills_strays, Ordering::Relaxed);
    ADOPTS.store(true, Ordering::Relaxed);
    Ok(())
}

/// From now on the orphans of executors become children of this process. Those that belong to an attempt in this directory are left
/// to whoever goes on with the attempt; all others are killed: they hid from an executor that was killed. Errors: the kernel has
/// no such thing.
pub(crate) fn adopt_orphans_of_executors(work_dir: &Path, executors: PathBuf) -> io::Result<()> {
    adopt_orphans(false)?;
    let _once = ATTEMPTS.set(Attempts { work_dir: work_dir.to_path_buf(), executors });
    Ok(())
}

/// Kills the children of this process that nobody waits for, and all below them: the remaining processes of programs that have ended.
/// While another program runs they may be its own, and are left until that has ended too.
pub(crate) async fn kill_strays() {
    if !KILLS_STRAYS.load(Ordering::Relaxed) {
        return;
    }
    for _ in 0..KILLS {
        reap();
        // Nothing is between two parents for the kernel: what has no child has no descendant.
        if !own().is_empty() || is_childless() {
            return;
        }
        kill_children(|own, _| own.is_empty());
        // What starts children as fast as it is killed is stopped first.
        for signal in [Signal::STOP, Signal::KILL] {
            send(&strays(), signal, |_| own().is_empty());
        }
        reap();
        if is_childless() {
            return;
        }
        sleep(PAUSE).await;
    }
    tracing::error!("processes that remain of a program cannot be killed");
}

/// Kills children of this process for a moment, as fast as it can, those of which `is_it` is true, given the children that somebody
/// waits for. What starts the next one and ends at once is gone when a look through all of `/proc` has come to its end, but not when
/// the kernel's list of children has. Nobody waits for a child meanwhile, so each ID is that child's.
fn kill_children(is_it: impl Fn(&BTreeSet<i32>, Pid) -> bool) {
    let own = own();
    let me = getpid().as_raw_nonzero();
    let deadline = Instant::now() + QUICK;
    // They become children of the first thread.
    let list = format!("/proc/self/task/{me}/children");
    while Instant::now() < deadline {
        // A kernel without it leaves the slower way.
        let Ok(children) = fs::read_to_string(&list) else { return };
        // The newest come last; those before them have mostly ended.
        let children = children.split_ascii_whitespace().rev().take(NEWEST);
        for child in children.filter_map(|id| Pid::from_raw(id.parse().ok()?)) {
            if is_it(&own, child) {
                let _ended = kill_process(child, Signal::KILL);
            }
        }
    }
}

/// Kills the orphans of executors that nobody goes on with. An empty look is followed by another one: what starts a process and ends
/// during the look hides both.
async fn kill_unclaimed(attempts: &Attempts) {
    if is_childless() {
        return;
    }
    let me = getpid().as_raw_nonzero().get();
    let is_unclaimed = |process: &Process| is_orphan(process.pid) && !is_of_attempt(process.pid, attempts);
    let mut empty_looks = 0;
    for _ in 0..KILLS {
        for signal in [Signal::STOP, Signal::KILL] {
            let found = unclaimed(attempts);
            empty_looks = if found.is_empty() { empty_looks + 1 } else { 0 };
            if empty_looks == 2 {
                return;
            }
            // Below one that is unclaimed everything is.
            send(&found, signal, |now| now.parent != me || is_unclaimed(now));
        }
        if empty_looks == 0 {
            kill_children(|own, child| {
                !own.contains(&child.as_raw_nonzero().get()) && !is_of_attempt(child, attempts)
            });
        }
        reap();
        if empty_looks == 0 {
            sleep(PAUSE).await;
        }
    }
    tracing::error!("processes that hid from an executor cannot be killed");
}

/// Signals processes that are where they were found, or lost their parent and are children of this process since. Those that somebody
/// waits for are left.
fn send(found: &[Process], signal: Signal, is_it: impl Fn(&Process) -> bool) {
    let me = getpid().as_raw_nonzero().get();
    for process in found {
        process.signal(signal, |now| {
            let is_there = now.parent == process.parent || now.parent == me && is_orphan(now.pid);
            is_there && is_it(now)
        });
    }
}

/// Whether nobody in this process waits for this child.
fn is_orphan(pid: Pid) -> bool {
    !own().contains(&pid.as_raw_nonzero().get())
}

/// Whether this process has no child at all, not even one that has ended.
fn is_childless() -> bool {
    let any = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    matches!(waitid(WaitId::All, any), Err(Errno::CHILD))
}

/// Descendants of this process that run and that nobody waits for; none while somebody waits for one.
fn strays() -> Vec<Process> {
    // Held meanwhile, so that no program is started.
    let own = own();
    if own.is_empty() { with_descendants(children()) } else { Vec::new() }
}

/// Orphans that became children of this process and belong to no attempt in this directory, and what is below them.
fn unclaimed(attempts: &Attempts) -> Vec<Process> {
    // Held meanwhile, so that no executor is started.
    let own = own();
    let orphans = children().into_iter().filter(|child| !own.contains(&child.pid.as_raw_nonzero().get()));
    let unclaimed: Vec<Process> = orphans.filter(|orphan| !is_of_attempt(orphan.pid, attempts)).collect();
    if unclaimed.is_empty() { Vec::new() } else { with_descendants(unclaimed) }
}

/// Whether a process carries the data directory of an attempt that somebody goes on with.
fn is_of_attempt(pid: Pid, attempts: &Attempts) -> bool {
    let users = users_of(pid);
    // It is another user's: what it carries is what it likes, and its user shows whose it is.
    if users.iter().any(|user| *user != geteuid().as_raw()) {
        return has_user_of_attempt(&users, &attempts.work_dir);
    }
    let environment = environment_of(pid).unwrap_or_default();
    let data_dir = environment.split(|byte| *byte == 0).find_map(|line| line.strip_prefix(b"TF_DATA_DIR="));
    data_dir.is_some_and(|dir| attempts.have(Path::new(OsStr::from_bytes(dir))))
}

/// Whether one of these users is that of an attempt in this directory.
fn has_user_of_attempt(users: &[u32], work_dir: &Path) -> bool {
    let attempts = fs::read_dir(work_dir).into_iter().flatten().filter_map(Result::ok);
    let of_attempt = |attempt: fs::DirEntry| process_owner::of_data_dir(&attempt.path().join("run/data"));
    attempts.filter_map(of_attempt).any(|user| users.contains(&user))
}

/// The children of this process that run.
fn children() -> Vec<Process> {
    let me = getpid().as_raw_nonzero().get();
    Process::all().filter(|process| process.parent == me && !process.is_zombie).collect()
}

/// These processes, and all below them.
fn with_descendants(roots: Vec<Process>) -> Vec<Process> {
    if roots.is_empty() {
        return Vec::new();
    }
    let mut children: BTreeMap<i32, Vec<Process>> = BTreeMap::new();
    for process in Process::all() {
        children.entry(process.parent).or_default().push(process);
    }
    let mut found = roots;
    let mut at = 0;
    while at < found.len() {
        found.extend(children.remove(&found[at].pid.as_raw_nonzero().get()).unwrap_or_default());
        at += 1;
    }
    found
}

/// Waits for orphans for ever, if they become children of this process. Must be called inside a runtime. Errors: no signal handler.
pub(crate) async fn reap_orphans() -> io::Result<()> {
    if !ADOPTS.load(Ordering::Relaxed) {
        return Ok(());
    }
    let mut ended = signal(SignalKind::child())?;
    loop {
        reap();
        if let Some(attempts) = ATTEMPTS.get() {
            kill_unclaimed(attempts).await;
        }
        // Whether a signal came or the time is over: it is looked again.
        let _either = timeout(ROUND, ended.recv()).await;
    }
}

/// Waits for every child that has ended and is nobody's.
fn reap() {
    if is_childless() {
        return;
    }
    for pid in zombies() {
        let own = own();
        if !own.contains(&pid.as_raw_nonzero().get())
            && let Ok(Some(_)) = waitpid(Some(pid), WaitOptions::NOHANG)
        {
            metrics::counter!(telemetry::ZOMBIES_REAPED).increment(1);
        }
    }
}

/// The children of this process that have ended.
fn zombies() -> Vec<Pid> {
    let me = getpid().as_raw_nonzero().get();
    let ended = Process::all().filter(|process| process.is_zombie && process.parent == me);
    ended.map(|process| process.pid).collect()
}

#[cfg(test)]
mod tests {
    use std::process::Stdio;

    use super::*;

    /// Plays process 1 in a namespace of its own; the test below starts it there.
    #[tokio::test]
    #[ignore = "started by the_agent_as_process_1_reaps_orphans_and_nobody_elses_children"]
    async fn as_process_1() {
        assert!(getpid().is_init());
        adopt_orphans(true).unwrap();
        let reaper = tokio::spawn(reap_orphans());
        let mut runs = tokio::task::JoinSet::new();
        for code in 0..100 {
            runs.spawn(async move {
                // Each leaves two orphans: one that ends before it, one that ends after it.
                let script = format!("(true &) ; (sleep 0.05 &) ; exit {code}");
                let mut command = Command::new("/bin/sh");
                let (mut child, _, _own) = spawn(command.args(["-c", &script]).stdin(Stdio::null())).unwrap();
                assert_eq!(child.wait().await.unwrap().code(), Some(code), "an exit code was stolen");
            });
        }
        while let Some(run) = runs.join_next().await {
            run.unwrap();
        }
        let deadline = Instant::now() + Duration::from_secs(20);
        while fs::read_dir("/proc").unwrap().filter(|entry| is_number(entry.as_ref().unwrap())).count() > 1 {
            assert!(Instant::now() < deadline, "zombies: {:?}", zombies());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        reaper.abort();
    }

    fn is_number(entry: &fs::DirEntry) -> bool {
        entry.file_name().to_string_lossy().parse::<u32>().is_ok()
    }

    #[test]
    fn the_agent_as_process_1_reaps_orphans_and_nobody_elses_children() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("only root can make a process namespace: not tried");
            return;
        }
        let output = std::process::Command::new("unshare")
            .args(["--pid", "--fork", "--mount-proc"])
            .arg(std::env::current_exe().unwrap())
            .args(["--exact", "process::zombies::tests::as_process_1", "--ignored", "--nocapture"])
            .output()
            .unwrap();
        let message = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && message.contains("1 passed"),
            "{message}{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}
