//! The order to stop one job: given once, by whoever learns first that it must end; heard by whatever runs for it.

use tokio::sync::watch;

use crate::dispatch::disk_guard::Shortage;

/// Why a job must end early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StopReason {
    /// The user asked for it.
    Cancelled,
    /// The database says that the job is not ours any more.
    Fenced,
    /// The agent itself has to end.
    ShuttingDown,
    /// There is no room left for what it writes.
    DiskFull(Shortage),
}

/// How urgent it is.
#[derive(Clone, Copy, Debug, Default)]
struct Order {
    /// The first reason that was given; later ones change nothing.
    reason: Option<StopReason>,
    /// Patience is to be cut short.
    hastened: bool,
}

/// Both ends of the order. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stop {
    order: watch::Sender<Order>,
}

impl Stop {
    /// Orders the end, unless it is ordered already.
    pub(crate) fn request(&self, reason: StopReason) {
        self.order.send_if_modified(|order| order.reason.is_none() && order.reason.replace(reason).is_none());
    }

    /// Cuts the patience short.
    pub(crate) fn hasten(&self) {
        self.order.send_if_modified(|order| !std::mem::replace(&mut order.hastened, true));
    }

    /// The reason, if the end is ordered.
    pub(crate) fn requested(&self) -> Option<StopReason> {
        self.order.borrow().reason
    }

    /// Waits for the order.
    pub(crate) async fn wait(&self) {
        self.until(|order| order.reason.is_some()).await;
    }

    /// Waits until patience is to be cut short.
    pub(crate) async fn wait_hastened(&self) {
        self.until(|order| order.hastened).await;
    }

    async fn until(&self, condition: impl Fn(&Order) -> bool) {
        // `self` holds a sender, so the channel cannot be closed.
        let mut order = self.order.subscribe();
        let _open = order.wait_for(|order| condition(order)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_reason_stands() {
        let stop = Stop::default();
        let heard = stop.clone();
        assert_eq!(heard.requested(), None);
        stop.request(StopReason::Fenced);
        stop.request(StopReason::Cancelled);
        heard.wait().await;
        assert_eq!(heard.requested(), Some(StopReason::Fenced));
    }
}
