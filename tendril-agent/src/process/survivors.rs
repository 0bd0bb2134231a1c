//! The output of programs that survived their agent, taken into the journal of their attempt until they have ended.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::{BoxFuture, ready};
use tokio::{sync::watch, task::JoinSet};

use crate::process::{
    journal::{Journal, StreamJournal},
    output_pipe::pipe_of,
    process_table::Process,
    pump::pump,
    sink::Sink,
    stream::Stream,
};

/// How long others may still write once the programs have ended.
const DRAIN_LIMIT: Duration = Duration::from_millis(50);

/// Programs whose output is read by this process.
pub(crate) struct Survivors {
    over: watch::Sender<Option<Instant>>,
    pumps: JoinSet<()>,
}

/// Leaves everything in the journal.
struct JournalOnly(Arc<Journal>);

impl Sink for JournalOnly {
    fn write(&self, _: Stream, _: Vec<u8>) -> BoxFuture<'_, ()> {
        // The disk refused it; it was reported.
        Box::pin(ready(()))
    }

    fn journal(&self, stream: Stream) -> Option<&StreamJournal> {
        self.0.of(stream)
    }
}

impl Survivors {
    /// Begins to read what these processes write: with a full pipe they could not end. Must be called inside a runtime.
    pub(crate) fn of(processes: Vec<Process>, journal: &Arc<Journal>) -> Self {
        let (over, is_over) = watch::channel(None);
        let mut pumps = JoinSet::new();
        for process in processes {
            for (descriptor, stream) in [(1, Stream::Stdout), (2, Stream::Stderr)] {
                let pipe = pipe_of(&process, descriptor).and_then(|pipe| pipe.into_nonblocking_fd().ok());
                let (sink, is_over) = (JournalOnly(Arc::clone(journal)), is_over.clone());
                if let Some(pipe) = pipe {
                    pumps.spawn(async move { pump(pipe, stream, &sink, is_over).await });
                }
            }
        }
        Self { over, pumps }
    }

    /// They have ended: reads what is left in their pipes.
    pub(crate) async fn ended(mut self) {
        self.over.send_replace(Some(Instant::now() + DRAIN_LIMIT));
        while self.pumps.join_next().await.is_some() {}
    }
}
