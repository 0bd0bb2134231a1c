//! The private directory of one attempt.
//!
//! ```text
//! <work dir>/<deployment>.<attempt>/   0700
//!     seal.json     the digests of the saved plan and its sources (plan_seal)
//!     holder.json   which step may hold the state's lock         (state)
//!     claim.json    which claim this is, and how far it got      (recovery)
//!     log/          every line that was read and not uploaded    (log_spool)
//!     ending.json   the final status, until it is stored         (report)
//!     commit        which commit of a Git repository it runs     (run)
//!     run/          removed as soon as the run is over
//!         module/   the template's files, variables, backend; Terraform runs here
//!         data/     TF_DATA_DIR and the saved plan
//!         home/     HOME and TMPDIR of Terraform
//!         source/   the template's files as they came from Git   (git)
//! ```

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use serde_json::{Map, Value};

use crate::{
    job::{ErrorCode, Failure, Job},
    state::{State, rescue_name},
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
        let root = work_dir.join(format!("{}.{}", job.id, job.attempt));
        private_dir(&root)?;
        Ok(Self { root })
    }

    /// A directory that an earlier life left behind.
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
    pub(crate) fn ending_file(&self) -> PathBuf {
        self.root.join("ending.json")
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
    pub(crate) fn seal_file(&self) -> PathBuf {
        self.root.join("seal.json")
    }

    /// Which step of this attempt may hold the state's lock.
    pub(crate) fn holder_file(&self) -> PathBuf {
        self.root.join("holder.json")
    }

    /// `HOME` and `TMPDIR` of Terraform.
    pub(crate) fn home_dir(&self) -> PathBuf {
        self.root.join("run/home")
    }

    /// The template's files as they came from Git.
    pub(crate) fn source_dir(&self) -> PathBuf {
        self.root.join("run/source")
    }

    /// Keeps the id of the commit that they are of, for a later life of the agent.
    pub(crate) fn keep_commit(&self, commit: &str) -> io::Result<()> {
        private_file(&self.root.join("commit"), commit.as_bytes())
    }

    /// The id of the commit that an earlier life kept.
    pub(crate) fn kept_commit(&self) -> io::Result<String> {
        fs::read_to_string(self.root.join("commit"))
    }

    /// Lays out everything that Terraform needs: the template's files, the variables and the backend.
    pub(crate) fn lay_out(
        &self,
        template_dir: &Path,
        variables: &Map<String, Value>,
        state: &State,
    ) -> Result<(), Failure> {
        let fault = |source: io::Error| Failure::internal("the workspace cannot be prepared", &source);
        self.lay_out_empty(state).map_err(fault)?;
        let inside = template_dir.canonicalize().map_err(fault)?;
        copy_tree(&inside, &inside, Some(&self.module_dir())).map_err(CopyError::into_failure)?;
        let variables = serde_json::to_vec_pretty(variables).map_err(|error| fault(error.into()))?;
        private_file(&self.module_dir().join(VARIABLES_FILE), &variables).map_err(fault)?;
        // Once more: a template's own file of that name must not win.
        state.lay_out(&self.module_dir()).map_err(fault)
    }

    /// Lays out a module with nothing but the backend: enough to work on the state itself.
    pub(crate) fn lay_out_empty(&self, state: &State) -> io::Result<()> {
        for dir in [self.module_dir(), self.data_dir(), self.home_dir()] {
            private_dir(&dir)?;
        }
        state.lay_out(&self.module_dir())
    }

    /// Removes what Terraform worked on. State that it could not write to its backend is moved to `rescue` first, and its
    /// new place is answered.
    pub(crate) fn clear_run(&self, rescue: &Path) -> io::Result<Option<PathBuf>> {
        let errored = self.module_dir().join(ERRORED_STATE);
        let mut kept = None;
        if errored.exists() {
            private_dir(rescue)?;
            let name = self.root.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let place = rescue.join(rescue_name(&name));
            private_file(&place, &fs::read(&errored)?)?;
            kept = Some(place);
        }
        remove_dir(&self.root.join("run"))?;
        Ok(kept)
    }

    /// Removes everything: the log and the final status are stored.
    pub(crate) fn remove(self) -> io::Result<()> {
        remove_dir(&self.root)
    }
}

/// Makes a directory that only this user may enter.
pub(crate) fn private_dir(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Writes a file that only this user may read, in one step: a reader sees the old or the new content, never a part.
pub(crate) fn private_file(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(".new");
    let new = path.with_file_name(name);
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    io::Write::write_all(&mut file, content)?;
    file.sync_data()?;
    fs::rename(&new, path)
}

/// Refuses a template that could not be copied, before any of its files is read.
pub(crate) fn inspect(template_dir: &Path) -> Result<(), Failure> {
    let walk = |dir: PathBuf| copy_tree(&dir, &dir, None);
    template_dir.canonicalize().map_err(CopyError::from).and_then(walk).map_err(CopyError::into_failure)
}

/// Removes a directory with everything in it, if it is there.
pub(crate) fn remove_dir(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
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

/// Copies files and folders, or only looks whether they could be copied; links inside the template are followed. Left out: what an earlier run of Terraform in the
/// template's own folder left there, and the bookkeeping folders of a mounted `ConfigMap`.
fn copy_tree(template: &Path, from: &Path, to: Option<&Path>) -> Result<(), CopyError> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let name = entry.file_name();
        let text = name.to_string_lossy();
        if text == ".terraform" || text == ".git" || text.starts_with("..") || text.contains(".tfstate") {
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
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use serde_json::json;
    use uuid::Uuid;

    use super::*;
    use crate::state::StateBackend;

    struct Bench {
        dir: tempfile::TempDir,
        workspace: Workspace,
    }

    fn bench() -> Bench {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("templates/hello/modules/m")).unwrap();
        fs::write(dir.path().join("templates/hello/main.tf"), "# main").unwrap();
        fs::write(dir.path().join("templates/hello/modules/m/m.tf"), "# m").unwrap();
        let job = Job { id: Uuid::nil(), attempt: 1, claim_token: Uuid::nil(), config: Value::Null };
        let workspace = Workspace::create(&dir.path().join("work"), &job).unwrap();
        Bench { dir, workspace }
    }

    impl Bench {
        fn template(&self) -> PathBuf {
            self.dir.path().join("templates/hello")
        }

        fn lay_out(&self) -> Result<(), Failure> {
            let variables = serde_json::from_value(json!({"name": "x"})).unwrap();
            let state = StateBackend::local().of(&self.dir.path().join("state"), "prod");
            self.workspace.lay_out(&self.template(), &variables, &state)
        }
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_workspace_is_private_and_complete() {
        let bench = bench();
        bench.lay_out().unwrap();
        let module = bench.workspace.module_dir();
        assert_eq!(mode(&bench.workspace.root), 0o700);
        assert_eq!(mode(&module.join(VARIABLES_FILE)), 0o600);
        assert_eq!(fs::read_to_string(module.join("modules/m/m.tf")).unwrap(), "# m");
        let file = module.join("zz_tendril_override.tf.json");
        let backend: Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
        let path = backend["terraform"]["backend"]["local"]["path"].as_str().unwrap();
        assert!(path.ends_with("state/prod/terraform.tfstate"), "{path}");
    }

    #[test]
    fn a_link_out_of_the_template_is_refused() {
        for target in ["/etc/passwd", "../../secret", "../.."] {
            let bench = bench();
            fs::write(bench.dir.path().join("secret"), "s").unwrap();
            symlink(target, bench.template().join("link")).unwrap();
            let failure = bench.lay_out().unwrap_err();
            assert_eq!(failure.code, ErrorCode::ConfigInvalid);
            assert!(failure.message.contains("file link is a link that leads out"), "{}", failure.message);
        }
    }

    #[test]
    fn a_link_to_its_own_folder_does_not_copy_for_ever() {
        let bench = bench();
        symlink("..", bench.template().join("modules/up")).unwrap();
        assert!(bench.lay_out().is_err());
    }

    #[test]
    fn a_mounted_config_map_is_copied_once() {
        let bench = bench();
        let template = bench.template();
        fs::create_dir(template.join("..2026")).unwrap();
        fs::write(template.join("..2026/extra.tf"), "# extra").unwrap();
        symlink("..2026", template.join("..data")).unwrap();
        symlink("..data/extra.tf", template.join("extra.tf")).unwrap();
        bench.lay_out().unwrap();
        let module = bench.workspace.module_dir();
        assert_eq!(fs::read_to_string(module.join("extra.tf")).unwrap(), "# extra");
        assert!(!module.join("..data").exists());
    }

    #[test]
    fn state_that_could_not_be_written_is_rescued() {
        let bench = bench();
        bench.lay_out().unwrap();
        let rescue = bench.dir.path().join("state/prod");
        fs::write(bench.workspace.module_dir().join(ERRORED_STATE), "{}").unwrap();
        let kept = bench.workspace.clear_run(&rescue).unwrap().unwrap();
        assert_eq!(fs::read_to_string(kept).unwrap(), "{}");
        assert!(!bench.workspace.module_dir().exists());
        let root = bench.workspace.root.clone();
        bench.workspace.remove().unwrap();
        assert!(!root.exists());
    }
}
