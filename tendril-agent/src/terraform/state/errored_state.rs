//! State that Terraform could not write to its backend. Until it is stored it may be the only copy there is: it is moved
//! beside where the state belongs, and where that cannot be done it stays where it is.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::{PermissionsExt, fchown},
    path::{Path, PathBuf},
};

use rustix::process::{getegid, geteuid};

use super::backend::State;
use crate::{
    os::{
        files::{durable_dir, private_file, rename_durably, sync_dir, sync_file},
        untrusted::{open_file, open_own_file},
    },
    template::Workspace,
};

/// Beside a state that this agent holds.
const HELD_FILE: &str = "held";

/// What became of the state that a run could not store.
#[derive(Debug)]
pub(crate) enum ErroredState {
    /// There was none.
    Nothing,
    /// It is saved here, beside where it belongs.
    Saved(PathBuf),
    /// It is still here, in its workspace, and why it could not be moved.
    Unmovable(PathBuf, io::Error),
}

impl ErroredState {
    /// Where the only copy of the newest state is, and what happens to it: for the deployment's user. `in_pod`: on a disk that goes with
    /// the run's pod.
    pub(crate) fn explanation(&self, in_pod: bool) -> Option<String> {
        match self {
            Self::Nothing => None,
            _ if in_pod => Some(
                "Terraform could not write the state to its backend. The run's pod has it, and ends once the state is kept in the cluster or stored. It is stored as soon as the backend takes it, and nothing is planned for this stack before."
                    .to_owned(),
            ),
            Self::Saved(place) => Some(format!(
                "Terraform could not write the state to its backend. It is saved in {} on the agent's volume, and stored before the next run of this state.",
                place.display()
            )),
            Self::Unmovable(place, why) => Some(format!(
                "Terraform could not write the state to its backend, and the agent's state directory cannot take it ({why}). The only copy is {}, in the agent's work directory: it is not removed. Fix the state directory; the state is stored before the next run of this state, and when the agent starts.",
                place.display()
            )),
        }
    }
}

impl State {
    /// Where the state of an attempt is saved.
    pub(crate) fn errored_state_path(&self, attempt: &str) -> PathBuf {
        self.dir().join(format!("errored-{attempt}.tfstate"))
    }

    /// Moves a state file of an attempt beside where the state belongs.
    pub(crate) fn errored(&self, attempt: &str, file: &Path) -> ErroredState {
        let place = self.errored_state_path(attempt);
        match self.take_in(file, &place) {
            Ok(()) => ErroredState::Saved(place),
            Err(error) => ErroredState::Unmovable(file.to_path_buf(), error),
        }
    }

    fn take_in(&self, file: &Path, place: &Path) -> io::Result<()> {
        durable_dir(self.dir())?;
        let opened = open_file(file, None)?;
        // Whoever wrote it: from here on it is the agent's.
        fchown(&opened, Some(geteuid().as_raw()), Some(getegid().as_raw()))?;
        opened.set_permissions(fs::Permissions::from_mode(0o600))?;
        // Terraform leaves it to the system when it reaches the disk.
        sync_file(&opened)?;
        // A move needs no room; only where the state directory is another volume it has to be a copy.
        match rename_durably(file, place) {
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
                copy_whole(opened, place)?;
                fs::remove_file(file)
            }
            moved => moved,
        }
    }

    /// Removes what Terraform worked on in a workspace. State that it could not write to its backend is moved beside where
    /// it belongs first; where that cannot be done, nothing is removed.
    pub(crate) fn clear_run(&self, workspace: &Workspace) -> ErroredState {
        let name = workspace.name();
        if let Some(place) = workspace.refused_state() {
            tracing::error!(place = %place.display(), "what a run left in the place of a state that its backend refused is no state: it is removed");
        }
        let errored = match workspace.errored_state() {
            Some(file) => self.errored(&name, &file),
            // A state that was printed is there already.
            None => Some(self.errored_state_path(&name))
                .filter(|place| open_own_file(place).is_ok())
                .map_or(ErroredState::Nothing, ErroredState::Saved),
        };
        if let ErroredState::Unmovable(place, error) = &errored {
            tracing::error!(place = %place.display(), %error, "the only copy of a state cannot be moved to the state directory; it stays in the work directory");
        } else if let Err(error) = workspace.remove_run() {
            tracing::error!(?workspace, %error, "what Terraform worked on cannot be removed");
        }
        self.close();
        self.tidy();
        errored
    }

    /// State that could not be written to the backend and is saved beside it.
    pub(crate) fn pending(&self) -> io::Result<Vec<PathBuf>> {
        let entries = match fs::read_dir(self.dir()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let paths = entries.map(|entry| Ok(entry?.path()));
        let mut pending = paths.collect::<io::Result<Vec<_>>>()?;
        // A run may add files to the folder of a local state.
        pending.retain(|path| is_errored_state(path) && open_own_file(path).is_ok());
        pending.sort();
        Ok(pending)
    }

    /// Records that the state is marked as held in the database: the process that stores it releases the stack.
    pub(crate) fn mark_held(&self) -> io::Result<()> {
        durable_dir(self.dir())?;
        private_file(&self.dir().join(HELD_FILE), b"")
    }

    /// Whether the state is marked as held by this agent in the database.
    pub(crate) fn is_marked_held(&self) -> bool {
        self.dir().join(HELD_FILE).exists()
    }

    /// The stack is released.
    pub(crate) fn unmark_held(&self) -> io::Result<()> {
        fs::remove_file(self.dir().join(HELD_FILE))
    }
}

/// Copies a file to another volume, in one step for whoever looks there.
fn copy_whole(mut from: File, place: &Path) -> io::Result<()> {
    let part = place.with_extension("part");
    private_file(&part, b"")?;
    let mut to = File::options().write(true).open(&part)?;
    let copied =
        io::copy(&mut from, &mut to).and_then(|_| to.sync_all()).and_then(|()| fs::rename(&part, place));
    if copied.is_err() {
        let _half = fs::remove_file(&part);
    }
    copied.and_then(|()| place.parent().map_or(Ok(()), sync_dir))
}

/// Whether a file records that a state here is marked as held in the database.
pub(crate) fn is_held_mark(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name == HELD_FILE)
}

/// Whether a file is state that could not be written to its backend.
pub(crate) fn is_errored_state(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.starts_with("errored-") && name.ends_with(".tfstate")
}
