//! The digest of a directory tree that untrusted programs may have changed: by descriptor, without following a link.

use std::{
    ffi::OsStr,
    fs::File,
    io::{self, Read as _},
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, openat, readlinkat, statat},
    io::Errno,
};
use sha2::{Digest as _, Sha256};

/// How deep folders may lie; what is deeper does not count.
const DEEPEST: usize = 32;
/// Most entries and bytes of a tree: more is an error, for whoever reads it must come to an end.
const MOST_ENTRIES: usize = 100_000;
const MOST_BYTES: u64 = 2 * 1024 * 1024 * 1024;
const COMMON: OFlags = OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// A digest that is being made.
pub(crate) struct TreeDigest {
    whole: Sha256,
    entries: usize,
    bytes: u64,
}

impl TreeDigest {
    /// Of every file below a directory, with its place, in the order of the places.
    pub(crate) fn of(dir: &Path) -> io::Result<String> {
        let mut digest = Self { whole: Sha256::new(), entries: 0, bytes: 0 };
        let root = openat(CWD, dir, COMMON | OFlags::DIRECTORY, Mode::empty())?;
        digest.folder(&root, Path::new(""), 0)?;
        Ok(format!("{:x}", digest.whole.finalize()))
    }

    fn folder(&mut self, folder: &OwnedFd, place: &Path, depth: usize) -> io::Result<()> {
        let mut names = Vec::new();
        for entry in Dir::read_from(folder)? {
            let name = entry?.file_name().to_owned();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            self.entries += 1;
            if self.entries > MOST_ENTRIES {
                return Err(too_large());
            }
            names.push(name);
        }
        names.sort();
        for name in names {
            let stat = match statat(folder, &name, AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => continue,
                stat => stat?,
            };
            let place: PathBuf = place.join(OsStr::from_bytes(name.to_bytes()));
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory if depth < DEEPEST => {
                    let inner = openat(folder, &name, COMMON | OFlags::DIRECTORY, Mode::empty())?;
                    self.folder(&inner, &place, depth + 1)?;
                }
                FileType::RegularFile => self.file(folder, &name, &place)?,
                FileType::Symlink => {
                    let target = readlinkat(folder, &name, Vec::new())?;
                    self.whole.update(format!("{} -> {}\n", place.display(), target.to_string_lossy()));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn file(&mut self, folder: impl AsFd, name: &std::ffi::CStr, place: &Path) -> io::Result<()> {
        let file = File::from(openat(folder, name, COMMON | OFlags::NONBLOCK, Mode::empty())?);
        let metadata = file.metadata()?;
        self.bytes = self.bytes.saturating_add(metadata.len());
        if self.bytes > MOST_BYTES || !metadata.is_file() {
            return Err(too_large());
        }
        self.whole.update(format!("{} {}\n", place.display(), metadata.len()));
        io::copy(&mut file.take(metadata.len()), &mut self.whole)?;
        Ok(())
    }
}

fn too_large() -> io::Error {
    io::Error::other("there are more files, or larger ones, than can be compared")
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink, process::Command};

    use super::*;

    #[test]
    fn every_change_shows_and_nothing_outside_the_tree_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        fs::create_dir_all(tree.join("a/b")).unwrap();
        fs::write(tree.join("a/b/c"), "1").unwrap();
        fs::write(tree.join("a.tf"), "2").unwrap();
        let first = TreeDigest::of(&tree).unwrap();
        assert!(Command::new("mkfifo").arg(tree.join("pipe")).status().unwrap().success());
        assert_eq!(TreeDigest::of(&tree).unwrap(), first, "a pipe is not read");
        let secret = dir.path().join("secret");
        fs::write(&secret, "x").unwrap();
        symlink(&secret, tree.join("link")).unwrap();
        let linked = TreeDigest::of(&tree).unwrap();
        assert_ne!(linked, first);
        fs::write(&secret, "y").unwrap();
        assert_eq!(TreeDigest::of(&tree).unwrap(), linked, "what a link leads to is not read");
        fs::write(tree.join("a/b/c"), "3").unwrap();
        assert_ne!(TreeDigest::of(&tree).unwrap(), linked);
        File::create(tree.join("sparse")).unwrap().set_len(1 << 40).unwrap();
        assert!(TreeDigest::of(&tree).is_err());
    }
}
