//! The users of runs, where the agent is root: which IDs they have, and whether they can be had and reach what they need.

use std::{
    ffi::OsString,
    fs, io,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use rustix::process::geteuid;

use crate::{
    config::{
        settings::{Config, ConfigProblems},
        slot_uids::{SETTING, SlotUids},
        uid_range,
    },
    cost::infracost::Found,
    launch::LauncherKind,
    os::{
        files::private_dir,
        ownership::{Foreign, seal_tree},
    },
    process::{
        SlotUsers,
        run_user::{MOST, OWN_PROGRAM, SHARED_PLACES, SUBCOMMAND, USUAL_BASES},
    },
    template::SLOTS,
    terraform::state::Kind,
};

impl Config {
    /// Finds out which users runs have, and tries one. Only in a process of the agent's own program.
    ///
    /// Without `--slot-uid-base`, runs are root's where users cannot be had or do not reach what they need, and the agent's log and
    /// `doctor` say why. Errors: the same, where IDs are configured: root is never used instead of them.
    pub(crate) fn find_slot_users(&mut self) -> Result<(), ConfigProblems> {
        let problems = match self.try_slot_users() {
            Ok(users) => {
                self.slot_users = users;
                return Ok(());
            }
            Err(problems) if self.slot_uids != SlotUids::Usual => return Err(ConfigProblems(problems)),
            Err(problems) => problems,
        };
        self.no_slot_users = Some(problems.join(". "));
        // A run of an earlier start may have one.
        if !self.work_dir.join(SLOTS).exists() {
            uid_range::release(&self.work_dir);
        }
        Ok(())
    }

    fn try_slot_users(&self) -> Result<Option<SlotUsers>, Vec<String>> {
        let bases = match self.slot_uids {
            SlotUids::Off => return Ok(None),
            SlotUids::From(_) if !geteuid().is_root() => {
                return Err(vec![format!(
                    "{SETTING} is set, and only root can give runs users of their own: take it out, or start the agent as root"
                )]);
            }
            _ if !geteuid().is_root() => return Ok(None),
            SlotUids::Usual => USUAL_BASES.to_vec(),
            SlotUids::From(base) => vec![base],
        };
        // A pod has no other run beside it.
        #[cfg(feature = "kubernetes")]
        if self.launcher == LauncherKind::Kubernetes {
            return Ok(None);
        }
        let base = uid_range::claim(&bases, &self.work_dir).map_err(|why| {
            vec![format!("{why}: give each agent of a machine its own range with {SETTING}")]
        })?;
        if let Some(name) = user_among(base) {
            return Err(vec![format!(
                "the user {name} of this machine has one of the IDs {base} to {} that runs would have: name another range with {SETTING}",
                base + MOST
            )]);
        }
        let needed = self.needed_by_runs();
        let apart = |place: &&&str| !needed.iter().any(|path| path.starts_with(place));
        let private_places = SHARED_PLACES.iter().filter(apart).map(PathBuf::from).collect();
        let users = SlotUsers { base, private_places };
        self.open_directories(base).map_err(|error| {
            vec![format!("the directories of the agent cannot be opened to the users of runs ({error})")]
        })?;
        let tried = match try_user(&users, &self.work_dir, &needed) {
            // Without the right to mount (CAP_SYS_ADMIN) a run has a directory of its own for TMPDIR alone.
            Err(_) if !users.private_places.is_empty() => {
                let users = SlotUsers { private_places: Vec::new(), ..users };
                try_user(&users, &self.work_dir, &needed).map(|unreachable| (users, unreachable))
            }
            tried => tried.map(|unreachable| (users, unreachable)),
        };
        let (users, unreachable) = tried.map_err(|why| {
            vec![format!(
                "the agent is root, and no run can have a user of its own: {why}. Name IDs that this container or user namespace has (/proc/self/uid_map) with {SETTING}, let root change users (the capabilities SETUID, SETGID, CHOWN, FOWNER, DAC_OVERRIDE and KILL), run the agent as a user of its own, or write {SETTING} off to accept that every template is root"
            )]
        })?;
        if unreachable.is_empty() {
            return Ok(Some(users));
        }
        let sentence = |path: &String| {
            format!(
                "the users of runs ({} and up) cannot reach {path}: let others enter the directories above it (chmod o+x) and read it (chmod o+r, programs o+rx), or move it; {SETTING} off accepts that every template is root",
                base + 1
            )
        };
        Err(unreachable.iter().map(sentence).collect())
    }

    /// What the programs of a run open by its path.
    fn needed_by_runs(&self) -> Vec<PathBuf> {
        let mut needed = vec![self.work_dir.clone(), self.terraform.known().program];
        needed.extend(self.terraform.plugin_cache().map(Path::to_path_buf));
        needed.extend(self.terraform.cli_config().map(Path::to_path_buf));
        if self.state_backend.kind() == Kind::Local {
            needed.push(self.state_dir.clone());
        }
        for dir in [self.terraform_dir.path(), self.hook_dir.as_deref()].into_iter().flatten() {
            needed.push(dir.to_path_buf());
        }
        if let Ok(candidates) = self.terraform_dir.candidates() {
            needed.extend(candidates.into_iter().map(|candidate| candidate.path));
        }
        if let Found::Program(program) = self.infracost.found() {
            needed.push(program.path().to_path_buf());
        }
        needed
    }

    /// Lets the users of runs pass through the agent's directories, in which everything else is closed to them.
    fn open_directories(&self, base: u32) -> io::Result<()> {
        for dir in [&self.work_dir, &self.state_dir] {
            let metadata = fs::metadata(dir)?;
            if metadata.uid() == geteuid().as_raw() && metadata.mode() & 0o001 == 0 {
                fs::set_permissions(dir, fs::Permissions::from_mode(0o711))?;
            }
        }
        match self.terraform.plugin_cache() {
            Some(cache) if !cache.exists() => {
                private_dir(cache)?;
                seal_tree(cache, base, Foreign::Removed)
            }
            Some(cache) => {
                let mode = fs::metadata(cache)?.mode();
                fs::set_permissions(cache, fs::Permissions::from_mode(mode & 0o7777 | 0o055))
            }
            None => Ok(()),
        }
    }
}

/// Becomes the first user in a process of its own; answers what it cannot reach. Errors: it cannot be had.
fn try_user(users: &SlotUsers, work_dir: &Path, paths: &[PathBuf]) -> Result<Vec<String>, String> {
    let user = users.user(1);
    let mut args: Vec<OsString> =
        vec![SUBCOMMAND.into(), "--tries".into(), "--uid".into(), user.uid.to_string().into()];
    args.extend(["--group".into(), user.cache_group.to_string().into(), "--tmp".into(), work_dir.into()]);
    for place in &user.private_places {
        args.extend(["--private".into(), place.into()]);
    }
    args.push("--".into());
    args.extend(paths.iter().map(OsString::from));
    let output = Command::new(OWN_PROGRAM).args(args).env_clear().stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("the agent cannot start its own program ({error})"))?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).trim().to_owned());
    }
    Ok(String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect())
}

/// A user of this machine with one of the IDs.
fn user_among(base: u32) -> Option<String> {
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, id) = (fields.next()?, fields.nth(1)?.parse::<u32>().ok()?);
        (base..=base + MOST).contains(&id).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_of_the_machine_is_found_in_the_range() {
        assert_eq!(user_among(65_534 - MOST).as_deref(), Some("nobody"));
        assert_eq!(user_among(2_000_000_000), None);
    }
}
