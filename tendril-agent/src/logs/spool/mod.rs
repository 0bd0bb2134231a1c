//! The log of one attempt, on disk: lines are appended as soon as they are read, and cut into chunks that are appended too.
//!
//! It is a row of files (`store`), each of which is text, one record per line, so that a crash can only tear the last one:
//!
//! ```text
//! t1732379999123        (when the lines that follow were read, in milliseconds since 1970)
//! oa line of stdout     (o stdout, e stderr, a agent)
//! co                    (a chunk: all lines of stdout since its last cut)
//! p4096:17 0:0          (how far the lines cover what programs wrote to stdout and stderr: `position`)
//! ```
//!
//! What is written at once ends with such a position. After a crash, records behind the last one are dropped: their lines are
//! read again from the journal.
//!
//! A cut is on disk before its chunk is uploaded, and chunks are numbered by their order. A later run of the agent
//! therefore cuts the rest differently but never an uploaded chunk, and `seq` stays 1..N without gap or double. What was
//! uploaded is removed file by file; what waits for the upload never takes more room than the limit.

use std::{
    fs::File,
    io::{self, Seek, SeekFrom, Write},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use tokio::sync::watch;

use self::{
    position::{Position, Positions, index},
    record::{Behind, Mark as _, STREAMS, SpoolEnd, record},
    segments::{Segment, SegmentStore},
};
use crate::{
    os::{failpoint, room::Room, text::char_floor},
    process::Stream,
};

pub(crate) mod position;
mod reader;
mod record;
mod segments;

pub(crate) use self::{reader::SpoolReader, record::Chunk};

/// Most text in one chunk, in bytes. The database takes 64 KiB.
pub(crate) const CHUNK_LIMIT: usize = 16 * 1024;
/// Most that waits in memory for the file, in bytes.
const BUFFER_LIMIT: usize = 256 * 1024;
/// What a power cut may take: lines are forced to the disk this often.
const SYNC_AFTER: Duration = Duration::from_millis(500);

/// How far the spool is, for its reader.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// How many chunks were cut in this life.
    pub(crate) cut: u64,
    /// Nothing will follow.
    pub(crate) finished: bool,
}

/// The limits of a spool.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SpoolRules {
    /// The least time between two chunks of one stream that are not full.
    pub(crate) flush_after: Duration,
    /// Most that may wait on disk, in bytes; then the middle of the log is dropped.
    pub(crate) limit: u64,
}

impl SpoolRules {
    /// A little more than the time between two uploads: an upload is then always ready when a chunk is cut, and no line
    /// waits once for the one and once for the other.
    fn cut_after(self) -> Duration {
        self.flush_after + self.flush_after / 10
    }
}

/// The writing end.
#[derive(Debug)]
pub(crate) struct LogSpool {
    store: Arc<SegmentStore>,
    /// The segment that grows.
    file: File,
    /// What is in the file, up to its last whole record.
    written: Segment,
    /// What the disk gave for what comes next in it.
    room: Room,
    /// Records that are not in the file yet.
    buffer: Vec<u8>,
    /// Lines in `buffer`.
    buffered: u64,
    /// How far the lines up to here cover what programs wrote.
    positions: Positions,
    /// The same of what is in the file.
    stored: Positions,
    /// Lines that could not be written because the disk refused them.
    lost: u64,
    open: [OpenChunk; 3],
    /// When the last line came, and the time record that is in force for it; none at the beginning of a segment.
    stamp: Option<(Instant, i64)>,
    /// How many chunks were cut; `progress` learns it once the cut is in the file.
    cuts: u64,
    progress: watch::Sender<Progress>,
    flush_after: Duration,
    /// Files with lines that a power cut would take, and since when.
    unsynced: Vec<File>,
    unsynced_since: Option<Instant>,
}

/// The lines of one stream since its last cut.
#[derive(Clone, Copy, Debug, Default)]
struct OpenChunk {
    bytes: usize,
    /// When the first line came; none while there is no line.
    since: Option<Instant>,
    last_cut: Option<Instant>,
}

impl LogSpool {
    /// A new spool, and its reader.
    pub(crate) fn create(dir: &Path, rules: SpoolRules) -> io::Result<(Self, SpoolReader)> {
        let store = Arc::new(SegmentStore::create(dir, rules.limit)?);
        Self::over(store, Segment::default(), Some(<[Position; 2]>::default()), rules)
    }

    /// The spool of a previous run, for one who reads the rest of its journal: records behind the last position are dropped, what
    /// was not cut is cut now, and it can be added to.
    pub(crate) fn resume(dir: &Path, rules: SpoolRules) -> io::Result<(Self, SpoolReader)> {
        Self::reopen(dir, rules, Behind::Dropped)
    }

    /// The same for one who does not: only a torn last record is dropped.
    pub(crate) fn salvage(dir: &Path, rules: SpoolRules) -> io::Result<(Self, SpoolReader)> {
        Self::reopen(dir, rules, Behind::Kept)
    }

    /// How far the spool in a directory covers what programs wrote, if it is known.
    pub(crate) fn positions_in(dir: &Path, rules: SpoolRules) -> io::Result<Positions> {
        let store = Arc::new(SegmentStore::open(dir, rules.limit)?);
        Ok(SpoolReader::at(Arc::clone(&store), store.last())?.end(Behind::Dropped)?.positions)
    }

    fn reopen(dir: &Path, rules: SpoolRules, behind: Behind) -> io::Result<(Self, SpoolReader)> {
        let store = Arc::new(SegmentStore::open(dir, rules.limit)?);
        let SpoolEnd { bytes, open, positions } =
            SpoolReader::at(Arc::clone(&store), store.last())?.end(behind)?;
        let written = Segment { bytes, ..Segment::default() };
        let (mut spool, reader) = Self::over(store, written, positions, rules)?;
        let now = Instant::now();
        for (stream, bytes) in STREAMS.into_iter().zip(open) {
            if bytes > 0 {
                spool.open[stream as usize] = OpenChunk { bytes, since: Some(now), last_cut: None };
            }
        }
        spool.cut_all(now);
        spool.flush();
        Ok((spool, reader))
    }

    fn over(
        store: Arc<SegmentStore>,
        written: Segment,
        positions: Positions,
        rules: SpoolRules,
    ) -> io::Result<(Self, SpoolReader)> {
        let (progress, receiver) = watch::channel(Progress::default());
        let mut file = store.append_to(store.last())?;
        file.set_len(written.bytes)?;
        file.seek(SeekFrom::End(0))?;
        store.grown(written.bytes);
        let reader = SpoolReader::new(Arc::clone(&store), receiver);
        let spool = Self {
            store,
            file,
            written,
            room: Room::default(),
            // A file begins with one, and so is known to have them.
            buffer: record(positions),
            buffered: 0,
            positions,
            stored: positions,
            lost: 0,
            open: [OpenChunk::default(); 3],
            stamp: None,
            cuts: 0,
            progress,
            flush_after: rules.cut_after(),
            unsynced: Vec::new(),
            unsynced_since: None,
        };
        Ok((spool, reader))
    }

    /// Adds a line that was read now; one that is longer than a chunk becomes several.
    pub(crate) fn append(&mut self, stream: Stream, line: &str, now: Instant) {
        let mut rest = line;
        loop {
            let (part, after) = rest.split_at(char_floor(rest, CHUNK_LIMIT - 1));
            self.append_part(stream, part, now);
            rest = after;
            if rest.is_empty() {
                break;
            }
        }
    }

    /// Writes what was added to the file, if it is much.
    pub(crate) fn flush_much(&mut self) {
        if self.buffer.len() >= BUFFER_LIMIT {
            self.flush();
        }
    }

    /// How far the lines cover what programs wrote, with those that are not in the file yet.
    pub(crate) const fn positions(&self) -> Positions {
        self.positions
    }

    /// From where on stdout and stderr are read again, if it is known.
    pub(crate) fn offsets(&self) -> [Option<u64>; 2] {
        [0, 1].map(|of| self.positions.map(|positions| positions[of].offset))
    }

    /// How far what is in the file covers it.
    pub(crate) const fn stored(&self) -> Positions {
        self.stored
    }

    /// A stream is to be read again from here on.
    pub(crate) fn cover(&mut self, stream: Stream, position: Position) {
        if let Some(of) = index(stream) {
            self.positions.get_or_insert_default()[of] = position;
        }
    }

    fn append_part(&mut self, stream: Stream, line: &str, now: Instant) {
        if self.open[stream as usize].bytes + line.len() + 1 > CHUNK_LIMIT {
            self.cut(stream, now);
        }
        // The agent's annotations are few, and are headings: they stand exactly where they were written.
        if stream == Stream::Agent {
            self.cut(Stream::Stdout, now);
            self.cut(Stream::Stderr, now);
        } else {
            self.cut(Stream::Agent, now);
        }
        let open = &mut self.open[stream as usize];
        open.bytes += line.len() + 1;
        open.since.get_or_insert(now);
        self.stamp(now);
        self.buffer.push(stream.mark());
        self.buffer.extend_from_slice(line.as_bytes());
        self.buffer.push(b'\n');
        self.buffered += 1;
    }

    /// Stamps the time at which the next line was read, unless the last stamp has it already.
    fn stamp(&mut self, now: Instant) {
        if self.stamp.is_some_and(|(since, _)| since == now) {
            return;
        }
        let millis = Timestamp::now().as_millisecond();
        if self.stamp.is_none_or(|(_, message)| message != millis) {
            // Writing into a Vec cannot fail.
            let _infallible = writeln!(self.buffer, "t{millis}");
        }
        self.stamp = Some((now, millis));
    }

    /// When the next open chunk must be cut or the file be synced, if there is anything to. A chunk after a quiet time is
    /// due at once.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        let cut = self.open.iter().filter_map(|open| open.due(self.flush_after)).min();
        cut.into_iter().chain(self.unsynced_since.map(|since| since + SYNC_AFTER)).min()
    }

    /// Cuts what is due.
    pub(crate) fn cut_due(&mut self, now: Instant) {
        for stream in STREAMS {
            if self.open[stream as usize].due(self.flush_after).is_some_and(|due| due <= now) {
                self.cut(stream, now);
            }
        }
    }

    /// Cuts everything.
    pub(crate) fn cut_all(&mut self, now: Instant) {
        while let Some((_, stream)) = self.oldest_open() {
            self.cut(stream, now);
        }
    }

    /// Cuts one stream's chunk, and before it those that began earlier: chunks are in the order of their first lines.
    fn cut(&mut self, stream: Stream, now: Instant) {
        let Some(since) = self.open[stream as usize].since else { return };
        while let Some((first, oldest)) = self.oldest_open() {
            if first > since {
                return;
            }
            self.cuts += 1;
            self.open[oldest as usize] = OpenChunk { bytes: 0, since: None, last_cut: Some(now) };
            // Writing into a Vec cannot fail.
            let _infallible = writeln!(self.buffer, "c{}", char::from(oldest.mark()));
        }
    }

    fn oldest_open(&self) -> Option<(Instant, Stream)> {
        let open = STREAMS.into_iter().zip(&self.open);
        open.filter_map(|(stream, open)| open.since.map(|since| (since, stream)))
            .min_by_key(|(since, _)| *since)
    }

    /// Writes what was added to the file, and notifies the reader of new chunks. The log never stops a run: lines that the
    /// disk refuses are counted, and an annotation takes their place as soon as the disk takes it.
    pub(crate) fn flush(&mut self) {
        if self.buffer.is_empty() {
            return;
        }
        let is_full = self.written.bytes + self.buffer.len() as u64 >= self.store.segment_size();
        if is_full {
            // A segment holds whole chunks, so that it can go without its neighbours.
            self.cut_all(Instant::now());
        }
        self.buffer.extend(record(self.positions));
        failpoint!("spool.flushing");
        self.room.take(&self.file, self.written.bytes + self.buffer.len() as u64);
        if let Err(error) = self.file.write_all(&self.buffer) {
            self.refused(&error);
            return;
        }
        failpoint!("spool.flushed");
        self.written.bytes += self.buffer.len() as u64;
        self.written.lines += std::mem::take(&mut self.buffered);
        self.buffer.clear();
        self.lost = 0;
        self.stored = self.positions;
        self.store.grown(self.written.bytes);
        self.unsynced_since.get_or_insert_with(Instant::now);
        if is_full {
            self.turn_over();
        }
        let cuts = self.cuts;
        self.progress.send_if_modified(|progress| std::mem::replace(&mut progress.cut, cuts) != cuts);
    }

    /// Continues in the next segment. Where the disk refuses one, this segment becomes larger.
    fn turn_over(&mut self) {
        failpoint!("spool.sealed");
        let first = record(self.positions);
        match self.store.begin_next(self.written, &first) {
            Ok(next) => {
                self.unsynced.push(std::mem::replace(&mut self.file, next));
                self.unsynced.extend(self.store.directory());
                self.written = Segment { bytes: first.len() as u64, ..Segment::default() };
                self.room = Room::default();
                self.stamp = None;
            }
            Err(error) => {
                tracing::error!(%error, "the log spool cannot begin a new file; it continues in the old one");
            }
        }
    }

    /// The files to be synced, if it is time. It is left to another thread: a disk may take its time, and lines come on.
    pub(crate) fn take_unsynced(&mut self, now: Instant) -> Vec<File> {
        if self.unsynced_since.is_none_or(|since| now < since + SYNC_AFTER) {
            return Vec::new();
        }
        self.unsynced_since = None;
        self.unsynced.extend(self.file.try_clone());
        std::mem::take(&mut self.unsynced)
    }

    /// Drops the lines that the disk refused but not their cuts: the numbers of chunks are taken.
    fn refused(&mut self, error: &io::Error) {
        if self.lost == 0 {
            tracing::error!(%error, "log lines cannot be written to disk; they are left out until they can");
        }
        self.lost += std::mem::take(&mut self.buffered);
        let whole = self.written.bytes;
        let _best_effort =
            self.file.set_len(whole).and_then(|()| self.file.seek(SeekFrom::Start(whole)).map(drop));
        // It went back to the disk with what was written in part.
        self.room = Room::default();
        let cuts: Vec<u8> = self
            .buffer
            .split_inclusive(|byte| *byte == b'\n')
            .filter(|record| record[0] == b'c')
            .flatten()
            .copied()
            .collect();
        self.buffer = if whole == 0 { record(self.positions) } else { Vec::new() };
        self.stamp = None;
        self.stamp(Instant::now());
        let lost = self.lost;
        let _infallible =
            writeln!(self.buffer, "a… {lost} lines are missing here: the agent's disk refused them");
        self.buffer.extend_from_slice(&cuts);
        self.open[Stream::Agent as usize].since.get_or_insert_with(Instant::now);
    }

    /// Nothing will follow: cuts and writes the rest, and notifies the reader.
    pub(crate) fn finish(mut self) {
        self.cut_all(Instant::now());
        if self.stored != self.positions && self.buffer.is_empty() {
            self.buffer = record(self.positions);
        }
        self.flush();
        if self.room.reaches_beyond(self.written.bytes) {
            // Plans that wait for approval are many.
            let _best_effort = self.file.set_len(self.written.bytes);
        }
        let _best_effort = self.file.sync_data();
        self.progress.send_modify(|progress| progress.finished = true);
    }
}

impl OpenChunk {
    fn due(&self, flush_after: Duration) -> Option<Instant> {
        let since = self.since?;
        Some(self.last_cut.map_or(since, |cut| since.max(cut + flush_after)))
    }
}

#[cfg(test)]
#[path = "spool_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "power_cut_tests.rs"]
mod power_cut_tests;
