//! Directory trees of untrusted programs: measured and removed without recursion, however deep and however wide they are.
//!
//! Everything goes by descriptor, one at a time: a path of a deep file is longer than the kernel takes, and a template may
//! change the tree meanwhile. A folder that is moved while it is walked ends the walk, and cannot lead it out of the tree.

use std::{
    ffi::{CStr, CString, OsStr},
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat, chmodat, fchmod, fstat, openat, statat, unlinkat},
    io::Errno,
};

/// How often a tree is walked again in which something new has appeared.
const PASSES: u32 = 5;
/// How a folder is opened: only itself, never what a link leads to.
const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// What is the same of a folder wherever it is.
type Identity = (u64, u64);

/// A folder on the way from the root to where the walk is.
struct Level {
    /// Its name in the folder above.
    name: CString,
    identity: Identity,
    /// Folders in it that are still to be entered.
    folders: Vec<CString>,
}

/// Where a walk is.
struct Walk {
    here: OwnedFd,
    levels: Vec<Level>,
}

impl Walk {
    fn begin(dir: &Path) -> io::Result<Self> {
        let here = openat(CWD, dir, FOLDER, Mode::empty())?;
        let root =
            Level { name: CString::default(), identity: identity(&fstat(&here)?), folders: Vec::new() };
        Ok(Self { here, levels: vec![root] })
    }

    /// Reads each entry of the folder that the walk is in; returns the folders.
    fn read(&mut self, mut each: impl FnMut(&OwnedFd, &CStr, FileType)) -> io::Result<()> {
        let mut folders = Vec::new();
        for entry in Dir::read_from(&self.here)? {
            let entry = entry?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let kind = match entry.file_type() {
                // Not every file system provides it.
                FileType::Unknown => statat(&self.here, name, AtFlags::SYMLINK_NOFOLLOW)
                    .map_or(FileType::Unknown, |stat| FileType::from_raw_mode(stat.st_mode)),
                kind => kind,
            };
            if kind == FileType::Directory {
                folders.push(name.to_owned());
            }
            each(&self.here, name, kind);
        }
        if let Some(level) = self.levels.last_mut() {
            level.folders = folders;
        }
        Ok(())
    }

    /// The next folder to enter in the one that the walk is in.
    fn next_folder(&mut self) -> Option<CString> {
        self.levels.last_mut()?.folders.pop()
    }

    fn enter(&mut self, name: CString, folder: OwnedFd) -> io::Result<()> {
        let identity = identity(&fstat(&folder)?);
        self.levels.push(Level { name, identity, folders: Vec::new() });
        self.here = folder;
        Ok(())
    }

    /// Goes up; answers the name of the folder that was left. None: it was the root.
    fn leave(&mut self) -> io::Result<Option<CString>> {
        let Some(left) = self.levels.pop() else { return Ok(None) };
        let Some(above) = self.levels.last() else { return Ok(None) };
        let up = openat(&self.here, c"..", FOLDER, Mode::empty())?;
        if identity(&fstat(&up)?) != above.identity {
            return Err(io::Error::other("a folder was moved while the tree was walked"));
        }
        self.here = up;
        Ok(Some(left.name))
    }
}

fn identity(stat: &Stat) -> Identity {
    // The types differ between platforms.
    #[allow(clippy::useless_conversion, clippy::unnecessary_cast, reason = "needed on some platforms")]
    (stat.st_dev as u64, stat.st_ino as u64)
}

/// What everything below a directory takes on the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) bytes: u64,
    /// Files and folders. A file with several names counts with each.
    pub(crate) files: u64,
}

/// Measures a directory. Links are not followed; what is removed meanwhile, or cannot be read, counts nothing.
pub(crate) fn usage(dir: &Path) -> Usage {
    let mut total = Usage::default();
    // What was counted until a folder was moved is a lower bound.
    let _moved = add_usage(dir, &mut total);
    total
}

fn add_usage(dir: &Path, total: &mut Usage) -> io::Result<()> {
    let mut walk = Walk::begin(dir)?;
    let count = |walk: &mut Walk, total: &mut Usage| {
        walk.read(|here, name, _| {
            if let Ok(stat) = statat(here, name, AtFlags::SYMLINK_NOFOLLOW) {
                total.bytes += u64::try_from(stat.st_blocks).unwrap_or(0) * 512;
                total.files += 1;
            }
        })
    };
    count(&mut walk, total)?;
    loop {
        match walk.next_folder() {
            Some(name) => {
                if let Ok(folder) = openat(&walk.here, &name, FOLDER, Mode::empty()) {
                    walk.enter(name, folder)?;
                    // One that cannot be read to its end does not hide the others.
                    let _unreadable = count(&mut walk, total);
                }
            }
            None if walk.leave()?.is_none() => return Ok(()),
            None => {}
        }
    }
}

/// Hands out what lies so many levels below a directory, links too, and enters none. Errors: there are more than `most` entries on
/// the way; or the directory is missing, or is a link.
pub(crate) fn entries_at(
    dir: &Path,
    depth: u32,
    most: usize,
    mut each: impl FnMut(PathBuf),
) -> io::Result<()> {
    let folder = openat(CWD, dir, FOLDER, Mode::empty())?;
    let mut left = most;
    enter_to(&folder, dir, depth, &mut left, &mut each)
}

/// As deep as it was asked for, so that few descriptors are open however wide the tree is.
fn enter_to(
    folder: &OwnedFd,
    path: &Path,
    depth: u32,
    left: &mut usize,
    each: &mut impl FnMut(PathBuf),
) -> io::Result<()> {
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        *left = left.checked_sub(1).ok_or_else(|| io::Error::other("there are too many entries"))?;
        let below = path.join(OsStr::from_bytes(name.to_bytes()));
        if depth <= 1 {
            each(below);
        } else if let Ok(opened) = openat(folder, name, FOLDER, Mode::empty()) {
            enter_to(&opened, &below, depth - 1, left, each)?;
        }
    }
    Ok(())
}

/// Removes a directory with everything in it, if it is there; also one whose folders a program has made unwritable. Errors:
/// the first of what could not be removed; all the rest is gone.
pub(crate) fn remove_dir(path: &Path) -> io::Result<()> {
    for pass in 1.. {
        match remove_once(path) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound && !path.exists() => return Ok(()),
            // Something is still being made in it.
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty && pass < PASSES => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn remove_once(path: &Path) -> io::Result<()> {
    let opened = match Walk::begin(path) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            chmodat(CWD, path, Mode::RWXU, AtFlags::empty())?;
            Walk::begin(path)
        }
        opened => opened,
    };
    let mut walk = opened?;
    let mut failed = None;
    empty(&mut walk, &mut failed);
    loop {
        if let Some(name) = walk.next_folder() {
            match open_any(&walk.here, &name) {
                Ok(folder) => {
                    walk.enter(name, folder)?;
                    empty(&mut walk, &mut failed);
                }
                Err(Errno::NOENT) => {}
                Err(error) => note(&mut failed, &name, error),
            }
        } else {
            let Some(name) = walk.leave()? else { break };
            if let Err(error) = unlink(&walk.here, &name, AtFlags::REMOVEDIR) {
                note(&mut failed, &name, error);
            }
        }
    }
    match failed {
        Some(error) => Err(error),
        None => std::fs::remove_dir(path),
    }
}

/// Removes what is no folder in the one that the walk is in.
fn empty(walk: &mut Walk, failed: &mut Option<io::Error>) {
    let read = walk.read(|here, name, kind| {
        if kind != FileType::Directory
            && let Err(error) = unlink(here, name, AtFlags::empty())
        {
            note(failed, name, error);
        }
    });
    if let Err(error) = read {
        failed.get_or_insert(error);
    }
}

/// Opens a folder, also one that its owner has closed to himself.
fn open_any(here: &OwnedFd, name: &CStr) -> rustix::io::Result<OwnedFd> {
    match openat(here, name, FOLDER, Mode::empty()) {
        Err(Errno::ACCESS) => {
            chmodat(here, name, Mode::RWXU, AtFlags::empty())?;
            openat(here, name, FOLDER, Mode::empty())
        }
        opened => opened,
    }
}

fn unlink(here: impl AsFd + Copy, name: &CStr, flags: AtFlags) -> rustix::io::Result<()> {
    match unlinkat(here, name, flags) {
        Err(Errno::ACCESS | Errno::PERM) => {
            fchmod(here, Mode::RWXU)?;
            unlinkat(here, name, flags)
        }
        Err(Errno::NOENT) => Ok(()),
        unlinked => unlinked,
    }
}

/// The first thing that fails is the one that is reported; that a folder above is not empty is then of no interest.
fn note(failed: &mut Option<io::Error>, name: &CStr, error: Errno) {
    if failed.is_none() {
        let source = io::Error::from(error);
        let shown = name.to_string_lossy();
        *failed = Some(io::Error::new(source.kind(), format!("{shown} cannot be removed: {source}")));
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _, process::Command};

    use super::*;

    /// A chain of folders, with a file of so many bytes in the last one.
    fn chain(dir: &Path, levels: usize, bytes: usize) {
        let mut here = openat(CWD, dir, FOLDER, Mode::empty()).unwrap();
        for _ in 0..levels {
            rustix::fs::mkdirat(&here, c"d", Mode::RWXU).unwrap();
            here = openat(&here, c"d", FOLDER, Mode::empty()).unwrap();
        }
        let file = openat(&here, c"file", OFlags::CREATE | OFlags::WRONLY, Mode::RUSR).unwrap();
        std::io::Write::write_all(&mut fs::File::from(file), &vec![1; bytes]).unwrap();
    }

    #[test]
    fn a_tree_of_sixty_thousand_levels_is_measured_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        fs::create_dir(&root).unwrap();
        chain(&root, 60_000, 1 << 20);
        // On a thread with as little room as those of the agent have.
        let walk = move || (usage(&root), remove_dir(&root), root.exists());
        let (used, removed, is_there) =
            std::thread::Builder::new().stack_size(128 * 1024).spawn(walk).unwrap().join().unwrap();
        assert!(used.bytes >= 1 << 20 && used.files == 60_001, "{used:?}");
        removed.unwrap();
        assert!(!is_there);
    }

    #[test]
    fn what_is_wide_closed_linked_and_odd_is_removed_and_nothing_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let (root, outside) = (dir.path().join("root"), dir.path().join("outside"));
        for made in [root.join("a/b"), root.join("c"), outside.clone()] {
            fs::create_dir_all(made).unwrap();
        }
        fs::write(outside.join("kept"), "x").unwrap();
        std::os::unix::fs::symlink(&outside, root.join("a/link")).unwrap();
        std::os::unix::fs::symlink("..", root.join("a/b/up")).unwrap();
        for name in 0..3000 {
            fs::write(root.join(format!("a/b/{name}")), "x").unwrap();
        }
        assert!(Command::new("mkfifo").arg(root.join("c/pipe")).status().unwrap().success());
        for closed in ["a/b", "a", ""] {
            fs::set_permissions(root.join(closed), fs::Permissions::from_mode(0o000)).unwrap();
        }
        remove_dir(&root).unwrap();
        assert!(!root.exists() && outside.join("kept").exists());
        remove_dir(&root).unwrap();
    }

    #[test]
    fn what_cannot_be_removed_is_named_and_the_rest_is_gone() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("only root can mount: not tried");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        fs::create_dir_all(root.join("held/mount")).unwrap();
        fs::write(root.join("other"), "x").unwrap();
        let mount =
            |args: &[&str]| Command::new(args[0]).args(&args[1..]).arg(root.join("held/mount")).status();
        if !mount(&["mount", "-t", "tmpfs", "none"]).is_ok_and(|status| status.success()) {
            eprintln!("mounts are not allowed here: not tried");
            return;
        }
        let error = remove_dir(&root).unwrap_err();
        assert!(error.to_string().starts_with("mount cannot be removed"), "{error}");
        assert!(!root.join("other").exists());
        assert!(mount(&["umount"]).unwrap().success());
        remove_dir(&root).unwrap();
    }

    #[test]
    fn a_tree_that_grows_meanwhile_is_removed_when_it_stops() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        fs::create_dir(&root).unwrap();
        let at = root.clone();
        let writer = std::thread::spawn(move || {
            for name in 0..300 {
                let _gone = fs::create_dir_all(at.join(format!("{name}/x")));
            }
        });
        while !writer.is_finished() {
            let _not_yet = remove_dir(&root);
        }
        writer.join().unwrap();
        remove_dir(&root).unwrap();
        assert!(!root.exists());
    }

    #[test]
    fn links_on_the_way_are_not_entered_and_there_is_an_end() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("tree/a/b")).unwrap();
        std::os::unix::fs::symlink("/", dir.path().join("tree/root")).unwrap();
        std::os::unix::fs::symlink("/", dir.path().join("tree/a/linked")).unwrap();
        std::os::unix::fs::symlink("tree", dir.path().join("link")).unwrap();
        let found = |name: &str, most: usize| {
            let mut found = Vec::new();
            entries_at(&dir.path().join(name), 2, most, |path| found.push(path)).map(|()| {
                found.sort();
                found
            })
        };
        let expected = ["b", "linked"].map(|name| dir.path().join("tree/a").join(name));
        assert_eq!(found("tree", 9).unwrap(), expected);
        assert!(found("link", 9).is_err(), "it is a link itself");
        assert!(found("tree", 3).is_err(), "there is more");
    }
}
