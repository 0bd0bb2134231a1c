//! Where infracost works: a private directory per attempt, and what one estimate may leave to the next.
//!
//! ```text
//! <attempt>/run/.infracost/     0700, removed after the estimate
//!     estimate.json             0600, what 0.10 writes
//!     pricing.gob               prices that 0.10 found; it looks for a `.infracost` above the module
//!     home/  cache/             HOME and TMPDIR; results that 2.x caches
//! <work dir>/infracost/         shared by all attempts that have the agent's user; others have this in their own directory
//!     pricing.gob               for the next estimate: replaced in one step, so that a reader sees a whole one
//!     plugins/                  what 2.x downloads; one estimate at a time, because two would write into one file
//! ```

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
};

use super::{Line, quiet};
use crate::{
    os::{
        file_lock::{self, FileLock},
        files::{private_dir, private_file, remove_dir},
        ownership::give_tree,
        untrusted::read_file,
    },
    process::Command,
    template::Workspace,
};

/// The name of 0.10's file of prices.
const PRICES: &str = "pricing.gob";

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct CostDir {
    own: PathBuf,
    /// Marks the processes of the attempt, so that none outlives it.
    data: PathBuf,
    shared: PathBuf,
    workspace: Workspace,
}

impl CostDir {
    /// Of one attempt. One with a user of its own shares nothing: another run must not use what it could have changed.
    pub(crate) fn new(workspace: &Workspace, work_dir: &Path) -> Self {
        let own = workspace.cost_dir();
        let is_apart = !matches!(workspace.user(), Ok(None));
        let shared = if is_apart { own.clone() } else { work_dir.join("infracost") };
        Self { own, data: workspace.data_dir(), shared, workspace: workspace.clone() }
    }

    /// The command as one of the run's user.
    pub(super) fn confine(&self, command: Command) -> io::Result<Command> {
        self.workspace.confine(command, false)
    }

    /// What 0.10 has written.
    pub(crate) fn read_estimate(&self, most: u64) -> io::Result<Vec<u8>> {
        let estimate = read_file(&self.estimate(), self.workspace.owner()?, most)?;
        if estimate.is_empty() { Err(io::Error::other("it is empty")) } else { Ok(estimate) }
    }

    /// Where 0.10 writes what it found.
    pub(crate) fn estimate(&self) -> PathBuf {
        self.own.join("estimate.json")
    }

    /// Makes the directories, and lays out the prices that an earlier estimate found.
    pub(crate) fn lay_out(&self) -> io::Result<()> {
        for dir in [self.own.join("home"), self.own.join("cache"), self.shared.clone()] {
            private_dir(&dir)?;
        }
        // It is there before the program opens it: so no other user may read it.
        private_file(&self.estimate(), b"")?;
        if self.shared != self.own {
            // Without them the prices are requested again.
            let _none_yet = fs::copy(self.shared.join(PRICES), self.own.join(PRICES));
        }
        self.workspace.owner()?.map_or(Ok(()), |user| give_tree(&self.own, user))
    }

    /// Waits for the lock, where two estimates at a time would disturb each other. May be dropped while it waits.
    pub(crate) async fn lock(&self, line: Line) -> io::Result<Option<FileLock>> {
        match line {
            Line::Zero => Ok(None),
            Line::Two => file_lock::lock_provider_cache(&self.shared).await.map(Some),
        }
    }

    /// Leaves the prices that were found to the next estimate.
    pub(crate) fn keep_prices(&self) {
        if self.shared != self.own {
            // What is not stored is requested again.
            let _none = fs::rename(self.own.join(PRICES), self.shared.join(PRICES));
        }
    }

    /// Removes everything of this attempt.
    pub(crate) fn clear(&self) -> io::Result<()> {
        remove_dir(&self.own)
    }

    /// Adds the variables of the program's environment.
    pub(super) fn finalize(&self, line: Line, env: &mut BTreeMap<OsString, OsString>) {
        let home = self.own.join("home");
        env.extend(quiet());
        env.extend([
            ("HOME".into(), home.clone().into()),
            ("TMPDIR".into(), home.into()),
            ("TF_DATA_DIR".into(), self.data.clone().into()),
        ]);
        match line {
            Line::Zero => env.extend(
                ["INFRACOST_ENABLE_CLOUD", "INFRACOST_ENABLE_CLOUD_UPLOAD"]
                    .map(|name| (name.into(), "false".into())),
            ),
            Line::Two => {
                env.extend([
                    ("INFRACOST_CLI_CACHE_DIRECTORY".into(), self.own.join("cache").into()),
                    ("INFRACOST_CLI_LOG_LEVEL".into(), "warn".into()),
                ]);
                // The operator's own variables come first.
                env.entry("INFRACOST_CLI_PLUGIN_AUTO_UPDATE".into()).or_insert_with(|| "false".into());
                env.entry("INFRACOST_CLI_PLUGIN_CACHE_DIRECTORY".into())
                    .or_insert_with(|| self.shared.join("plugins").into());
            }
        }
    }
}
