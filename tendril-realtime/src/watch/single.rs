//! One row, and its changes.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::Stream;
use serde::de::DeserializeOwned;
use tokio::{sync::mpsc, task::AbortHandle};

use super::{
    Query,
    event::{RawWatchEvent, is_end},
    record::Key,
    task,
};
use crate::{client::Client, error::Error, telemetry::TARGET};

/// The one row of a query as it is now: the row, or `None` while there is none. An `Err` item is the end: the row is not of the
/// type, or the [session has ended](Error::session_ended). What fails otherwise is tried again, and logged as a warning;
/// [`is_live`](Self::is_live) and [`Client::status`] show it.
///
/// ```no_run
/// # #[derive(serde::Deserialize)] struct Job { status: String }
/// # async fn run(client: tendril_realtime::Client) -> Result<(), tendril_realtime::Error> {
/// use tendril_realtime::{StreamExt as _, watch::Query};
///
/// let mut job = client.watch_single::<Job>(Query::table("jobs").immutable_eq("id", 7))?;
/// while let Some(state) = job.next().await {
///     match state? {
///         Some(job) if job.status == "DONE" => break,
///         Some(job) => println!("{}", job.status),
///         None => println!("there is no such job"),
///     }
/// }
/// # Ok(()) }
/// ```
#[derive(Debug)]
#[must_use = "streams do nothing unless polled"]
pub struct SingleWatch<T> {
    start: Option<task::Watcher>,
    events: Option<mpsc::Receiver<RawWatchEvent>>,
    task: Option<AbortHandle>,
    link: Arc<task::Link>,
    /// The row that was reported last.
    current: Option<Key>,
    is_reported: bool,
    rows: std::marker::PhantomData<fn() -> T>,
}

impl Client {
    /// Watches one row: the first of the query, in its [order](Query::order). The first item is the row, or that there is none.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for a query that cannot work.
    #[doc(alias = "watch_object")]
    pub fn watch_single<T: DeserializeOwned>(&self, query: Query) -> Result<SingleWatch<T>, Error> {
        let query = query.limit(1);
        query.check()?;
        let watcher = task::Watcher::new(self.clone(), query);
        let link = watcher.link();
        Ok(SingleWatch {
            start: Some(watcher),
            events: None,
            task: None,
            link,
            current: None,
            is_reported: false,
            rows: std::marker::PhantomData,
        })
    }
}

impl<T> SingleWatch<T> {
    /// Whether changes are reported as they happen. While they are not, the watch polls.
    pub fn is_live(&self) -> bool {
        self.link.is_live()
    }

    /// The item for the reader, if the event changes the row.
    fn changed_row(&mut self, event: RawWatchEvent) -> Option<Result<Option<Box<str>>, Error>> {
        match event {
            RawWatchEvent::InitApply(key, json) | RawWatchEvent::Apply(key, json) => {
                self.current = Some(key);
                self.is_reported = true;
                Some(Ok(Some(json)))
            }
            // Another row may have taken its place before.
            RawWatchEvent::Delete(key, _) if self.current.as_ref() == Some(&key) => {
                self.current = None;
                Some(Ok(None))
            }
            RawWatchEvent::InitDone if !self.is_reported => {
                self.is_reported = true;
                Some(Ok(None))
            }
            RawWatchEvent::Failed(error) if is_end(&error) => Some(Err(error)),
            RawWatchEvent::Failed(error) => {
                tracing::warn!(target: TARGET, error = format!("{error:#}"), "a watched row may be out of date");
                None
            }
            RawWatchEvent::Delete(..) | RawWatchEvent::Init | RawWatchEvent::InitDone => None,
        }
    }
}

impl<T: DeserializeOwned> Stream for SingleWatch<T> {
    type Item = Result<Option<T>, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(watcher) = self.start.take() {
            let (sender, receiver) = mpsc::channel(super::AHEAD);
            self.events = Some(receiver);
            self.task = Some(tokio::spawn(watcher.run(sender)).abort_handle());
        }
        loop {
            let Some(events) = &mut self.events else { return Poll::Ready(None) };
            let Poll::Ready(event) = events.poll_recv(cx) else { return Poll::Pending };
            let Some(event) = event else { return Poll::Ready(None) };
            if let Some(changed) = self.changed_row(event) {
                let row = |json: Box<str>| {
                    serde_json::from_str(&json).map_err(|error| Error::decode("a row", &error))
                };
                let row = changed.and_then(|json| json.map(row).transpose());
                if row.is_err() {
                    self.events = None;
                    if let Some(task) = self.task.take() {
                        task.abort();
                    }
                }
                return Poll::Ready(Some(row));
            }
        }
    }
}

impl<T> Drop for SingleWatch<T> {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}
