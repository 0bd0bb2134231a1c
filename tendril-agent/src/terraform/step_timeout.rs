//! Stops a step that takes too long, or that has no output for too long.

use std::{
    convert::Infallible,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use futures_util::future::BoxFuture;
use tokio::time::{Instant, sleep_until};

use crate::process::{Expired, Sink, StopReason, StopSignal, Stream, StreamJournal};

/// A part of each line by which Terraform only shows that it still waits.
const STILL_WAITING: &[u8] = b"\"type\":\"apply_progress\"";

/// Passes on what a step writes, and sees when it wrote last.
pub(crate) struct StepTimeout<'a> {
    sink: &'a dyn Sink,
    last: Mutex<Instant>,
}

impl<'a> StepTimeout<'a> {
    /// Of a step that begins now.
    pub(crate) fn start(sink: &'a dyn Sink) -> Self {
        Self { sink, last: Mutex::new(Instant::now()) }
    }

    /// Stops the job once the step has taken, or been silent for, too long. The step itself is waited for by its caller.
    pub(crate) async fn watch(
        &self,
        name: &'static str,
        limit: Option<Duration>,
        silence: Option<Duration>,
        stop: &StopSignal,
    ) -> Infallible {
        let end = limit.map(|limit| (Instant::now() + limit, Expired::Step(name, limit)));
        loop {
            let silent = silence.map(|silence| (self.last() + silence, Expired::Silence(silence)));
            let Some((due, expired)) = end.into_iter().chain(silent).min_by_key(|(due, _)| *due) else {
                return std::future::pending().await;
            };
            if due <= Instant::now() {
                stop.request(StopReason::TimedOut(expired));
                return std::future::pending().await;
            }
            sleep_until(due).await;
        }
    }

    fn see(&self, bytes: &[u8]) {
        if is_output(bytes) {
            *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        }
    }

    fn last(&self) -> Instant {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sink for StepTimeout<'_> {
    fn write(&self, stream: Stream, bytes: Vec<u8>) -> BoxFuture<'_, ()> {
        self.see(&bytes);
        self.sink.write(stream, bytes)
    }

    fn write_journaled(&self, stream: Stream, bytes: Vec<u8>, end: u64) -> BoxFuture<'_, ()> {
        self.see(&bytes);
        self.sink.write_journaled(stream, bytes, end)
    }

    fn journal(&self, stream: Stream) -> Option<&StreamJournal> {
        self.sink.journal(stream)
    }
}

fn is_output(bytes: &[u8]) -> bool {
    let is_waiting = |line: &[u8]| line.windows(STILL_WAITING.len()).any(|part| part == STILL_WAITING);
    // A large portion contains output.
    bytes.len() > 64 * 1024
        || bytes.split(|byte| *byte == b'\n').any(|line| !line.is_empty() && !is_waiting(line))
}
