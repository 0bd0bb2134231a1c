//! `postgres_changes`: who receives which committed row.
//!
//! A channel's bindings become [`Subscription`]s once the database accepts them. Each committed transaction comes out
//! of [`crate::replication`], waits until it is visible, is checked against filters and policies by the [`Oracle`],
//! and ends as messages in the mailboxes of the sockets of [`crate::realtime`], which alone uses this room.

mod binding;
mod dispatch;
mod filter;
mod filters;
mod index;
mod inspection;
mod oracle;
mod principal;
mod record;
mod registry;
mod subscriber;
mod subscription;
mod table;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Mutex as AsyncMutex, watch};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::debug;

pub(crate) use binding::{Binding, inspect};
use oracle::Oracle;
pub(crate) use principal::Principal;
use registry::Registry;
use subscriber::Subscriber;
pub(crate) use subscriber::{ChannelId, Mailbox, Notice};
use subscription::Subscription;

use crate::replication::{self, Source};

/// The publication whose tables Realtime follows.
pub(crate) const PUBLICATION: &str = "supabase_realtime";

/// Pause before a subscription that found no database is tried again.
const RETRY: Duration = Duration::from_millis(200);

/// Why bindings are not live.
enum Refused {
    /// The text of the `system` message.
    Because(String),
    /// The database could not be queried.
    NoDatabase,
}

/// The change feed of one database. Replication starts with the first subscription.
#[derive(Debug)]
pub(crate) struct Changes {
    source: Source,
    stop: CancellationToken,
    /// How often changes are delivered; zero means at once.
    interval: Duration,
    registry: Arc<Registry>,
    /// Whether every later commit will arrive; none before replication is first wanted.
    live: Mutex<Option<watch::Receiver<bool>>>,
    /// Runs the queries of new subscriptions; the dispatcher has a connection of its own.
    registrar: AsyncMutex<Option<Oracle>>,
}

impl Changes {
    /// A feed that is not yet running; it ends with `stop`.
    pub(crate) fn new(source: Source, interval: Duration, stop: CancellationToken) -> Arc<Self> {
        Arc::new(Self {
            source,
            stop,
            interval,
            registry: Arc::default(),
            live: Mutex::new(None),
            registrar: AsyncMutex::new(None),
        })
    }

    /// Checks a channel's bindings after a delay and makes them live. The mailbox gets the verdict first and then every
    /// change that is committed after it. Replaces what the channel had before.
    pub(crate) fn subscribe(
        self: &Arc<Self>,
        channel: ChannelId,
        bindings: Vec<Binding>,
        principal: Principal,
        mailbox: Mailbox,
        delay: Duration,
    ) {
        let request = {
            let mut registry = self.registry.lock();
            let registration = registry.entry(channel);
            registration.request += 1;
            registration.request
        };
        let changes = Arc::clone(self);
        tokio::spawn(async move {
            sleep(delay).await;
            let accepted = loop {
                match changes.accept(&bindings, &principal).await {
                    Ok(accepted) => break Ok(accepted),
                    Err(Refused::Because(refusal)) => break Err(refusal),
                    // As the real server, it waits until there is a database again.
                    Err(Refused::NoDatabase) => sleep(RETRY).await,
                }
                let unwanted = changes.registry.lock().of_request(channel, request).is_none();
                if unwanted || changes.stop.is_cancelled() {
                    return;
                }
            };
            // The verdict is sent under the lock, before the dispatcher can see the channel.
            let mut registry = changes.registry.lock();
            if registry.of_request(channel, request).is_none() {
                return;
            }
            let (subscriber, result) = match accepted {
                Ok(subscriptions) => {
                    let mailbox = mailbox.clone();
                    (Some(Arc::new(Subscriber { channel, principal, subscriptions, mailbox })), Ok(()))
                }
                Err(refusal) => (None, Err(refusal)),
            };
            registry.set(channel, subscriber);
            // A socket that is gone needs no verdict.
            let _ = mailbox.send(Notice::Subscribed { channel, result });
        });
    }

    /// Removes a channel, also one whose request is still under way.
    pub(crate) fn unsubscribe(&self, channel: ChannelId) {
        self.registry.lock().remove(channel);
    }

    async fn accept(
        self: &Arc<Self>,
        bindings: &[Binding],
        principal: &Principal,
    ) -> Result<Vec<Subscription>, Refused> {
        let accepted = {
            let mut registrar = self.registrar.lock().await;
            let oracle = match registrar.take().filter(|oracle| !oracle.is_closed()) {
                Some(oracle) => oracle,
                None => Oracle::connect(&self.source.database).await.map_err(|error| {
                    debug!(%error, "a subscription waits for the database");
                    Refused::NoDatabase
                })?,
            };
            let accepted = subscription::accept(&oracle, bindings, principal).await;
            if accepted.is_err() && oracle.is_closed() {
                return Err(Refused::NoDatabase);
            }
            *registrar = Some(oracle);
            accepted.map_err(Refused::Because)?
        };
        self.start().await;
        Ok(accepted)
    }

    /// Starts replication once, and waits until every later commit will arrive: also each time that a session broke.
    async fn start(self: &Arc<Self>) {
        let mut live = {
            let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
            live.get_or_insert_with(|| {
                let (transactions, live) = replication::stream(self.source.clone(), self.stop.clone());
                let registry = Arc::clone(&self.registry);
                tokio::spawn(dispatch::run(self.source.clone(), registry, transactions, self.interval));
                live
            })
            .clone()
        };
        // An error means that the stack stops.
        let _ = live.wait_for(|live| *live).await;
    }
}
