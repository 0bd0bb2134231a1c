//! The planned changes of one run: stored as rows before anyone approves them, and followed while they are applied.

use std::time::Duration;

use tokio::{
    sync::{oneshot, watch},
    task::JoinHandle,
    time::{sleep, timeout},
};
use tracing::Instrument as _;

use crate::{
    control_plane::{AppliedState, ChangeReporter},
    terraform::{ApplyProgress, PlannedChanges},
};

/// Between two reports of a run: at most two requests a second.
const REPORT_AFTER: Duration = Duration::from_millis(500);
/// How long a plan that is to be approved waits for its rows.
const STORED: Duration = Duration::from_secs(60);
/// How long the last report may hold up the end of a run. What is not reported by then shows as it was reported last.
const LAST: Duration = Duration::from_secs(2);

/// Stores and reports beside a run. It ends with the run.
#[derive(Debug)]
pub(crate) struct ChangeTracker {
    task: JoinHandle<()>,
    stored: Option<oneshot::Receiver<()>>,
    /// Dropped when the run has ended.
    running: watch::Sender<Option<AppliedState>>,
    resources: u64,
}

impl ChangeTracker {
    /// Begins with a plan. Must be called inside a runtime.
    pub(crate) fn start(reporter: ChangeReporter, planned: PlannedChanges, progress: ApplyProgress) -> Self {
        let (sender, stored) = oneshot::channel();
        let (running, ended) = watch::channel(None);
        let resources = planned.resources;
        progress.begin(planned.replaced);
        let rows = planned.rows;
        let work = async move {
            reporter.store(rows).await;
            // The run must not wait for it.
            let _ = sender.send(());
            follow(reporter, progress, ended).await;
        };
        Self { task: tokio::spawn(work.in_current_span()), stored: Some(stored), running, resources }
    }

    /// Waits until the rows are stored, for a while: who approves shall see them.
    pub(crate) async fn stored(&mut self) {
        if let Some(stored) = self.stored.take()
            && timeout(STORED, stored).await.is_err()
        {
            tracing::warn!(
                "the planned changes are not stored yet: the plan waits for approval all the same"
            );
        }
    }

    /// The plan is applied: the state of the stack is this now.
    pub(crate) fn applied(&self, backend: &'static str, fingerprint: Option<String>) {
        self.running.send_replace(Some(AppliedState { resources: self.resources, backend, fingerprint }));
    }

    /// The run has ended: its last changes are reported.
    pub(crate) async fn finish(self) {
        let Self { task, running, .. } = self;
        drop(running);
        if timeout(LAST, task).await.is_err() {
            tracing::debug!("the last progress of changes is reported later, or not at all");
        }
    }
}

async fn follow(
    reporter: ChangeReporter,
    progress: ApplyProgress,
    mut ended: watch::Receiver<Option<AppliedState>>,
) {
    let mut left = Vec::new();
    loop {
        let is_over = tokio::select! {
            changed = ended.changed() => changed.is_err(),
            () = sleep(REPORT_AFTER) => false,
        };
        left.extend(progress.take());
        if !left.is_empty() {
            left = reporter.report(std::mem::take(&mut left)).await;
        }
        if is_over {
            let applied = ended.borrow().clone();
            if let Some(state) = applied {
                reporter.applied(&state).await;
            }
            return;
        }
    }
}
