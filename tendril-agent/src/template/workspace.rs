//! The private directory of one attempt.
//!
//! ```text
//! <work dir>/<deployment>.<attempt>/   0700
//!     plan-digest.json     the digests of the saved plan and its sources (plan_seal)
//!     lock-owner.json   which step may hold the state's lock         (state)
//!     errored.tfstate   state that nothing else could take       (state)
//!     claim.json    which claim this is, and how far it got      (recovery)
//!     log/          every line that was read and not uploaded    (log_spool)
//!     result.json   the final status, until it is stored         (report)
//!     commit        which commit of a Git repository it runs     (run)
//!     run/          removed as soon as the run is over
//!         module/   the template's files, variables, backend; Terraform runs here
//!         data/     TF_DATA_DIR and the saved plan
//!         home/     HOME and TMPDIR of Terraform
//!         source/   the template's files as they came from Git   (git)
//!         .infracost/   where costs are estimated                (infracost)
//! ```

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde_json::{Map, Value};

use crate::{
    job::{
        failure::{ErrorCode, Failure},
        spec::Job,
    },
    os::{
        failpoint::failpoint,
        files::{private_dir, private_file, remove_dir, sync_dir},
    },
};

/// Name of the generated variables file; `zz` makes it win over the template's own `*.auto.tfvars`.
const VARIABLES_FILE: &str = "zz_tendril.auto.tfvars.json";
/// State that Terraform could not write to its backend.
const ERRORED_STATE: &str = "errored.tfstate";

/// One attempt's directory.
#[derive(Clone, Debug)]
pub(crate) struct Workspace {
    /// `<work dir>/<deployment>.<attempt>`.
    root: PathBuf,
}

impl Workspace {
    /// The directory of this job's attempt, made.
    pub(crate) fn create(work_dir: &Path, job: &Job) -> io::Result<Self> {
        let root = work_dir.join(job.attempt_name());
        private_dir(&root)?;
        Ok(Self { root })
    }

    /// A directory that a previous run left behind.
    pub(crate) const fn at(root: PathBuf) -> Self {
        Self { root }
    }

    /// Which claim this is.
    pub(crate) fn claim_file(&self) -> PathBuf {
        self.root.join("claim.json")
    }

    /// Every line that was read and not uploaded.
    pub(crate) fn log_dir(&self) -> PathBuf {
        self.root.join("log")
    }

    /// The final status, until it is stored.
    pub(crate) fn result_file(&self) -> PathBuf {
        self.root.join("result.json")
    }

    /// Where Terraform runs.
    pub(crate) fn module_dir(&self) -> PathBuf {
        self.root.join("run/module")
    }

    /// `TF_DATA_DIR`, and the saved plan.
    pub(crate) fn data_dir(&self) -> PathBuf {
        self.root.join("run/data")
    }

    /// The saved plan.
    pub(crate) fn plan_file(&self) -> PathBuf {
        self.data_dir().join("tfplan")
    }

    /// The digests of the saved plan and of what it was made from.
    pub(crate) fn plan_digest_file(&self) -> PathBuf {
        self.root.join("plan-digest.json")
    }

    /// Which step of this attempt may hold the state's lock.
    pub(crate) fn lock_owner_file(&self) -> PathBuf {
        self.root.join("lock-owner.json")
    }

    /// Where costs are estimated. infracost looks for a directory of this name above the module, and so leaves the module
    /// alone.
    pub(crate) fn cost_dir(&self) -> PathBuf {
        self.root.join("run/.infracost")
    }

    /// `HOME` and `TMPDIR` of Terraform.
    pub(crate) fn home_dir(&self) -> PathBuf {
        self.root.join("run/home")
    }

    /// The template's files as they came from Git.
    pub(crate) fn source_dir(&self) -> PathBuf {
        self.root.join("run/source")
    }

    /// Keeps the id of the commit that they are of, for a later run of the agent.
    pub(crate) fn store_commit(&self, commit: &str) -> io::Result<()> {
        private_file(&self.root.join("commit"), commit.as_bytes())
    }

    /// The id of the commit that a previous run kept.
    pub(crate) fn stored_commit(&self) -> io::Result<String> {
        fs::read_to_string(self.root.join("commit"))
    }

    /// Lays out the template's files and the variables.
    pub(crate) fn lay_out(&self, template_dir: &Path, variables: &Map<String, Value>) -> Result<(), Failure> {
        let fault = |source: io::Error| Failure::internal("the workspace cannot be prepared", &source);
        self.make_dirs().map_err(fault)?;
        let inside = template_dir.canonicalize().map_err(fault)?;
        copy_tree(&inside, &inside, Some(&self.module_dir())).map_err(CopyError::into_failure)?;
        let variables = serde_json::to_vec_pretty(variables).map_err(|error| fault(error.into()))?;
        private_file(&self.module_dir().join(VARIABLES_FILE), &variables).map_err(fault)
    }

    /// Makes the directories that Terraform works in.
    pub(crate) fn make_dirs(&self) -> io::Result<()> {
        [self.module_dir(), self.data_dir(), self.home_dir()].iter().try_for_each(|dir| private_dir(dir))
    }

    /// `<deployment>.<attempt>`.
    pub(crate) fn name(&self) -> String {
        self.root.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// State that Terraform printed because it could store it nowhere.
    pub(crate) fn dumped_state(&self) -> PathBuf {
        self.root.join(ERRORED_STATE)
    }

    /// State of this attempt that is in no backend yet, and not beside it either.
    pub(crate) fn errored_state(&self) -> Option<PathBuf> {
        let holds_state =
            |file: &PathBuf| fs::symlink_metadata(file).is_ok_and(|meta| meta.is_file() && meta.len() > 0);
        [self.dumped_state(), self.module_dir().join(ERRORED_STATE)].into_iter().find(holds_state)
    }

    /// Removes the file that Terraform could not write its state to.
    pub(crate) fn drop_torn_state(&self) {
        let _not_there = fs::remove_file(self.module_dir().join(ERRORED_STATE));
    }

    /// Removes what only a running Terraform needs.
    pub(crate) fn free_space(&self) -> io::Result<()> {
        remove_dir(&self.data_dir())?;
        remove_dir(&self.home_dir())
    }

    /// Removes what Terraform worked on.
    pub(crate) fn remove_run(&self) -> io::Result<()> {
        remove_dir(&self.root.join("run"))
    }

    /// Removes everything: the log and the final status are stored. Refused while the only copy of a state is inside.
    pub(crate) fn remove(self) -> io::Result<()> {
        if let Some(state) = self.errored_state() {
            let place = state.display();
            return Err(io::Error::other(format!("the only copy of a state is in {place}")));
        }
        // First what makes it an attempt that is not settled: of halves, a later run would think that they are one.
        match fs::remove_file(self.claim_file()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => sync_dir(&self.root)?,
        }
        failpoint!("workspace.removing");
        remove_dir(&self.root)
    }
}

/// Refuses a template that could not be copied, before any of its files is read.
pub(crate) fn inspect(template_dir: &Path) -> Result<(), Failure> {
    let walk = |dir: PathBuf| copy_tree(&dir, &dir, None);
    template_dir.canonicalize().map_err(CopyError::from).and_then(walk).map_err(CopyError::into_failure)
}

/// Why a template cannot be copied.
#[derive(Debug)]
enum CopyError {
    /// A link leads out of the template.
    Escape(PathBuf),
    /// A socket, a pipe or a device.
    Special(PathBuf),
    Io(io::Error),
}

impl CopyError {
    fn into_failure(self) -> Failure {
        match self {
            Self::Escape(path) => Failure::new(
                ErrorCode::ConfigInvalid,
                format!(
                    "the template's file {} is a link that leads out of the template, or to nothing: ask its owner to replace it",
                    path.display()
                ),
            ),
            Self::Special(path) => Failure::new(
                ErrorCode::ConfigInvalid,
                format!(
                    "the template's {} is neither a file nor a folder: ask its owner to remove it",
                    path.display()
                ),
            ),
            Self::Io(source) => Failure::internal("the workspace cannot be prepared", &source),
        }
    }
}

impl From<io::Error> for CopyError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Copies files and folders, or only looks whether they could be copied; links inside the template are followed. Left out: what
/// an earlier run of Terraform or infracost in the template's own folder left there, and the bookkeeping folders of a mounted
/// `ConfigMap`.
fn copy_tree(template: &Path, from: &Path, to: Option<&Path>) -> Result<(), CopyError> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let name = entry.file_name();
        let text = name.to_string_lossy();
        if matches!(&*text, ".terraform" | ".infracost" | ".git")
            || text.starts_with("..")
            || text.contains(".tfstate")
        {
            continue;
        }
        let shown = || entry.path().strip_prefix(template).map_or_else(|_| entry.path(), Path::to_path_buf);
        let source = entry.path().canonicalize().map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => CopyError::Escape(shown()),
            _ => error.into(),
        })?;
        if !source.starts_with(template) {
            return Err(CopyError::Escape(shown()));
        }
        let kind = fs::metadata(&source)?.file_type();
        let target = to.map(|to| to.join(&name));
        if kind.is_dir() {
            // A link to a folder above itself would be copied for ever.
            if from.starts_with(&source) {
                return Err(CopyError::Escape(shown()));
            }
            if let Some(target) = &target {
                private_dir(target)?;
            }
            copy_tree(template, &source, target.as_deref())?;
        } else if kind.is_file() {
            if let Some(target) = &target {
                fs::copy(&source, target)?;
            }
        } else {
            return Err(CopyError::Special(shown()));
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "workspace_tests.rs"]
mod tests;
