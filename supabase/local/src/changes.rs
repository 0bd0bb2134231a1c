//! `postgres_changes`: who hears of which committed row.
//!
//! A channel's bindings become [`Subscription`]s once the database accepts them. Each committed transaction comes out
//! of [`crate::replication`], waits until it is visible, is looked at through filters and policies by the [`Oracle`],
//! and ends as messages in the mailboxes of the sockets.

mod audience;
mod binding;
mod dispatch;
mod filter;
mod inspection;
mod listener;
mod oracle;
mod record;
mod subscription;
mod table;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex as AsyncMutex;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use audience::{Audience, Seats};
pub(crate) use audience::{ChannelId, Mailbox, Notice};
pub(crate) use binding::{Binding, inspect};
pub(crate) use listener::Listener;
use oracle::Oracle;

use subscription::Subscription;

use crate::replication::{self, Source};

/// The publication whose tables Realtime follows.
pub(crate) const PUBLICATION: &str = "supabase_realtime";

/// The change feed of one database. Replication starts with the first subscription.
#[derive(Debug)]
pub(crate) struct Changes {
    source: Source,
    stop: CancellationToken,
    seats: Arc<Seats>,
    /// Whether replication has started; held while it starts, so that all wait for it.
    started: AsyncMutex<bool>,
    /// Answers the questions of subscribers; the dispatcher has another of its own.
    registrar: AsyncMutex<Option<Oracle>>,
}

impl Changes {
    /// A feed that is not yet running; it ends with `stop`.
    pub(crate) fn new(source: Source, stop: CancellationToken) -> Arc<Self> {
        Arc::new(Self {
            source,
            stop,
            seats: Arc::default(),
            started: AsyncMutex::new(false),
            registrar: AsyncMutex::new(None),
        })
    }

    /// Checks a channel's bindings after a delay and makes them live. The mailbox gets the verdict first and then every
    /// change that is committed after it. Replaces what the channel had before.
    pub(crate) fn subscribe(
        self: &Arc<Self>,
        channel: ChannelId,
        bindings: Vec<Binding>,
        listener: Listener,
        mailbox: Mailbox,
        delay: Duration,
    ) {
        let request = {
            let mut seats = self.seats.lock();
            let seat = seats.entry(channel).or_default();
            seat.request += 1;
            seat.request
        };
        let changes = Arc::clone(self);
        tokio::spawn(async move {
            sleep(delay).await;
            let accepted = changes.accept(&bindings, &listener).await;
            // The verdict goes out under the lock, before the dispatcher can know the channel.
            let mut seats = changes.seats.lock();
            let Some(seat) = seats.get_mut(&channel).filter(|seat| seat.request == request) else { return };
            let (audience, result) = match accepted {
                Ok(subscriptions) => {
                    let mailbox = mailbox.clone();
                    (Some(Arc::new(Audience { channel, listener, subscriptions, mailbox })), Ok(()))
                }
                Err(refusal) => (None, Err(refusal)),
            };
            seat.audience = audience;
            // A socket that is gone needs no verdict.
            let _ = mailbox.send(Notice::Subscribed { channel, result });
        });
    }

    /// Forgets a channel, also one whose request is still under way.
    pub(crate) fn unsubscribe(&self, channel: ChannelId) {
        self.seats.lock().remove(&channel);
    }

    async fn accept(
        self: &Arc<Self>,
        bindings: &[Binding],
        listener: &Listener,
    ) -> Result<Vec<Subscription>, String> {
        let accepted = {
            let mut registrar = self.registrar.lock().await;
            let oracle = match registrar.take().filter(|oracle| !oracle.is_closed()) {
                Some(oracle) => oracle,
                None => self.oracle().await?,
            };
            let accepted = subscription::accept(&oracle, bindings, listener).await;
            *registrar = Some(oracle);
            accepted?
        };
        self.start().await;
        Ok(accepted)
    }

    async fn oracle(&self) -> Result<Oracle, String> {
        Oracle::connect(self.source.port, &self.source.database).await.map_err(|error| error.to_string())
    }

    /// Starts replication once, and waits until every later commit will be heard of.
    async fn start(self: &Arc<Self>) {
        let mut started = self.started.lock().await;
        if *started {
            return;
        }
        let (transactions, first_start) = replication::stream(self.source.clone(), self.stop.clone());
        tokio::spawn(dispatch::run(self.source.clone(), Arc::clone(&self.seats), transactions));
        tokio::select! {
            _ = first_start => *started = true,
            () = self.stop.cancelled() => {}
        }
    }
}
