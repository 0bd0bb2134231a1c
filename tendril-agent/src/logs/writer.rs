//! The thread that carries a job's output through its stages: bytes → lines → readable text → redaction → spool.
//!
//! It is a thread of its own because reading, redacting and writing may occupy a core for minutes, and heartbeats must
//! not wait for that. Its queue is bounded: a program that writes faster than this machine can read waits on its pipe.

use std::{
    borrow::Cow,
    io,
    time::{Duration, Instant},
};

use futures_util::future::BoxFuture;
use tokio::{
    runtime::Handle,
    sync::{mpsc, oneshot},
    time::timeout,
};

use crate::{
    job::Findings,
    logs::{
        lines::{FRAGMENT_LIMIT, Fragment, LinePipe, is_plain, visible},
        spool::LogSpool,
    },
    os::failpoint,
    process::{Sink, Stream},
    redaction::{RedactLines, Redactor},
};

/// Entries that may wait: with 64 KiB each at most 2 MiB per job.
const QUEUE: usize = 32;

/// A message to the thread.
enum Entry {
    /// Bytes of the running program.
    Bytes(Stream, Vec<u8>),
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
    /// What was found since the last call.
    fn take_findings(&mut self) -> Findings;
}

/// The writing end of a job's log. Clones share it; when the last one is gone, the log is complete.
#[derive(Clone, Debug)]
pub(crate) struct LogWriter {
    queue: mpsc::Sender<Entry>,
}

impl LogWriter {
    /// Starts the thread. Must be called inside a runtime.
    pub(crate) fn start(
        spool: LogSpool,
        redactor: Redactor,
        interpreter: impl Interpreter + 'static,
    ) -> Self {
        let (queue, entries) = mpsc::channel(QUEUE);
        let runtime = Handle::current();
        let worker = LogWorker::new(spool, redactor, Box::new(interpreter));
        let span = tracing::Span::current();
        tokio::task::spawn_blocking(move || span.in_scope(|| worker.work(entries, &runtime)));
        Self { queue }
    }

    /// Adds an annotation of the agent, of one line or several.
    pub(crate) async fn annotate(&self, text: impl Into<String>) {
        self.send(Entry::Annotation(text.into())).await;
    }

    /// Everything that was written so far is in the spool; what was found in it since the last call is answered.
    pub(crate) async fn findings(&self) -> Findings {
        let (answer, findings) = oneshot::channel();
        self.send(Entry::Ended(answer)).await;
        findings.await.unwrap_or_default()
    }

    async fn send(&self, entry: Entry) {
        // The thread ends only after the last sender; if it died, the log is lost but the run continues.
        let _dead = self.queue.send(entry).await;
    }
}

impl Sink for LogWriter {
    fn write(&self, stream: Stream, bytes: Vec<u8>) -> BoxFuture<'_, ()> {
        Box::pin(self.send(Entry::Bytes(stream, bytes)))
    }
}

/// What lies on the thread's worker.
struct LogWorker {
    spool: LogSpool,
    redactor: Redactor,
    stdout: StreamState,
    stderr: StreamState,
    stdout_shown: RedactLines,
    stderr_shown: RedactLines,
    interpreter: Box<dyn Interpreter>,
}

/// One stream on its way.
#[derive(Default)]
struct StreamState {
    lines: LinePipe,
    /// Inside a line that came in fragments.
    is_inside: bool,
}

impl LogWorker {
    fn new(spool: LogSpool, redactor: Redactor, interpreter: Box<dyn Interpreter>) -> Self {
        Self {
            spool,
            redactor,
            stdout: StreamState::default(),
            stderr: StreamState::default(),
            stdout_shown: RedactLines::default(),
            stderr_shown: RedactLines::default(),
            interpreter,
        }
    }

    fn work(mut self, mut entries: mpsc::Receiver<Entry>, runtime: &Handle) {
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
            self.sync(runtime);
        }
        self.end_lines();
        self.spool.finish();
    }

    /// When something has to be done although nothing comes.
    fn next_due(&self) -> Option<Instant> {
        let lines = [self.stdout_shown.due(), self.stderr_shown.due()];
        lines.into_iter().chain([self.spool.next_due()]).flatten().min()
    }

    /// Gives out the lines that waited long enough for the rest of a secret.
    fn give_due(&mut self, now: Instant) {
        for (stream, shown) in
            [(Stream::Stdout, &mut self.stdout_shown), (Stream::Stderr, &mut self.stderr_shown)]
        {
            if shown.due().is_some_and(|due| due <= now) {
                shown.give_all(&mut |line| self.spool.append(stream, line, now));
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
            Entry::Bytes(stream, bytes) => self.bytes(stream, &bytes),
            Entry::Annotation(text) => {
                for line in self.redactor.redact(&text).split('\n') {
                    self.spool.append(Stream::Agent, &visible(line), Instant::now());
                }
            }
            Entry::Ended(answer) => {
                self.end_lines();
                let mut findings = self.interpreter.take_findings();
                findings.error = findings.error.take().map(|error| self.redactor.redact(&error).into_owned());
                let _nobody_waits = answer.send(findings);
            }
        }
    }

    fn bytes(&mut self, stream: Stream, bytes: &[u8]) {
        let mut stream_state = std::mem::take(self.stream_state(stream));
        let mut lines = std::mem::take(&mut stream_state.lines);
        // The end of a line that has begun, then lines that are whole, then the beginning of one.
        let after = |end: Option<usize>| end.map(|end| end + 1);
        let is_end = |byte: &u8| *byte == b'\n';
        let begun = if lines.is_at_a_beginning() {
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
        for (stream, shown) in
            [(Stream::Stdout, &mut self.stdout_shown), (Stream::Stderr, &mut self.stderr_shown)]
        {
            shown.end(&mut |line| self.spool.append(stream, line, Instant::now()));
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
        let passes = !is_json
            && self.interpreter.may_pass(stream, text)
            && self.shown(stream).is_idle()
            && self.redactor.is_clean(text);
        for line in text.split_terminator('\n') {
            if passes {
                failpoint!("writer.line");
                self.spool.append(stream, line, now);
            } else {
                self.line(stream, line, now);
            }
        }
    }

    fn line(&mut self, stream: Stream, line: &str, now: Instant) {
        failpoint!("writer.line");
        let text = self.interpreter.read(stream, line);
        self.append_text(stream, &text, now);
    }

    /// Puts a text of one line or several into the spool.
    fn append_text(&mut self, stream: Stream, text: &str, now: Instant) {
        let shown = if stream == Stream::Stderr { &mut self.stderr_shown } else { &mut self.stdout_shown };
        for line in text.split('\n') {
            shown.push(&self.redactor, &visible(line), |line| self.spool.append(stream, line, now));
        }
    }

    fn shown(&self, stream: Stream) -> &RedactLines {
        if stream == Stream::Stderr { &self.stderr_shown } else { &self.stdout_shown }
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

/// Captures a program's standard output for the agent, and sends the rest to the log.
#[derive(Debug)]
pub(crate) struct StdoutCapture {
    captured: std::sync::Mutex<Vec<u8>>,
    log: LogWriter,
}

/// The largest capture.
const CAPTURE_LIMIT: usize = 16 * 1024 * 1024;

impl StdoutCapture {
    /// An empty one.
    pub(crate) fn new(log: LogWriter) -> Self {
        Self { captured: std::sync::Mutex::default(), log }
    }

    /// The captured output. Errors: it was more than 16 MiB.
    pub(crate) fn into_captured(self) -> io::Result<Vec<u8>> {
        let captured = self.captured.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        if captured.len() > CAPTURE_LIMIT {
            return Err(io::Error::other("the outputs are larger than 16 MiB"));
        }
        Ok(captured)
    }
}

impl Sink for StdoutCapture {
    fn write(&self, stream: Stream, bytes: Vec<u8>) -> BoxFuture<'_, ()> {
        if stream != Stream::Stdout {
            return self.log.write(stream, bytes);
        }
        let mut captured = self.captured.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if captured.len() <= CAPTURE_LIMIT {
            captured.extend_from_slice(&bytes);
        }
        Box::pin(std::future::ready(()))
    }
}

#[cfg(test)]
#[path = "writer_tests.rs"]
mod tests;
