//! The directory where Terraform keeps downloaded providers, and whose turn it is to fill it.
//!
//! Two `terraform init` at the same time can destroy each other's downloads (hashicorp/terraform#31964), so there is one at
//! a time: of this agent, and of every agent that uses the same directory.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};
use tokio::time::sleep;

use crate::workspace::private_dir;

/// Between two looks whether the other one is done.
const PAUSE: Duration = Duration::from_millis(50);

/// The turn; it ends when this is dropped, or the process ends.
#[derive(Debug)]
pub(crate) struct Turn(#[expect(dead_code, reason = "held for its lock")] File);

/// Waits for the turn. May be dropped while it waits. Errors: the directory cannot be used.
pub(crate) async fn turn(dir: &Path) -> io::Result<Turn> {
    loop {
        match try_turn(dir)? {
            Some(turn) => return Ok(turn),
            None => sleep(PAUSE).await,
        }
    }
}

/// The turn, if nobody has it now. Errors: the directory cannot be used.
pub(crate) fn try_turn(dir: &Path) -> io::Result<Option<Turn>> {
    private_dir(dir)?;
    let file = File::create(dir.join(".init.lock"))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(Turn(file))),
        Err(Errno::WOULDBLOCK | Errno::INTR) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// How deep a version lies: `<host>/<namespace>/<name>/<version>/<platform>`.
const DEPTH: u32 = 5;

/// The kept versions, with the time when a run used each last.
pub(crate) fn versions(dir: &Path) -> Vec<(PathBuf, SystemTime)> {
    let used = |path: PathBuf| {
        let used = fs::metadata(&path).and_then(|meta| meta.modified()).ok()?;
        Some((path, used))
    };
    below(dir, DEPTH).into_iter().filter_map(used).collect()
}

/// The versions that a run with this data directory works with: Terraform links to them.
pub(crate) fn in_use(data_dir: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    below(&data_dir.join("providers"), DEPTH).into_iter().filter_map(|link| link.canonicalize().ok())
}

/// Notes that a run uses these versions now.
pub(crate) fn mark_used(data_dir: &Path) {
    for version in in_use(data_dir) {
        let marked = File::open(&version).and_then(|dir| dir.set_modified(SystemTime::now()));
        if let Err(error) = marked {
            tracing::debug!(version = %version.display(), %error, "that a provider is used cannot be noted");
        }
    }
}

fn below(dir: &Path, depth: u32) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok).map(|entry| entry.path());
    match depth {
        1 => entries.filter(|path| path.is_dir()).collect(),
        _ => entries.flat_map(|path| below(&path, depth - 1)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn eight_jobs_take_their_turns_one_by_one() {
        let dir = tempfile::tempdir().unwrap();
        let (inside, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let job = async || {
            let _turn = turn(dir.path()).await.unwrap();
            most.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            sleep(Duration::from_millis(5)).await;
            inside.fetch_sub(1, Ordering::SeqCst);
        };
        futures_util::future::join_all((0..8).map(|_| job())).await;
        assert_eq!(most.load(Ordering::SeqCst), 1);
    }
}
