//! Private files and directories, made durable; removal and size of whole directories.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
};

pub(crate) use super::walk::{remove_dir, usage};

/// Makes a directory that only this user may enter.
pub(crate) fn private_dir(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Writes a file that only this user may read, in one step: a reader sees the old or the new content, never a part.
pub(crate) fn private_file(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(".new");
    let new = path.with_file_name(name);
    let write = || {
        let mut file =
            fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        io::Write::write_all(&mut file, content)?;
        file.sync_data()?;
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
    fs::File::open(dir)?.sync_all()
}
