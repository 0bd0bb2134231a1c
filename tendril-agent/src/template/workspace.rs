//! The private directory of one attempt.
//!
//! ```text
//! <work dir>/<deployment>.<attempt>/   0700
//!     plan-digest.json     the digests of the saved plan and its sources (plan_seal)
//!     lock-owner.json   which step may hold the state's lock         (state)
//!     errored.tfstate   state that nothing else could take       (state)
//!     exit.json     how the apply ended                          (keeper)
//!     claim.json    which claim this is, and how far it got      (recovery)
//!     log/          every line that was read and not uploaded    (log_spool)
//!     journal/      what programs wrote, until its lines are there   (process)
//!     result.json   the final status, until it is stored         (report)
//!     commit        which commit of a Git repository it runs     (run)
//!     terraform.json  which Terraform it is run with             (run)
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

use crate::{
    job::{ErrorCode, Failure, Fields, Job},
    os::{
        failpoint,
        files::{durable_dir, private_dir, private_file, remove_dir, remove_durably},
    },
};

/// Name of the generated variables file. Terraform gets it by `-var-file`, which wins over every file of the template.
const VARIABLES_FILE: &str = "zz_tendril.auto.tfvars.json";
/// Name of the generated backend file; an override file replaces a backend block of the template.
pub(crate) const BACKEND_FILE: &str = "zz_tendril_override.tf.json";
/// State that Terraform could not write to its backend.
const ERRORED_STATE: &str = "errored.tfstate";

/// Folder of the work directory for what cannot be removed.
const SET_ASIDE: &str = "set-aside";
/// How deep the folders of a template may lie.
const DEEPEST: usize = 64;
/// How many files and folders a template may have, and how many bytes: links inside it are followed, and a few of them can stand for
/// more than any disk holds.
const MOST_ENTRIES: usize = 20_000;
const MOST_BYTES: u64 = 1024 * 1024 * 1024;
/// How a file begins that stands for one that Git LFS stores elsewhere, and how long it is at most.
const LFS_POINTER: &[u8] = b"version https://git-lfs.github.com/spec/";
const LFS_LONGEST: u64 = 1024;

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
        durable_dir(&root)?;
        Ok(Self { root })
    }

    /// A directory of a previous run.
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

    /// What programs wrote, until its lines are in the log.
    pub(crate) fn journal_dir(&self) -> PathBuf {
        self.root.join("journal")
    }

    /// The final status, until it is stored.
    pub(crate) fn result_file(&self) -> PathBuf {
        self.root.join("result.json")
    }

    /// How the apply ended, as its keeper writes it.
    pub(crate) fn exit_file(&self) -> PathBuf {
        self.root.join("exit.json")
    }

    /// Where Terraform runs.
    pub(crate) fn module_dir(&self) -> PathBuf {
        self.root.join("run/module")
    }

    /// The deployment's variables.
    pub(crate) fn variables_file(&self) -> PathBuf {
        self.module_dir().join(VARIABLES_FILE)
    }

    /// `TF_DATA_DIR`, and the saved plan.
    pub(crate) fn data_dir(&self) -> PathBuf {
        self.root.join("run/data")
    }

    /// What Terraform prints of the outputs, until it is read.
    pub(crate) fn outputs_file(&self) -> PathBuf {
        self.data_dir().join("outputs.json")
    }

    /// The saved plan.
    pub(crate) fn plan_file(&self) -> PathBuf {
        self.data_dir().join("tfplan")
    }

    /// There, if the workspace was laid out again in another place, without the providers.
    #[cfg(feature = "kubernetes")]
    pub(crate) fn restored_file(&self) -> PathBuf {
        self.root.join("restored")
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

    /// Stores the id of the commit that they are of, for a later run of the agent.
    pub(crate) fn store_commit(&self, commit: &str) -> io::Result<()> {
        private_file(&self.root.join("commit"), commit.as_bytes())
    }

    /// The id of the commit that a previous run stored.
    pub(crate) fn stored_commit(&self) -> io::Result<String> {
        fs::read_to_string(self.root.join("commit"))
    }

    /// Which Terraform the attempt is run with.
    pub(crate) fn program_file(&self) -> PathBuf {
        self.root.join("terraform.json")
    }

    /// Lays out the template's files and the variables.
    pub(crate) fn lay_out(&self, template_dir: &Path, variables: &Fields) -> Result<(), Failure> {
        let fault = |source: io::Error| Failure::internal("the workspace cannot be prepared", &source);
        self.make_dirs().map_err(fault)?;
        let inside = template_dir.canonicalize().map_err(fault)?;
        // Checked as a whole before anything is copied: what is refused must not fill the disk first.
        Copy::of(&inside).folder(&inside, None, 0).map_err(CopyError::into_failure)?;
        Copy::of(&inside).folder(&inside, Some(&self.module_dir()), 0).map_err(CopyError::into_failure)?;
        let variables = serde_json::to_vec(variables).map_err(|error| fault(error.into()))?;
        private_file(&self.variables_file(), &variables).map_err(fault)
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
        self.remove_or_set_aside(&self.root.join("run"))
    }

    /// Removes everything: the log and the final status are stored. Refused while the only copy of a state is inside.
    pub(crate) fn remove(self) -> io::Result<()> {
        if let Some(state) = self.errored_state() {
            let place = state.display();
            return Err(io::Error::other(format!("the only copy of a state is in {place}")));
        }
        // First what marks it as an attempt that is not finished: a later run must not take a half for a whole one.
        remove_durably([&self.claim_file()])?;
        failpoint!("workspace.removing");
        self.remove_or_set_aside(&self.root)
    }

    /// Removes a directory. One that cannot be removed is named in the agent's log and moved to where nobody comes across it;
    /// its removal is tried again at each start.
    fn remove_or_set_aside(&self, path: &Path) -> io::Result<()> {
        let Err(error) = remove_dir(path) else { return Ok(()) };
        let aside = self.root.with_file_name(SET_ASIDE);
        private_dir(&aside)?;
        let now = jiff::Timestamp::now().as_nanosecond();
        let place = aside.join(format!("{}-{now}", self.name()));
        fs::rename(path, &place)?;
        tracing::error!(
            path = %path.display(), place = %place.display(), %error,
            "a workspace cannot be removed: it is set aside, and its removal is tried again when the agent starts"
        );
        Ok(())
    }
}

/// Tries to remove what could not be removed earlier. Blocks for as long as it takes.
pub(crate) fn remove_set_aside(work_dir: &Path) {
    let aside = work_dir.join(SET_ASIDE);
    for place in fs::read_dir(&aside).into_iter().flatten().filter_map(Result::ok).map(|entry| entry.path()) {
        match remove_dir(&place) {
            Ok(()) => tracing::info!(place = %place.display(), "a workspace that was set aside is removed"),
            Err(error) => {
                tracing::error!(place = %place.display(), %error, "a workspace that was set aside still cannot be removed");
            }
        }
    }
    // Not empty, or not there.
    let _kept = fs::remove_dir(&aside);
}

/// Refuses a template that could not be copied, before any of its files is read.
pub(crate) fn inspect(template_dir: &Path) -> Result<(), Failure> {
    let walk = |dir: PathBuf| Copy::of(&dir).folder(&dir, None, 0);
    template_dir.canonicalize().map_err(CopyError::from).and_then(walk).map_err(CopyError::into_failure)
}

/// Why a template cannot be copied.
#[derive(Debug)]
enum CopyError {
    /// A link leads out of the template.
    Escape(PathBuf),
    /// A socket, a pipe or a device.
    Special(PathBuf),
    /// Folders that lie too deep.
    Deep(PathBuf),
    /// More files, folders or bytes than a template may have.
    Large(PathBuf),
    /// What Git LFS leaves in the place of a file.
    LfsPointer(PathBuf),
    /// Terraform would let it replace what the agent generates.
    Overrides(PathBuf),
    /// A folder has the name of a file that the agent generates.
    Reserved(PathBuf),
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
            Self::Deep(path) => Failure::new(
                ErrorCode::ConfigInvalid,
                format!(
                    "the template's folders lie deeper than {DEEPEST} levels below {}…: ask its owner to remove them",
                    path.iter().take(4).collect::<PathBuf>().display()
                ),
            ),
            Self::Large(path) => Failure::new(
                ErrorCode::ConfigInvalid,
                format!(
                    "the template has more than {MOST_ENTRIES} files and folders, or more than {} MiB, with what its links lead to ({} is one too many): ask its owner to make it smaller",
                    MOST_BYTES / (1024 * 1024),
                    path.iter().take(8).collect::<PathBuf>().display()
                ),
            ),
            Self::LfsPointer(path) => Failure::new(
                ErrorCode::SourceInvalid,
                format!(
                    "the template's file {} is stored in Git LFS, and only its pointer is in the repository: files of Git LFS are not fetched. Store the file in Git itself, or fetch it from the template",
                    path.display()
                ),
            ),
            Self::Overrides(path) => Failure::new(
                ErrorCode::ConfigInvalid,
                format!(
                    "the template's file {} would replace the backend that the agent generates in {BACKEND_FILE}: ask its owner to give it a name that sorts before that one",
                    path.display()
                ),
            ),
            Self::Reserved(path) => Failure::new(
                ErrorCode::ConfigInvalid,
                format!(
                    "the template's folder {} has the name of a file that the agent generates: ask its owner to give it another one",
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

/// Copies a template, or only looks whether it could be copied.
struct Copy<'a> {
    template: &'a Path,
    entries: usize,
    bytes: u64,
}

impl<'a> Copy<'a> {
    const fn of(template: &'a Path) -> Self {
        Self { template, entries: 0, bytes: 0 }
    }

    /// Copies what a folder holds. Links inside the template are followed. Left out: what an earlier run of Terraform or infracost
    /// in the template's own folder left there, and the bookkeeping folders of a mounted `ConfigMap`.
    fn folder(&mut self, from: &Path, to: Option<&Path>, depth: usize) -> Result<(), CopyError> {
        if depth > DEEPEST {
            return Err(CopyError::Deep(self.below(from)));
        }
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
            let source = entry.path().canonicalize().map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => CopyError::Escape(self.below(&entry.path())),
                _ => error.into(),
            })?;
            if !source.starts_with(self.template) {
                return Err(CopyError::Escape(self.below(&entry.path())));
            }
            let meta = fs::metadata(&source)?;
            self.entries += 1;
            self.bytes += if meta.is_file() { meta.len() } else { 0 };
            if self.entries > MOST_ENTRIES || self.bytes > MOST_BYTES {
                return Err(CopyError::Large(self.below(&entry.path())));
            }
            let target = to.map(|to| to.join(&name));
            if meta.is_dir() {
                if depth == 0 && is_generated(&text) {
                    return Err(CopyError::Reserved(self.below(&entry.path())));
                }
                // A link to a folder above itself would be copied for ever.
                if from.starts_with(&source) {
                    return Err(CopyError::Escape(self.below(&entry.path())));
                }
                if let Some(target) = &target {
                    private_dir(target)?;
                }
                self.folder(&source, target.as_deref(), depth + 1)?;
            } else if meta.is_file() {
                if depth == 0 && overrides_backend(&text) {
                    return Err(CopyError::Overrides(self.below(&entry.path())));
                }
                if is_lfs_pointer(&source)? {
                    return Err(CopyError::LfsPointer(self.below(&entry.path())));
                }
                if let Some(target) = &target {
                    fs::copy(&source, target)?;
                }
            } else {
                return Err(CopyError::Special(self.below(&entry.path())));
            }
        }
        Ok(())
    }

    /// As the template's owner names it.
    fn below(&self, path: &Path) -> PathBuf {
        path.strip_prefix(self.template).unwrap_or(path).to_path_buf()
    }
}

/// Whether the agent writes a file of this name into the module, or one beside it while it writes.
fn is_generated(name: &str) -> bool {
    [VARIABLES_FILE, BACKEND_FILE].iter().any(|file| name.strip_suffix(".new").unwrap_or(name) == *file)
}

/// Whether Terraform would read this file after the agent's own, and let it win.
fn overrides_backend(name: &str) -> bool {
    let stem = [".tf", ".tf.json", ".tofu", ".tofu.json"].iter().find_map(|end| name.strip_suffix(end));
    stem.is_some_and(|stem| stem == "override" || stem.ends_with("_override")) && name > BACKEND_FILE
}

fn is_lfs_pointer(file: &Path) -> io::Result<bool> {
    if fs::metadata(file)?.len() > LFS_LONGEST {
        return Ok(false);
    }
    Ok(fs::read(file)?.starts_with(LFS_POINTER))
}

#[cfg(test)]
#[path = "workspace_tests.rs"]
mod tests;
