//! How full the work directory is: above its limit no job is claimed, and the one that takes most of it is stopped.

use std::{
    collections::HashSet,
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use crate::{
    os::{
        DiskPressure, InodePressure, LEAST_FREE, LEAST_FREE_INODES, file_lock,
        files::{Usage, remove_dir, usage},
    },
    telemetry,
    template::Workspace,
    terraform::provider_cache,
};

/// Below this much free space (or a fifth of a small file system) cached providers go: one takes up to a gigabyte and more.
const ROOM: u64 = 2 * 1024 * 1024 * 1024;

/// Between two looks for states that could not be stored, at least.
const LOOK_AFTER: Duration = Duration::from_secs(15);
/// How many times as long as a look takes it is until the next one, at least: many states do not keep the disk busy.
const REST: u32 = 50;

/// What was measured last. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct DiskGuard {
    used: Arc<AtomicU64>,
    /// The most there is to have, until it was measured.
    full: Arc<AtomicU64>,
    /// When it is looked again for states that could not be stored, and where they are.
    errored_states: Arc<Mutex<(Option<Instant>, Vec<PathBuf>)>>,
}

impl DiskGuard {
    /// Measures; blocks for as long as it takes to walk the directory. Where it is too full, or the file system nearly is,
    /// cached providers that no run works with are thrown away, those first that no run used for longest. Where that is not
    /// enough, `throw_away`, called with how much is wanted, removes what else is cached to save a download. Answers the attempt that takes most, by the
    /// name of its directory, if there is too little room all the same; unless others filled the disk, so that the end of
    /// jobs would not help.
    pub(crate) fn measure(
        &self,
        work_dir: &Path,
        plugins: Option<&Path>,
        limit: u64,
        throw_away: impl FnOnce(u64),
    ) -> Option<(String, DiskPressure)> {
        self.evaluate(work_dir, plugins, limit, || Space::of(work_dir), throw_away)
    }

    fn evaluate(
        &self,
        work_dir: &Path,
        plugins: Option<&Path>,
        limit: u64,
        space: impl Fn() -> Space,
        throw_away: impl FnOnce(u64),
    ) -> Option<(String, DiskPressure)> {
        let wanted = |used: Usage, there: Space| {
            used.bytes.saturating_sub(limit).max(there.room().saturating_sub(there.free))
        };
        let (mut used, mut there) = (usage(work_dir), space());
        let short = wanted(used, there);
        if let Some(plugins) = plugins.filter(|plugins| short > 0 && plugins.starts_with(work_dir)) {
            match prune(plugins, work_dir, short) {
                Ok(0) => {}
                Ok(freed) => {
                    tracing::warn!(
                        used = used.bytes,
                        limit,
                        free = there.free,
                        freed,
                        "the disk was too full: cached providers were removed"
                    );
                    (used, there) = (usage(work_dir), space());
                }
                Err(error) => tracing::error!(%error, "cached providers cannot be removed"),
            }
        }
        let short = wanted(used, there);
        if short > 0 {
            throw_away(short);
            (used, there) = (usage(work_dir), space());
        }
        let Space { free, inodes, .. } = there;
        let is_full = used.bytes > limit || free < LEAST_FREE || there.lacks_inodes();
        if is_full && self.full.load(Ordering::Relaxed) == 0 {
            tracing::error!(
                used = used.bytes,
                limit,
                free,
                inodes,
                "the work directory is too full: no job is claimed until there is room"
            );
        }
        self.used.store(used.bytes, Ordering::Relaxed);
        self.full.store(is_full.into(), Ordering::Relaxed);
        gauge(telemetry::WORK_BYTES, used.bytes);
        gauge(telemetry::WORK_LIMIT, limit);
        gauge(telemetry::DISK_FREE, free);
        gauge(telemetry::DISK_FREE_INODES, inodes);
        let attempts = if is_full { attempts(work_dir) } else { Vec::new() };
        if used.bytes <= limit && free >= LEAST_FREE {
            let together: u64 = attempts.iter().map(|(_, own)| own.files).sum();
            let (name, own) = attempts.into_iter().max_by_key(|(_, own)| own.files)?;
            let reserved = there.reserved_inodes;
            let helps = inodes.saturating_add(together) >= reserved;
            let inodes = Some(InodePressure { free: inodes, reserved, own: own.files });
            return helps
                .then_some((name, DiskPressure { used: used.bytes, limit, free, own: own.bytes, inodes }));
        }
        let together: u64 = attempts.iter().map(|(_, own)| own.bytes).sum();
        let helps = used.bytes > limit || free.saturating_add(together) >= LEAST_FREE;
        let (name, own) = attempts.into_iter().max_by_key(|(_, own)| own.bytes).filter(|_| helps)?;
        Some((name, DiskPressure { used: used.bytes, limit, free, own: own.bytes, inodes: None }))
    }

    /// Looks where states are that could not be written to their backend, now and then: it goes through a folder per state.
    pub(crate) fn look_for_errored_states(&self, look: impl FnOnce() -> Vec<PathBuf>) {
        let due = self.errored_states().0;
        if due.is_none_or(|due| due <= Instant::now()) {
            let began = Instant::now();
            let found = look();
            let next = Instant::now() + LOOK_AFTER.max(began.elapsed() * REST);
            *self.errored_states() = (Some(next), found);
        }
    }

    /// Where states are that could not be written to their backend, as far as was seen.
    pub(crate) fn errored_state_files(&self) -> Vec<PathBuf> {
        self.errored_states().1.clone()
    }

    fn errored_states(&self) -> MutexGuard<'_, (Option<Instant>, Vec<PathBuf>)> {
        self.errored_states.lock().unwrap_or_else(PoisonError::into_inner)
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

/// Bytes and inodes of a file system.
#[derive(Clone, Copy, Debug)]
struct Space {
    free: u64,
    total: u64,
    /// How many more files fit.
    inodes: u64,
    /// How many of them are reserved.
    reserved_inodes: u64,
}

impl Space {
    /// Of the file system with this directory. Where it is unknown, there is always room.
    fn of(dir: &Path) -> Self {
        let unknown = Self { free: u64::MAX, total: u64::MAX, inodes: u64::MAX, reserved_inodes: 0 };
        rustix::fs::statvfs(dir).map_or(unknown, |stat| Self {
            free: stat.f_bavail.saturating_mul(stat.f_frsize),
            total: stat.f_blocks.saturating_mul(stat.f_frsize),
            // Where a file system makes them as they are wanted, it has none.
            inodes: if stat.f_files == 0 { u64::MAX } else { stat.f_favail },
            // One that was made for few large files must not be full from its beginning.
            reserved_inodes: LEAST_FREE_INODES.min(stat.f_files / 10),
        })
    }

    fn lacks_inodes(self) -> bool {
        self.inodes < self.reserved_inodes
    }

    /// What should be free, so that the next run finds room for a provider.
    fn room(self) -> u64 {
        ROOM.min(self.total / 5)
    }
}

/// Removes cached providers until that much is free; answers how much is. No run fills the directory meanwhile; while one
/// does, nothing is removed.
fn prune(plugins: &Path, work_dir: &Path, wanted: u64) -> io::Result<u64> {
    let Some(_lock) = file_lock::try_lock_provider_cache(plugins)? else { return Ok(0) };
    let attempts = fs::read_dir(work_dir)?.filter_map(Result::ok).map(|entry| Workspace::at(entry.path()));
    let needed: HashSet<PathBuf> =
        attempts.flat_map(|attempt| provider_cache::in_use(&attempt.data_dir())).collect();
    let mut cached = provider_cache::versions(&plugins.canonicalize()?);
    cached.retain(|(version, _)| !needed.contains(version));
    cached.sort_by_key(|(_, used)| *used);
    let mut freed = 0;
    for (version, _) in cached {
        if freed >= wanted {
            break;
        }
        let size = usage(&version).bytes;
        remove_dir(&version)?;
        freed += size;
        // Its version's folder, if this was the only platform.
        let _others = version.parent().map(fs::remove_dir);
    }
    Ok(freed)
}

#[expect(clippy::cast_precision_loss, reason = "a gauge of bytes need not be exact above 2^53")]
fn gauge(name: &'static str, bytes: u64) {
    metrics::gauge!(name).set(bytes as f64);
}

/// The attempts' directories, and how much each takes.
fn attempts(work_dir: &Path) -> Vec<(String, Usage)> {
    let entries = fs::read_dir(work_dir).into_iter().flatten().filter_map(Result::ok);
    let attempts = entries.filter(|entry| entry.path().join("claim.json").exists());
    attempts.map(|entry| (entry.file_name().to_string_lossy().into_owned(), usage(&entry.path()))).collect()
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    /// A cached version of so many bytes that was used so many days ago.
    fn cache(plugins: &Path, version: &str, size: usize, days: u64) -> PathBuf {
        let dir = plugins.join(format!("registry.terraform.io/hashicorp/aws/{version}/linux_amd64"));
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("terraform-provider-aws"), vec![1; size]).unwrap();
        let used = SystemTime::now() - Duration::from_secs(days * 86_400);
        fs::File::open(&dir).unwrap().set_modified(used).unwrap();
        dir
    }

    /// A run that works with a version, as Terraform links to it.
    fn run_with(work: &Path, version: &Path) -> Workspace {
        let run = Workspace::at(work.join("a-run"));
        let links = run.data_dir().join("providers/registry.terraform.io/hashicorp/aws/2.0.0");
        fs::create_dir_all(&links).unwrap();
        std::os::unix::fs::symlink(version, links.join("linux_amd64")).unwrap();
        run
    }

    const PLENTY: Space =
        Space { free: u64::MAX, total: u64::MAX, inodes: u64::MAX, reserved_inodes: LEAST_FREE_INODES };

    #[test]
    fn above_the_limit_providers_go_that_no_run_needs_the_oldest_first() {
        let dir = tempfile::tempdir().unwrap();
        let plugins = dir.path().join("plugins");
        let oldest = cache(&plugins, "1.0.0", 200_000, 9);
        let needed = cache(&plugins, "2.0.0", 200_000, 99);
        let newest = cache(&plugins, "3.0.0", 200_000, 1);
        let run = run_with(dir.path(), &needed);
        let disk = DiskGuard::default();
        let evaluate = |limit| disk.evaluate(dir.path(), Some(&plugins), limit, || PLENTY, |_| {});
        evaluate(1_000_000);
        assert!(!disk.is_full() && disk.used() >= 600_000, "{}", disk.used());
        evaluate(500_000);
        assert!(!disk.is_full() && !oldest.exists() && newest.exists());

        // A run that is about to link to one has the lock.
        let lock = file_lock::try_lock_provider_cache(&plugins).unwrap().unwrap();
        evaluate(100_000);
        assert!(disk.is_full() && newest.exists());
        drop(lock);
        evaluate(100_000);
        assert!(disk.is_full() && !newest.exists() && needed.exists(), "a run needs it");
        fs::remove_dir_all(run.data_dir()).unwrap();
        evaluate(100_000);
        assert!(!disk.is_full() && !needed.exists());
    }

    #[test]
    fn a_file_system_that_is_nearly_full_loses_old_providers_long_before_the_limit() {
        let dir = tempfile::tempdir().unwrap();
        let plugins = dir.path().join("plugins");
        let old = cache(&plugins, "1.0.0", 200_000, 9);
        let new = cache(&plugins, "2.0.0", 200_000, 1);
        let disk = DiskGuard::default();
        // 10 GiB, as the chart's volume, with the limit of the same size.
        let total = 10 * 1024 * 1024 * 1024;
        let evaluate = |free| {
            disk.evaluate(dir.path(), Some(&plugins), total, || Space { free, total, ..PLENTY }, |_| {})
        };
        evaluate(ROOM);
        assert!(old.exists());
        evaluate(ROOM - 100_000);
        assert!(!old.exists() && new.exists() && !disk.is_full());
        // A small volume is not emptied again and again.
        let small = |free| {
            disk.evaluate(
                dir.path(),
                Some(&plugins),
                total,
                || Space { free, total: ROOM / 2, ..PLENTY },
                |_| {},
            )
        };
        small(ROOM / 4);
        assert!(new.exists());
    }

    #[test]
    fn what_a_run_used_is_not_the_oldest() {
        let dir = tempfile::tempdir().unwrap();
        let plugins = dir.path().join("plugins");
        let used = cache(&plugins, "2.0.0", 200_000, 9);
        let other = cache(&plugins, "3.0.0", 200_000, 1);
        let run = run_with(dir.path(), &used);
        provider_cache::mark_used(&plugins, &run.data_dir());
        fs::remove_dir_all(run.data_dir()).unwrap();
        DiskGuard::default().evaluate(dir.path(), Some(&plugins), 350_000, || PLENTY, |_| {});
        assert!(used.exists() && !other.exists());
    }

    #[test]
    fn the_attempt_that_takes_most_is_named_with_the_limit_and_its_setting() {
        let dir = tempfile::tempdir().unwrap();
        for (name, size) in [("small.1", 2), ("large.2", 5), ("no-attempt", 9)] {
            fs::create_dir(dir.path().join(name)).unwrap();
            fs::write(dir.path().join(name).join("file"), vec![1; size << 20]).unwrap();
        }
        for name in ["small.1", "large.2"] {
            fs::write(dir.path().join(name).join("claim.json"), "{}").unwrap();
        }
        let disk = DiskGuard::default();
        assert_eq!(disk.measure(dir.path(), None, 32 << 20, |_| {}), None);
        let (name, pressure) = disk.measure(dir.path(), None, 4 << 20, |_| {}).unwrap();
        assert_eq!(name, "large.2");
        assert_eq!(
            pressure.to_string(),
            "The agent's work directory held 16 MiB, and its limit is 4 MiB (--work-limit / TENDRIL_WORK_LIMIT); this job had most of it, 5 MiB"
        );
        let free = DiskPressure { used: 0, free: 3 << 20, ..pressure }.to_string();
        assert!(free.starts_with("Only 3 MiB were free on the disk"), "{free}");
    }

    #[test]
    fn the_attempt_with_most_files_is_named_where_hardly_any_more_fit() {
        let dir = tempfile::tempdir().unwrap();
        for (name, files, size) in [("large.1", 1, 1 << 20), ("many.2", 90, 0), ("no-attempt", 200, 0)] {
            fs::create_dir(dir.path().join(name)).unwrap();
            for file in 0..files {
                fs::write(dir.path().join(name).join(file.to_string()), vec![1; size]).unwrap();
            }
        }
        for name in ["large.1", "many.2"] {
            fs::write(dir.path().join(name).join("claim.json"), "{}").unwrap();
        }
        let disk = DiskGuard::default();
        let evaluate = |inodes| {
            let space = move || Space { inodes, ..PLENTY };
            disk.evaluate(dir.path(), None, u64::MAX, space, |_| {})
        };
        assert_eq!(evaluate(LEAST_FREE_INODES), None);
        assert!(!disk.is_full());
        // Its end would not help: others took them.
        assert_eq!(evaluate(LEAST_FREE_INODES - 100), None);
        assert!(disk.is_full());
        let (name, pressure) = evaluate(LEAST_FREE_INODES - 1).unwrap();
        assert_eq!(name, "many.2");
        assert_eq!(
            pressure.to_string(),
            "Only 4095 more files fit on the disk of the agent's work directory (inodes), and 4096 are reserved; this job had most of them, 91"
        );
    }
}
