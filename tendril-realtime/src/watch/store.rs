//! The current rows of a query, for those who need no events.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, PoisonError, RwLock},
};

use serde::de::DeserializeOwned;
use tokio::{
    sync::{mpsc, watch},
    task::AbortHandle,
};

use super::{
    Query,
    event::{RawWatchEvent, is_end},
    record::Key,
    task::Watcher,
};
use crate::{client::Client, driver::current_runtime, error::Error, telemetry::TARGET};

/// The rows of a query as they are now, kept up to date in the background. Clones share the rows; the last one to go ends
/// the watch.
///
/// ```no_run
/// # #[derive(serde::Deserialize)] struct Cluster { id: String, status: String }
/// # async fn run(client: tendril_realtime::Client) -> Result<(), tendril_realtime::Error> {
/// use tendril_realtime::watch::Query;
///
/// let clusters = client.store::<Cluster>(Query::table("clusters").select("id,status"))?;
/// clusters.ready().await;
/// println!("{} online", clusters.state().iter().filter(|cluster| cluster.status == "ONLINE").count());
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Store<T> {
    rows: Rows<T>,
    /// Counts changes; 0 until the first list is complete.
    version: watch::Receiver<u64>,
    task: Arc<AbortOnDrop>,
}

type Rows<T> = Arc<RwLock<BTreeMap<Key, Arc<T>>>>;

#[derive(Debug)]
struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Client {
    /// Keeps the rows of a query up to date in the background. Rows that are not of the type, and failures, are logged as
    /// warnings; the watch continues after each. Must be called within a runtime.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for a query that cannot work, and outside of a runtime.
    pub fn store<T: DeserializeOwned + Send + Sync + 'static>(
        &self,
        query: Query,
    ) -> Result<Store<T>, Error> {
        query.check()?;
        let runtime = current_runtime()?;
        let rows: Rows<T> = Arc::default();
        let (version_sender, version) = watch::channel(0);
        let (event_sender, events) = mpsc::channel(super::AHEAD);
        let watcher = Watcher::new(self.clone(), query);
        let kept = Arc::clone(&rows);
        let task = runtime.spawn(async move {
            tokio::join!(watcher.run(event_sender), keep(kept, events, version_sender));
        });
        Ok(Store { rows, version, task: Arc::new(AbortOnDrop(task.abort_handle())) })
    }
}

async fn keep<T: DeserializeOwned>(
    rows: Rows<T>,
    mut events: mpsc::Receiver<RawWatchEvent>,
    version: watch::Sender<u64>,
) {
    let mut is_complete = false;
    while let Some(event) = events.recv().await {
        let decoded =
            |json: &str| serde_json::from_str::<T>(json).map_err(|error| Error::decode("a row", &error));
        let write = || rows.write().unwrap_or_else(PoisonError::into_inner);
        match event {
            RawWatchEvent::InitApply(key, json) | RawWatchEvent::Apply(key, json) => match decoded(&json) {
                Ok(row) => drop(write().insert(key, Arc::new(row))),
                Err(error) => {
                    // The state before is not the row's any more.
                    write().remove(&key);
                    tracing::warn!(target: TARGET, %error, "a row was left out of a store");
                }
            },
            RawWatchEvent::Delete(key, _) => drop(write().remove(&key)),
            RawWatchEvent::InitDone => is_complete = true,
            RawWatchEvent::Failed(error) if is_end(&error) => {
                tracing::error!(target: TARGET, %error, "a store is no longer kept up to date");
                return;
            }
            RawWatchEvent::Failed(error) => {
                tracing::warn!(target: TARGET, %error, "a store may be out of date");
            }
            RawWatchEvent::Init => {}
        }
        if is_complete {
            version.send_modify(|version| *version += 1);
        }
    }
}

impl<T> Store<T> {
    /// Waits until the first list is complete.
    pub async fn ready(&self) {
        // An error means that the client was shut down: there will be no list to wait for.
        let _ = self.version.clone().wait_for(|version| *version > 0).await;
    }

    /// All rows, ordered by the text of their keys.
    #[doc(alias = "rows")]
    pub fn state(&self) -> Vec<Arc<T>> {
        self.rows.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// The row with this key, if the key is one column.
    pub fn get(&self, key: impl fmt::Display) -> Option<Arc<T>> {
        self.get_composite([key])
    }

    /// The row with this key of several columns, in their order.
    pub fn get_composite<K: fmt::Display>(&self, key: impl IntoIterator<Item = K>) -> Option<Arc<T>> {
        let key = Key::new(key.into_iter().map(|value| value.to_string()).collect());
        self.rows.read().unwrap_or_else(PoisonError::into_inner).get(&key).cloned()
    }

    /// Waits until something changed since the last call on this handle. `false` if nothing ever will.
    pub async fn changed(&mut self) -> bool {
        self.version.changed().await.is_ok()
    }
}

impl<T> Clone for Store<T> {
    fn clone(&self) -> Self {
        Self { rows: Arc::clone(&self.rows), version: self.version.clone(), task: Arc::clone(&self.task) }
    }
}
