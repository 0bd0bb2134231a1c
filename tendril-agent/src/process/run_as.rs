//! `tendril-agent run-as`: becomes the user of one run, and then the program that is named.
//!
//! It has one thread, and what it changes of itself is inherited by the program: user and groups, limits, and a view of the file
//! system in which shared places are the run's own. No program that it starts can get other rights (`no_new_privs`).

use std::{
    convert::Infallible,
    ffi::OsString,
    fs, io,
    os::fd::AsFd as _,
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use rustix::{
    fs::{Access, FileType, access, fchown, fstat},
    mount::{MountFlags, MountPropagationFlags, mount, mount_bind, mount_change},
    process::{Gid, Resource, Rlimit, Uid, getgid, getgroups, getuid, setrlimit},
    thread::{UnshareFlags, set_no_new_privs, set_thread_groups, set_thread_res_gid, set_thread_res_uid},
};

/// The exit code of a program that cannot be started.
const CANNOT_START: u8 = 126;
/// How many processes and threads a run may have at the same time: a run that starts them without end must leave room for others.
pub(crate) const MOST_PROCESSES: u64 = 2048;
/// Memory that files in a private `/dev/shm` may take.
const SHM: &std::ffi::CStr = c"mode=1777,size=256m";

/// What the process becomes.
#[derive(Clone, Debug)]
pub(crate) struct Identity<'a> {
    pub(crate) uid: u32,
    /// Groups beside its own.
    pub(crate) groups: &'a [u32],
    /// What it finds at the private places.
    pub(crate) tmp: Option<&'a Path>,
    pub(crate) private_places: &'a [PathBuf],
}

/// Becomes a user, and then a program; answers only if that fails.
pub(crate) fn run_as(identity: &Identity<'_>, program: &OsString, args: &[OsString]) -> ExitCode {
    let Err(error) = become_program(identity, program, args);
    eprintln!("{} cannot be run as the user {}: {error}", Path::new(program).display(), identity.uid);
    ExitCode::from(CANNOT_START)
}

/// Tries whether the user can be had, and what it can reach; prints a line for each path that it cannot.
pub(crate) fn try_user(identity: &Identity<'_>, paths: &[OsString]) -> ExitCode {
    if let Err(error) = become_user(identity) {
        eprintln!("{error}");
        return ExitCode::from(CANNOT_START);
    }
    for path in paths.iter().map(Path::new) {
        if let Err(error) = reach(path) {
            println!("{} ({error})", path.display());
        }
    }
    ExitCode::SUCCESS
}

fn reach(path: &Path) -> io::Result<()> {
    let metadata = fs::metadata(path)?;
    let runs = metadata.is_dir() || metadata.permissions().mode() & 0o111 != 0;
    Ok(access(path, if runs { Access::EXEC_OK } else { Access::READ_OK })?)
}

fn become_program(
    identity: &Identity<'_>,
    program: &OsString,
    args: &[OsString],
) -> Result<Infallible, io::Error> {
    become_user(identity)?;
    Err(Command::new(program).args(args).exec())
}

fn become_user(identity: &Identity<'_>) -> io::Result<()> {
    let step = |what: &str, error: io::Error| io::Error::new(error.kind(), format!("{what}: {error}"));
    if !identity.private_places.is_empty() {
        make_private(identity).map_err(|error| step("shared places cannot be made private", error))?;
    }
    let (uid, gid) = (Uid::from_raw(identity.uid), Gid::from_raw(identity.uid));
    // A program may open its output by the name /dev/stderr.
    give_output(uid, gid).map_err(|error| step("its output cannot be given to it", error))?;
    let limit = |most| Rlimit { current: Some(most), maximum: Some(most) };
    setrlimit(Resource::Nproc, limit(MOST_PROCESSES))?;
    setrlimit(Resource::Core, limit(0))?;
    set_no_new_privs(true)?;
    let groups: Vec<Gid> = identity.groups.iter().copied().map(Gid::from_raw).collect();
    set_thread_groups(&groups).map_err(|error| step("the groups of root cannot be dropped", error.into()))?;
    set_thread_res_gid(gid, gid, gid).map_err(|error| step("its group is refused", error.into()))?;
    set_thread_res_uid(uid, uid, uid).map_err(|error| step("the user is refused", error.into()))?;
    let mut had = getgroups()?;
    had.retain(|group| *group != gid);
    if getuid() != uid || getgid() != gid || had != groups {
        return Err(io::Error::other("rights of root are left"));
    }
    Ok(())
}

/// Puts the run's own directories in the place of the shared ones, for this process and its descendants alone.
fn make_private(identity: &Identity<'_>) -> io::Result<()> {
    #[expect(
        deprecated,
        reason = "what is unsafe in it is the separation of descriptors, which is not asked for"
    )]
    rustix::thread::unshare(UnshareFlags::NEWNS)?;
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    for place in identity.private_places {
        match identity.tmp {
            Some(tmp) if place != Path::new("/dev/shm") => mount_bind(tmp, place)?,
            _ => mount("tmpfs", place, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, Some(SHM))?,
        }
    }
    Ok(())
}

fn give_output(uid: Uid, gid: Gid) -> io::Result<()> {
    let (stdout, stderr) = (io::stdout(), io::stderr());
    for output in [stdout.as_fd(), stderr.as_fd()] {
        if FileType::from_raw_mode(fstat(output)?.st_mode) == FileType::Fifo {
            fchown(output, Some(uid), Some(gid))?;
        }
    }
    Ok(())
}
