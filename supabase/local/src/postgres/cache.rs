//! Where finished data directories are stored between starts, each under a name that says what went into it.
//!
//! Every process of the machine that runs stacks shares it. One that copies a directory holds a shared lock on it, and only a
//! directory that can be locked exclusively is removed: so none goes while it is copied.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{FlockOperation, flock};

use super::process::unwritable;
use crate::error::{ErrorKind, Result, StackError};

/// Directories that are stored, 30 MB each: as many as a developer switches between.
const MAX_DIRECTORIES: usize = 5;

/// A directory that was used within this time is used again soon.
const RECENT: Duration = Duration::from_secs(300);

/// What a directory is renamed to before its files are removed.
const REMOVED: &str = "removed-";

/// The directory of the stored ones.
#[derive(Debug, Clone)]
pub(super) struct Cache(PathBuf);

/// A stored directory that is not removed while this value lives.
#[derive(Debug)]
pub(super) struct InUse {
    /// The directory.
    pub(super) path: PathBuf,
    /// Holds the shared lock.
    _lock: File,
}

impl Cache {
    /// The one of this user: private, because our servers run what is in it.
    pub(super) fn open() -> Result<Self> {
        let uid = rustix::process::getuid().as_raw();
        let dir = std::env::temp_dir().join(format!("supabase-local-cache-{uid}"));
        if let Err(error) = DirBuilder::new().mode(0o700).recursive(true).create(&dir) {
            return Err(unwritable(&dir, error));
        }
        let owner = fs::symlink_metadata(&dir).map_err(|error| unwritable(&dir, error))?;
        if owner.uid() == uid && owner.is_dir() {
            return Ok(Self(dir));
        }
        Err(StackError::new(
            ErrorKind::DataDirUnwritable,
            format!(
                "{} belongs to somebody else: remove it, or set TMPDIR to a directory of your own",
                dir.display()
            ),
        ))
    }

    /// The path of a stored directory, whether it is there or not.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Waits for the lock of those who make directories. It is released when the file is dropped, also by a crash.
    pub(super) fn lock(&self) -> Result<File> {
        let path = self.path("lock");
        let open = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
        let file = open.map_err(|error| unwritable(&path, error))?;
        flock(&file, FlockOperation::LockExclusive).map_err(|error| unwritable(&path, error.into()))?;
        Ok(file)
    }

    /// A stored directory to copy from, marked as used now; `None` if it is not there.
    pub(super) fn get(&self, name: &str) -> Result<Option<InUse>> {
        let path = self.path(name);
        let failed = |error| unwritable(&path, error);
        let lock = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(failed)?,
        };
        flock(&lock, FlockOperation::LockShared).map_err(|error| failed(error.into()))?;
        // Who removes it may have been quicker: the lock is then on a directory that has no name any more.
        let opened = lock.metadata().map_err(failed)?;
        let same =
            fs::metadata(&path).is_ok_and(|named| (named.dev(), named.ino()) == (opened.dev(), opened.ino()));
        if !same || !path.join("PG_VERSION").is_file() {
            return Ok(None);
        }
        // Without the mark it is at worst made again one day.
        let _ = lock.set_modified(SystemTime::now());
        Ok(Some(InUse { path, _lock: lock }))
    }

    /// Removes directories beyond the most recently used few, and none that is in use or was used a moment before `now`.
    pub(super) fn remove_unused(&self, now: SystemTime) {
        let mut stored: Vec<(SystemTime, PathBuf)> = fs::read_dir(&self.0)
            .into_iter()
            .flatten()
            .flatten()
            .filter(|entry| entry.path().is_dir())
            .filter_map(|entry| Some((entry.metadata().and_then(|meta| meta.modified()).ok()?, entry.path())))
            .collect();
        stored.sort_unstable_by(|a, b| b.cmp(a));
        for (used, dir) in stored.into_iter().skip(MAX_DIRECTORIES) {
            if now.duration_since(used).is_ok_and(|age| age > RECENT) {
                // A directory that cannot be removed only takes space.
                let _ = remove(&dir);
            }
        }
    }
}

/// Removes a directory that nobody copies. It loses its name first, so that nobody takes it for a whole one.
fn remove(dir: &Path) -> io::Result<()> {
    let lock = File::open(dir)?;
    flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
    let name = dir.file_name().unwrap_or_default().to_string_lossy();
    let removed = dir.with_file_name(format!("{REMOVED}{}", name.trim_start_matches(REMOVED)));
    fs::rename(dir, &removed)?;
    fs::remove_dir_all(removed)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LATER: Duration = Duration::from_secs(3600);

    /// A cache with as many directories as are kept, and a few more that were used longer ago.
    fn cache_with(names: &[&str]) -> (tempfile::TempDir, Cache) {
        let dir = tempfile::tempdir().unwrap();
        for (age, name) in names.iter().enumerate() {
            let path = dir.path().join(name);
            fs::create_dir(&path).unwrap();
            fs::write(path.join("PG_VERSION"), "15").unwrap();
            let used = SystemTime::now() - Duration::from_secs(age as u64);
            File::open(&path).unwrap().set_modified(used).unwrap();
        }
        let cache = Cache(dir.path().to_owned());
        (dir, cache)
    }

    #[test]
    fn only_the_most_recently_used_are_kept() {
        let (_dir, cache) = cache_with(&["a", "b", "c", "d", "e", "f", "g"]);
        cache.remove_unused(SystemTime::now());
        assert!(cache.path("g").exists(), "it was used a few seconds ago");
        cache.remove_unused(SystemTime::now() + LATER);
        let kept = ["a", "b", "c", "d", "e", "f", "g"].map(|name| cache.get(name).unwrap().is_some());
        assert_eq!(kept, [true, true, true, true, true, false, false]);
        assert_eq!(fs::read_dir(&cache.0).unwrap().count(), MAX_DIRECTORIES, "nothing is left of the others");
    }

    #[test]
    fn a_directory_that_is_copied_is_not_removed() {
        let (_dir, cache) = cache_with(&["a", "b", "c", "d", "e", "f"]);
        let copied = cache.get("f").unwrap().expect("a stored directory");
        for name in ["a", "b", "c", "d", "e"] {
            drop(cache.get(name).unwrap());
        }
        // It is the one that was used first of all, and long ago.
        File::open(&copied.path).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
        cache.remove_unused(SystemTime::now() + LATER);
        assert!(copied.path.join("PG_VERSION").exists());
        drop(copied);
        File::open(cache.path("f")).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
        cache.remove_unused(SystemTime::now() + LATER);
        assert!(cache.get("f").unwrap().is_none());
    }

    #[test]
    fn what_a_killed_remover_left_goes_with_the_next() {
        let (dir, cache) = cache_with(&["a", "b", "c", "d", "e", "removed-f"]);
        cache.remove_unused(SystemTime::now() + LATER);
        assert!(!dir.path().join("removed-f").exists());
    }

    #[test]
    fn copies_are_whole_while_others_remove() {
        let (_dir, cache) = cache_with(&["a", "b", "c", "d", "e"]);
        std::thread::scope(|scope| {
            let copies = scope.spawn(|| {
                let mut whole = 0;
                while whole < 200 {
                    if let Some(copied) = cache.get("f").unwrap() {
                        assert!(
                            copied.path.join("PG_VERSION").is_file(),
                            "it was removed while it was in use"
                        );
                        File::open(&copied.path).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
                        std::thread::yield_now();
                        assert!(
                            copied.path.join("PG_VERSION").is_file(),
                            "it was removed while it was in use"
                        );
                        whole += 1;
                    }
                }
            });
            while !copies.is_finished() {
                let made = cache.path("made-f");
                fs::create_dir_all(&made).unwrap();
                fs::write(made.join("PG_VERSION"), "15").unwrap();
                File::open(&made).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
                // Where the one before is still there it stays.
                let _ = fs::rename(&made, cache.path("f"));
                cache.remove_unused(SystemTime::now() + LATER);
            }
        });
    }
}
