//! List, then watch: the rows of a table as they are, and every change of them, without gaps.
//!
//! Realtime alone delivers each change at most once, and a list alone is out of date at once. A watch joins both, as an
//! informer does for Kubernetes: it reads the table, follows the events, and reads the table again whenever something may
//! have been missed: when events begin to flow, after each [`Resync`](crate::ChangeEvent::Resync) and
//! [`Lagged`](crate::ChangeEvent::Lagged), and from time to time in any case. While events do not flow it polls. Whatever
//! the way a row comes, it is reported once.
//!
//! What it follows is the row changes of its table, or, for tables with very many watchers, broadcasts that a trigger sends:
//! see [`Query::invalidated_by_broadcast`].
//!
//! ```no_run
//! use tendril_realtime::{StreamExt as _, watch::{Query, WatchEvent}};
//!
//! #[derive(serde::Deserialize)]
//! struct Job { id: i64 }
//!
//! # async fn run(client: tendril_realtime::Client) -> Result<(), tendril_realtime::Error> {
//! let mut queue = client.watch::<Job>(Query::table("jobs").eq("status", "QUEUED"))?;
//! while let Some(event) = queue.next().await {
//!     // An error is the end; what passes is an event.
//!     match event? {
//!         WatchEvent::InitApply(job) | WatchEvent::Apply(job) => println!("there is {}", job.id),
//!         WatchEvent::Delete(job) => println!("{} is gone, or queued no more", job.id),
//!         WatchEvent::Interrupted(error) => eprintln!("{error:#}; it is tried again"),
//!         _ => {}
//!     }
//! }
//! # Ok(()) }
//! ```

mod column_type;
mod event;
mod feed;
mod invalidation;
mod judge;
mod query;
mod record;
mod refetch;
mod single;
mod store;
mod task;

use std::{
    marker::PhantomData,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::Stream;
use serde::de::DeserializeOwned;
use tokio::{sync::mpsc, task::AbortHandle};

pub use self::{query::Query, single::SingleWatch, store::Store};
use crate::{client::Client, error::Error};

/// What a [`Watch`] yields.
///
/// Events of one row come in the order of its states. A state that was followed by another before it could be reported may be
/// left out; the last one never is.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum WatchEvent<T> {
    /// The first list begins.
    Init,
    /// A row of the first list.
    InitApply(T),
    /// The first list is complete.
    InitDone,
    /// A row is new in the watch, or changed.
    Apply(T),
    /// A row is not in the watch any more: deleted, hidden by a policy, or changed so that it does not fulfil the query. This
    /// is its last known state.
    Delete(T),
    /// A row that is not of the requested type.
    Undecodable {
        /// The row as it is, or as it was if it was deleted.
        json: String,
        /// The reader's complaint: [`Decode`](crate::ErrorKind::Decode).
        error: Error,
    },
    /// Something failed that the watch is trying again by itself: a read of the table, the connection, the subscription.
    Interrupted(Error),
}

impl<T> WatchEvent<T> {
    /// The row that is new, or as it is now; `None` for a deletion and for the marks of the first list.
    pub fn applied(self) -> Option<T> {
        match self {
            Self::InitApply(row) | Self::Apply(row) => Some(row),
            _ => None,
        }
    }

    /// The row that the event is about, deleted or not.
    pub fn touched(self) -> Option<T> {
        match self {
            Self::InitApply(row) | Self::Apply(row) | Self::Delete(row) => Some(row),
            _ => None,
        }
    }
}

/// The rows of a query, and their changes. What fails is tried again, and is an [event](WatchEvent::Interrupted). The watch
/// ends when it is dropped, when the client is shut down, and with an `Err` when the token source says that the
/// [session has ended](Error::session_ended).
///
/// A slow reader costs bounded memory: when too many events wait for it, they are dropped and the table is read again.
#[derive(Debug)]
#[must_use = "streams do nothing unless polled"]
pub struct Watch<T> {
    /// Taken when the watch is first polled: until then there is nothing to do, and perhaps no runtime.
    start: Option<task::Watcher>,
    events: Option<mpsc::Receiver<event::RawWatchEvent>>,
    task: Option<AbortHandle>,
    link: Arc<task::Link>,
    rows: PhantomData<fn() -> T>,
}

/// Rows on their way to the reader; small, for what waits here is not merged.
const AHEAD: usize = 16;

impl Client {
    /// Watches the rows of a query: see [`watch`](crate::watch).
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for a query that cannot work.
    pub fn watch<T: DeserializeOwned>(&self, query: Query) -> Result<Watch<T>, Error> {
        query.check()?;
        let watcher = task::Watcher::new(self.clone(), query);
        let link = watcher.link();
        Ok(Watch { start: Some(watcher), events: None, task: None, link, rows: PhantomData })
    }
}

impl<T> Watch<T> {
    /// Whether changes are reported as they happen. While they are not, the watch polls.
    pub fn is_live(&self) -> bool {
        self.link.is_live()
    }

    /// Reads the table again now: for a change or a gap that the watch cannot notice.
    #[doc(alias = "refresh")]
    pub fn relist(&self) {
        self.link.relist.notify_one();
    }
}

impl<T: DeserializeOwned> Stream for Watch<T> {
    type Item = Result<WatchEvent<T>, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(watcher) = self.start.take() {
            let (sender, receiver) = mpsc::channel(AHEAD);
            self.events = Some(receiver);
            self.task = Some(tokio::spawn(watcher.run(sender)).abort_handle());
        }
        let Some(events) = &mut self.events else { return Poll::Ready(None) };
        let event = std::task::ready!(events.poll_recv(cx)).map(event::RawWatchEvent::decode);
        if matches!(event, Some(Err(_))) {
            self.events = None;
            if let Some(task) = self.task.take() {
                task.abort();
            }
        }
        Poll::Ready(event)
    }
}

impl<T> Drop for Watch<T> {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}
