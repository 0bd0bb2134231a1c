//! The end of work that no lease covers, when the agent stops: claims on their way, and background tasks of the agent.

use tokio_util::{
    sync::CancellationToken,
    task::{TaskTracker, task_tracker::TaskTrackerToken},
};

use crate::process::cancellation::{StopReason, StopSignal};

/// The drain. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Drain {
    begun: CancellationToken,
    /// Set when running jobs are interrupted.
    pub(crate) stop: StopSignal,
    /// Terraform commands of no job.
    background_tasks: TaskTracker,
}

impl Drain {
    /// Nothing new begins.
    pub(crate) fn begin(&self) {
        self.begun.cancel();
        self.background_tasks.close();
    }

    /// Whether it has begun.
    pub(crate) fn has_begun(&self) -> bool {
        self.begun.is_cancelled()
    }

    /// Waits for its beginning.
    pub(crate) async fn begun(&self) {
        self.begun.cancelled().await;
    }

    /// What still runs is interrupted.
    pub(crate) fn interrupt(&self) {
        self.stop.request(StopReason::ShuttingDown);
    }

    /// What still runs is interrupted again, and killed.
    pub(crate) fn force(&self) {
        self.stop.force();
    }

    /// Begins a background task, which lasts until the answer is dropped; none, once the drain has begun.
    pub(crate) fn background_task(&self) -> Option<TaskTrackerToken> {
        // The token comes first: a drain that begins in between waits for it.
        let background_task = self.background_tasks.token();
        (!self.has_begun()).then_some(background_task)
    }

    /// Waits until the drain has begun and the last background task has ended.
    pub(crate) async fn background_tasks_ended(&self) {
        self.background_tasks.wait().await;
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn a_drain_waits_for_background_tasks_and_lets_none_begin() {
        let drain = Drain::default();
        let background_task = drain.background_task().unwrap();
        drain.begin();
        assert!(drain.background_task().is_none());
        assert!(drain.background_tasks_ended().now_or_never().is_none());
        drop(background_task);
        assert!(drain.background_tasks_ended().now_or_never().is_some());
    }
}
