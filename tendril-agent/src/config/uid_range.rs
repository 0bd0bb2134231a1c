//! Which agent of this machine has which range of IDs: two runs with the same user would end each other's programs.
//!
//! A file in `/run/tendril-agent` for each range names the work directory that it belongs to. A range is free once that
//! directory is gone. Where there is no such place, as in a container that can write nothing there, no other agent sees these processes.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock};

use crate::{
    os::files::{open_lock, private_dir, private_file},
    process::run_user::MOST,
};

const CLAIMS: &str = "/run/tendril-agent";

/// Takes the first of these ranges that no other agent has. Errors: a sentence that names who has it.
pub(super) fn claim(bases: &[u32], work_dir: &Path) -> Result<u32, String> {
    claim_in(Path::new(CLAIMS), bases, work_dir)
}

fn claim_in(dir: &Path, bases: &[u32], work_dir: &Path) -> Result<u32, String> {
    let first = bases.first().copied().unwrap_or_default();
    let Ok(_lock) = lock(dir) else { return Ok(first) };
    for (base, _) in claims(dir).into_iter().filter(|(_, of)| !of.exists()) {
        let _removed = fs::remove_file(dir.join(base.to_string()));
    }
    let others: Vec<(u32, PathBuf)> = claims(dir).into_iter().filter(|(_, of)| of != work_dir).collect();
    let holder = |base: u32| others.iter().find(|(other, _)| other.abs_diff(base) <= MOST);
    // The one that it had before, where it still may have it.
    let own = claims(dir).into_iter().find(|(base, of)| of == work_dir && bases.contains(base));
    let mut wanted = own.map(|(base, _)| base).into_iter().chain(bases.iter().copied());
    let Some(base) = wanted.find(|base| holder(*base).is_none()) else {
        let of = holder(first).map(|(_, of)| of.display().to_string()).unwrap_or_default();
        return Err(format!("the agent with the work directory {of} has the IDs from {first} for its runs"));
    };
    private_file(&dir.join(base.to_string()), work_dir.as_os_str().as_encoded_bytes()).map_err(|error| {
        format!("that this agent uses the IDs from {base} cannot be written down ({error})")
    })?;
    Ok(base)
}

/// Gives back what this work directory has.
pub(super) fn release(work_dir: &Path) {
    release_in(Path::new(CLAIMS), work_dir);
}

fn release_in(dir: &Path, work_dir: &Path) {
    let Ok(_lock) = lock(dir) else { return };
    for (base, _) in claims(dir).into_iter().filter(|(_, of)| of == work_dir) {
        // It is free in any case once the directory is gone.
        let _removed = fs::remove_file(dir.join(base.to_string()));
    }
}

fn lock(dir: &Path) -> io::Result<File> {
    private_dir(dir)?;
    let lock = open_lock(&dir.join("lock"))?;
    flock(&lock, FlockOperation::LockExclusive)?;
    Ok(lock)
}

fn claims(dir: &Path) -> Vec<(u32, PathBuf)> {
    let entries = fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok);
    let claim = |entry: fs::DirEntry| {
        let base = entry.file_name().to_str()?.parse().ok()?;
        Some((base, PathBuf::from(fs::read_to_string(entry.path()).ok()?)))
    };
    entries.filter_map(claim).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_agents_of_a_machine_have_two_ranges_and_a_range_is_free_when_its_agent_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let claims = dir.path().join("claims");
        let work = |name: &str| {
            let work = dir.path().join(name);
            fs::create_dir_all(&work).unwrap();
            work
        };
        let (one, two, three) = (work("one"), work("two"), work("three"));
        let bases = [70_000, 75_000];
        let claim = |bases: &[u32], work: &Path| claim_in(&claims, bases, work);
        assert_eq!(claim(&bases, &one), Ok(70_000));
        assert_eq!(claim(&bases, &two), Ok(75_000));
        assert_eq!(claim(&bases, &two), Ok(75_000), "it keeps its range");
        let refused = claim(&bases, &three).unwrap_err();
        assert!(refused.contains(&one.display().to_string()), "{refused}");
        assert!(claim(&[72_000], &three).is_err(), "ranges do not overlap");
        release_in(&claims, &two);
        assert_eq!(claim(&[75_000], &three), Ok(75_000), "it was given back");
        release_in(&claims, &three);
        fs::remove_dir(&one).unwrap();
        assert_eq!(claim(&bases, &three), Ok(70_000));
    }
}
