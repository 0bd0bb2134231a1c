//! The signal to stop one job: set once, by the first that finds that it must end; observed by everything that runs for it.

use tokio::sync::watch;

use super::time_limit::Expired;
use crate::os::DiskPressure;

/// Why a job must end early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StopReason {
    /// The user requested it.
    Cancelled,
    /// The job is not ours any more, according to the database.
    Fenced,
    /// The agent itself has to end.
    ShuttingDown,
    /// There is no room left for what it writes.
    DiskFull(DiskPressure),
    /// It takes too long.
    TimedOut(Expired),
    /// Somebody has removed the directory in which it runs.
    DirectoryRemoved,
}

/// How urgent it is.
#[derive(Clone, Copy, Debug, Default)]
struct Signal {
    /// The first reason that was given; later ones change nothing.
    reason: Option<StopReason>,
    /// The grace period is to be cut short.
    forced: bool,
}

/// Both ends of the signal. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct StopSignal {
    signal: watch::Sender<Signal>,
}

impl StopSignal {
    /// Orders the end, unless it is ordered already.
    pub(crate) fn request(&self, reason: StopReason) {
        self.signal
            .send_if_modified(|signal| signal.reason.is_none() && signal.reason.replace(reason).is_none());
    }

    /// Cuts the grace period short.
    pub(crate) fn force(&self) {
        self.signal.send_if_modified(|signal| !std::mem::replace(&mut signal.forced, true));
    }

    /// The reason, if the end is ordered.
    pub(crate) fn requested(&self) -> Option<StopReason> {
        self.signal.borrow().reason
    }

    /// Waits for the signal.
    pub(crate) async fn wait(&self) {
        self.until(|signal| signal.reason.is_some()).await;
    }

    /// Waits until the grace period is to be cut short.
    pub(crate) async fn wait_forced(&self) {
        self.until(|signal| signal.forced).await;
    }

    async fn until(&self, condition: impl Fn(&Signal) -> bool) {
        // `self` holds a sender, so the channel cannot be closed.
        let mut signal = self.signal.subscribe();
        let _open = signal.wait_for(|signal| condition(signal)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_reason_stands() {
        let stop = StopSignal::default();
        let received = stop.clone();
        assert_eq!(received.requested(), None);
        stop.request(StopReason::Fenced);
        stop.request(StopReason::Cancelled);
        received.wait().await;
        assert_eq!(received.requested(), Some(StopReason::Fenced));
    }
}
