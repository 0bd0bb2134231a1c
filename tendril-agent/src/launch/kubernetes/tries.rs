//! When states that were kept are tried to be stored again.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

/// The first pause after a try, and the longest.
const FIRST: Duration = Duration::from_secs(30);
const LONGEST: Duration = Duration::from_secs(600);

/// The tries of each stack, and whoever waits for one.
#[derive(Debug, Default)]
pub(super) struct Tries {
    by_stack: Mutex<HashMap<String, (Instant, Duration)>>,
    wake: Notify,
}

impl Tries {
    /// Whether a try is due. If it is, the next one is due after a pause.
    pub(super) fn is_due(&self, stack: &str) -> bool {
        let mut tries = self.tries();
        let (at, pause) = tries.entry(stack.to_owned()).or_insert((Instant::now(), FIRST));
        if Instant::now() < *at {
            return false;
        }
        *at = Instant::now() + *pause;
        *pause = (*pause * 2).min(LONGEST);
        true
    }

    /// A try is due at once: somebody waits for it.
    pub(super) fn hurry(&self, stack: &str) {
        self.tries().remove(stack);
        self.wake.notify_one();
    }

    /// Something has happened that may be acted upon.
    pub(super) fn wake(&self) {
        self.wake.notify_one();
    }

    /// Waits for that.
    pub(super) async fn woken(&self) {
        self.wake.notified().await;
    }

    /// It is over.
    pub(super) fn forget(&self, stack: &str) {
        self.tries().remove(stack);
    }

    fn tries(&self) -> MutexGuard<'_, HashMap<String, (Instant, Duration)>> {
        // Nothing that holds the lock can leave the map in halves.
        self.by_stack.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
