//! The mirrors: one bare repository for each that was ever fetched from, without the contents of files until they are needed.
//!
//! ```text
//! <work dir>/git/            0700
//!     askpass, home/         what every command needs (command)
//!     <name>-<digest>.lock   whose lock it is to write
//!     <name>-<digest>/       the mirror: refs/tendril/<commit> for each commit that is there with all its folders
//! ```

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::{
    job::source::{GitSource, digest, readable},
    os::{
        file_lock,
        files::{remove_dir, usage},
    },
    process::orphans,
};

/// How much of the repository's own name a mirror's name holds.
const NAME: usize = 40;

/// The agent's directory for everything of Git.
pub(crate) fn root(work_dir: &Path) -> PathBuf {
    work_dir.join("git")
}

/// Removes mirrors that are not in use, those first that were used longest ago, until so much is freed. Blocks.
pub(crate) fn sweep(work_dir: &Path, wanted: u64) {
    let entries = fs::read_dir(root(work_dir)).into_iter().flatten().filter_map(Result::ok);
    let locks =
        entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|e| e == "lock"));
    // The file of the lock is created again with each lock.
    let used = |lock: PathBuf| Some((fs::metadata(&lock).ok()?.modified().ok()?, lock));
    let mut locks: Vec<_> = locks.filter_map(used).collect();
    locks.sort();
    let mut freed = 0;
    for (_, lock) in locks {
        if freed >= wanted {
            break;
        }
        let mirror = lock.with_extension("");
        let size = usage(&mirror).bytes;
        match file_lock::take(&lock).and_then(|lock| lock.map(|_lock| remove_dir(&mirror)).transpose()) {
            Ok(removed) => freed += removed.map_or(0, |()| size),
            Err(error) => {
                tracing::error!(mirror = %mirror.display(), %error, "a mirror of a Git repository cannot be removed");
            }
        }
    }
}

/// The mirror of one repository; the spelling of its address does not matter.
#[derive(Clone, Debug)]
pub(super) struct Mirror {
    dir: PathBuf,
}

impl Mirror {
    pub(super) fn of(root: &Path, source: &GitSource) -> Self {
        let repository = source.repository_name();
        let name = readable(repository.rsplit('/').next().unwrap_or_default(), NAME);
        Self { dir: root.join(format!("{name}-{}", digest(&repository))) }
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Waits for the lock to write.
    pub(super) async fn lock(&self) -> io::Result<file_lock::FileLock> {
        file_lock::wait(self.dir.with_extension("lock")).await
    }

    /// Ends what a previous run of the agent left running here, and removes the halves that it left lying. Answers whether
    /// there is a mirror. Blocks.
    pub(super) fn tidy(&self) -> io::Result<bool> {
        orphans::kill(&self.dir);
        if !self.dir.join("HEAD").is_file() {
            self.remove()?;
            return Ok(false);
        }
        let is_lock = |name: &str| name.strip_suffix(".lock").is_some();
        remove_files(&self.dir, 0, &is_lock)?;
        remove_files(&self.dir.join("refs"), 4, &is_lock)?;
        remove_files(&self.dir.join("objects"), 1, &|name| name.starts_with("tmp_"))?;
        Ok(true)
    }

    /// Throws it away. Blocks.
    pub(super) fn remove(&self) -> io::Result<()> {
        remove_dir(&self.dir)
    }
}

/// Removes the files with such a name, so many folders deep.
fn remove_files(dir: &Path, deep: u32, is_rest: &dyn Fn(&str) -> bool) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            if deep > 0 {
                remove_files(&entry.path(), deep - 1, is_rest)?;
            }
        } else if entry.file_name().to_str().is_some_and(is_rest) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::job::source::Source;

    fn mirror(root: &Path, git: &str) -> Mirror {
        match Source::parse(json!({"source": {"git": git}}).as_object().unwrap()).unwrap() {
            Source::Git(source) => Mirror::of(root, &source),
            Source::BuiltIn(name) => panic!("{name}"),
        }
    }

    #[test]
    fn two_addresses_of_one_repository_have_one_mirror() {
        let root = Path::new("/w/git");
        let one = mirror(root, "https://h.example/acme/Infra.Live.git");
        assert!(one.dir().to_str().unwrap().starts_with("/w/git/infra-live-"), "{one:?}");
        assert_eq!(one.dir(), mirror(root, "https://H.example:443/acme/Infra.Live").dir());
        assert_ne!(one.dir(), mirror(root, "https://h.example/other/Infra.Live").dir());
    }

    #[tokio::test]
    async fn halves_are_removed_and_a_mirror_in_use_is_not_swept() {
        let dir = tempfile::tempdir().unwrap();
        let (used, idle) = (
            mirror(&root(dir.path()), "https://h.example/a"),
            mirror(&root(dir.path()), "https://h.example/b"),
        );
        for mirror in [&used, &idle] {
            assert!(!mirror.tidy().unwrap());
            fs::create_dir_all(mirror.dir().join("objects/pack")).unwrap();
            fs::create_dir_all(mirror.dir().join("refs/tendril")).unwrap();
            assert!(!mirror.tidy().unwrap() && !mirror.dir().exists(), "half a mirror is none");
            fs::create_dir_all(mirror.dir().join("objects/pack")).unwrap();
            fs::create_dir_all(mirror.dir().join("refs/tendril")).unwrap();
            for file in [
                "HEAD",
                "shallow",
                "shallow.lock",
                "refs/tendril/x.lock",
                "objects/pack/tmp_pack_x",
                "objects/pack/p.pack",
            ] {
                fs::write(mirror.dir().join(file), "").unwrap();
            }
            assert!(mirror.tidy().unwrap());
            let left = |file: &str| mirror.dir().join(file).exists();
            assert!(left("shallow") && left("objects/pack/p.pack"));
            assert!(
                !left("shallow.lock") && !left("refs/tendril/x.lock") && !left("objects/pack/tmp_pack_x")
            );
        }
        drop(idle.lock().await.unwrap());
        let lock = used.lock().await.unwrap();
        for file in [used.dir().join("HEAD"), idle.dir().join("HEAD")] {
            fs::write(file, vec![1; 10_000]).unwrap();
        }
        sweep(dir.path(), 0);
        assert!(idle.dir().exists(), "nothing is wanted");
        sweep(dir.path(), u64::MAX);
        assert!(used.dir().exists() && !idle.dir().exists());
        drop(lock);
        sweep(dir.path(), 1);
        assert!(!used.dir().exists());
    }
}
