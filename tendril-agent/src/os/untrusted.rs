//! Files that untrusted programs may have made: opened without following a link, without waiting for a pipe, and only if they
//! are what they should be.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
    path::Path,
};

use rustix::{
    fs::{CWD, Mode, OFlags, openat},
    process::geteuid,
};

/// Opens a regular file to read it. `owner`: the user that must own it, so that a hard link to another user's file is refused.
/// The folders above it must be trusted. Errors: it is missing, or it is another thing.
pub(crate) fn open_file(path: &Path, owner: Option<u32>) -> io::Result<File> {
    // Whoever opens a pipe to read it waits for its writer.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = File::from(openat(CWD, path, flags, Mode::empty())?);
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(refused(path, "it is no regular file"));
    }
    if owner.is_some_and(|owner| owner != metadata.uid()) {
        return Err(refused(path, "it belongs to another user"));
    }
    Ok(file)
}

/// Reads such a file. Errors: it is larger than `most` bytes, too.
pub(crate) fn read_file(path: &Path, owner: Option<u32>, most: u64) -> io::Result<Vec<u8>> {
    let file = open_file(path, owner)?;
    if file.metadata()?.len() > most {
        return Err(refused(path, &format!("it is larger than {most} bytes")));
    }
    let mut content = Vec::new();
    // It may grow meanwhile.
    file.take(most).read_to_end(&mut content)?;
    Ok(content)
}

/// Opens a file of the agent's in a folder to which others may add files: it belongs to this process's user, or to the folder's
/// owner. Errors: it is missing, or not the agent's.
pub(crate) fn open_own_file(path: &Path) -> io::Result<File> {
    let file = open_file(path, None)?;
    let owner = file.metadata()?.uid();
    let folder = path.parent().map(fs::symlink_metadata).transpose()?;
    let is_own = owner == geteuid().as_raw() || folder.is_some_and(|folder| folder.uid() == owner);
    if is_own { Ok(file) } else { Err(refused(path, "it belongs to another user")) }
}

/// Whether there is such a file, and something in it, at most so many bytes.
pub(crate) fn is_filled_file(path: &Path, owner: Option<u32>, most: u64) -> bool {
    let is_owned = |metadata: &fs::Metadata| owner.is_none_or(|owner| owner == metadata.uid());
    fs::symlink_metadata(path).is_ok_and(|metadata| {
        metadata.is_file() && (1..=most).contains(&metadata.len()) && is_owned(&metadata)
    })
}

fn refused(path: &Path, why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{} cannot be used: {why}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::symlink, process::Command};

    use super::*;

    #[test]
    fn only_a_regular_file_of_its_owner_and_size_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::write(path("file"), "content").unwrap();
        let own = fs::metadata(path("file")).unwrap().uid();
        symlink(path("file"), path("link")).unwrap();
        symlink("nowhere", path("dangling")).unwrap();
        fs::create_dir(path("folder")).unwrap();
        assert!(Command::new("mkfifo").arg(path("pipe")).status().unwrap().success());
        assert_eq!(read_file(&path("file"), Some(own), 7).unwrap(), b"content");
        assert!(is_filled_file(&path("file"), Some(own), 7));
        assert!(!is_filled_file(&path("file"), Some(own + 1), 7) && !is_filled_file(&path("file"), None, 6));
        for (name, owner, most) in [
            ("link", None, 100),
            ("dangling", None, 100),
            ("folder", None, 100),
            ("pipe", None, 100),
            ("file", Some(own + 1), 100),
            ("file", None, 6),
            ("none", None, 100),
        ] {
            assert!(read_file(&path(name), owner, most).is_err(), "{name}");
            assert!(name == "file" || !is_filled_file(&path(name), None, 7), "{name}");
        }
    }

    #[test]
    fn a_large_file_without_content_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sparse");
        File::create(&path).unwrap().set_len(1 << 40).unwrap();
        assert!(read_file(&path, None, 1 << 20).unwrap_err().to_string().contains("larger than 1048576"));
    }
}
