//! State that Terraform could not write to its backend: stored at the next start, where its lineage and serial allow it.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use futures_util::future::BoxFuture;
use tempfile::TempDir;
use tokio::time::sleep;
use uuid::Uuid;

use crate::{
    control_plane::ClaimRecord,
    job::Action,
    os::{blocking, files::private_dir},
    process::{Command, Drain, Exit, GracePeriod, Runner, Sink, StopSignal, Stream, orphans},
    telemetry,
    template::Workspace,
    terraform::{
        command::Step,
        provider_cache::Filling,
        settings::TerraformSettings,
        state::{
            backend::State,
            creation_race::{self, CreationRace},
            errored_state::{ErroredState, is_errored_state, is_held_mark},
            lock::Lock,
            lock_owner::{LockOwner, during},
            lock_query,
        },
        step_timing::StepTiming,
    },
};

/// What Terraform writes into the lock that a push takes.
const OPERATION: &str = "state-push";

/// What the directories begin with in which state is stored. What a previous run left there may hold a lock.
const PUSH: &str = "push-";

/// The keys of the states of which something is saved beside the backend, or was being stored when a previous run ended.
pub(crate) fn keys(settings: &TerraformSettings) -> BTreeSet<String> {
    beside(&settings.state_dir, |file| is_errored_state(file) || is_held_mark(file))
        .into_iter()
        .chain(cut_off(settings).map(|(_, key)| key))
        .collect()
}

/// The keys of the states of which something is saved beside the backend.
pub(crate) fn saved(state_dir: &Path) -> Vec<String> {
    beside(state_dir, is_errored_state)
}

fn beside(state_dir: &Path, wanted: impl Fn(&Path) -> bool) -> Vec<String> {
    let entries = fs::read_dir(state_dir).into_iter().flatten().filter_map(Result::ok);
    let holds_state = |dir: &Path| {
        let files = fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok);
        files.into_iter().any(|file| wanted(&file.path()))
    };
    let dirs = entries.filter(|entry| holds_state(&entry.path()));
    dirs.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// The pushes of a previous run that were cut off, with the keys of their states. What had not begun to push is removed.
fn cut_off(settings: &TerraformSettings) -> impl Iterator<Item = (Workspace, String)> + use<> {
    let entries = fs::read_dir(&settings.work_dir).into_iter().flatten().filter_map(Result::ok);
    let places = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(PUSH));
    places.filter_map(|place| {
        let workspace = Workspace::at(place.path());
        if let Ok(owner) = LockOwner::of_previous_run(&workspace.lock_owner_file(), false) {
            return Some((workspace, owner.state_key));
        }
        remove(workspace);
        None
    })
}

fn remove(workspace: Workspace) {
    orphans::kill(&workspace.data_dir());
    if let Err(error) = workspace.remove() {
        tracing::error!(%error, "what is left of a push cannot be removed");
    }
}

/// Ends the pushes of this state that a previous run began, and notes down which lock they may have left.
fn mark_cut_off_stale(settings: &TerraformSettings, state: &State) -> io::Result<()> {
    for (workspace, _) in cut_off(settings).filter(|(_, key)| key == state.key()) {
        let grace_period = GracePeriod {
            graceful: settings.timing.plan_cancel_grace.min(Duration::from_secs(60)),
            forced: settings.timing.kill_grace,
        };
        let ended = orphans::end(&workspace.data_dir(), grace_period);
        LockOwner::of_previous_run(&workspace.lock_owner_file(), ended.is_some())?.mark_stale(state)?;
        remove(workspace);
    }
    Ok(())
}

/// Moves state that earlier attempts could not store to the directory of its key. They have ended: the caller holds the
/// state's key. Answers where what cannot be moved is, and why.
pub(crate) fn gather(
    settings: &TerraformSettings,
    state: &State,
    own: &Workspace,
) -> io::Result<Option<(PathBuf, io::Error)>> {
    for entry in fs::read_dir(&settings.work_dir)? {
        let workspace = Workspace::at(entry?.path());
        if workspace.errored_state().is_none() || workspace.claim_file() == own.claim_file() {
            continue;
        }
        let claim = ClaimRecord::load(&workspace.claim_file());
        if claim.is_ok_and(|claim| claim.state_key.as_deref() == Some(state.key()))
            && let ErroredState::Unmovable(place, why) = state.clear_run(&workspace)
        {
            return Ok(Some((place, why)));
        }
    }
    Ok(None)
}

/// Stores what is saved of this state. What Terraform refuses stays saved, and is logged. A drain waits for what has begun.
pub(crate) async fn push(settings: &TerraformSettings, runner: &dyn Runner, state: &State, drain: &Drain) {
    let (owned, place) = (settings.clone(), state.clone());
    if let Err(error) = blocking(move || mark_cut_off_stale(&owned, &place)).await {
        tracing::error!(%error, "a push of a previous run cannot be finished");
    }
    for file in state.pending().unwrap_or_default() {
        let Some(_task) = drain.background_task() else { return };
        let name = file.display().to_string();
        match push_one(settings, runner, state, &file, &drain.stop).await {
            Ok(()) => {
                metrics::counter!(telemetry::ERRORED_STATES_STORED).increment(1);
                tracing::info!(file = name, "state that a previous run could not store is stored");
            }
            Err(error) => {
                metrics::counter!(telemetry::ERRORED_STATES_REFUSED).increment(1);
                tracing::error!(file = name, %error, "state that a previous run could not store is still not stored; it stays saved");
            }
        }
    }
}

async fn push_one(
    settings: &TerraformSettings,
    runner: &dyn Runner,
    state: &State,
    file: &Path,
    stop: &StopSignal,
) -> io::Result<()> {
    let (place, workspace) = initialised(settings, runner, state, PUSH, stop, None).await?;
    let at = workspace.clone();
    let push = Push { settings, runner, state, workspace: &at, stop, id: Uuid::new_v4(), attempt: 0 };
    // Whoever is cut off here leaves it to the next run, which learns from it of the lock.
    let _path = place.keep();
    let stored = push.store(file).await?;
    let removed = move || {
        remove(workspace);
        Ok(())
    };
    blocking(removed).await?;
    match stored {
        Stored::Done => Ok(()),
        Stored::Refused(why) => Err(io::Error::other(why)),
        Stored::Stopped(exit) => Err(io::Error::other(format!("the agent stopped: {}", exit.stage))),
    }
}

/// A module with nothing but the backend, in a directory that is removed when the value is dropped. `variable`: a further variable of
/// its `terraform init`.
pub(super) async fn initialised(
    settings: &TerraformSettings,
    runner: &dyn Runner,
    state: &State,
    prefix: &str,
    stop: &StopSignal,
    variable: Option<(&str, &str)>,
) -> io::Result<(TempDir, Workspace)> {
    let place = tempfile::Builder::new().prefix(prefix).tempdir_in(&settings.work_dir)?;
    private_dir(place.path())?;
    let workspace = Workspace::at(place.path().to_path_buf());
    if let Some(users) = &settings.slot_users {
        workspace.assign_user(users)?;
    }
    workspace.make_dirs()?;
    state.lay_out(&workspace.module_dir())?;
    workspace.hand_over()?;
    let filling = match settings.program.plugin_cache() {
        Some(dir) => Some(Filling::begin(dir, &workspace).await?),
        None => None,
    };
    state.give_to(&workspace)?;
    let ran = initialise(settings, runner, state, &workspace, stop, variable).await;
    if let Some(filling) = filling {
        filling.end(workspace.data_dir()).await?;
    }
    let (exit, message) = ran?;
    if exit.code == Some(0) { Ok((place, workspace)) } else { Err(io::Error::other(message)) }
}

/// `terraform init`, again where the first runs of several new states disturbed each other.
async fn initialise(
    settings: &TerraformSettings,
    runner: &dyn Runner,
    state: &State,
    workspace: &Workspace,
    stop: &StopSignal,
    variable: Option<(&str, &str)>,
) -> io::Result<(Exit, String)> {
    let mut next_try = 2;
    loop {
        let mut init = settings.program.command(Step::Init, Action::Apply, workspace, &settings.timing)?;
        init.env.extend(variable.map(|(name, value)| (name.into(), value.into())));
        let (exit, message) = run(runner, init, stop).await?;
        let failed = exit.code != Some(0) && stop.requested().is_none() && next_try <= creation_race::TRIES;
        if !failed || CreationRace::read(&message, state.kind()).is_none() {
            return Ok((exit, message));
        }
        tokio::select! {
            () = sleep(creation_race::pause(next_try)) => {}
            () = stop.wait() => {}
        }
        next_try += 1;
    }
}

pub(super) async fn run(
    runner: &dyn Runner,
    command: Command,
    stop: &StopSignal,
) -> io::Result<(Exit, String)> {
    let quote = StderrTail::default();
    let exit = runner.run(command, &quote, stop).await?;
    Ok((exit, quote.into_text()))
}

/// How a push ended.
#[derive(Debug)]
pub(crate) enum Stored {
    /// The backend has it.
    Done,
    /// Terraform refuses; its message.
    Refused(String),
    /// A stop was requested.
    Stopped(Exit),
}

/// `terraform state push`, by somebody who can leave its lock behind as any other step can.
pub(crate) struct Push<'a> {
    pub(crate) settings: &'a TerraformSettings,
    pub(crate) runner: &'a dyn Runner,
    pub(crate) state: &'a State,
    /// Where it was initialised.
    pub(crate) workspace: &'a Workspace,
    pub(crate) stop: &'a StopSignal,
    /// For whom: what its note is called.
    pub(crate) id: Uuid,
    pub(crate) attempt: i32,
}

impl Push<'_> {
    /// Stores a file, and removes it then. A lock that a dead attempt of ours left is removed. Errors: it could not be tried.
    pub(crate) async fn store(&self, file: &Path) -> io::Result<Stored> {
        let (from, workspace) = (file.to_path_buf(), self.workspace.clone());
        let pushed = blocking(move || workspace.readable_copy(&from)).await?;
        let mut dead = self.state.stale_owners();
        loop {
            // What a dead attempt left is not waited for.
            let grace_period =
                if dead.is_empty() { self.settings.timing.lock_timeout } else { Duration::ZERO };
            let timing = StepTiming { lock_timeout: grace_period, ..self.settings.timing };
            self.state.give_to(self.workspace)?;
            let command = self.settings.program.push(&pushed, self.workspace, &timing)?;
            let owner = LockOwner::new(self.id, self.attempt, self.state, OPERATION, grace_period);
            let pushing = run(self.runner, command, self.stop);
            let left = |ran: &io::Result<(Exit, String)>| {
                ran.as_ref().is_ok_and(|(exit, _)| exit.code != Some(0) && exit.was_abrupt())
            };
            let (exit, message) =
                during(owner, self.workspace.lock_owner_file(), self.state, pushing, left).await??;
            if exit.code == Some(0) {
                self.state.clear_stale();
                fs::remove_file(file)?;
                self.state.tidy();
                return Ok(Stored::Done);
            }
            if self.stop.requested().is_some() {
                return Ok(Stored::Stopped(exit));
            }
            let Some(lock) = Lock::read_printed(&message, self.state.kind()) else {
                return Ok(Stored::Refused(message));
            };
            let lock = lock_query::described(self.state, lock).await;
            if let Some(id) = lock.of_stale(&dead) {
                tracing::warn!(state = self.state.key(), lock = id, "the lock of a dead attempt is removed");
                let unlock = self.settings.program.unlock(id, self.workspace, &self.settings.timing)?;
                let (exit, message) = run(self.runner, unlock, self.stop).await?;
                if exit.code != Some(0) {
                    return Ok(Stored::Refused(message));
                }
                metrics::counter!(telemetry::LOCKS_REMOVED).increment(1);
                self.state.clear_stale();
            } else if dead.is_empty() {
                return Ok(Stored::Refused(message));
            }
            dead.clear();
        }
    }
}

/// Captures a command's stderr, to be quoted.
#[derive(Debug, Default)]
pub(crate) struct StderrTail(std::sync::Mutex<Vec<u8>>);

/// The largest capture.
const MOST: usize = 4096;

impl StderrTail {
    /// What was written to stderr.
    pub(crate) fn into_text(self) -> String {
        let message = self.0.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        // The last line of a full buffer may be cut, and the redactor does not recognize a part of a secret.
        let whole = if message.len() < MOST {
            message.len()
        } else {
            message.iter().rposition(|byte| *byte == b'\n').unwrap_or(0)
        };
        String::from_utf8_lossy(&message[..whole]).trim().to_owned()
    }
}

impl Sink for StderrTail {
    fn write(&self, stream: Stream, bytes: Vec<u8>) -> BoxFuture<'_, ()> {
        let mut message = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if stream == Stream::Stderr && message.len() < MOST {
            message.extend_from_slice(&bytes);
        }
        Box::pin(std::future::ready(()))
    }
}
