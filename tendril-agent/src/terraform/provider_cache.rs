//! The directory where Terraform stores downloaded providers: which there are, and which of them are in use. The
//! [file lock](crate::os::file_lock) decides who may fill it.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    time::SystemTime,
};

/// How deep a version lies: `<host>/<namespace>/<name>/<version>/<platform>`.
const DEPTH: u32 = 5;

/// The cached versions, with the time when a run used each last.
pub(crate) fn versions(dir: &Path) -> Vec<(PathBuf, SystemTime)> {
    let used = |path: PathBuf| {
        let used = fs::metadata(&path).and_then(|meta| meta.modified()).ok()?;
        Some((path, used))
    };
    below(dir, DEPTH).into_iter().filter_map(used).collect()
}

/// The versions that a run with this data directory works with: Terraform links to them.
pub(crate) fn in_use(data_dir: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    below(&data_dir.join("providers"), DEPTH).into_iter().filter_map(|link| link.canonicalize().ok())
}

/// Notes that a run uses these versions now.
pub(crate) fn mark_used(data_dir: &Path) {
    for version in in_use(data_dir) {
        let marked = File::open(&version).and_then(|dir| dir.set_modified(SystemTime::now()));
        if let Err(error) = marked {
            tracing::debug!(version = %version.display(), %error, "that a provider is used cannot be noted");
        }
    }
}

fn below(dir: &Path, depth: u32) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok).map(|entry| entry.path());
    match depth {
        1 => entries.filter(|path| path.is_dir()).collect(),
        _ => entries.flat_map(|path| below(&path, depth - 1)).collect(),
    }
}
