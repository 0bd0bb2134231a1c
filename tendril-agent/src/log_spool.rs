//! The log of one attempt, on disk: lines are appended as soon as they are read, and cut into chunks that are appended too.
//!
//! The file is text, one record per line, so that a crash can only tear the last one:
//!
//! ```text
//! o1732379999123 a line of stdout        (o stdout, e stderr, a agent; then milliseconds since 1970)
//! c1 o                                   (chunk 1 is: all lines of stdout since its last cut)
//! ```
//!
//! A cut is on disk before its chunk is uploaded. A later life of the agent therefore cuts the rest differently but never
//! an uploaded chunk, and `seq` stays 1..N without gap or double.

use std::{
    fs::{File, OpenOptions},
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use serde::Serialize;
use tokio::sync::watch;

use crate::log_pipe::char_boundary;

/// Most text in one chunk, in bytes. The database takes 64 KiB.
pub(crate) const CHUNK_LIMIT: usize = 16 * 1024;

/// Whose words they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Stream {
    /// Terraform's standard output.
    Stdout,
    /// Terraform's standard error.
    Stderr,
    /// The agent's own remarks.
    Agent,
}

const STREAMS: [Stream; 3] = [Stream::Stdout, Stream::Stderr, Stream::Agent];

impl Stream {
    const fn mark(self) -> u8 {
        match self {
            Self::Stdout => b'o',
            Self::Stderr => b'e',
            Self::Agent => b'a',
        }
    }

    fn of_mark(mark: u8) -> Option<Self> {
        STREAMS.into_iter().find(|stream| stream.mark() == mark)
    }
}

/// Some lines of one stream: a row of `deployment_logs`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Chunk {
    /// 1..N over all streams of the attempt.
    pub(crate) seq: u64,
    /// Whose lines.
    pub(crate) stream: Stream,
    /// The lines, each with its `\n`.
    #[serde(rename = "log_chunk")]
    pub(crate) text: String,
    /// When the first line was read.
    pub(crate) ts: Timestamp,
}

/// How far the spool is, for its reader.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Number of the last chunk that was cut.
    pub(crate) cut: u64,
    /// Nothing will follow.
    pub(crate) finished: bool,
}

/// The writing end.
#[derive(Debug)]
pub(crate) struct LogSpool {
    file: File,
    /// Length of the file up to its last whole record.
    length: u64,
    /// Records that are not in the file yet.
    buffer: Vec<u8>,
    /// Lines in `buffer`.
    buffered: u64,
    /// Lines that could not be written because the disk refused them.
    lost: u64,
    open: [OpenChunk; 3],
    /// Number of the last chunk that was cut; `progress` learns it once the cut is in the file.
    last_cut: u64,
    progress: watch::Sender<Progress>,
    flush_after: Duration,
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
    /// A new spool. `flush_after` is the least time between two chunks of one stream that are not full.
    pub(crate) fn create(
        path: &Path,
        flush_after: Duration,
    ) -> io::Result<(Self, watch::Receiver<Progress>)> {
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
        Ok(Self::over(file, 0, Progress::default(), flush_after))
    }

    /// The spool of an earlier life: a torn last record is dropped, what was not cut is cut now, and it can be added to.
    pub(crate) fn resume(
        path: &Path,
        flush_after: Duration,
    ) -> io::Result<(Self, watch::Receiver<Progress>)> {
        let mut reader = SpoolReader::open(path)?;
        let mut cut = 0;
        while let Some(chunk) = reader.next_chunk()? {
            cut = chunk.seq;
        }
        let mut file = OpenOptions::new().write(true).open(path)?;
        file.set_len(reader.offset)?;
        file.seek(SeekFrom::End(0))?;
        let progress = Progress { cut, finished: false };
        let (mut spool, receiver) = Self::over(file, reader.offset, progress, flush_after);
        let now = Instant::now();
        for (stream, open) in STREAMS.into_iter().zip(reader.open) {
            if !open.text.is_empty() {
                spool.open[stream as usize] =
                    OpenChunk { bytes: open.text.len(), since: Some(now), last_cut: None };
            }
        }
        spool.cut_all(now);
        spool.flush();
        Ok((spool, receiver))
    }

    fn over(
        file: File,
        length: u64,
        progress: Progress,
        flush_after: Duration,
    ) -> (Self, watch::Receiver<Progress>) {
        let (sender, receiver) = watch::channel(progress);
        let open = [OpenChunk::default(); 3];
        (
            Self {
                file,
                length,
                buffer: Vec::new(),
                buffered: 0,
                lost: 0,
                open,
                last_cut: progress.cut,
                progress: sender,
                flush_after,
            },
            receiver,
        )
    }

    /// Adds a line; one that is longer than a chunk becomes several.
    pub(crate) fn append(&mut self, stream: Stream, line: &str, now: Instant) {
        let mut rest = line;
        loop {
            let (part, after) = rest.split_at(char_boundary(rest, CHUNK_LIMIT - 1));
            self.append_part(stream, part, now);
            rest = after;
            if rest.is_empty() {
                return;
            }
        }
    }

    fn append_part(&mut self, stream: Stream, line: &str, now: Instant) {
        if self.open[stream as usize].bytes + line.len() + 1 > CHUNK_LIMIT {
            self.cut(stream, now);
        }
        // The agent's remarks are few, and are headings: they stand exactly where they were said.
        if stream == Stream::Agent {
            self.cut(Stream::Stdout, now);
            self.cut(Stream::Stderr, now);
        } else {
            self.cut(Stream::Agent, now);
        }
        let open = &mut self.open[stream as usize];
        open.bytes += line.len() + 1;
        open.since.get_or_insert(now);
        let millis = Timestamp::now().as_millisecond();
        self.buffer.push(stream.mark());
        // Writing into a Vec cannot fail.
        let _infallible = writeln!(self.buffer, "{millis} {line}");
        self.buffered += 1;
    }

    /// When the next open chunk must be cut, if there is one. A chunk after a quiet time is due at once.
    pub(crate) fn next_due(&self) -> Option<Instant> {
        self.open.iter().filter_map(|open| open.due(self.flush_after)).min()
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
            self.last_cut += 1;
            self.open[oldest as usize] = OpenChunk { bytes: 0, since: None, last_cut: Some(now) };
            // Writing into a Vec cannot fail.
            let _infallible = writeln!(self.buffer, "c{} {}", self.last_cut, char::from(oldest.mark()));
        }
    }

    fn oldest_open(&self) -> Option<(Instant, Stream)> {
        let open = STREAMS.into_iter().zip(&self.open);
        open.filter_map(|(stream, open)| open.since.map(|since| (since, stream)))
            .min_by_key(|(since, _)| *since)
    }

    /// Writes what was added to the file, and tells the reader of new chunks. The log never stops a run: lines that the
    /// disk refuses are counted, and a remark takes their place as soon as the disk takes it.
    pub(crate) fn flush(&mut self) {
        if self.buffer.is_empty() {
            return;
        }
        match self.file.write_all(&self.buffer) {
            Ok(()) => {
                self.length += self.buffer.len() as u64;
                self.buffer.clear();
                self.buffered = 0;
                self.lost = 0;
                self.progress.send_modify(|progress| progress.cut = self.last_cut);
            }
            Err(error) => self.refused(&error),
        }
    }

    /// Drops the lines that the disk refused but keeps their cuts: the numbers of chunks are taken.
    fn refused(&mut self, error: &io::Error) {
        if self.lost == 0 {
            tracing::error!(%error, "log lines cannot be written to disk; they are left out until they can");
        }
        self.lost += std::mem::take(&mut self.buffered);
        let _best_effort = self
            .file
            .set_len(self.length)
            .and_then(|()| self.file.seek(SeekFrom::Start(self.length)).map(drop));
        let millis = Timestamp::now().as_millisecond();
        let cuts: Vec<u8> = self
            .buffer
            .split_inclusive(|byte| *byte == b'\n')
            .filter(|record| record[0] == b'c')
            .flatten()
            .copied()
            .collect();
        self.buffer.clear();
        let lost = self.lost;
        let _infallible =
            writeln!(self.buffer, "a{millis} … {lost} lines are missing here: the agent's disk refused them");
        self.buffer.extend_from_slice(&cuts);
        self.open[Stream::Agent as usize].since.get_or_insert_with(Instant::now);
    }

    /// Nothing will follow: cuts and writes the rest, and tells the reader.
    pub(crate) fn finish(mut self) {
        self.cut_all(Instant::now());
        self.flush();
        self.progress.send_modify(|progress| progress.finished = true);
    }
}

impl OpenChunk {
    fn due(&self, flush_after: Duration) -> Option<Instant> {
        let since = self.since?;
        Some(self.last_cut.map_or(since, |cut| since.max(cut + flush_after)))
    }
}

/// The reading end: gives the chunks in order, from a file that may still grow.
#[derive(Debug)]
pub(crate) struct SpoolReader {
    file: BufReader<File>,
    /// End of the last whole record that was read.
    offset: u64,
    open: [Collected; 3],
}

/// Lines that wait for their cut.
#[derive(Debug, Default)]
struct Collected {
    text: String,
    ts: Timestamp,
}

impl SpoolReader {
    /// From the beginning.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let file = BufReader::with_capacity(CHUNK_LIMIT, File::open(path)?);
        Ok(Self { file, offset: 0, open: Default::default() })
    }

    /// The next chunk whose cut is in the file.
    pub(crate) fn next_chunk(&mut self) -> io::Result<Option<Chunk>> {
        let mut record = Vec::new();
        loop {
            record.clear();
            // Never more than one record is held, however much of it a broken file has.
            let limit = 2 * CHUNK_LIMIT as u64;
            let read = self.file.by_ref().take(limit).read_until(b'\n', &mut record)?;
            if record.last() != Some(&b'\n') {
                // The writer is in the middle of it; the next call reads it again, whole.
                self.file.seek(SeekFrom::Start(self.offset))?;
                return Ok(None);
            }
            self.offset += read as u64;
            if let Some(chunk) = self.take_record(&record[..read - 1])? {
                return Ok(Some(chunk));
            }
        }
    }

    /// Reads one record; a cut gives a chunk.
    fn take_record(&mut self, record: &[u8]) -> io::Result<Option<Chunk>> {
        let malformed =
            || io::Error::new(io::ErrorKind::InvalidData, "the log spool holds a malformed record");
        let text = std::str::from_utf8(record).map_err(|_| malformed())?;
        let (head, rest) = text.split_once(' ').ok_or_else(malformed)?;
        let (mark, number) = head.split_at_checked(1).ok_or_else(malformed)?;
        if mark == "c" {
            let seq = number.parse().map_err(|_| malformed())?;
            let stream = rest.bytes().next().and_then(Stream::of_mark).ok_or_else(malformed)?;
            let Collected { text, ts } = std::mem::take(&mut self.open[stream as usize]);
            return Ok(Some(Chunk { seq, stream, text, ts }));
        }
        let stream = Stream::of_mark(mark.as_bytes()[0]).ok_or_else(malformed)?;
        let open = &mut self.open[stream as usize];
        if open.text.is_empty() {
            let millis = number.parse().map_err(|_| malformed())?;
            open.ts = Timestamp::from_millisecond(millis).map_err(|_| malformed())?;
        }
        open.text.push_str(rest);
        open.text.push('\n');
        Ok(None)
    }
}

#[cfg(test)]
#[path = "log_spool_tests.rs"]
mod tests;
