//! State that Terraform could not write to its backend. Until it is stored it may be the only copy there is: it is moved
//! beside where the state belongs, and where that cannot be done it stays where it is.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use super::backend::State;
use crate::{
    os::files::{durable_dir, private_file, rename_durably, sync_file},
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
        fs::set_permissions(file, fs::Permissions::from_mode(0o600))?;
        // Terraform leaves it to the system when it reaches the disk.
        sync_file(&fs::File::open(file)?)?;
        // A move needs no room; only where the state directory is another volume it has to be a copy.
        match rename_durably(file, place) {
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
                private_file(place, &fs::read(file)?)?;
                fs::remove_file(file)
            }
            moved => moved,
        }
    }

    /// Removes what Terraform worked on in a workspace. State that it could not write to its backend is moved beside where
    /// it belongs first; where that cannot be done, nothing is removed.
    pub(crate) fn clear_run(&self, workspace: &Workspace) -> ErroredState {
        let name = workspace.name();
        let errored = match workspace.errored_state() {
            Some(file) => self.errored(&name, &file),
            // A state that was printed is there already.
            None => Some(self.errored_state_path(&name))
                .filter(|place| place.exists())
                .map_or(ErroredState::Nothing, ErroredState::Saved),
        };
        if let ErroredState::Unmovable(place, error) = &errored {
            tracing::error!(place = %place.display(), %error, "the only copy of a state cannot be moved to the state directory; it stays in the work directory");
        } else if let Err(error) = workspace.remove_run() {
            tracing::error!(?workspace, %error, "what Terraform worked on cannot be removed");
        }
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
        pending.retain(|path| is_errored_state(path));
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

/// Whether a file records that a state here is marked as held in the database.
pub(crate) fn is_held_mark(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name == HELD_FILE)
}

/// Whether a file is state that could not be written to its backend.
pub(crate) fn is_errored_state(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.starts_with("errored-") && name.ends_with(".tfstate")
}
