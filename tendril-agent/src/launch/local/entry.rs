//! The directory of one executor, `<work dir>/executors/<deployment>.<attempt>/`: all that it and its dispatcher say to each
//! other.
//!
//! ```text
//! attempt.json    what it is given                                  dispatcher
//! token           its token, if it is given one                     dispatcher
//! orders.json     what it is asked for; SIGWINCH says that it changed    dispatcher
//! executor.lock   locked for as long as it lives; its process ID and version  executor
//! phase           the phase of its run, for `/status`               executor
//! metrics.json    what it has counted, for `/metrics`               executor
//! metrics.added   how much of that the dispatcher has added to its own    dispatcher
//! end.json        how it ended, written last                        executor
//! log             its own log                                       executor
//! log.passed      how much of the log the dispatcher has passed on  dispatcher
//! ```

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::SystemTime,
};

use rustix::process::{Pid, getpid};
use serde::{Deserialize, Serialize};

use crate::{
    launch::{
        launcher::{End, Request},
        local::metrics::Totals,
    },
    os::{
        file_lock::{is_taken, take_watched},
        files::{durable_dir, private_file, remove_dir, remove_durably},
    },
};

/// An executor's directory.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    dir: PathBuf,
}

/// Who holds the lock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Holder {
    pub(crate) pid: i32,
    pub(crate) version: String,
}

impl Holder {
    pub(crate) fn pid(&self) -> Option<Pid> {
        Pid::from_raw(self.pid)
    }
}

/// What an executor is asked for. Each request stays asked for, so that none is lost that comes before another was read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Orders {
    #[serde(default)]
    requests: Vec<Request>,
}

impl Orders {
    /// All of them, the oldest first.
    pub(crate) fn requests(&self) -> &[Request] {
        &self.requests
    }
}

impl Entry {
    pub(crate) const fn at(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// Of an executor with this attempt file.
    pub(crate) fn of(attempt_file: &Path) -> Self {
        Self::at(attempt_file.parent().map(Path::to_path_buf).unwrap_or_default())
    }

    pub(crate) fn create(&self) -> io::Result<()> {
        durable_dir(&self.dir)
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(crate) fn attempt_file(&self) -> PathBuf {
        self.dir.join("attempt.json")
    }

    pub(crate) fn token_file(&self) -> PathBuf {
        self.dir.join("token")
    }

    pub(crate) fn phase_file(&self) -> PathBuf {
        self.dir.join("phase")
    }

    fn lock_file(&self) -> PathBuf {
        self.dir.join("executor.lock")
    }

    fn orders_file(&self) -> PathBuf {
        self.dir.join("orders.json")
    }

    fn end_file(&self) -> PathBuf {
        self.dir.join("end.json")
    }

    fn log_file(&self) -> PathBuf {
        self.dir.join("log")
    }

    fn metrics_file(&self) -> PathBuf {
        self.dir.join("metrics.json")
    }

    fn added_metrics_file(&self) -> PathBuf {
        self.dir.join("metrics.added")
    }

    /// Takes the lock for this process, an executor. None: another one has it.
    pub(crate) fn lock(&self) -> io::Result<Option<File>> {
        let mut open = OpenOptions::new();
        let mut file =
            open.read(true).write(true).create(true).truncate(false).mode(0o600).open(self.lock_file())?;
        if !take_watched(&file)? {
            return Ok(None);
        }
        let holder =
            Holder { pid: getpid().as_raw_nonzero().get(), version: env!("CARGO_PKG_VERSION").to_owned() };
        file.set_len(0)?;
        file.write_all(&serde_json::to_vec(&holder)?)?;
        Ok(Some(file))
    }

    /// The executor that lives; none, if none does.
    pub(crate) fn holder(&self) -> io::Result<Option<Holder>> {
        let path = self.lock_file();
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        if !is_taken(&file)? {
            return Ok(None);
        }
        // It may hold the lock and not have written who it is.
        let unknown = Holder { pid: 0, version: String::new() };
        Ok(Some(serde_json::from_slice(&fs::read(&path)?).unwrap_or(unknown)))
    }

    /// Adds a request: in its place on the disk, which may be full.
    pub(crate) fn order(&self, request: Request) -> io::Result<()> {
        let mut orders = self.orders()?;
        if !orders.requests.contains(&request) {
            orders.requests.push(request);
            let text = padded(&orders)?;
            match OpenOptions::new().write(true).open(self.orders_file()) {
                Ok(file) => file.write_all_at(&text, 0)?,
                // Of a version that keeps no place for it.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    private_file(&self.orders_file(), &text)?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    pub(crate) fn orders(&self) -> io::Result<Orders> {
        match fs::read(self.orders_file()) {
            Ok(text) => Ok(serde_json::from_slice(&text)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Orders::default()),
            Err(error) => Err(error),
        }
    }

    /// Writes how the executor ends.
    pub(crate) fn store_end(&self, end: &End) -> io::Result<()> {
        private_file(&self.end_file(), &serde_json::to_vec(end)?)
    }

    /// How the executor ended, as it said itself.
    pub(crate) fn end(&self) -> Option<End> {
        serde_json::from_slice(&fs::read(self.end_file()).ok()?).ok()
    }

    /// Forgets what an earlier executor of the attempt left, so that another one can be started, and makes a place for requests.
    pub(crate) fn clear(&self) -> io::Result<()> {
        remove_durably([
            &self.end_file(),
            &self.orders_file(),
            &self.metrics_file(),
            &self.added_metrics_file(),
        ])?;
        replace(&self.orders_file(), &padded(&Orders::default())?)
    }

    /// Writes what the executor has counted. Not synced: after a power cut nobody's counters go on.
    pub(crate) fn store_metrics(&self, totals: &Totals) -> io::Result<()> {
        replace(&self.metrics_file(), &serde_json::to_vec(totals)?)
    }

    /// Adds what the executor has counted to the series of this process, if its file is not the one of that time; answers the
    /// time of the file.
    pub(crate) fn add_metrics(&self, known: Option<SystemTime>) -> io::Result<Option<SystemTime>> {
        let file = self.metrics_file();
        let modified = match fs::metadata(&file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(known),
            metadata => metadata?.modified()?,
        };
        if known == Some(modified) {
            return Ok(known);
        }
        let text = fs::read(&file)?;
        let totals: Totals = serde_json::from_slice(&text)?;
        let added = fs::read(self.added_metrics_file()).ok();
        let added = added.and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
        totals.since(&added).record();
        // On a full disk a later process adds it again.
        if let Err(error) = replace(&self.added_metrics_file(), &text) {
            tracing::debug!(%error, "what was added of an executor's metrics cannot be noted");
        }
        Ok(Some(modified))
    }

    pub(crate) fn remove(&self) -> io::Result<()> {
        match remove_dir(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }

    /// The log, to be appended to.
    pub(crate) fn log(&self) -> io::Result<File> {
        OpenOptions::new().append(true).create(true).mode(0o600).open(self.log_file())
    }

    /// Passes the new whole lines of the log on to this process's own standard error; once the executor has ended, all of it.
    /// `passed` is how much this process has passed on; answers how much it has now.
    pub(crate) fn pass_log_on(&self, passed: u64, is_over: bool) -> io::Result<u64> {
        use std::io::{Read as _, Seek as _, SeekFrom};
        /// Most that is passed on at once.
        const MOST: u64 = 1024 * 1024;
        let passed_file = self.dir.join("log.passed");
        let noted = fs::read_to_string(&passed_file).ok().and_then(|text| text.trim().parse().ok());
        let passed = passed.max(noted.unwrap_or(0));
        let mut log = match File::open(self.log_file()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(passed),
            log => log?,
        };
        if log.metadata()?.len() <= passed {
            return Ok(passed);
        }
        log.seek(SeekFrom::Start(passed))?;
        let mut text = Vec::new();
        log.take(MOST).read_to_end(&mut text)?;
        let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let end = if is_over || whole == 0 && text.len() as u64 == MOST { text.len() } else { whole };
        // Whoever reads it may be gone.
        let _gone = io::stderr().lock().write_all(&text[..end]);
        let passed = passed + end as u64;
        // On a full disk a later process passes it on again.
        if let Err(error) = fs::write(passed_file, passed.to_string()) {
            tracing::debug!(%error, "how much of an executor's log was passed on cannot be noted");
        }
        Ok(passed)
    }
}

/// Requests, filled up with blanks to what all of them could take.
fn padded(orders: &Orders) -> io::Result<Vec<u8>> {
    const SIZE: usize = 4096;
    let mut text = serde_json::to_vec(orders)?;
    text.resize(SIZE.max(text.len()), b' ');
    Ok(text)
}

/// Writes a file in one step, for this user only, and leaves it to the system when it reaches the disk.
fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut open = OpenOptions::new();
    open.write(true).create(true).truncate(true).mode(0o600).open(&new)?.write_all(content)?;
    fs::rename(&new, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::launch::local::metrics::Tally;

    #[test]
    fn what_an_executor_counts_is_added_once_by_whichever_dispatcher() {
        let dir = tempfile::tempdir().unwrap();
        let entry = Entry::at(dir.path().join("one"));
        entry.create().unwrap();
        let (executor, dispatcher) = (Tally::default(), Tally::default());
        let count = || {
            metrics::with_local_recorder(&executor, || metrics::counter!("tendril_x_total").increment(2));
            entry.store_metrics(&executor.totals()).unwrap();
        };
        let add = |known| metrics::with_local_recorder(&dispatcher, || entry.add_metrics(known).unwrap());
        assert_eq!(add(None), None);
        count();
        let known = add(None);
        assert_eq!(dispatcher.totals(), executor.totals());
        // Another dispatcher knows no time of the file.
        add(None);
        assert_eq!(dispatcher.totals(), executor.totals());
        count();
        assert_ne!(add(known), known);
        assert_eq!(dispatcher.totals(), executor.totals());
    }

    #[test]
    fn how_an_executor_ended_survives_a_power_cut() {
        let dir = tempfile::tempdir().unwrap();
        let entry = Entry::at(dir.path().join("executors/one"));
        entry.create().unwrap();
        // Of an earlier executor of the attempt.
        entry.store_end(&End::Kept).unwrap();
        entry.clear().unwrap();
        private_file(&entry.attempt_file(), b"{}").unwrap();
        entry.store_end(&End::Waiting).unwrap();
        let mut lost = crate::os::files::power_cut::lost(dir.path());
        // Nobody is there any more who could do what is asked for.
        lost.remove(&entry.orders_file());
        assert_eq!(lost, std::collections::BTreeMap::new());
    }

    #[test]
    fn a_lock_says_who_lives_and_requests_are_not_lost() {
        let dir = tempfile::tempdir().unwrap();
        let entry = Entry::at(dir.path().join("one"));
        entry.create().unwrap();
        assert_eq!(entry.holder().unwrap(), None);
        entry.clear().unwrap();
        let lock = entry.lock().unwrap().unwrap();
        let holder = entry.holder().unwrap().unwrap();
        assert_eq!((holder.pid(), holder.version.as_str()), (Some(getpid()), env!("CARGO_PKG_VERSION")));
        assert!(entry.lock().unwrap().is_none(), "one executor at a time");
        drop(lock);
        assert_eq!(entry.holder().unwrap(), None);
        for request in [Request::Stop, Request::Cancel, Request::Stop] {
            entry.order(request).unwrap();
        }
        assert_eq!(entry.orders().unwrap().requests(), [Request::Stop, Request::Cancel]);
        // In its place: a full disk lets no file grow.
        let size = fs::metadata(entry.orders_file()).unwrap().len();
        assert!(size >= 4096, "{size}");
        entry.store_end(&End::Waiting).unwrap();
        assert_eq!(entry.end(), Some(End::Waiting));
        entry.clear().unwrap();
        assert_eq!((entry.end(), entry.orders().unwrap()), (None, Orders::default()));
        entry.remove().unwrap();
        entry.remove().unwrap();
    }
}
