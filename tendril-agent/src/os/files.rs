//! Private files and directories, made durable; removal and size of whole directories.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::Path,
};

use rustix::fs::OFlags;

pub(crate) use super::walk::{Usage, remove_dir, usage};

/// Makes a directory that only this user may enter.
pub(crate) fn private_dir(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Makes a directory that only this user may enter, and that is there after a power cut.
pub(crate) fn durable_dir(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    parent.map_or(Ok(()), durable_dir)?;
    private_dir(path)?;
    sync_dir(parent.unwrap_or(Path::new(".")))
}

/// Renames a file within its directory, or to another one, and syncs the names in the new one.
pub(crate) fn rename_durably(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    to.parent().map_or(Ok(()), sync_dir)
}

/// Removes files that lie in one directory, if they are there, and syncs its names.
pub(crate) fn remove_durably<const N: usize>(files: [&Path; N]) -> io::Result<()> {
    let mut dir = None;
    for file in files {
        match fs::remove_file(file) {
            Ok(()) => dir = file.parent(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    dir.map_or(Ok(()), sync_dir)
}

/// Opens a file to lock it. Only this user may open it: whoever can read a file can hold its lock.
pub(crate) fn open_lock(path: &Path) -> io::Result<fs::File> {
    // What is there may be a link that somebody put into a directory of several users.
    let mut open = fs::OpenOptions::new();
    open.write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(OFlags::NOFOLLOW.bits().cast_signed());
    let file = open.open(path)?;
    if file.metadata()?.permissions().mode() & 0o077 != 0 {
        file.set_permissions(fs::Permissions::from_mode(0o600))?;
    }
    Ok(file)
}

/// Writes a file that only this user may read, in one step: a reader sees the old or the new content, never a part.
pub(crate) fn private_file(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(".new");
    let new = path.with_file_name(name);
    let write = || {
        // What is there may be a link, or a pipe that nobody reads.
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        io::Write::write_all(&mut file, content)?;
        sync_file(&file)?;
        fs::rename(&new, path)
    };
    if let Err(error) = write() {
        // Half a file is of no use, and takes the room of others.
        let _not_there = fs::remove_file(&new);
        return Err(error);
    }
    // Without it the name may be gone after a power cut, and with it the file.
    path.parent().map_or(Ok(()), sync_dir)
}

/// Syncs the names in a directory to disk.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    fs::File::open(dir)?.sync_all()?;
    #[cfg(test)]
    power_cut::names_synced(dir);
    Ok(())
}

/// Syncs the content of a file to disk.
pub(crate) fn sync_file(file: &fs::File) -> io::Result<()> {
    file.sync_data()?;
    #[cfg(test)]
    power_cut::content_synced(file);
    Ok(())
}

/// What a power cut would leave of directories: the names that were in them at their last sync, and of files what was in them at
/// theirs. For tests; of the thread that calls it.
#[cfg(test)]
pub(crate) mod power_cut {
    use std::{
        cell::RefCell,
        collections::{BTreeMap, BTreeSet, HashMap},
        fs,
        os::unix::fs::MetadataExt as _,
        path::{Path, PathBuf},
    };

    #[derive(Default)]
    struct Disk {
        /// The names in each directory, at each of its syncs.
        names: HashMap<PathBuf, Vec<BTreeSet<String>>>,
        /// The size of each file at its last sync, by inode.
        sizes: HashMap<u64, u64>,
    }

    thread_local!(static DISK: RefCell<Disk> = RefCell::default());

    fn names(dir: &Path) -> BTreeSet<String> {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    }

    pub(super) fn names_synced(dir: &Path) {
        DISK.with_borrow_mut(|disk| disk.names.entry(dir.to_owned()).or_default().push(names(dir)));
    }

    pub(super) fn content_synced(file: &fs::File) {
        if let Ok(data) = file.metadata() {
            DISK.with_borrow_mut(|disk| disk.sizes.insert(data.ino(), data.len()));
        }
    }

    /// The names in a directory at each of its syncs.
    pub(crate) fn syncs(dir: &Path) -> Vec<BTreeSet<String>> {
        DISK.with_borrow(|disk| disk.names.get(dir).cloned().unwrap_or_default())
    }

    /// What is in a directory and its folders and would not be after a power cut, each with the reason.
    pub(crate) fn lost(dir: &Path) -> BTreeMap<PathBuf, &'static str> {
        let mut lost = BTreeMap::new();
        let synced = syncs(dir).pop().unwrap_or_default();
        for name in names(dir) {
            let path = dir.join(&name);
            let Ok(data) = fs::symlink_metadata(&path) else { continue };
            if !synced.contains(&name) {
                lost.insert(path.clone(), "its name was not synced");
            }
            if data.is_dir() {
                lost.extend(self::lost(&path));
            } else if data.len() > 0
                && DISK.with_borrow(|disk| disk.sizes.get(&data.ino()) != Some(&data.len()))
            {
                lost.insert(path, "its content was not synced");
            }
        }
        for name in synced.difference(&names(dir)) {
            lost.insert(dir.join(name), "its removal was not synced");
        }
        lost
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_power_cut_leaves_what_was_made_here() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        fs::create_dir(&root).unwrap();
        durable_dir(&root.join("a/b")).unwrap();
        for content in ["one", "two of another size"] {
            private_file(&root.join("a/b/file"), content.as_bytes()).unwrap();
        }
        assert_eq!(power_cut::lost(&root), BTreeMap::new());
        rename_durably(&root.join("a/b/file"), &root.join("a/b/moved")).unwrap();
        assert_eq!(power_cut::lost(&root), BTreeMap::new());
        remove_durably([&root.join("a/b/moved"), &root.join("a/b/none")]).unwrap();
        assert_eq!(power_cut::lost(&root), BTreeMap::new());
        // What is not made so would be gone.
        fs::write(root.join("a/plain"), "text").unwrap();
        assert_eq!(power_cut::lost(&root).len(), 1);
    }
}
