//! Which run has which user: a file for each slot in `<work dir>/slots`, with the name of the attempt that has it.
//!
//! A slot is free once its attempt's directory is gone, so that nothing must give it back, and no later agent can forget it: a plan
//! that waits for approval keeps its user, and so does an apply that goes on without its executor.

use std::{fs, io, path::Path};

use rustix::fs::{FlockOperation, flock};

use crate::{
    os::files::{open_lock, private_dir, private_file},
    process::{RunUser, SlotUsers, run_user::MOST},
};

/// The folder of the work directory with them.
pub(crate) const SLOTS: &str = "slots";

/// The user of an attempt: of the first slot that is free, or the one that it has already. Blocks while another attempt gets
/// its own. Errors: the disk, or all are taken.
pub(super) fn take(users: &SlotUsers, work_dir: &Path, attempt: &str) -> io::Result<RunUser> {
    let dir = work_dir.join(SLOTS);
    private_dir(&dir)?;
    let lock = open_lock(&dir.join("lock"))?;
    flock(&lock, FlockOperation::LockExclusive)?;
    for slot in 1..=MOST {
        let file = dir.join(slot.to_string());
        let holder = match fs::read_to_string(&file) {
            Ok(holder) => holder,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error),
        };
        // A name that is half written by a full disk is nobody's: its attempt has not begun.
        let is_free = holder.is_empty() || holder == attempt || !work_dir.join(&holder).exists();
        if is_free {
            if holder != attempt {
                private_file(&file, attempt.as_bytes())?;
            }
            return Ok(users.user(slot));
        }
    }
    Err(io::Error::other(format!(
        "all {MOST} users for runs are taken by runs and by plans that wait for approval: let some of them end"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_attempts_have_the_same_user_and_a_slot_is_free_when_its_attempt_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let users = SlotUsers { base: 70_000, private_places: Vec::new() };
        let take = |name: &str| {
            fs::create_dir_all(dir.path().join(name)).unwrap();
            super::take(&users, dir.path(), name).unwrap().uid
        };
        let mut all: Vec<u32> = std::thread::scope(|scope| {
            let threads: Vec<_> =
                (0..8).map(|n| scope.spawn(move || take(&format!("attempt-{n}")))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        all.sort_unstable();
        assert_eq!(all, (70_001..=70_008).collect::<Vec<_>>());
        let third = take("attempt-3");
        assert_eq!(take("attempt-3"), third, "an attempt keeps its user");
        fs::remove_dir(dir.path().join("attempt-3")).unwrap();
        assert_eq!(take("another"), third);
        assert_eq!(take("one-more"), 70_009);
    }
}
