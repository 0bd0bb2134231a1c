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
    fields::{Names, fields_of},
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
    /// A change that came without all of the data that the type asked for needs: an update that leaves out a large value
    /// which did not change (then `errors` is empty), a change larger than 1 MiB (`Error 413`), one on a table without a primary
    /// key (`400`), or with a key the role may not read (`401`). Read the row by its key.
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
    /// A change whose row is not of the type asked for. The stream goes on.
    Undecodable {
        /// What happened to the row.
        kind: ChangeKind,
        /// The row as it is now, as it came.
        new: RawRow,
        /// What is left of the row as it was.
        old: RawRow,
        /// The reader's complaint: [`Decode`](crate::ErrorKind::Decode).
        error: Error,
    },
    /// Changes may have been missed before this point, and none between it and the next event.
    Resync(ResyncReason),
    /// The reader was too slow: so many events were dropped before this point.
    Lagged(u64),
    /// Something failed that the client is trying again by itself: the connection, the join, the token source. Nothing is
    /// to be done; a [`Resync`](Self::Resync) follows if something may have been missed.
    Interrupted(Error),
}

impl<T> ChangeEvent<T> {
    /// The row as it is now: of an insert or an update.
    pub fn row(&self) -> Option<&T> {
        match self {
            Self::Insert(row) | Self::Update { new: row, .. } => Some(row),
            _ => None,
        }
    }

    /// [`row`](Self::row) by value.
    pub fn into_row(self) -> Option<T> {
        match self {
            Self::Insert(row) | Self::Update { new: row, .. } => Some(row.into_inner()),
            _ => None,
        }
    }

    /// Whether something may have been missed before this point: read the table again.
    pub fn is_gap(&self) -> bool {
        matches!(self, Self::Resync(_) | Self::Lagged(_))
    }
}

/// Row changes of one binding.
///
/// An `Err` item is the last one: it says why there will be no more. Everything that passes is an event, so
/// `while let Some(event) = stream.next().await { match event? { … } }` runs until the end.
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
    /// The fields that the type declares, where it is a struct that says so.
    fields: &'static [&'static str],
    rows: PhantomData<fn() -> T>,
}

impl<T> ChangeStream<T> {
    pub(crate) fn new(subscription: Subscription, schema: Option<String>, table: Option<String>) -> Self
    where
        T: DeserializeOwned,
    {
        Self { subscription, schema, table, fields: fields_of::<T>(), rows: PhantomData }
    }

    pub(crate) fn gauge(&self) -> Gauge {
        self.subscription.gauge()
    }
}

impl<T: DeserializeOwned> ChangeStream<T> {
    fn understand(&self, delivery: Delivery) -> Option<Result<ChangeEvent<T>, Error>> {
        match delivery {
            Delivery::Change(change) if change.is_of(self.schema.as_deref(), self.table.as_deref()) => {
                Some(Ok(self.read(change)))
            }
            Delivery::Resync(reason) => Some(Ok(ChangeEvent::Resync(reason))),
            Delivery::TransientError(error) => Some(Ok(ChangeEvent::Interrupted(error))),
            Delivery::End(error) => Some(Err(error)),
            _ => None,
        }
    }

    fn read(&self, change: Change) -> ChangeEvent<T> {
        let kind = change.kind;
        let sides = |change: Change| (RawRow::new(change.clone(), Side::New), RawRow::new(change, Side::Old));
        let errors = change.errors();
        if !errors.is_empty() || self.lacks_a_field(&change) {
            let (new, old) = sides(change);
            return ChangeEvent::Incomplete { kind, new, old, errors };
        }
        if kind == ChangeKind::Delete {
            return ChangeEvent::Delete { old: RawRow::new(change, Side::Old) };
        }
        let (new, old) = sides(change);
        match (new.read(), kind) {
            (Ok(value), ChangeKind::Insert) => ChangeEvent::Insert(Row::new(value, new)),
            (Ok(value), _) => ChangeEvent::Update { new: Row::new(value, new), old },
            (Err(_), _) if !new.is_complete() => ChangeEvent::Incomplete { kind, new, old, errors },
            (Err(error), _) => ChangeEvent::Undecodable { kind, new, old, error },
        }
    }

    /// Whether an update leaves out a column that the type has a field for: read as the type, it would be an error, or worse,
    /// a null that the row does not have.
    fn lacks_a_field(&self, change: &Change) -> bool {
        if change.kind != ChangeKind::Update || self.fields.is_empty() {
            return false;
        }
        let Some(there) = change.record().and_then(Names::of_object) else { return false };
        if self.fields.iter().all(|field| there.has(field)) {
            return false;
        }
        let Some(columns) = change.columns().and_then(Names::of_columns) else { return false };
        self.fields.iter().any(|field| !there.has(field) && columns.has(field))
    }
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
