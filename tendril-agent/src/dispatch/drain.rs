//! What the end of the agent means for those whom no lease tells: claims on their way, and what the agent does for itself.

use tokio_util::{
    sync::CancellationToken,
    task::{TaskTracker, task_tracker::TaskTrackerToken},
};

use crate::process::cancellation::{Stop, StopReason};

/// The drain. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Drain {
    begun: CancellationToken,
    /// Told when running jobs are interrupted.
    pub(crate) stop: Stop,
    /// Terraform commands that no job asked for.
    errands: TaskTracker,
}

impl Drain {
    /// Nothing new begins.
    pub(crate) fn begin(&self) {
        self.begun.cancel();
        self.errands.close();
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
    pub(crate) fn hasten(&self) {
        self.stop.hasten();
    }

    /// Begins an errand, which lasts until the answer is dropped; none, once the drain has begun.
    pub(crate) fn errand(&self) -> Option<TaskTrackerToken> {
        // The token comes first: a drain that begins in between waits for it.
        let errand = self.errands.token();
        (!self.has_begun()).then_some(errand)
    }

    /// Waits until the drain has begun and the last errand has ended.
    pub(crate) async fn errands_ended(&self) {
        self.errands.wait().await;
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn a_drain_waits_for_errands_and_lets_none_begin() {
        let drain = Drain::default();
        let errand = drain.errand().unwrap();
        drain.begin();
        assert!(drain.errand().is_none());
        assert!(drain.errands_ended().now_or_never().is_none());
        drop(errand);
        assert!(drain.errands_ended().now_or_never().is_some());
    }
}
