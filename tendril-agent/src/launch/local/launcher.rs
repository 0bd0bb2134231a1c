//! Starts executors as processes, and waits for their ends.
//!
//! A later dispatcher finds them by the locks that they hold in their directories ([`Entry`]), whichever version they are of.

use std::{
    ffi::OsString,
    fmt, fs, io,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, SystemTime},
};

use futures_util::{FutureExt as _, future::BoxFuture};
use rustix::process::Signal;
use secrecy::{ExposeSecret as _, SecretString};
use tokio::{process::Child, time::sleep};

use super::entry::{Entry, Holder};
use crate::{
    execute::{Registry, RunningJob},
    launch::{
        attempt_file::{AttemptFile, AttemptId},
        launcher::{End, Executor, LaunchError, Launched, Launcher, Request},
    },
    os::{blocking, files::private_file},
    process::{
        Process,
        cgroup::Cgroup,
        zombies::{self, Own},
    },
};

/// The folder of the work directory with one directory for each executor.
pub(crate) const EXECUTORS: &str = "executors";
/// Between two looks at an executor's log and metrics, and at its lock where it is no child of this process.
const LOOK: Duration = Duration::from_millis(250);

/// Starts executors as processes.
pub(crate) struct LocalLauncher {
    /// `<work dir>/executors`.
    dir: PathBuf,
    how: ExecutorCommand,
    registry: Registry,
}

/// How executors are started.
pub(crate) struct ExecutorCommand {
    /// The agent's program.
    pub(crate) program: PathBuf,
    /// The dispatcher's own arguments, without the secrets in them.
    pub(crate) args: Vec<OsString>,
    /// Variables of this process that an executor must not have: what is in them it gets elsewhere, or not at all.
    pub(crate) without: Vec<&'static str>,
    /// The variable that says that its secrets are in its standard input.
    pub(crate) mark: &'static str,
    /// Makes that input.
    pub(crate) input: Box<dyn Fn() -> io::Result<Stdio> + Send + Sync>,
}

impl LocalLauncher {
    pub(crate) fn new(work_dir: &Path, how: ExecutorCommand, registry: Registry) -> Self {
        Self { dir: work_dir.join(EXECUTORS), how, registry }
    }

    fn entry(&self, id: AttemptId) -> Entry {
        Entry::at(self.dir.join(id.to_string()))
    }

    async fn start(
        &self,
        attempt: AttemptFile,
        token: Option<SecretString>,
    ) -> Result<Launched, LaunchError> {
        let id = attempt.id();
        let entry = self.entry(id);
        let fault = |source: io::Error| LaunchError::Io {
            context: format!("the executor of deployment {} cannot be started", id.deployment_id),
            source,
        };
        let place = self.registry.enter_elsewhere(&attempt.job(), entry.phase_file());
        let (at, file) = (entry.clone(), attempt.clone());
        let running = blocking(move || {
            if let Some(holder) = at.holder()? {
                return Ok(Some(holder));
            }
            at.create()?;
            at.clear()?;
            if let Some(token) = token {
                private_file(&at.token_file(), token.expose_secret().as_bytes())?;
            }
            file.save(&at.attempt_file())?;
            Ok(None)
        });
        if let Some(holder) = running.await.map_err(fault)? {
            let executor = adopted(entry, &attempt, Some(&holder), place);
            return Ok(Launched::Already(executor));
        }
        let mut command = tokio::process::Command::new(&self.how.program);
        command
            .args(&self.how.args)
            .arg("execute")
            .arg("--attempt")
            .arg(entry.attempt_file())
            .stdin((self.how.input)().map_err(fault)?)
            .env(self.how.mark, "1")
            .stdout(Stdio::null())
            .stderr(entry.log().map_err(fault)?);
        for name in &self.how.without {
            command.env_remove(name);
        }
        let (child, _pid, own) = zombies::spawn(&mut command).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied => LaunchError::Refused(format!(
                "{} cannot be run as an executor ({error}): see that the agent's program can be executed and that /proc is mounted, or run jobs with --launcher in-process",
                self.how.program.display()
            )),
            _ => fault(error),
        })?;
        let ended = async move { child_ended(child, own, entry, place).await };
        Ok(Launched::Started(Executor {
            id,
            claim_token: attempt.claim_token,
            state_key: attempt.state_key,
            version: Some(env!("CARGO_PKG_VERSION").to_owned()),
            ended: ended.boxed(),
        }))
    }

    /// The executors of this directory, running or ended and not forgotten.
    fn found(&self) -> io::Result<Vec<Executor>> {
        let entries = match fs::read_dir(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut found = Vec::new();
        for dir in entries.filter_map(Result::ok) {
            if dir.file_name().to_str().and_then(AttemptId::parse).is_none() {
                continue;
            }
            let dir = dir.path();
            // One that cannot be read does not hide the others.
            match self.found_in(&dir) {
                Ok(executor) => found.extend(executor),
                Err(error) => {
                    tracing::error!(dir = %dir.display(), %error, "what is kept of an executor cannot be read: it is left alone");
                }
            }
        }
        Ok(found)
    }

    /// The executor of one directory. None: there is nothing to do for it.
    fn found_in(&self, dir: &Path) -> io::Result<Option<Executor>> {
        let entry = Entry::at(dir.to_path_buf());
        match AttemptFile::load(&entry.attempt_file()) {
            Ok(attempt) => {
                let place = self.registry.enter_elsewhere(&attempt.job(), entry.phase_file());
                let holder = entry.holder()?;
                Ok(Some(adopted(entry, &attempt, holder.as_ref(), place)))
            }
            // It was about to be started, or removed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => entry.remove().map(|()| None),
            // Of a later version, and all is done.
            Err(_) if entry.holder()?.is_none() && entry.end() == Some(End::Stored) => {
                entry.remove().map(|()| None)
            }
            Err(error) => Err(error),
        }
    }
}

/// Whether an executor of this attempt lives, whoever started it. Where that cannot be seen, it is taken to live.
pub(crate) fn is_alive(work_dir: &Path, id: AttemptId) -> bool {
    let entry = Entry::at(work_dir.join(EXECUTORS).join(id.to_string()));
    entry.holder().map_or(true, |holder| holder.is_some())
}

/// Signals the executor that lives, if one does.
fn signal(entry: &Entry, signal: Signal) -> io::Result<()> {
    let Some(holder) = entry.holder()? else { return Ok(()) };
    if let Some(process) = holder.pid().and_then(Process::with_id) {
        // Its ID is its own for as long as it has the lock.
        process.signal(signal, |_| matches!(entry.holder(), Ok(Some(now)) if now == holder));
    }
    Ok(())
}

/// An executor that another dispatcher started.
fn adopted(entry: Entry, attempt: &AttemptFile, holder: Option<&Holder>, place: RunningJob) -> Executor {
    let version = holder.map(|holder| holder.version.clone()).filter(|version| !version.is_empty());
    Executor {
        id: attempt.id(),
        claim_token: attempt.claim_token,
        state_key: attempt.state_key.clone(),
        version,
        ended: async move { stranger_ended(entry, place).await }.boxed(),
    }
}

/// Waits for an executor that is a child of this process.
async fn child_ended(mut child: Child, own: Own, entry: Entry, place: RunningJob) -> End {
    let mut look = Look::at(&entry);
    let status = loop {
        tokio::select! {
            status = child.wait() => break status,
            () = sleep(LOOK) => look.again(false).await,
        }
    };
    drop((own, place));
    look.again(true).await;
    let said = blocking(move || Ok(entry.end())).await.ok().flatten();
    said.unwrap_or_else(|| match status {
        Ok(status) => End::of_code(status.code()),
        Err(error) => End::Died(format!("the executor cannot be waited for: {error}")),
    })
}

/// Waits for an executor that is nobody's child here.
async fn stranger_ended(entry: Entry, place: RunningJob) -> End {
    let mut look = Look::at(&entry);
    loop {
        let holder = match entry.holder() {
            Ok(holder) => holder,
            Err(error) => return End::Died(format!("whether the executor lives cannot be seen: {error}")),
        };
        if holder.is_none() {
            break;
        }
        look.again(false).await;
        sleep(LOOK).await;
    }
    drop(place);
    look.again(true).await;
    entry.end().unwrap_or_else(|| End::Died("the executor ended without saying how".to_owned()))
}

/// What this process has seen of an executor.
struct Look {
    entry: Entry,
    /// The time of its metrics that were added.
    metrics: Option<SystemTime>,
    /// How much of its log was passed on.
    passed: u64,
}

impl Look {
    fn at(entry: &Entry) -> Self {
        Self { entry: entry.clone(), metrics: None, passed: 0 }
    }

    /// Passes on what the executor has logged meanwhile, and adds what it has counted.
    async fn again(&mut self, is_over: bool) {
        let Self { entry, metrics, passed } = Self { entry: self.entry.clone(), ..*self };
        let looked = blocking(move || Ok((entry.pass_log_on(passed, is_over), entry.add_metrics(metrics))));
        let (log, counted) = match looked.await {
            Ok(looked) => looked,
            Err(error) => return tracing::debug!(%error, "an executor cannot be looked at"),
        };
        match log {
            Ok(passed) => self.passed = passed,
            Err(error) => tracing::debug!(%error, "an executor's log cannot be passed on"),
        }
        match counted {
            Ok(metrics) => self.metrics = metrics,
            Err(error) => tracing::debug!(%error, "what an executor has counted cannot be added"),
        }
    }
}

impl Launcher for LocalLauncher {
    fn launch(
        &self,
        attempt: AttemptFile,
        token: Option<SecretString>,
    ) -> BoxFuture<'_, Result<Launched, LaunchError>> {
        self.start(attempt, token).boxed()
    }

    fn running(&self) -> BoxFuture<'_, Result<Vec<Executor>, LaunchError>> {
        async {
            self.found().map_err(|source| LaunchError::Io {
                context: format!("the executors in {} cannot be found", self.dir.display()),
                source,
            })
        }
        .boxed()
    }

    fn ask(&self, id: AttemptId, request: Request) -> BoxFuture<'_, Result<(), LaunchError>> {
        let entry = self.entry(id);
        let asked = blocking(move || {
            // Also to one that was started a moment ago: it reads its requests once it has its lock and a handler.
            match entry.order(request) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                ordered => ordered?,
            }
            // Its default is to do nothing.
            signal(&entry, Signal::WINCH)
        });
        async move {
            asked.await.map_err(|source| LaunchError::Io {
                context: format!("the executor of deployment {} cannot be asked", id.deployment_id),
                source,
            })
        }
        .boxed()
    }

    fn kill(&self, id: AttemptId) -> BoxFuture<'_, Result<(), LaunchError>> {
        let killed = signal(&self.entry(id), Signal::KILL);
        async move {
            killed.map_err(|source| LaunchError::Io {
                context: format!("the executor of deployment {} cannot be killed", id.deployment_id),
                source,
            })
        }
        .boxed()
    }

    fn forget(&self, id: AttemptId) -> BoxFuture<'_, Result<(), LaunchError>> {
        let entry = self.entry(id);
        let removed = blocking(move || {
            // One that died may have left an apply that goes on.
            if matches!(entry.end(), Some(End::Stored | End::Waiting))
                && let Some(Err(error)) = Cgroup::of(&id.to_string()).map(|group| group.end())
            {
                tracing::warn!(%error, "the control group of a run cannot be ended");
            }
            entry.remove()
        });
        async move {
            removed.await.map_err(|source| LaunchError::Io {
                context: format!(
                    "what is kept of the executor of deployment {} cannot be removed",
                    id.deployment_id
                ),
                source,
            })
        }
        .boxed()
    }

    fn end_with_dispatcher(&self) -> bool {
        false
    }
}

impl fmt::Debug for LocalLauncher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalLauncher").field("dir", &self.dir).finish_non_exhaustive()
    }
}
