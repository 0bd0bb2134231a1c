//! Whose lock it is where only one may write at a time: a lock on a file, of this agent's jobs and of every other agent that
//! uses the same directory. It ends with its owner, also when that is killed.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};
use tokio::time::sleep;

use crate::os::files::{open_lock, private_dir};

/// Between two looks whether the other one is done.
const PAUSE: Duration = Duration::from_millis(50);

/// How long looks at a lock may follow one another, and between two tries to take it meanwhile.
const LOOKS: Duration = Duration::from_millis(500);
const LOOK_OVER: Duration = Duration::from_millis(1);

/// The lock; it ends when this is dropped, or the process ends.
#[derive(Debug)]
pub(crate) struct FileLock(#[expect(dead_code, reason = "held for its lock")] File);

/// Waits for the lock on the provider cache: two `terraform init` at the same time can destroy each other's
/// downloads (hashicorp/terraform#31964). May be dropped while it waits. Errors: the directory cannot be used.
pub(crate) async fn lock_provider_cache(dir: &Path) -> io::Result<FileLock> {
    wait(dir.join(".init.lock")).await
}

/// Takes that lock, unless another process has it. Errors: the directory cannot be used.
pub(crate) fn try_lock_provider_cache(dir: &Path) -> io::Result<Option<FileLock>> {
    take(&dir.join(".init.lock"))
}

/// Waits for the lock of this file. May be dropped while it waits. Errors: the file cannot be made.
pub(crate) async fn wait(file: PathBuf) -> io::Result<FileLock> {
    loop {
        match take(&file)? {
            Some(lock) => return Ok(lock),
            None => sleep(PAUSE).await,
        }
    }
}

/// Takes the lock, unless another process has it. Errors: the file cannot be made or locked.
pub(crate) fn take(file: &Path) -> io::Result<Option<FileLock>> {
    let file = open(file)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(FileLock(file))),
        Err(Errno::WOULDBLOCK | Errno::INTR) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Takes the lock of a file by which others see whether this process lives; answers whether it could. Whoever looks holds it for
/// a moment, and is no reason to think that another process has it.
pub(crate) fn take_watched(file: &File) -> io::Result<bool> {
    let deadline = Instant::now() + LOOKS;
    loop {
        match flock(file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(true),
            Err(Errno::WOULDBLOCK) if Instant::now() >= deadline => return Ok(false),
            Err(Errno::WOULDBLOCK | Errno::INTR) => std::thread::sleep(LOOK_OVER),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Whether another process has such a lock.
pub(crate) fn is_taken(file: &File) -> io::Result<bool> {
    match flock(file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(false),
        Err(Errno::WOULDBLOCK) => Ok(true),
        Err(error) => Err(error.into()),
    }
}

fn open(file: &Path) -> io::Result<File> {
    if let Some(dir) = file.parent() {
        private_dir(dir)?;
    }
    open_lock(file)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn those_who_look_whether_a_process_lives_do_not_keep_it_from_beginning() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let open = || open_lock(&path).unwrap();
        drop(open());
        let over = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    let _looked = is_taken(&File::open(&path).unwrap()).unwrap();
                }
            });
            let all = (0..200).all(|_| take_watched(&open()).unwrap());
            over.store(true, Ordering::Relaxed);
            assert!(all);
        });
        let held = open();
        assert!(take_watched(&held).unwrap() && is_taken(&open()).unwrap());
        assert!(!take_watched(&open()).unwrap(), "another process has it");
    }

    #[tokio::test]
    async fn eight_jobs_take_their_turns_one_by_one() {
        let dir = tempfile::tempdir().unwrap();
        let (inside, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let job = async || {
            let _lock = lock_provider_cache(dir.path()).await.unwrap();
            assert!(take(&dir.path().join(".init.lock")).unwrap().is_none());
            most.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            sleep(Duration::from_millis(5)).await;
            inside.fetch_sub(1, Ordering::SeqCst);
        };
        futures_util::future::join_all((0..8).map(|_| job())).await;
        assert_eq!(most.load(Ordering::SeqCst), 1);
        assert!(take(&dir.path().join(".init.lock")).unwrap().is_some());
    }
}
