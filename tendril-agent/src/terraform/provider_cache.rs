//! The directory where Terraform stores downloaded providers: which there are, and which of them are in use. The
//! [file lock](crate::os::file_lock) decides who may fill it.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use crate::{
    os::{
        blocking,
        file_lock::{self, FileLock},
        ownership::{Foreign, seal_tree},
        walk::entries_at,
    },
    template::Workspace,
};

/// How deep a version lies: `<host>/<namespace>/<name>/<version>/<platform>`.
const DEPTH: u32 = 5;

/// More than this is no directory of providers.
const MOST_ENTRIES: usize = 20_000;

/// The right to fill the cache.
///
/// A run with a user of its own gets it by a group that nothing but its `terraform init` has, and what that has added is taken for
/// root before anything of the template can run: no template can change a provider that another run starts.
pub(crate) struct Filling {
    _lock: FileLock,
    dir: PathBuf,
    /// The group, where the run has a user of its own.
    group: Option<u32>,
}

impl Filling {
    /// Waits until nobody else fills the cache. May be dropped while it waits. Errors: the directory cannot be used.
    pub(crate) async fn begin(dir: &Path, workspace: &Workspace) -> io::Result<Self> {
        let lock = file_lock::lock_provider_cache(dir).await?;
        let (dir, workspace) = (dir.to_path_buf(), workspace.clone());
        blocking(move || {
            let group = workspace.user()?.map(|user| user.cache_group);
            if let Some(group) = group {
                // Left by one that was killed before it was sealed.
                seal_tree(&dir, group, Foreign::Removed)?;
            }
            Ok(Self { _lock: lock, dir, group })
        })
        .await
    }

    /// Nothing changes any more what was added; notes what the run with this data directory uses.
    pub(crate) async fn end(self, data_dir: PathBuf) -> io::Result<()> {
        blocking(move || {
            if let Some(group) = self.group {
                seal_tree(&self.dir, group, Foreign::Taken)?;
            }
            mark_used(&self.dir, &data_dir);
            Ok(())
        })
        .await
    }
}

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
pub(crate) fn mark_used(dir: &Path, data_dir: &Path) {
    // A link of a template may lead anywhere.
    let Ok(dir) = dir.canonicalize() else { return };
    for version in in_use(data_dir).filter(|version| version.starts_with(&dir)) {
        let marked = File::open(&version).and_then(|dir| dir.set_modified(SystemTime::now()));
        if let Err(error) = marked {
            tracing::debug!(version = %version.display(), %error, "that a provider is used cannot be noted");
        }
    }
}

/// What lies so deep in a directory. A run can have made it: no link on the way is followed, and there is an end.
fn below(dir: &Path, depth: u32) -> Vec<PathBuf> {
    let mut found = Vec::new();
    if let Err(error) = entries_at(dir, depth, MOST_ENTRIES, |path| found.push(path)) {
        tracing::debug!(dir = %dir.display(), %error, "not all providers of a directory are seen");
    }
    found.retain(|path| path.is_dir());
    found
}
