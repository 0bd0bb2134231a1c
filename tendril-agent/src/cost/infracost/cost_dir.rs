//! Where infracost works: a private directory per attempt, and what one estimate may leave to the next.
//!
//! ```text
//! <attempt>/run/.infracost/     0700, removed after the estimate
//!     estimate.json             0600, what 0.10 writes
//!     pricing.gob               prices that 0.10 found; it looks for a `.infracost` above the module
//!     home/  cache/             HOME and TMPDIR; results that 2.x caches
//! <work dir>/infracost/         shared by all attempts
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
    },
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
}

impl CostDir {
    /// Of one attempt.
    pub(crate) fn new(workspace: &Workspace, work_dir: &Path) -> Self {
        Self { own: workspace.cost_dir(), data: workspace.data_dir(), shared: work_dir.join("infracost") }
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
        // Without them the prices are requested again.
        let _none_yet = fs::copy(self.shared.join(PRICES), self.own.join(PRICES));
        Ok(())
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
        // What is not stored is requested again.
        let _none = fs::rename(self.own.join(PRICES), self.shared.join(PRICES));
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
