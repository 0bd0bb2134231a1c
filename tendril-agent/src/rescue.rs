//! State that Terraform could not write to its backend: stored at the next start, where its lineage and serial allow it.

use std::{fs, io, path::Path};

use futures_util::future::BoxFuture;
use tempfile::TempDir;

use crate::{
    config::Config,
    job::Action,
    log_spool::Stream,
    runner::{Command, Runner, Sink},
    series,
    state::State,
    stop::Stop,
    terraform::Step,
    turn,
    workspace::{Workspace, private_dir},
};

/// The keys of the states of which something is kept beside the backend.
pub(crate) fn keys(state_dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(state_dir).into_iter().flatten().filter_map(Result::ok);
    let holds_state = |dir: &Path| {
        let files = fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok);
        files.into_iter().any(|file| crate::state::is_rescued(&file.path()))
    };
    let dirs = entries.filter(|entry| holds_state(&entry.path()));
    dirs.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// Stores what is kept of this state. What Terraform refuses is kept, and said.
pub(crate) async fn push(config: &Config, runner: &dyn Runner, state: &State) {
    for file in state.rescued().unwrap_or_default() {
        let name = file.display().to_string();
        match push_one(config, runner, state, &file).await {
            Ok(()) => {
                metrics::counter!(series::RESCUES_STORED).increment(1);
                tracing::info!(file = name, "state that an earlier life could not store is stored");
            }
            Err(error) => {
                metrics::counter!(series::RESCUES_REFUSED).increment(1);
                tracing::error!(file = name, %error, "state that an earlier life could not store is still not stored; it is kept");
            }
        }
    }
}

/// Tries whether a state can be reached: `terraform init` with nothing but the backend.
pub(crate) async fn try_backend(config: &Config, runner: &dyn Runner, state: &State) -> io::Result<()> {
    initialised(config, runner, state).await.map(drop)
}

async fn push_one(config: &Config, runner: &dyn Runner, state: &State, file: &Path) -> io::Result<()> {
    let (_place, workspace) = initialised(config, runner, state).await?;
    succeed(runner, config.terraform.push(file, &workspace, &config.timing)?).await?;
    fs::remove_file(file)
}

/// A module with nothing but the backend, in a directory that goes away with the answer.
async fn initialised(
    config: &Config,
    runner: &dyn Runner,
    state: &State,
) -> io::Result<(TempDir, Workspace)> {
    let place = tempfile::Builder::new().prefix("rescue-").tempdir_in(&config.work_dir)?;
    private_dir(place.path())?;
    let workspace = Workspace::at(place.path().to_path_buf());
    workspace.lay_out_empty(state)?;
    let turn = match config.terraform.plugin_cache() {
        Some(dir) => Some(turn::of_plugins(dir).await?),
        None => None,
    };
    let init = config.terraform.command(Step::Init, Action::Apply, &workspace, &config.timing)?;
    succeed(runner, init).await?;
    drop(turn);
    Ok((place, workspace))
}

async fn succeed(runner: &dyn Runner, command: Command) -> io::Result<()> {
    let quote = Quote::default();
    let exit = runner.run(command, &quote, &Stop::default()).await?;
    if exit.code == Some(0) { Ok(()) } else { Err(io::Error::other(quote.into_text())) }
}

/// Keeps what a command says on stderr, to be quoted.
#[derive(Debug, Default)]
pub(crate) struct Quote(std::sync::Mutex<Vec<u8>>);

/// Most that is kept.
const MOST: usize = 4096;

impl Quote {
    /// What was said.
    pub(crate) fn into_text(self) -> String {
        let said = self.0.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        String::from_utf8_lossy(&said).trim().to_owned()
    }
}

impl Sink for Quote {
    fn write(&self, stream: Stream, bytes: Vec<u8>) -> BoxFuture<'_, ()> {
        let mut said = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if stream == Stream::Stderr && said.len() < MOST {
            said.extend_from_slice(&bytes);
        }
        Box::pin(std::future::ready(()))
    }
}
