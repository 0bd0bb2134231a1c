//! The directories of all states, gone through now and then: what waits there to be stored is found, what is of no use any more goes.
//!
//! A state that is not used again has no run that would tidy its directory, as the state of a deployment without a stack.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use super::{errored_state::is_errored_state, lock_owner::is_note};

/// An empty directory this old belongs to no run that begins.
const EMPTY_FOR: Duration = Duration::from_secs(3600);
/// A lock whose owner died this long ago has been found by the next run, or removed by hand.
const NOTE_LIFE: Duration = Duration::from_secs(30 * 86_400);

/// Goes through the directories below this one. Answers the files of states that could not be written to their backend.
pub(crate) fn pass(state_dir: &Path) -> Vec<PathBuf> {
    pass_at(state_dir, SystemTime::now())
}

fn pass_at(state_dir: &Path, now: SystemTime) -> Vec<PathBuf> {
    let mut errored = Vec::new();
    for dir in fs::read_dir(state_dir).into_iter().flatten().filter_map(Result::ok) {
        // A file beside the directories cannot be read as one.
        if let Ok(files) = fs::read_dir(dir.path()) {
            pass_one(&dir.path(), files, now, &mut errored);
        }
    }
    errored.sort();
    errored
}

fn pass_one(dir: &Path, files: fs::ReadDir, now: SystemTime, errored: &mut Vec<PathBuf>) {
    let mut left = 0_usize;
    for file in files.filter_map(Result::ok).map(|file| file.path()) {
        let is_old_note = is_note(&file) && is_older(&file, NOTE_LIFE, now);
        if is_old_note && fs::remove_file(&file).is_ok() {
            continue;
        }
        left += 1;
        if is_errored_state(&file) {
            errored.push(file);
        }
    }
    if left == 0 && is_older(dir, EMPTY_FOR, now) {
        remove(dir);
    }
}

/// Only while nothing is in it: a run may have put something there in this moment.
fn remove(dir: &Path) {
    if let Err(error) = fs::remove_dir(dir)
        && !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty)
    {
        tracing::debug!(dir = %dir.display(), %error, "the empty directory of a state cannot be removed");
    }
}

fn is_older(path: &Path, age: Duration, now: SystemTime) -> bool {
    let modified = fs::symlink_metadata(path).and_then(|metadata| metadata.modified());
    modified.is_ok_and(|modified| now.duration_since(modified).is_ok_and(|old| old >= age))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_of_no_use_any_more_goes_and_everything_else_stays() {
        let dir = tempfile::tempdir().unwrap();
        let make = |name: &str, files: &[&str]| {
            let path = dir.path().join(name);
            fs::create_dir(&path).unwrap();
            for file in files {
                fs::write(path.join(file), "").unwrap();
            }
            path
        };
        fs::write(dir.path().join(".identity"), "").unwrap();
        let empty = make("empty", &[]);
        let noted = make("noted", &["dead-0b6c7f6e-0000-4000-8000-000000000001.1.json"]);
        let stored = make("stored", &["terraform.tfstate"]);
        let errored = make("errored", &["errored-b.tfstate", "errored-a.tfstate", "held"]);
        let found = [errored.join("errored-a.tfstate"), errored.join("errored-b.tfstate")];
        assert_eq!(pass(dir.path()), found, "young as they are");
        assert!(empty.exists() && noted.exists());
        let now = SystemTime::now();
        assert_eq!(pass_at(dir.path(), now + EMPTY_FOR), found);
        assert!(!empty.exists() && noted.join("dead-0b6c7f6e-0000-4000-8000-000000000001.1.json").exists());
        assert_eq!(pass_at(dir.path(), now + NOTE_LIFE), found);
        assert_eq!(pass_at(dir.path(), now + NOTE_LIFE * 2), found);
        assert!(!noted.exists() && stored.join("terraform.tfstate").exists());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3);
    }
}
