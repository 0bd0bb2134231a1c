//! Row changes, typed and honest about gaps.

use std::{
    marker::PhantomData,
    pin::Pin,
    task::{Context, Poll},
};

use futures_util::Stream;
use serde::de::DeserializeOwned;

use super::{
    Subscription,
    row::{RawRow, Row, Side},
};
use crate::{
    driver::{Gauge, Item},
    error::Error,
    session::{Delivery, ResyncReason},
    wire::{Change, change::ChangeKind},
};

/// What a [`ChangeStream`] yields.
///
/// Supabase Realtime delivers each change at most once and numbers nothing. So this type says where something may be
/// missing: after [`Resync`](Self::Resync) and [`Lagged`](Self::Lagged), read the table again; from that point on the stream
/// is complete until the next of them.
#[derive(Debug)]
#[non_exhaustive]
pub enum ChangeEvent<T> {
    /// A row was inserted.
    Insert(Row<T>),
    /// A row was updated. Filters are matched against the new row: one that leaves the filter gives no event.
    Update {
        /// The row as it is now. Large values that did not change are absent from it unless the table has
        /// `REPLICA IDENTITY FULL`.
        new: Row<T>,
        /// What the table's replica identity keeps of it: the primary key, or all columns.
        old: RawRow,
    },
    /// A row was deleted. Row level security does not apply to deletes: every subscriber gets the key. On a table with row
    /// level security the key is all there is, and a filter on another column matches nothing.
    Delete {
        /// The primary key, or all columns under `REPLICA IDENTITY FULL` without row level security.
        old: RawRow,
    },
    /// A change that the server delivered without all of its data: larger than 1 MiB (`Error 413`), on a table without a
    /// primary key (`400`), or with a key the role may not read (`401`). Read the row by its key.
    Incomplete {
        /// What happened to the row.
        kind: ChangeKind,
        /// What is left of the row as it is now; `{}` if nothing.
        new: RawRow,
        /// What is left of the row as it was; `{}` if nothing.
        old: RawRow,
        /// The server's texts.
        errors: Vec<String>,
    },
    /// PostgresChanges may have been missed before this point, and none between it and the next event.
    Resync(ResyncReason),
    /// The reader was too slow: so many events were dropped before this point.
    Lagged(u64),
}

/// Row changes of one binding.
///
/// An `Err` item with [`Retry::Never`](crate::Retry::Never) that is no
/// [`Decode`](crate::ErrorKind::Decode) is the last one; after any other the stream goes on by itself.
///
/// # Cancel safety
/// Dropping a `next()` future loses nothing.
#[derive(Debug)]
#[must_use = "streams do nothing unless polled"]
pub struct ChangeStream<T> {
    subscription: Subscription,
    /// The table asked for. The server matches names as patterns (`user_log` hears `userXlog` too).
    schema: Option<String>,
    table: Option<String>,
    rows: PhantomData<fn() -> T>,
}

impl<T> ChangeStream<T> {
    pub(crate) fn new(subscription: Subscription, schema: Option<String>, table: Option<String>) -> Self {
        Self { subscription, schema, table, rows: PhantomData }
    }

    pub(crate) fn gauge(&self) -> Gauge {
        self.subscription.gauge()
    }
}

impl<T: DeserializeOwned> ChangeStream<T> {
    fn understand(&self, delivery: Delivery) -> Option<Result<ChangeEvent<T>, Error>> {
        match delivery {
            Delivery::Change(change) if change.is_of(self.schema.as_deref(), self.table.as_deref()) => {
                Some(read(change))
            }
            Delivery::Resync(reason) => Some(Ok(ChangeEvent::Resync(reason))),
            Delivery::TransientError(error) | Delivery::End(error) => Some(Err(error)),
            _ => None,
        }
    }
}

fn read<T: DeserializeOwned>(change: Change) -> Result<ChangeEvent<T>, Error> {
    let (kind, errors) = (change.kind, change.errors());
    let raw = RawRow::new;
    if !errors.is_empty() {
        let (new, old) = (raw(change.clone(), Side::New), raw(change, Side::Old));
        return Ok(ChangeEvent::Incomplete { kind, new, old, errors });
    }
    let typed = |row: RawRow| row.read().map(|value| Row::new(value, row));
    Ok(match kind {
        ChangeKind::Insert => ChangeEvent::Insert(typed(raw(change, Side::New))?),
        ChangeKind::Update => {
            ChangeEvent::Update { old: raw(change.clone(), Side::Old), new: typed(raw(change, Side::New))? }
        }
        ChangeKind::Delete => ChangeEvent::Delete { old: raw(change, Side::Old) },
    })
}

impl<T: DeserializeOwned> Stream for ChangeStream<T> {
    type Item = Result<ChangeEvent<T>, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            match std::task::ready!(self.subscription.poll_take(cx)) {
                None => return Poll::Ready(None),
                Some(Item::Lagged(count)) => return Poll::Ready(Some(Ok(ChangeEvent::Lagged(count)))),
                Some(Item::Delivery(delivery)) => {
                    if let Some(event) = self.understand(delivery) {
                        return Poll::Ready(Some(event));
                    }
                }
            }
        }
    }
}
