//! The request for broadcasts of deployments: sent to the database at the start, and again each six hours, because it expires.

use std::{sync::Arc, time::Duration};

use serde::Deserialize;
use serde_json::json;
use tendril_realtime::{Error, Rest};
use tokio::{
    sync::{Notify, watch},
    task::JoinHandle,
    time::{Instant, sleep},
};

use crate::control_plane::backoff::{Backoff, around};

/// The longest that one question may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Between two requests; each is valid for a day.
const AGAIN: Duration = Duration::from_secs(6 * 3600);
/// Between two questions to a database that cannot grant it: it may be migrated meanwhile.
const ONCE_REFUSED: Duration = Duration::from_secs(300);

/// The state of the request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum SubscriptionState {
    /// Not answered yet.
    #[default]
    Open,
    /// Granted. The number grows whenever there was a time before it without broadcasts.
    Granted(u64),
    /// The database cannot send broadcasts.
    Refused,
}

/// Repeats the request until it is dropped.
#[derive(Debug)]
pub(crate) struct BroadcastSubscription {
    state: watch::Receiver<SubscriptionState>,
    /// Ends the pause after a refusal.
    wake: Arc<Notify>,
    task: JoinHandle<()>,
}

impl Drop for BroadcastSubscription {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What the database answers.
#[derive(Deserialize)]
struct Granted {
    /// How long the request is valid.
    seconds: u64,
}

impl BroadcastSubscription {
    /// Must be called inside a runtime.
    pub(crate) fn request(rest: Rest) -> Self {
        let (sender, state) = watch::channel(SubscriptionState::Open);
        let wake = Arc::new(Notify::new());
        Self { state, task: tokio::spawn(keep_asking(rest, sender, Arc::clone(&wake))), wake }
    }

    /// There is reason to think that the database would not refuse any more.
    pub(crate) fn ask_now(&self) {
        // No permit is stored: a request that is under way is enough.
        self.wake.notify_waiters();
    }

    /// The state, once it is another than at the last call. May be dropped and called again.
    pub(crate) async fn changed(&mut self) -> SubscriptionState {
        // The task has no end.
        let _ = self.state.changed().await;
        *self.state.borrow_and_update()
    }
}

async fn keep_asking(rest: Rest, state: watch::Sender<SubscriptionState>, wake: Arc<Notify>) {
    let mut backoff = Backoff::new(Duration::from_secs(2), Duration::from_secs(30));
    let mut round = 0;
    let mut granted_until: Option<Instant> = None;
    loop {
        let request = rest
            .rpc("agent_wants_broadcasts", &json!({}))
            .timeout(TIMEOUT)
            .idempotent(true)
            .value::<Granted>();
        let pause = match request.await {
            Ok(Granted { seconds }) => {
                let life = Duration::from_secs(seconds);
                let now = Instant::now();
                if granted_until.is_none_or(|until| until <= now) {
                    round += 1;
                    state.send_replace(SubscriptionState::Granted(round));
                }
                granted_until = Some(now + life);
                backoff.reset();
                around(AGAIN.min(life / 4))
            }
            Err(error) if is_unknown(&error) => {
                tracing::debug!(error = %format_args!("{error:#}"), "no broadcasts");
                granted_until = None;
                state.send_replace(SubscriptionState::Refused);
                tokio::select! {
                    () = sleep(around(ONCE_REFUSED)) => {}
                    () = wake.notified() => {}
                }
                continue;
            }
            Err(error) => {
                tracing::warn!(error = %format_args!("{error:#}"), "broadcasts cannot be requested now: trying again");
                backoff.after(&error)
            }
        };
        sleep(pause).await;
    }
}

/// Whether the database lacks the function, or what the function needs.
fn is_unknown(error: &Error) -> bool {
    error.postgrest().is_some_and(|api| api.status == 404 || api.code == "0A000")
}
