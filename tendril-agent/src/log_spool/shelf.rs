//! The segments of a spool: which there are, which one may be dropped for want of room, which are not needed any more.
//!
//! ```text
//! log/
//!     1 2 3 …     segments: whole chunks each; the last one grows
//!     7.gap       segment 7 was dropped: how many lines it had
//!     base        where the numbers begin: the first segment that is still needed, and the last number before it
//! ```

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use serde::{Deserialize, Serialize};

use crate::{failpoint::failpoint, workspace::private_file};

/// Of how many segments the limit is made. One more or less is what the limit is not kept by.
const SEGMENTS: u64 = 16;
/// Largest segment, in bytes.
const LARGEST: u64 = 8 * 1024 * 1024;

/// The segments. The writer and the reader share it.
#[derive(Debug)]
pub(super) struct Shelf {
    dir: PathBuf,
    /// Most that may lie on disk, in bytes, give or take a segment.
    limit: u64,
    books: Mutex<Books>,
}

#[derive(Debug, Default)]
struct Books {
    /// By number; the last one grows.
    segments: BTreeMap<u64, Segment>,
    /// Where the reader is.
    reading: u64,
}

/// What is known of a segment; of the growing one only that it is there.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Segment {
    pub(super) bytes: u64,
    pub(super) lines: u64,
    pub(super) cuts: u64,
    pub(super) dropped: bool,
}

/// Where the numbers of chunks begin.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Base {
    /// The first segment that is needed.
    pub(super) segment: u64,
    /// Number of the last chunk before it.
    pub(super) seq: u64,
}

/// What follows a segment.
#[derive(Clone, Copy, Debug)]
pub(super) enum After {
    /// Nothing yet: it still grows.
    Growing,
    /// The next one.
    Segment(u64),
    /// Dropped ones, together; and the one after them.
    Gap(Segment, u64),
}

impl Shelf {
    /// An empty one; whatever was in the directory is removed.
    pub(super) fn create(dir: &Path, limit: u64) -> io::Result<Self> {
        match fs::remove_dir_all(dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => fs::DirBuilder::new().mode(0o700).create(dir)?,
        }
        let books = Books { segments: BTreeMap::from([(1, Segment::default())]), reading: 1 };
        Ok(Self { dir: dir.to_owned(), limit, books: Mutex::new(books) })
    }

    /// What an earlier life left. Errors: there is nothing, or it cannot be read.
    pub(super) fn open(dir: &Path, limit: u64) -> io::Result<Self> {
        let mut segments = BTreeMap::new();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let (stem, dropped) =
                name.strip_suffix(".gap").map_or((name.as_str(), false), |stem| (stem, true));
            let Ok(number) = stem.parse::<u64>() else { continue };
            let mut segment = Segment { bytes: entry.metadata()?.len(), dropped, ..Segment::default() };
            if dropped {
                // A note that was torn has lost its number of lines, and stands for at least one.
                segment.lines = fs::read_to_string(entry.path())?.trim().parse().unwrap_or(1);
                segments.insert(number, segment);
            } else {
                segments.entry(number).or_insert(segment);
            }
        }
        let shelf = Self { dir: dir.to_owned(), limit, books: Mutex::default() };
        let reading = shelf.base()?.segment;
        // What lies before the base was about to be removed.
        segments.retain(|number, _| *number >= reading);
        if segments.last_key_value().is_none_or(|(_, last)| last.dropped) {
            let next = segments.last_key_value().map_or(reading, |(number, _)| number + 1);
            shelf.append_to(next)?;
            segments.insert(next, Segment::default());
        }
        *shelf.books() = Books { segments, reading };
        Ok(shelf)
    }

    /// The size at which a segment is full.
    pub(super) fn segment_size(&self) -> u64 {
        (self.limit / SEGMENTS).clamp(4 * 1024, LARGEST)
    }

    /// The limit in words.
    pub(super) fn limit(&self) -> u64 {
        self.limit
    }

    /// Number of the segment that grows.
    pub(super) fn last(&self) -> u64 {
        self.books().segments.last_key_value().map_or(1, |(number, _)| *number)
    }

    /// A segment for appending, made if it is not there.
    pub(super) fn append_to(&self, number: u64) -> io::Result<File> {
        OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(self.path(number))
    }

    /// A segment for reading.
    pub(super) fn read(&self, number: u64) -> io::Result<File> {
        File::open(self.path(number))
    }

    /// The directory, for the sake of its entries.
    pub(super) fn directory(&self) -> io::Result<File> {
        File::open(&self.dir)
    }

    /// The growing segment is full, and this is what it holds; the next one is begun. Where that is too much, segments
    /// in the middle are dropped: the beginning of a log and its end say most.
    pub(super) fn begin_next(&self, full: Segment) -> io::Result<File> {
        let mut books = self.books();
        let number = books.segments.last_key_value().map_or(0, |(number, _)| *number);
        let file = self.append_to(number + 1)?;
        failpoint!("spool.begun");
        if let Some(segment) = books.segments.get_mut(&number) {
            *segment = full;
        }
        books.segments.insert(number + 1, Segment::default());
        while books.bytes() + self.segment_size() > self.limit
            && let Some(victim) = books.victim(self.limit / 2)
        {
            if let Err(error) = self.drop_segment(victim, &mut books) {
                tracing::error!(%error, "the log spool cannot be kept within its limit");
                break;
            }
        }
        Ok(file)
    }

    fn drop_segment(&self, number: u64, books: &mut Books) -> io::Result<()> {
        let Some(segment) = books.segments.get_mut(&number) else { return Ok(()) };
        failpoint!("spool.dropping");
        // Not forced to the disk: the writer must not wait for it, and a note that is torn is still a note.
        fs::write(self.dir.join(format!("{number}.gap")), segment.lines.to_string())?;
        failpoint!("spool.dropped");
        fs::remove_file(self.path(number))?;
        segment.dropped = true;
        Ok(())
    }

    /// Where the reader begins.
    pub(super) fn base(&self) -> io::Result<Base> {
        match fs::read(self.dir.join("base")) {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Base { segment: 1, seq: 0 }),
            Err(error) => Err(error),
        }
    }

    /// Whether nothing more is written to it.
    pub(super) fn is_full(&self, number: u64) -> bool {
        self.books().segments.last_key_value().is_none_or(|(last, _)| *last > number)
    }

    /// The reader has come to the end of a segment; where it goes on is safe from being dropped from now on.
    pub(super) fn advance(&self, number: u64) -> After {
        let mut books = self.books();
        let (mut gap, mut next) = (Segment::default(), None);
        for (number, segment) in books.segments.range(number + 1..) {
            next = Some(*number);
            if !segment.dropped {
                break;
            }
            gap.lines += segment.lines;
            gap.cuts += segment.cuts;
        }
        let Some(next) = next else { return After::Growing };
        books.reading = next;
        if gap.lines > 0 { After::Gap(gap, next) } else { After::Segment(next) }
    }

    /// Everything up to this segment is stored elsewhere, the last chunk with this number.
    pub(super) fn forget(&self, number: u64, seq: u64) -> io::Result<()> {
        let base = Base { segment: number + 1, seq };
        private_file(&self.dir.join("base"), &serde_json::to_vec(&base)?)?;
        failpoint!("sink.based");
        let mut books = self.books();
        while let Some(entry) = books.segments.first_entry().filter(|entry| *entry.key() <= number) {
            let (number, segment) = entry.remove_entry();
            fs::remove_file(if segment.dropped {
                self.dir.join(format!("{number}.gap"))
            } else {
                self.path(number)
            })?;
        }
        failpoint!("sink.forgot");
        Ok(())
    }

    fn path(&self, number: u64) -> PathBuf {
        self.dir.join(number.to_string())
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        // Nothing that holds the lock can leave the books in halves.
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Books {
    fn bytes(&self) -> u64 {
        self.segments.values().filter(|segment| !segment.dropped).map(|segment| segment.bytes).sum()
    }

    /// The segment to drop next: the oldest of the end, so that one gap grows and no second one opens.
    fn victim(&self, head: u64) -> Option<u64> {
        let growing = *self.segments.last_key_value()?.0;
        let ahead = || self.segments.range(self.reading + 1..growing);
        let gap = ahead().rev().find(|(_, segment)| segment.dropped).map(|(number, _)| *number);
        if let Some(gap) = gap {
            return ahead().map(|(number, _)| *number).find(|number| *number > gap);
        }
        let mut before: u64 = self.segments.range(..=self.reading).map(|(_, segment)| segment.bytes).sum();
        let mut is_tail = |segment: &Segment| {
            before += segment.bytes;
            before > head
        };
        ahead().find(|(_, segment)| is_tail(segment)).map(|(number, _)| *number)
    }
}
