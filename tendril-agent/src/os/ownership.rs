//! Who owns a directory tree. Everything goes by descriptor, and no link is followed.

use std::{
    ffi::{CStr, CString, OsStr},
    fs, io,
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::{
            ffi::OsStrExt as _,
            fs::{MetadataExt as _, PermissionsExt as _, chown},
        },
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{
        AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, Uid, chownat, fchmod, fchown, openat, statat,
        unlinkat,
    },
    io::Errno,
};

use crate::os::{untrusted::open_file, walk::remove_dir};

const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Lets the users of a group enter a directory, and neither list nor change it.
pub(crate) fn let_pass(dir: &Path, group: u32) -> io::Result<()> {
    chown(dir, None, Some(group))?;
    fs::set_permissions(dir, fs::Permissions::from_mode(0o710))
}

/// Lets the users of a group read a file, and not change it.
pub(crate) fn let_read(file: &Path, group: u32) -> io::Result<()> {
    chown(file, None, Some(group))?;
    fs::set_permissions(file, fs::Permissions::from_mode(0o640))
}

/// Lets the users of a group add files to a directory and remove their own, and no others.
pub(crate) fn share_dir(dir: &Path, group: u32) -> io::Result<()> {
    chown(dir, None, Some(group))?;
    fs::set_permissions(dir, fs::Permissions::from_mode(0o1770))
}

/// Lets nobody but the user of this process enter a directory.
pub(crate) fn close_dir(dir: &Path) -> io::Result<()> {
    let own = rustix::process::getegid();
    fs::set_permissions(dir, fs::Permissions::from_mode(0o700))?;
    chown(dir, None, Some(own.as_raw()))
}

/// Gives a file that an earlier run may have made to a user, if it is there. Errors: it is no regular file, or it has another name
/// elsewhere, and may be another user's.
pub(crate) fn give_file(path: &Path, user: u32) -> io::Result<()> {
    let file = match open_file(path, None) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        file => file?,
    };
    let metadata = file.metadata()?;
    if metadata.uid() == user {
        return Ok(());
    }
    if metadata.nlink() > 1 {
        return Err(io::Error::other(format!("{} has another name elsewhere", path.display())));
    }
    fchown(&file, Some(Uid::from_raw(user)), Some(Gid::from_raw(user)))?;
    Ok(())
}

/// Gives a tree to a user: everything in it that belongs to the user of this process. The tree must be trusted: nothing that the
/// new owner controls may run yet.
pub(crate) fn give_tree(dir: &Path, user: u32) -> io::Result<()> {
    let mut folders = vec![openat(CWD, dir, FOLDER, Mode::empty())?];
    let own = rustix::process::geteuid();
    let (uid, gid) = (Some(Uid::from_raw(user)), Some(Gid::from_raw(user)));
    while let Some(folder) = folders.pop() {
        for (name, _) in entries(&folder)? {
            let stat = statat(&folder, &name, AtFlags::SYMLINK_NOFOLLOW)?;
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                folders.push(openat(&folder, &name, FOLDER, Mode::empty())?);
            } else if stat.st_uid == own.as_raw() {
                chownat(&folder, &name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
            }
        }
        fchown(&folder, uid, gid)?;
    }
    Ok(())
}

/// What becomes of entries that do not belong to the user of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Foreign {
    Taken,
    Removed,
}

/// Takes a tree for this user: everybody may read it, a group may add to its folders, and nobody may change its files. What is
/// neither a file nor a folder is removed.
pub(crate) fn seal_tree(dir: &Path, group: u32, foreign: Foreign) -> io::Result<()> {
    let mut folders = vec![openat(CWD, dir, FOLDER, Mode::empty())?];
    let (own, group) = (rustix::process::geteuid(), Gid::from_raw(group));
    while let Some(folder) = folders.pop() {
        fchown(&folder, Some(own), Some(group))?;
        fchmod(&folder, Mode::from_raw_mode(0o2775))?;
        for (name, kind) in entries(&folder)? {
            let opened = openat(&folder, &name, open_flags(kind), Mode::empty());
            let Ok(entry) = opened else {
                remove(&folder, &name, kind)?;
                continue;
            };
            let stat = rustix::fs::fstat(&entry)?;
            let kind = FileType::from_raw_mode(stat.st_mode);
            if stat.st_uid != own.as_raw() && foreign == Foreign::Removed {
                remove(&folder, &name, kind)?;
                continue;
            }
            match kind {
                FileType::Directory => folders.push(entry),
                // Sealed before, or the agent's own.
                FileType::RegularFile if stat.st_uid == own.as_raw() => {}
                FileType::RegularFile => {
                    fchown(&entry, Some(own), Some(group))?;
                    let mode = Mode::from_raw_mode(stat.st_mode) & Mode::from_raw_mode(0o755);
                    fchmod(&entry, mode | Mode::from_raw_mode(0o444))?;
                }
                _ => remove(&folder, &name, kind)?,
            }
        }
    }
    Ok(())
}

fn open_flags(kind: FileType) -> OFlags {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    if kind == FileType::Directory { flags | OFlags::DIRECTORY } else { flags }
}

fn remove(folder: &OwnedFd, name: &CStr, kind: FileType) -> io::Result<()> {
    if kind != FileType::Directory {
        return Ok(unlinkat(folder, name, AtFlags::empty())?);
    }
    let folder = PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd()));
    remove_dir(&folder.join(OsStr::from_bytes(name.to_bytes())))
}

fn entries(folder: &OwnedFd) -> io::Result<Vec<(CString, FileType)>> {
    let mut found = Vec::new();
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let kind = match entry.file_type() {
            // Not every file system provides it.
            FileType::Unknown => match statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => FileType::from_raw_mode(stat.st_mode),
                Err(Errno::NOENT) => continue,
                Err(error) => return Err(error.into()),
            },
            kind => kind,
        };
        found.push((name.to_owned(), kind));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    const USER: u32 = 70_123;

    #[test]
    fn a_tree_is_given_and_taken_and_nothing_that_its_links_lead_to() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("only root can give files away: not tried");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let (tree, outside) = (dir.path().join("tree"), dir.path().join("outside"));
        fs::create_dir_all(tree.join("a/b")).unwrap();
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("secret"), "x").unwrap();
        fs::write(tree.join("a/b/program"), "x").unwrap();
        fs::set_permissions(tree.join("a/b/program"), fs::Permissions::from_mode(0o6700)).unwrap();
        symlink(&outside, tree.join("a/link")).unwrap();
        symlink(outside.join("secret"), tree.join("a/b/file")).unwrap();
        give_tree(&tree, USER).unwrap();
        let of = |path: &Path| {
            let metadata = fs::symlink_metadata(path).unwrap();
            (metadata.uid(), metadata.gid(), metadata.mode() & 0o7777)
        };
        for given in [tree.clone(), tree.join("a"), tree.join("a/b/program"), tree.join("a/link")] {
            assert_eq!(of(&given).0, USER, "{}", given.display());
        }
        seal_tree(&tree, USER + 1, Foreign::Taken).unwrap();
        assert_eq!(of(&tree.join("a/b")), (0, USER + 1, 0o2775));
        assert_eq!(of(&tree.join("a/b/program")), (0, USER + 1, 0o744));
        assert!(fs::symlink_metadata(tree.join("a/link")).is_err(), "what is no file is removed");
        assert_eq!((of(&outside).0, of(&outside.join("secret")).0), (0, 0));
        fs::write(tree.join("lock"), "").unwrap();
        fs::set_permissions(tree.join("lock"), fs::Permissions::from_mode(0o600)).unwrap();
        chown(tree.join("a/b"), Some(USER), None).unwrap();
        seal_tree(&tree, USER + 1, Foreign::Removed).unwrap();
        assert!(tree.join("a").exists() && !tree.join("a/b").exists());
        assert!(outside.join("secret").exists());
        let (owner, _, mode) = of(&tree.join("lock"));
        assert_eq!((owner, mode), (0, 0o600), "what is the agent's own stays as it is");
    }
}
