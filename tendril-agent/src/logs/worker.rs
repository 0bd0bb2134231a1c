//! The thread that carries a job's output through its stages: bytes → lines → readable text → redaction → spool.
//!
//! It is a thread of its own because reading, redacting and writing may occupy a core for minutes, and heartbeats must
//! not wait for that. Its queue is bounded: a program that writes faster than this machine can read waits on its pipe.

use std::{
    borrow::Cow,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    runtime::Handle,
    sync::{mpsc, oneshot},
    time::timeout,
};

use crate::{
    job::Findings,
    logs::{
        coverage::Coverage,
        lines::{FRAGMENT_LIMIT, Fragment, LinePipe, is_plain, visible},
        spool::{
            LogSpool,
            position::{Place, Position, index},
        },
    },
    os::failpoint,
    process::{Journal, Stream, StreamJournal},
    redaction::{PROVISIONER, RedactLines, Redactor},
};

/// Entries that may wait: with 64 KiB each at most 2 MiB per job.
pub(super) const QUEUE: usize = 32;

/// What stands for the rest of a line whose beginning is lost.
const TORN: &str = "… (the beginning of this line is missing: the agent was killed while its disk was full)";
/// What programs write.
pub(super) const STREAMS: [Stream; 2] = [Stream::Stdout, Stream::Stderr];

/// A message to the thread.
pub(super) enum Entry {
    /// Bytes of the running program, and where they end in the journal.
    Bytes(Stream, Vec<u8>, Option<u64>),
    /// An annotation of the agent.
    Annotation(String),
    /// The program has ended: give the last line out, and what was found in its output.
    Ended(oneshot::Sender<Findings>),
}

/// Reads the output of a program: what a person should see of each line, and what the agent must know of it.
pub(crate) trait Interpreter: Send {
    /// Whether this plain text can be skipped: no line of it has anything that the agent must know.
    fn may_pass(&self, stream: Stream, text: &str) -> bool;
    /// Reads one line. Answers the readable lines, joined by `\n`.
    fn read<'a>(&mut self, stream: Stream, line: &'a str) -> Cow<'a, str>;
    /// Reads a fragment of a line that is too long to be read as a whole. Answers what a person should see of it.
    fn read_fragment<'a>(&mut self, stream: Stream, fragment: &'a str, goes_on: bool)
    -> Option<Cow<'a, str>>;
    /// Whether the fragments of a stream that is inside a long line need nothing of those before.
    fn is_plain_inside(&self, stream: Stream) -> bool;
    /// A stream begins inside such a line.
    fn begin_inside(&mut self, stream: Stream);
    /// What was found since the last call.
    fn take_findings(&mut self) -> Findings;
}

/// What lies on the thread's worker.
pub(super) struct LogWorker {
    spool: LogSpool,
    journal: Option<Arc<Journal>>,
    /// How far the lines cover stdout and stderr.
    covered: [Coverage; 2],
    redactor: Redactor,
    stdout: StreamState,
    stderr: StreamState,
    stdout_shown: RedactLines,
    stderr_shown: RedactLines,
    interpreter: Box<dyn Interpreter>,
    /// What was found, for those who wait until it is in the file.
    answers: Vec<(oneshot::Sender<Findings>, Findings)>,
}

/// One stream on its way.
#[derive(Default)]
struct StreamState {
    lines: LinePipe,
    /// Inside a line that came in fragments.
    is_inside: bool,
    /// Inside a line whose beginning is lost.
    is_torn: bool,
}

impl LogWorker {
    pub(super) fn new(
        spool: LogSpool,
        journal: Option<Arc<Journal>>,
        redactor: Redactor,
        mut interpreter: Box<dyn Interpreter>,
    ) -> Self {
        let positions = spool.positions();
        let [(stdout, out), (stderr, err)] = STREAMS.map(|stream| {
            let end = journal.as_ref().and_then(|journal| journal.of(stream)).map_or(0, StreamJournal::end);
            let unknown = Position { offset: end, ..Position::default() };
            let position = positions.zip(index(stream)).map_or(unknown, |(positions, of)| positions[of]);
            let covered = Coverage::from(position, end);
            let place = covered.begins_at();
            if place == Place::LongLine {
                interpreter.begin_inside(stream);
            }
            let (is_inside, is_torn) = (place == Place::LongLine, place == Place::TornLine);
            (StreamState { lines: LinePipe::default(), is_inside, is_torn }, covered)
        });
        Self {
            spool,
            journal,
            covered: [out, err],
            redactor,
            stdout,
            stderr,
            stdout_shown: RedactLines::default(),
            stderr_shown: RedactLines::default(),
            interpreter,
            answers: Vec::new(),
        }
    }

    pub(super) fn work(mut self, mut entries: mpsc::Receiver<Entry>, runtime: &Handle) {
        loop {
            let wait = self.next_due().map(|due| due.saturating_duration_since(Instant::now()));
            match next_entry(&mut entries, runtime, wait) {
                Next::Entry(entry) => {
                    self.take(entry);
                    // A busy program is written in few strokes; but it is written, and synced, while it is busy.
                    for _ in 0..QUEUE {
                        let Ok(entry) = entries.try_recv() else { break };
                        self.take(entry);
                    }
                }
                Next::Due => {}
                Next::Closed => break,
            }
            self.give_due(Instant::now());
            self.spool.cut_due(Instant::now());
            self.spool.flush();
            self.answer();
            self.release();
            self.sync(runtime);
        }
        self.finish();
    }

    fn finish(mut self) {
        self.end_lines();
        for stream in STREAMS {
            if let Some(of) = index(stream) {
                self.covered[of].close();
                self.spool.cover(stream, self.covered[of].position());
            }
        }
        self.spool.finish();
    }

    /// Everything that was written so far is in the spool's file.
    fn answer(&mut self) {
        for (answer, findings) in self.answers.drain(..) {
            let _nobody_waits = answer.send(findings);
        }
    }

    /// What the file covers is not read again.
    fn release(&self) {
        let (Some(journal), Some(stored)) = (&self.journal, self.spool.stored()) else { return };
        for (stream, position) in STREAMS.into_iter().zip(stored) {
            if let Some(journal) = journal.of(stream) {
                journal.release(position.offset);
            }
        }
    }

    /// When something has to be done although nothing comes.
    fn next_due(&self) -> Option<Instant> {
        let lines = [self.stdout_shown.due(), self.stderr_shown.due()];
        lines.into_iter().chain([self.spool.next_due()]).flatten().min()
    }

    /// Gives out the lines that waited long enough for the rest of a secret.
    fn give_due(&mut self, now: Instant) {
        for stream in STREAMS {
            let (shown, mut given) = self.on_the_way(stream, now);
            if shown.due().is_some_and(|due| due <= now) {
                shown.give_all(&mut |line| given.give(line));
            }
        }
    }

    /// Syncs what was written to disk, on another thread: lines come on meanwhile.
    fn sync(&mut self, runtime: &Handle) {
        let files = self.spool.take_unsynced(Instant::now());
        if !files.is_empty() {
            runtime.spawn_blocking(move || {
                if let Some(error) = files.iter().find_map(|file| file.sync_data().err()) {
                    tracing::warn!(%error, "the log cannot be synced to disk; a power failure would lose the last lines");
                }
            });
        }
    }

    fn take(&mut self, entry: Entry) {
        failpoint!("writer.took");
        match entry {
            Entry::Bytes(stream, bytes, end) => self.bytes(stream, &bytes, end),
            Entry::Annotation(text) => {
                for line in self.redactor.redact(&text).split('\n') {
                    self.spool.append(Stream::Agent, &visible(line), Instant::now());
                }
                self.spool.flush_much();
            }
            Entry::Ended(answer) => {
                self.end_lines();
                let mut findings = self.interpreter.take_findings();
                findings.error = findings.error.take().map(|error| self.redactor.redact(&error).into_owned());
                self.covered.iter_mut().for_each(Coverage::end);
                self.answers.push((answer, findings));
            }
        }
    }

    fn bytes(&mut self, stream: Stream, mut bytes: &[u8], end: Option<u64>) {
        let Some(of) = index(stream) else { return };
        let is_open = self.stream_state(stream).lines.open() > 0;
        self.covered[of].begin(bytes.len(), end, is_open);
        if self.stream_state(stream).is_torn {
            let line_end = bytes.iter().position(|byte| *byte == b'\n');
            self.stream_state(stream).is_torn = line_end.is_none();
            bytes = line_end.map_or(&[], |at| &bytes[at + 1..]);
            if line_end.is_some() {
                self.append_text(stream, TORN, Instant::now());
            }
        }
        self.lines_of(stream, bytes);
        let StreamState { lines, is_inside, is_torn } = self.stream_state(stream);
        let (open, is_inside, is_torn) = (lines.open(), *is_inside, *is_torn);
        let at = match (is_torn, is_inside) {
            (true, _) => Some(Place::TornLine),
            (false, false) => Some(Place::Line),
            (false, true) => self.interpreter.is_plain_inside(stream).then_some(Place::LongLine),
        };
        self.covered[of].took(end, open, at);
        self.spool.cover(stream, self.covered[of].position());
    }

    fn lines_of(&mut self, stream: Stream, bytes: &[u8]) {
        let mut stream_state = std::mem::take(self.stream_state(stream));
        let mut lines = std::mem::take(&mut stream_state.lines);
        // The end of a line that has begun, then lines that are whole, then the beginning of one.
        let after = |end: Option<usize>| end.map(|end| end + 1);
        let is_end = |byte: &u8| *byte == b'\n';
        let begun = if lines.is_at_a_beginning() && !stream_state.is_inside {
            0
        } else {
            after(bytes.iter().position(is_end)).unwrap_or(bytes.len())
        };
        let whole = after(bytes.iter().rposition(is_end)).map_or(begun, |whole| whole.max(begun));
        lines.push(&bytes[..begun], |fragment| self.fragment(stream, &mut stream_state, &fragment));
        match std::str::from_utf8(&bytes[begun..whole]) {
            Ok(text) if text.len() <= FRAGMENT_LIMIT && is_plain(text.as_bytes()) => self.lines(stream, text),
            _ => lines
                .push(&bytes[begun..whole], |fragment| self.fragment(stream, &mut stream_state, &fragment)),
        }
        lines.push(&bytes[whole..], |fragment| self.fragment(stream, &mut stream_state, &fragment));
        stream_state.lines = lines;
        *self.stream_state(stream) = stream_state;
    }

    /// Gives out what the streams hold without a line end.
    fn end_lines(&mut self) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            let mut stream_state = std::mem::take(self.stream_state(stream));
            let mut lines = std::mem::take(&mut stream_state.lines);
            lines.finish(|fragment| self.fragment(stream, &mut stream_state, &fragment));
        }
        let now = Instant::now();
        for stream in STREAMS {
            let (shown, mut given) = self.on_the_way(stream, now);
            shown.end(&mut |line| given.give(line));
        }
    }

    fn stream_state(&mut self, stream: Stream) -> &mut StreamState {
        if stream == Stream::Stderr { &mut self.stderr } else { &mut self.stdout }
    }

    fn fragment(&mut self, stream: Stream, stream_state: &mut StreamState, fragment: &Fragment<'_>) {
        let now = Instant::now();
        if !fragment.goes_on && !stream_state.is_inside {
            return self.line(stream, &fragment.text, now);
        }
        stream_state.is_inside = fragment.goes_on;
        if let Some(text) = self.interpreter.read_fragment(stream, &fragment.text, fragment.goes_on) {
            self.append_text(stream, &text, now);
        }
    }

    /// Whole lines, in which there is nothing that a terminal would not show. Most output is such that nothing has to be
    /// done about it, and that is seen at one look for many lines.
    fn lines(&mut self, stream: Stream, text: &str) {
        let now = Instant::now();
        let is_json = text.starts_with('{') || text.contains("\n{");
        // A secret that is split over lines of a provisioner has the prefix of each line in it.
        let may_pass = !is_json && !text.contains(PROVISIONER) && self.interpreter.may_pass(stream, text);
        let mut rest = text;
        if may_pass {
            // First what a secret of the lines before may reach into.
            while !self.shown(stream).is_idle()
                && let Some((line, after)) = rest.split_once('\n')
            {
                self.line(stream, line, now);
                rest = after;
            }
            let clean = if self.shown(stream).is_idle() { self.redactor.clean_lines(rest) } else { 0 };
            let (passes, after) = rest.split_at(clean);
            for line in passes.split_terminator('\n') {
                failpoint!("writer.line");
                let (_, mut given) = self.on_the_way(stream, now);
                given.covered.made();
                given.give(line);
            }
            rest = after;
        }
        for line in rest.split_terminator('\n') {
            self.line(stream, line, now);
        }
    }

    fn line(&mut self, stream: Stream, line: &str, now: Instant) {
        failpoint!("writer.line");
        let text = self.interpreter.read(stream, line);
        self.append_text(stream, &text, now);
    }

    /// Puts a text of one line or several into the spool.
    fn append_text(&mut self, stream: Stream, text: &str, now: Instant) {
        let (shown, mut given) = self.on_the_way(stream, now);
        let redactor = given.redactor;
        for line in text.split('\n') {
            given.covered.made();
            shown.push(redactor, &visible(line), |line| given.give(line));
        }
    }

    /// The lines of a stream that wait, and where they go.
    fn on_the_way(&mut self, stream: Stream, now: Instant) -> (&mut RedactLines, Given<'_>) {
        let Self { spool, covered: [stdout, stderr], redactor, stdout_shown, stderr_shown, .. } = self;
        let (shown, covered) =
            if stream == Stream::Stderr { (stderr_shown, stderr) } else { (stdout_shown, stdout) };
        (shown, Given { spool, covered, redactor, stream, now })
    }

    fn shown(&self, stream: Stream) -> &RedactLines {
        if stream == Stream::Stderr { &self.stderr_shown } else { &self.stdout_shown }
    }
}

/// Where the lines of a stream go that are ready.
struct Given<'a> {
    spool: &'a mut LogSpool,
    covered: &'a mut Coverage,
    redactor: &'a Redactor,
    stream: Stream,
    now: Instant,
}

impl Given<'_> {
    /// Stores a line, unless an earlier process has.
    fn give(&mut self, line: &str) {
        if self.covered.give() {
            self.spool.append(self.stream, line, self.now);
            self.spool.cover(self.stream, self.covered.position());
            self.spool.flush_much();
        }
    }
}

enum Next {
    Entry(Entry),
    Due,
    Closed,
}

fn next_entry(entries: &mut mpsc::Receiver<Entry>, runtime: &Handle, wait: Option<Duration>) -> Next {
    if wait.is_some_and(|wait| wait.is_zero()) {
        return entries.try_recv().map_or(Next::Due, Next::Entry);
    }
    let entry = match wait {
        Some(wait) => match runtime.block_on(async { timeout(wait, entries.recv()).await }) {
            Ok(entry) => entry,
            Err(_elapsed) => return Next::Due,
        },
        None => entries.blocking_recv(),
    };
    entry.map_or(Next::Closed, Next::Entry)
}

#[cfg(test)]
#[path = "worker_tests.rs"]
mod tests;
