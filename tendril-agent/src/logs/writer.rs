//! The end of a job's log that programs and the agent write to.

use std::{io, sync::Arc};

use futures_util::future::BoxFuture;
use tokio::{
    runtime::Handle,
    sync::{mpsc, oneshot},
};

use crate::{
    job::Findings,
    logs::{
        spool::LogSpool,
        worker::{Entry, Interpreter, LogWorker, QUEUE, STREAMS},
    },
    process::{Journal, Sink, Stream, StreamJournal, deliver_rest},
    redaction::Redactor,
};

/// The writing end of a job's log. Clones share it; when the last one is gone, the log is complete.
#[derive(Clone, Debug)]
pub(crate) struct LogWriter {
    queue: mpsc::Sender<Entry>,
    /// Where programs' output is on disk before it comes here.
    journal: Option<Arc<Journal>>,
}

impl LogWriter {
    /// Starts the thread. What programs write is in the journal before it is read, from the spool's positions on. Must be called
    /// inside a runtime.
    pub(crate) fn start(
        spool: LogSpool,
        journal: Option<Journal>,
        redactor: Redactor,
        interpreter: impl Interpreter + 'static,
    ) -> Self {
        let (queue, entries) = mpsc::channel(QUEUE);
        let (runtime, journal) = (Handle::current(), journal.map(Arc::new));
        let worker = LogWorker::new(spool, journal.clone(), redactor, Box::new(interpreter));
        let span = tracing::Span::current();
        tokio::task::spawn_blocking(move || span.in_scope(|| worker.work(entries, &runtime)));
        Self { queue, journal }
    }

    /// Adds what an earlier process took from programs and had not added. The program that wrote it has ended.
    pub(crate) async fn catch_up(&self) {
        for stream in STREAMS {
            deliver_rest(stream, self).await;
        }
        self.findings().await;
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
        Box::pin(self.send(Entry::Bytes(stream, bytes, None)))
    }

    fn write_journaled(&self, stream: Stream, bytes: Vec<u8>, end: u64) -> BoxFuture<'_, ()> {
        Box::pin(self.send(Entry::Bytes(stream, bytes, Some(end))))
    }

    fn journal(&self, stream: Stream) -> Option<&StreamJournal> {
        self.journal.as_ref()?.of(stream)
    }
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

    fn write_journaled(&self, stream: Stream, bytes: Vec<u8>, end: u64) -> BoxFuture<'_, ()> {
        if stream == Stream::Stdout {
            return self.write(stream, bytes);
        }
        self.log.write_journaled(stream, bytes, end)
    }

    fn journal(&self, stream: Stream) -> Option<&StreamJournal> {
        if stream == Stream::Stdout { None } else { self.log.journal(stream) }
    }
}

#[cfg(test)]
#[path = "writer_tests.rs"]
mod tests;
