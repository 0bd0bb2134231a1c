//! How full the work directory is: above its limit no job is claimed.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::series;

/// Below this much free space no job is claimed either: Terraform could not write its state.
const LEAST_FREE: u64 = 64 * 1024 * 1024;

/// What was measured last. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk {
    used: Arc<AtomicU64>,
    /// The most there is to have, until it was measured.
    full: Arc<AtomicU64>,
}

impl Disk {
    /// Measures; blocks for as long as it takes to walk the directory. Where it is too full, and no job runs, what was only
    /// kept to save a download is thrown away.
    pub(crate) fn measure(&self, work_dir: &Path, limit: u64, idle: bool, throw_away: impl FnOnce()) {
        let mut used = usage(work_dir);
        if idle && used > limit {
            tracing::warn!(used, limit, "the work directory is too full: kept downloads are removed");
            throw_away();
            used = usage(work_dir);
        }
        let free = rustix::fs::statvfs(work_dir)
            .map_or(u64::MAX, |stat| stat.f_bavail.saturating_mul(stat.f_frsize));
        let is_full = used > limit || free < LEAST_FREE;
        if is_full && self.full.load(Ordering::Relaxed) == 0 {
            tracing::error!(
                used,
                limit,
                free,
                "the work directory is too full: no job is claimed until there is room"
            );
        }
        self.used.store(used, Ordering::Relaxed);
        self.full.store(is_full.into(), Ordering::Relaxed);
        gauge(series::WORK_BYTES, used);
        gauge(series::WORK_LIMIT, limit);
        gauge(series::DISK_FREE, free);
    }

    /// Whether there is no room for another job.
    pub(crate) fn is_full(&self) -> bool {
        self.full.load(Ordering::Relaxed) != 0
    }

    /// Bytes in the work directory.
    pub(crate) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }
}

#[expect(clippy::cast_precision_loss, reason = "a gauge of bytes need not be exact above 2^53")]
fn gauge(name: &'static str, bytes: u64) {
    metrics::gauge!(name).set(bytes as f64);
}

/// Bytes that files below a directory take on the disk. Links are not followed; what is removed meanwhile counts nothing.
pub(crate) fn usage(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok);
    let size = |entry: fs::DirEntry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => usage(&entry.path()),
        Ok(meta) => meta.blocks() * 512,
        Err(_) => 0,
    };
    entries.map(size).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn above_the_limit_it_is_full_and_providers_go_first() {
        let dir = tempfile::tempdir().unwrap();
        let plugins = dir.path().join("plugins");
        fs::create_dir(&plugins).unwrap();
        fs::write(plugins.join("provider"), vec![1; 200_000]).unwrap();
        fs::write(dir.path().join("log"), vec![1; 100_000]).unwrap();
        let disk = Disk::default();
        let throw_away = || fs::remove_dir_all(&plugins).unwrap();
        disk.measure(dir.path(), 1_000_000, true, throw_away);
        assert!(!disk.is_full() && disk.used() >= 300_000, "{}", disk.used());
        disk.measure(dir.path(), 250_000, false, throw_away);
        assert!(disk.is_full() && plugins.exists(), "a job may need them");
        disk.measure(dir.path(), 250_000, true, throw_away);
        assert!(!disk.is_full() && !plugins.exists());
        disk.measure(dir.path(), 50_000, true, || {});
        assert!(disk.is_full());
    }
}
