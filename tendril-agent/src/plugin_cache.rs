//! The directory where Terraform keeps downloaded providers, and whose turn it is to fill it.
//!
//! Two `terraform init` at the same time can destroy each other's downloads (hashicorp/terraform#31964), so there is one at
//! a time: of this agent, and of every agent that uses the same directory.

use std::{fs::File, io, path::Path, time::Duration};

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
    private_dir(dir)?;
    let file = File::create(dir.join(".init.lock"))?;
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(Turn(file)),
            Err(Errno::WOULDBLOCK | Errno::INTR) => sleep(PAUSE).await,
            Err(error) => return Err(error.into()),
        }
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
