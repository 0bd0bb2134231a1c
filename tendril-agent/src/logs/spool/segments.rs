//! The segments of a spool: which there are, which one may be dropped for want of room, which are not needed any more.
//!
//! ```text
//! log/
//!     1 2 3 …       segments: whole chunks each; the last one grows
//!     7.gap-450     segment 7 was dropped, and had 450 lines; empty
//!     checkpoint-1-0      where the numbers begin: the first segment that is still needed, and the last number before it; empty
//! ```
//!
//! What has to be known of a segment that is gone is in file names: on a full disk no block can be
//! written, but a file can be renamed.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, BufRead, BufReader, Write as _},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::record::Mark as _;
use crate::os::{
    failpoint,
    files::{durable_dir, remove_dir, rename_durably, sync_dir},
};
use crate::process::Stream;

/// Of how many segments the limit is made. The limit is exact to one segment.
const SEGMENTS: u64 = 16;
/// Largest segment, in bytes.
const LARGEST: u64 = 8 * 1024 * 1024;

/// The segments. The writer and the reader share it.
#[derive(Debug)]
pub(super) struct SegmentStore {
    dir: PathBuf,
    /// Most that may lie on disk, in bytes, give or take a segment.
    limit: u64,
    index: Mutex<SegmentIndex>,
}

#[derive(Debug, Default)]
struct SegmentIndex {
    /// By number; the last one grows.
    segments: BTreeMap<u64, Segment>,
    /// How much of that one is written; none, if it has no writer.
    grown: Option<u64>,
    /// Where the reader is.
    reading: u64,
    checkpoint: Checkpoint,
    /// Some chunks of a previous run have their numbers, and it is not known yet which: nothing may be dropped.
    unnumbered: bool,
}

/// What is known of a segment; of the growing one only that it is there.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Segment {
    pub(super) bytes: u64,
    pub(super) lines: u64,
    pub(super) dropped: bool,
}

/// Where the numbers of chunks begin.
#[derive(Clone, Copy, Debug)]
pub(super) struct Checkpoint {
    /// The first segment that is needed.
    pub(super) segment: u64,
    /// Number of the last chunk before it.
    pub(super) seq: u64,
}

impl Default for Checkpoint {
    fn default() -> Self {
        Self { segment: 1, seq: 0 }
    }
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

impl SegmentStore {
    /// An empty one; what was in the directory is removed.
    pub(super) fn create(dir: &Path, limit: u64) -> io::Result<Self> {
        remove_dir(dir)?;
        durable_dir(dir)?;
        let checkpoint = Checkpoint::default();
        File::create(dir.join(checkpoint.name()))?;
        // Names too must outlive a power cut: without the checkpoint numbers would be given twice.
        OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(dir.join("1"))?;
        sync_dir(dir)?;
        let segments = BTreeMap::from([(1, Segment::default())]);
        let index = SegmentIndex { segments, reading: checkpoint.segment, checkpoint, ..Default::default() };
        Ok(Self { dir: dir.to_owned(), limit, index: Mutex::new(index) })
    }

    /// What a previous run left. Errors: there is nothing, or it cannot be read.
    pub(super) fn open(dir: &Path, limit: u64) -> io::Result<Self> {
        let (mut segments, mut checkpoint) = (BTreeMap::new(), Checkpoint::default());
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if let Some(found) = Checkpoint::of_name(&name) {
                checkpoint = found;
            } else if let Some((number, lines)) = gap_of_name(&name) {
                // The previous run may have died before it was emptied.
                truncate(&entry.path())?;
                segments.insert(number, Segment { lines, dropped: true, ..Segment::default() });
            } else if let Ok(number) = name.parse::<u64>() {
                segments.insert(number, Segment { bytes: entry.metadata()?.len(), ..Segment::default() });
            }
        }
        let store = Self { dir: dir.to_owned(), limit, index: Mutex::default() };
        // What lies before the checkpoint was about to be removed.
        segments.retain(|number, _| *number >= checkpoint.segment);
        if segments.last_key_value().is_none_or(|(_, last)| last.dropped) {
            let next = segments.last_key_value().map_or(checkpoint.segment, |(number, _)| number + 1);
            store.append_to(next)?;
            segments.insert(next, Segment::default());
        }
        let reading = checkpoint.segment;
        *store.index() = SegmentIndex { segments, grown: None, reading, checkpoint, unnumbered: true };
        Ok(store)
    }

    /// The size at which a segment is full.
    pub(super) fn segment_size(&self) -> u64 {
        (self.limit / SEGMENTS).clamp(4 * 1024, LARGEST)
    }

    /// The limit as text.
    pub(super) fn limit(&self) -> u64 {
        self.limit
    }

    /// Number of the segment that grows.
    pub(super) fn last(&self) -> u64 {
        self.index().segments.last_key_value().map_or(1, |(number, _)| *number)
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
    /// in the middle are dropped: the beginning of a log and its end matter most.
    ///
    /// It begins with this record, before anybody can need it: the segments before it may be gone then.
    pub(super) fn begin_next(&self, full: Segment, first: &[u8]) -> io::Result<File> {
        let mut index = self.index();
        let number = index.segments.last_key_value().map_or(0, |(number, _)| *number);
        let mut file = self.append_to(number + 1)?;
        if let Err(error) = file.set_len(0).and_then(|()| file.write_all(first)) {
            let _best_effort = fs::remove_file(self.path(number + 1));
            return Err(error);
        }
        failpoint!("spool.begun");
        index.grown = Some(first.len() as u64);
        if let Some(segment) = index.segments.get_mut(&number) {
            *segment = full;
        }
        index.segments.insert(number + 1, Segment::default());
        while !index.unnumbered
            && index.bytes() + self.segment_size() > self.limit
            && let Some(victim) = index.victim(self.limit / 2)
        {
            if let Err(error) = self.drop_segment(victim, &mut index) {
                tracing::error!(%error, "the log spool exceeds its limit");
                break;
            }
        }
        Ok(file)
    }

    fn drop_segment(&self, number: u64, index: &mut SegmentIndex) -> io::Result<()> {
        let Some(segment) = index.segments.get_mut(&number) else { return Ok(()) };
        failpoint!("spool.dropping");
        if segment.lines == 0 {
            // It is of a previous run, and was not counted.
            segment.lines = lines_in(&self.path(number))?;
        }
        // Not forced to the disk: the writer must not wait for it.
        let gap = self.gap_path(number, segment.lines);
        fs::rename(self.path(number), &gap)?;
        segment.dropped = true;
        failpoint!("spool.dropped");
        truncate(&gap)
    }

    /// The reader has found the chunks that have their numbers.
    pub(super) fn numbered(&self) {
        self.index().unnumbered = false;
    }

    /// Where the numbers begin.
    pub(super) fn checkpoint(&self) -> Checkpoint {
        self.index().checkpoint
    }

    /// So much of the growing segment is written.
    pub(super) fn grown(&self, bytes: u64) {
        self.index().grown = Some(bytes);
    }

    /// How much of a segment is written, and stays.
    pub(super) fn written(&self, number: u64) -> u64 {
        let index = self.index();
        let grows = index.segments.last_key_value().is_none_or(|(last, _)| *last <= number);
        index.grown.filter(|_| grows).unwrap_or(u64::MAX)
    }

    /// Whether nothing more is written to it.
    pub(super) fn is_full(&self, number: u64) -> bool {
        self.index().segments.last_key_value().is_none_or(|(last, _)| *last > number)
    }

    /// The reader has come to the end of a segment; the one where it continues is safe from being dropped from now on.
    pub(super) fn advance(&self, number: u64) -> After {
        let mut index = self.index();
        let (mut gap, mut next) = (Segment::default(), None);
        for (number, segment) in index.segments.range(number + 1..) {
            next = Some(*number);
            if !segment.dropped {
                break;
            }
            gap.lines += segment.lines;
        }
        let Some(next) = next else { return After::Growing };
        index.reading = next;
        if gap.lines > 0 { After::Gap(gap, next) } else { After::Segment(next) }
    }

    /// Everything up to this segment is stored elsewhere, the last chunk with this number.
    pub(super) fn forget(&self, number: u64, seq: u64) -> io::Result<()> {
        let checkpoint = Checkpoint { segment: number + 1, seq };
        let mut index = self.index();
        let (old, new) = (self.dir.join(index.checkpoint.name()), self.dir.join(checkpoint.name()));
        // On the disk before the segments are removed whose numbers it replaces.
        rename_durably(&old, &new)
            .or_else(|_| File::create(&new).map(drop).and_then(|()| sync_dir(&self.dir)))?;
        index.checkpoint = checkpoint;
        failpoint!("sink.based");
        while let Some(entry) = index.segments.first_entry().filter(|entry| *entry.key() <= number) {
            let (number, segment) = entry.remove_entry();
            fs::remove_file(if segment.dropped {
                self.gap_path(number, segment.lines)
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

    fn gap_path(&self, number: u64, lines: u64) -> PathBuf {
        self.dir.join(format!("{number}.gap-{lines}"))
    }

    fn index(&self) -> MutexGuard<'_, SegmentIndex> {
        // Nothing that holds the lock can leave the index in halves.
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Checkpoint {
    fn name(self) -> String {
        format!("checkpoint-{}-{}", self.segment, self.seq)
    }

    fn of_name(name: &str) -> Option<Self> {
        let (segment, seq) = name.strip_prefix("checkpoint-")?.split_once('-')?;
        Some(Self { segment: segment.parse().ok()?, seq: seq.parse().ok()? })
    }
}

/// Number and lines of a dropped segment.
fn gap_of_name(name: &str) -> Option<(u64, u64)> {
    let (number, lines) = name.split_once(".gap-")?;
    Some((number.parse().ok()?, lines.parse().ok()?))
}

/// The lines in a segment; at least one, because a gap states its lines.
fn lines_in(path: &Path) -> io::Result<u64> {
    let mut lines = 0;
    for record in BufReader::new(File::open(path)?).split(b'\n') {
        lines += u64::from(record?.first().is_some_and(|mark| Stream::of_mark(*mark).is_some()));
    }
    Ok(lines.max(1))
}

/// Gives the disk back what a file held.
fn truncate(path: &Path) -> io::Result<()> {
    OpenOptions::new().write(true).truncate(true).open(path).map(drop)
}

impl SegmentIndex {
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
