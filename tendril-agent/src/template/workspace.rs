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
//!     user.json     the user that the template's programs run as, where that is another one
//!     run/          removed as soon as the run is over
//!         module/   the template's files, variables, backend; Terraform runs here
//!         data/     TF_DATA_DIR and the saved plan
//!         home/     HOME and TMPDIR of Terraform
//!         tmp/      what the run's user finds at /tmp
//!         hook/     HOME and TMPDIR of a hook
//!         source/   the template's files as they came from Git   (git)
//!         .infracost/   where costs are estimated                (infracost)
//! ```
//!
//! Where the run has a user of its own, `module`, `data`, `home`, `tmp`, `hook` and `.infracost` are that user's, and nothing else is:
//! it may enter the two directories above them, and can neither list nor change them. So none of these directories can be
//! replaced by a link; what is inside them is opened as a file of a stranger ([`untrusted`](crate::os::untrusted)).

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use crate::{
    job::{Failure, Fields, Job},
    os::{
        failpoint,
        files::{durable_dir, private_dir, private_file, remove_dir, remove_durably},
        ownership::{give_tree, let_pass, let_read},
        untrusted::{is_filled_file, open_own_file},
    },
    process::{Command, RunUser, SlotUsers},
    template::{copy, generated::VARIABLES_FILE, slots},
};

/// State that Terraform could not write to its backend.
const ERRORED_STATE: &str = "errored.tfstate";

/// A larger file is no state: whoever stores one reads all of it into memory. A template can make one that takes no room.
const LARGEST_STATE: u64 = 512 * 1024 * 1024;

/// Folder of the work directory for what cannot be removed.
const SET_ASIDE: &str = "set-aside";

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

    /// Where everything of the attempt is.
    pub(crate) fn dir(&self) -> &Path {
        &self.root
    }

    /// Gives the attempt a user of its own. Errors: there is none left, or the disk.
    pub(crate) fn assign_user(&self, users: &SlotUsers) -> io::Result<()> {
        let work_dir = self.root.parent().unwrap_or(&self.root);
        let user = slots::take(users, work_dir, &self.name())?;
        private_file(&self.user_file(), &serde_json::to_vec(&user)?)
    }

    fn user_file(&self) -> PathBuf {
        self.root.join("user.json")
    }

    /// The user that the template's programs run as; none, if it is that of this process.
    pub(crate) fn user(&self) -> io::Result<Option<RunUser>> {
        match fs::read(self.user_file()) {
            Ok(text) => Ok(Some(serde_json::from_slice(&text)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Its ID.
    pub(crate) fn owner(&self) -> io::Result<Option<u32>> {
        Ok(self.user()?.map(|user| user.uid))
    }

    /// The command as one of the run's user. `fills_cache`: it may add to the provider cache.
    pub(crate) fn confine(&self, command: Command, fills_cache: bool) -> io::Result<Command> {
        Ok(match self.user()? {
            Some(user) => user.confine(command, &self.tmp_dir(), fills_cache),
            None => command,
        })
    }

    /// Gives the run's user what it works on. Nothing of the template may run yet.
    pub(crate) fn hand_over(&self) -> io::Result<()> {
        let Some(user) = self.user()? else { return Ok(()) };
        private_dir(&self.tmp_dir())?;
        for passage in [self.root.clone(), self.root.join("run")] {
            let_pass(&passage, user.uid)?;
        }
        let given = [self.module_dir(), self.data_dir(), self.home_dir(), self.tmp_dir()];
        given.iter().try_for_each(|dir| give_tree(dir, user.uid))
    }

    /// Removes what the run's user left at places of all users. No process of it may run any more.
    pub(crate) fn sweep(&self) {
        match self.user() {
            Ok(user) => drop(user.map(|user| user.sweep())),
            Err(error) => tracing::warn!(%error, "which user a run had cannot be read"),
        }
    }

    /// A file of the agent that the run's user may read: a copy, where that is another one.
    pub(crate) fn readable_copy(&self, file: &Path) -> io::Result<PathBuf> {
        let Some(user) = self.owner()? else { return Ok(file.to_path_buf()) };
        let place = self.root.join("run").join(file.file_name().unwrap_or_default());
        let mut from = open_own_file(file)?;
        private_file(&place, b"")?;
        io::copy(&mut from, &mut File::options().write(true).open(&place)?)?;
        let_read(&place, user)?;
        Ok(place)
    }

    /// Lets the run's user read a file that only this process may change.
    pub(crate) fn let_user_read(&self, file: &Path) -> io::Result<()> {
        self.owner()?.map_or(Ok(()), |user| let_read(file, user))
    }

    /// Makes a directory for a hook, in which nothing of the template is.
    pub(crate) fn make_hook_dir(&self) -> io::Result<()> {
        let dir = self.hook_dir();
        remove_dir(&dir)?;
        private_dir(&dir)?;
        self.owner()?.map_or(Ok(()), |user| give_tree(&dir, user))
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
        self.root.join("run/outputs.json")
    }

    /// The saved plan as JSON, for a hook.
    pub(crate) fn plan_json_file(&self) -> PathBuf {
        self.root.join("run/plan.json")
    }

    /// Terraform's own configuration, where none is given.
    pub(crate) fn cli_config_file(&self) -> PathBuf {
        self.root.join("run/terraform.rc")
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

    /// What the run's user finds at `/tmp`.
    fn tmp_dir(&self) -> PathBuf {
        self.root.join("run/tmp")
    }

    /// `HOME` and `TMPDIR` of a hook.
    pub(crate) fn hook_dir(&self) -> PathBuf {
        self.root.join("run/hook")
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
        copy::copy(template_dir, &self.module_dir())?;
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
        if is_filled_file(&self.dumped_state(), None, u64::MAX) {
            return Some(self.dumped_state());
        }
        let written = self.module_dir().join(ERRORED_STATE);
        is_filled_file(&written, self.owner().ok()?, LARGEST_STATE).then_some(written)
    }

    /// What is in the place of such a state and is none: a link, a pipe, another user's file, or too large.
    pub(crate) fn refused_state(&self) -> Option<PathBuf> {
        let place = self.module_dir().join(ERRORED_STATE);
        let is_there = fs::symlink_metadata(&place).is_ok_and(|metadata| metadata.len() > 0);
        (is_there && self.errored_state().is_none()).then_some(place)
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

#[cfg(test)]
#[path = "workspace_tests.rs"]
mod tests;
