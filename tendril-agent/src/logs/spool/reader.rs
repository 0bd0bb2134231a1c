//! The reading end of a spool: chunks in order, numbered as they are read, from segments that may still grow.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom},
    sync::Arc,
};

use jiff::Timestamp;
use tokio::sync::watch;

use super::{
    CHUNK_LIMIT, Progress, Stream,
    record::{Behind, Chunk, Record, SpoolEnd},
    segments::{After, SegmentStore},
};

/// Gives the chunks in order.
#[derive(Debug)]
pub(crate) struct SpoolReader {
    store: Arc<SegmentStore>,
    progress: watch::Receiver<Progress>,
    /// Where it is.
    segment: u64,
    /// None before the first segment.
    file: Option<BufReader<File>>,
    /// End of the last whole record that was read, in this segment.
    offset: u64,
    /// Where what its writer has written ends. What is behind that may be torn off again.
    written: u64,
    /// The last positions that were read in this segment, where their record ends, and what had no cut there.
    covered: Option<SpoolEnd>,
    open: [Collected; 3],
    /// When the lines that are read now were written.
    time: Timestamp,
    /// Number of the last chunk that was given.
    seq: u64,
    /// Everything that was there has been given.
    at_end: bool,
    /// How many cuts the writer had made at the last check.
    received: u64,
    /// Segments that were read to their end, with the number of their last chunk: they go once that is stored.
    passed: VecDeque<(u64, u64)>,
}

/// Lines that wait for their cut.
#[derive(Debug, Default)]
struct Collected {
    text: String,
    ts: Timestamp,
}

impl SpoolReader {
    /// From where the numbers begin.
    pub(super) fn new(store: Arc<SegmentStore>, progress: watch::Receiver<Progress>) -> Self {
        let checkpoint = store.checkpoint();
        Self {
            store,
            progress,
            segment: checkpoint.segment - 1,
            file: None,
            offset: 0,
            written: 0,
            covered: None,
            open: Default::default(),
            time: Timestamp::default(),
            seq: checkpoint.seq,
            at_end: false,
            received: 0,
            passed: VecDeque::new(),
        }
    }

    /// Of a spool without a writer.
    #[cfg(test)]
    pub(crate) fn open(dir: &std::path::Path) -> io::Result<Self> {
        let (_, progress) = watch::channel(Progress { cut: 0, finished: true });
        Ok(Self::new(Arc::new(SegmentStore::open(dir, u64::MAX)?), progress))
    }

    /// Waits until there is more to read. Answers whether nothing will follow what is there.
    pub(crate) async fn more(&mut self) -> bool {
        let (received, at_end) = (self.received, self.at_end);
        let is_more = |progress: &Progress| !at_end || progress.cut > received || progress.finished;
        // A spool whose writer is gone is finished.
        let Ok(progress) = self.progress.wait_for(is_more).await.map(|progress| *progress) else {
            return true;
        };
        self.received = progress.cut;
        progress.finished
    }

    /// Number of the last chunk that was given.
    pub(crate) fn seq(&self) -> u64 {
        self.seq
    }

    /// Passes the chunks up to this number: they are stored. Answers whether so many are here. If they are not, the
    /// machine died before they had reached the disk; the next number follows those that are stored all the same.
    pub(crate) fn skip_to(&mut self, stored: u64) -> io::Result<bool> {
        while self.seq < stored {
            if self.next_chunk()?.is_none() {
                self.seq = stored;
                self.store.numbered();
                return Ok(false);
            }
        }
        self.store.numbered();
        Ok(true)
    }

    /// Removes the segments whose chunks are all stored.
    pub(crate) fn forget(&mut self, stored: u64) -> io::Result<()> {
        let mut done = None;
        while self.passed.front().is_some_and(|(_, seq)| *seq <= stored) {
            done = self.passed.pop_front();
        }
        done.map_or(Ok(()), |(segment, seq)| self.store.forget(segment, seq))
    }

    /// The next chunk whose cut is in the file.
    pub(crate) fn next_chunk(&mut self) -> io::Result<Option<Chunk>> {
        let chunk = self.find_next()?;
        self.at_end = chunk.is_none();
        Ok(chunk)
    }

    fn find_next(&mut self) -> io::Result<Option<Chunk>> {
        loop {
            if let Some(chunk) = self.next_here()? {
                return Ok(Some(chunk));
            }
            if !self.store.is_full(self.segment) {
                return Ok(None);
            }
            // Something may have been written after the first look and before it was full.
            if let Some(chunk) = self.next_here()? {
                return Ok(Some(chunk));
            }
            match self.store.advance(self.segment) {
                After::Growing => return Ok(None),
                After::Segment(next) => self.turn_to(next)?,
                After::Gap(gap, next) => {
                    self.turn_to(next)?;
                    self.seq += 1;
                    return Ok(Some(self.marker(gap.lines)));
                }
            }
        }
    }

    /// The next chunk of this segment.
    fn next_here(&mut self) -> io::Result<Option<Chunk>> {
        let mut record = Vec::new();
        loop {
            let Some(file) = &mut self.file else { return Ok(None) };
            record.clear();
            if self.offset >= self.written {
                self.written = self.store.written(self.segment);
                // What was read ahead may have been torn off since.
                file.seek(SeekFrom::Start(self.offset))?;
            }
            // Never more than one record is held, however much of it a broken file has.
            let limit = (2 * CHUNK_LIMIT as u64).min(self.written.saturating_sub(self.offset));
            let read = file.by_ref().take(limit).read_until(b'\n', &mut record)?;
            if record.last() != Some(&b'\n') {
                // The writer is in the middle of it; the next call reads it again, whole.
                file.seek(SeekFrom::Start(self.offset))?;
                return Ok(None);
            }
            self.offset += read as u64;
            match Record::parse(&record[..read - 1]) {
                Some(Record::Time(time)) => self.time = time,
                Some(Record::Line(stream, line)) => self.open[stream as usize].add(self.time, line),
                Some(Record::Cut(stream)) => {
                    let Collected { text, ts } = std::mem::take(&mut self.open[stream as usize]);
                    if text.is_empty() {
                        // The disk refused its lines: there is nothing to number.
                        continue;
                    }
                    self.seq += 1;
                    return Ok(Some(Chunk { seq: self.seq, stream, text, ts }));
                }
                Some(Record::Covered(positions)) => {
                    self.covered = Some(SpoolEnd { bytes: self.offset, open: self.open_bytes(), positions });
                }
                None => tracing::warn!("the log spool holds a record that cannot be read; it is left out"),
            }
        }
    }

    fn turn_to(&mut self, next: u64) -> io::Result<()> {
        if self.file.is_some() {
            self.passed.push_back((self.segment, self.seq));
        }
        self.file = Some(reader(self.store.read(next)?));
        (self.segment, self.offset, self.written, self.open) = (next, 0, 0, Default::default());
        self.covered = None;
        Ok(())
    }

    /// The note in place of dropped segments.
    fn marker(&self, lines: u64) -> Chunk {
        let limit = match self.store.limit() {
            bytes @ ..1_048_576 => format!("{} KiB", bytes / 1024),
            bytes => format!("{} MiB", bytes / 1_048_576),
        };
        let text = format!(
            "… {lines} lines are missing here: more than {limit} waited for the control plane (TENDRIL_SPOOL_LIMIT); the beginning and the end are complete\n"
        );
        Chunk { seq: self.seq, stream: Stream::Agent, text, ts: Timestamp::now() }
    }

    /// What a later run needs of the last segment.
    pub(super) fn end(&mut self, behind: Behind) -> io::Result<SpoolEnd> {
        while self.next_here()?.is_some() {}
        let whole = SpoolEnd { bytes: self.offset, open: self.open_bytes(), positions: None };
        Ok(match (self.covered, behind) {
            (Some(covered), Behind::Dropped) => covered,
            // What is behind the last position is not read again, and so is not known to be covered by it.
            (Some(covered), Behind::Kept) if covered.bytes == whole.bytes => covered,
            // Of a version that wrote none, or of an attempt that has just begun.
            (None, _) if self.segment == 1 => SpoolEnd { positions: Some(Default::default()), ..whole },
            _ => whole,
        })
    }

    fn open_bytes(&self) -> [usize; 3] {
        [0, 1, 2].map(|stream| self.open[stream].text.len())
    }

    /// Begins in this segment.
    pub(super) fn at(store: Arc<SegmentStore>, segment: u64) -> io::Result<Self> {
        let (_, progress) = watch::channel(Progress::default());
        let file = Some(reader(store.read(segment)?));
        let (open, passed, time) = (Default::default(), VecDeque::new(), Timestamp::default());
        let (at_end, received) = (false, 0);
        Ok(Self {
            store,
            progress,
            segment,
            file,
            offset: 0,
            written: 0,
            covered: None,
            open,
            time,
            seq: 0,
            at_end,
            received,
            passed,
        })
    }
}

impl Collected {
    fn add(&mut self, ts: Timestamp, line: &str) {
        if self.text.is_empty() {
            self.ts = ts;
        }
        self.text.push_str(line);
        self.text.push('\n');
    }
}

fn reader(file: File) -> BufReader<File> {
    BufReader::with_capacity(4 * CHUNK_LIMIT, file)
}
