//! The user of one run: where the agent is root, what a template controls runs as a user that no other run has.
//!
//! The agent, its executors and the keepers stay root, so that nothing of a template can reach them. A program becomes the user's
//! in a process of the agent that does nothing else ([`run_as`](super::run_as)).

use std::{
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::process::runner::Command;

/// The subcommand of the agent that becomes such a user.
pub(crate) const SUBCOMMAND: &str = "run-as";
/// The agent's own program, whatever takes its place on the disk.
pub(crate) const OWN_PROGRAM: &str = "/proc/self/exe";
/// How many users there are: plans that wait for approval keep theirs.
pub(crate) const MOST: u32 = 4_999;
/// The first IDs of ranges, where none is configured: one for each agent of a machine. Debian, systemd and the usual ranges of
/// `subuid` leave the IDs from 65536 to 99999 to nobody.
pub(crate) const USUAL_BASES: [u32; 6] = [70_000, 75_000, 80_000, 85_000, 90_000, 95_000];
/// Places that every user of a machine may write to.
pub(crate) const SHARED_PLACES: [&str; 3] = ["/tmp", "/var/tmp", "/dev/shm"];

/// Those that are not private to a run.
pub(crate) fn shared_by_all(private_places: &[PathBuf]) -> impl Iterator<Item = &'static str> {
    SHARED_PLACES.into_iter().filter(|place| !private_places.iter().any(|own| own == Path::new(place)))
}

/// Which users runs have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SlotUsers {
    /// The ID of the group that may add to the provider cache; the users follow it.
    pub(crate) base: u32,
    /// Shared places that are private to each run.
    pub(crate) private_places: Vec<PathBuf>,
}

impl SlotUsers {
    /// The user of a slot: 1 and up.
    pub(crate) fn user(&self, slot: u32) -> RunUser {
        RunUser {
            uid: self.base.saturating_add(slot),
            cache_group: self.base,
            private_places: self.private_places.clone(),
        }
    }
}

/// The user of one run. The group of the same ID is its own too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RunUser {
    pub(crate) uid: u32,
    /// The group that may add to the provider cache.
    pub(crate) cache_group: u32,
    /// Shared places that are private to the run.
    #[serde(default)]
    pub(crate) private_places: Vec<PathBuf>,
}

impl RunUser {
    /// The same command as this user's. `tmp`: what it finds at the shared places that are private to it.
    pub(crate) fn confine(&self, command: Command, tmp: &Path, fills_cache: bool) -> Command {
        let mut args: Vec<OsString> = [SUBCOMMAND, "--uid"].map(OsString::from).into();
        args.push(self.uid.to_string().into());
        if fills_cache {
            args.extend(["--group".into(), self.cache_group.to_string().into()]);
        }
        if !self.private_places.is_empty() {
            args.extend(["--tmp".into(), tmp.into()]);
            for place in &self.private_places {
                args.extend(["--private".into(), place.into()]);
            }
        }
        args.extend(["--".into(), command.program.into()]);
        args.extend(command.args);
        Command { program: OWN_PROGRAM.into(), args, ..command }
    }

    /// Removes what this user left at shared places that are not private to it. No process of it may run any more.
    pub(crate) fn sweep(&self) {
        for place in shared_by_all(&self.private_places) {
            for entry in fs::read_dir(place).into_iter().flatten().filter_map(Result::ok) {
                if let Err(error) = remove_if_owned(&entry.path(), self.uid) {
                    tracing::warn!(path = %entry.path().display(), %error, "what a run left cannot be removed");
                }
            }
        }
    }
}

fn remove_if_owned(path: &Path, uid: u32) -> io::Result<()> {
    use std::os::unix::fs::MetadataExt as _;
    let Ok(metadata) = fs::symlink_metadata(path) else { return Ok(()) };
    if metadata.uid() != uid {
        return Ok(());
    }
    if metadata.is_dir() { crate::os::files::remove_dir(path) } else { fs::remove_file(path) }
}
