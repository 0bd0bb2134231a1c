//! Row changes, typed and honest about gaps.

use std::{
    future::poll_fn,
    marker::PhantomData,
    pin::Pin,
    task::{Context, Poll},
};

use futures_util::Stream;
use serde::de::DeserializeOwned;

use super::{
    Subscription,
    fields::{Names, fields_of},
    outline::{Outlines, Values},
    row::{RawRow, Row},
};
use crate::{
    driver::{Gauge, Item},
    error::Error,
    session::{Delivery, ResyncReason},
    wire::{
        Change,
        change::{ChangeKind, ChangeParts},
    },
};

/// What a [`ChangeStream`] yields.
///
/// Supabase Realtime delivers each change at most once and numbers nothing. So this type reports where something may be
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
        /// What the table's replica identity contains: the primary key, or all columns.
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
    /// A change whose row is not of the type asked for. The stream continues.
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
    /// The reader was too slow: so many events were dropped before this point. Also one event that made no sense.
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
/// An `Err` item is the last one: it states why there will be no more. Everything that passes is an event, so
/// `while let Some(event) = stream.next().await { match event? { … } }` runs until the end.
///
/// # Cancel safety
/// Dropping a `next()` future loses nothing.
#[derive(Debug)]
#[must_use = "streams do nothing unless polled"]
pub struct ChangeStream<T> {
    subscription: Subscription,
    /// The table asked for. The server matches names as patterns (`user_log` receives those of `userXlog` too).
    schema: Option<String>,
    table: Option<String>,
    /// The fields that the type declares, where it is a struct that declares them.
    fields: &'static [&'static str],
    /// What its messages have in common.
    outlines: Outlines,
    /// The end, which came with the last of many.
    end: Option<Error>,
    rows: PhantomData<fn() -> T>,
}

impl<T> ChangeStream<T> {
    pub(crate) fn new(subscription: Subscription, schema: Option<String>, table: Option<String>) -> Self
    where
        T: DeserializeOwned,
    {
        let outlines = Outlines::default();
        Self { subscription, schema, table, fields: fields_of::<T>(), outlines, end: None, rows: PhantomData }
    }

    pub(crate) fn gauge(&self) -> Gauge {
        self.subscription.gauge()
    }
}

impl<T: DeserializeOwned> ChangeStream<T> {
    fn understand(&mut self, delivery: Delivery) -> Option<Result<ChangeEvent<T>, Error>> {
        match delivery {
            Delivery::Change(change) => self.read(change).map(Ok),
            Delivery::Resync(reason) => Some(Ok(ChangeEvent::Resync(reason))),
            Delivery::TransientError(error) => Some(Ok(ChangeEvent::Interrupted(error))),
            Delivery::End(error) => Some(Err(error)),
            _ => None,
        }
    }

    /// `None` for a change of another table.
    fn read(&mut self, change: Change) -> Option<ChangeEvent<T>> {
        let payload = change.payload();
        let Some(Values { kind, row, old }) = self.outlines.read(payload.as_str(), !self.fields.is_empty())
        else {
            return self.read_by_parts(&change);
        };
        let old = payload.part_of(old);
        let row = row.map(|(value, json)| (value, payload.part_of(Some(json))));
        let payload = change.into_payload();
        Some(match row {
            None => ChangeEvent::Delete { old: RawRow::new(payload, old) },
            Some((value, row)) if kind == ChangeKind::Update => {
                let old = RawRow::new(payload.clone(), old);
                ChangeEvent::Update { new: Row::new(value, RawRow::new(payload, row)), old }
            }
            Some((value, row)) => ChangeEvent::Insert(Row::new(value, RawRow::new(payload, row))),
        })
    }

    /// The first change of its kind, or one that is not as most of them are.
    fn read_by_parts(&mut self, change: &Change) -> Option<ChangeEvent<T>> {
        let payload = change.payload();
        let parts = change.parts();
        let Some(kind) = parts.kind() else {
            // It was an event, and it is unknown which.
            return Some(ChangeEvent::Lagged(1));
        };
        if !parts.is_of(self.schema.as_deref(), self.table.as_deref()) {
            return None;
        }
        let new = RawRow::new(payload.clone(), payload.part_of(parts.record()));
        let old = RawRow::new(payload.clone(), payload.part_of(parts.old_record()));
        let errors = parts.errors();
        if !errors.is_empty() || self.lacks_a_field(kind, &parts) {
            return Some(ChangeEvent::Incomplete { kind, new, old, errors });
        }
        self.outlines.learn(payload.as_str(), &parts);
        if kind == ChangeKind::Delete {
            return Some(ChangeEvent::Delete { old });
        }
        Some(match (new.read(), kind) {
            (Ok(value), ChangeKind::Insert) => ChangeEvent::Insert(Row::new(value, new)),
            (Ok(value), _) => ChangeEvent::Update { new: Row::new(value, new), old },
            (Err(_), _) if !new.is_complete() => ChangeEvent::Incomplete { kind, new, old, errors },
            (Err(error), _) => ChangeEvent::Undecodable { kind, new, old, error },
        })
    }

    /// Whether an update leaves out a column that the type has a field for: read as the type, it would be an error, or worse,
    /// a null that the row does not have.
    fn lacks_a_field(&self, kind: ChangeKind, parts: &ChangeParts<'_>) -> bool {
        if kind != ChangeKind::Update || self.fields.is_empty() {
            return false;
        }
        let Some(there) = parts.record().and_then(Names::of_object) else { return false };
        if self.fields.iter().all(|field| there.has(field)) {
            return false;
        }
        let Some(columns) = parts.columns().and_then(Names::of_columns) else { return false };
        self.fields.iter().any(|field| !there.has(field) && columns.has(field))
    }
}

impl<T: DeserializeOwned> ChangeStream<T> {
    /// Waits for an event, and takes with it those that have come already, up to `limit`: fewer wake-ups where many rows come.
    /// Returns how many were added to `events`; 0 at the end of the stream, as `None` of `next()`.
    ///
    /// ```no_run
    /// # use tendril_realtime::{ChangeStream, Error};
    /// # async fn run<Todo: serde::de::DeserializeOwned>(mut todos: ChangeStream<Todo>) -> Result<(), Error> {
    /// let mut events = Vec::with_capacity(256);
    /// while todos.next_many(&mut events, 256).await? > 0 {
    ///     for event in events.drain(..) {
    ///         // …
    ///     }
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// The end of the stream and its reason, after everything that came before it.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn next_many(
        &mut self,
        events: &mut Vec<ChangeEvent<T>>,
        limit: usize,
    ) -> Result<usize, Error> {
        poll_fn(|cx| {
            let mut taken = 0;
            while taken < limit.max(1) {
                match Pin::new(&mut *self).poll_next(cx) {
                    Poll::Pending if taken == 0 => return Poll::Pending,
                    Poll::Pending | Poll::Ready(None) => break,
                    Poll::Ready(Some(Ok(event))) => {
                        events.push(event);
                        taken += 1;
                    }
                    Poll::Ready(Some(Err(error))) if taken == 0 => return Poll::Ready(Err(error)),
                    Poll::Ready(Some(Err(error))) => {
                        self.end = Some(error);
                        break;
                    }
                }
            }
            Poll::Ready(Ok(taken))
        })
        .await
    }
}

impl<T: DeserializeOwned> Stream for ChangeStream<T> {
    type Item = Result<ChangeEvent<T>, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(error) = self.end.take() {
            return Poll::Ready(Some(Err(error)));
        }
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

#[cfg(test)]
mod tests {
    use std::sync::{Arc, OnceLock};

    use futures_util::StreamExt as _;
    use serde::{Deserialize, de::IgnoredAny};

    use super::*;
    use crate::{
        driver::{Capacity, Sender, mailbox},
        wire::{Utf8Bytes, text},
    };

    #[derive(Debug, Deserialize, PartialEq)]
    struct Job {
        id: i64,
        done: Option<bool>,
    }

    const COLUMNS: &str = r#"[{"name":"id","type":"int8"},{"name":"done","type":"bool"}]"#;

    /// As the server writes it.
    fn frame(kind: &str, record: &str, table: &str) -> Utf8Bytes {
        let old = if kind == "INSERT" { "" } else { r#","old_record":{"id":1}"# };
        let record = if kind == "DELETE" { String::new() } else { format!("\"record\":{record},") };
        Utf8Bytes::from(format!(
            r#"[null,null,"realtime:jobs","postgres_changes",{{"data":{{"table":"{table}","type":"{kind}",{record}"columns":{COLUMNS},"errors":null,"schema":"public","commit_timestamp":"2026-11-23T14:34:27.383Z"{old}}},"ids":[7]}}]"#
        ))
    }

    fn stream<T: DeserializeOwned>() -> (Sender, ChangeStream<T>) {
        let (sender, receiver) = mailbox(Capacity::default());
        let subscription = Subscription::new(receiver, Arc::new(OnceLock::new()));
        (sender, ChangeStream::new(subscription, Some("public".to_owned()), Some("jobs".to_owned())))
    }

    fn put(sender: &Sender, frame: &Utf8Bytes) {
        let change = text::route(frame.clone()).expect("the server's form").change;
        sender.put(Delivery::Change(change));
    }

    fn take<T: DeserializeOwned>(stream: &mut ChangeStream<T>) -> Option<ChangeEvent<T>> {
        let mut cx = Context::from_waker(futures_util::task::noop_waker_ref());
        match stream.poll_next_unpin(&mut cx) {
            Poll::Ready(Some(event)) => Some(event.unwrap()),
            _ => None,
        }
    }

    #[test]
    fn a_row_costs_no_allocation_beyond_its_frame() {
        for kind in ["INSERT", "UPDATE", "DELETE"] {
            let (sender, mut stream) = stream::<Job>();
            let frames: Vec<_> =
                (0..100).map(|id| frame(kind, &format!(r#"{{"id":{id},"done":true}}"#), "jobs")).collect();
            let mut pass = || {
                for frame in &frames {
                    put(&sender, frame);
                }
                std::iter::from_fn(|| take(&mut stream)).count()
            };
            // The mailbox grows once, and a frame that is shared for the first time gets its count of references.
            assert_eq!(pass(), 100);
            let mut seen = 0;
            let counted = allocation_counter::measure(|| seen = pass());
            assert_eq!((seen, counted.count_total), (100, 0), "{kind}");
        }
    }

    #[test]
    fn an_update_that_left_out_a_column_is_incomplete_and_one_without_a_field_for_it_is_not() {
        #[derive(Deserialize)]
        struct Key {
            id: i64,
        }
        let part = frame("UPDATE", r#"{"id":1}"#, "jobs");
        let (sender, mut whole) = stream::<Job>();
        put(&sender, &part);
        assert!(matches!(take(&mut whole), Some(ChangeEvent::Incomplete { .. })));
        let (sender, mut keys) = stream::<Key>();
        put(&sender, &part);
        assert!(matches!(take(&mut keys), Some(ChangeEvent::Update { new, .. }) if new.id == 1));
    }

    #[test]
    fn a_row_of_another_type_or_table_and_a_frame_that_makes_no_sense_are_told_apart() {
        let (sender, mut stream) = stream::<Job>();
        put(&sender, &frame("INSERT", r#"{"id":"one","done":null}"#, "jobs"));
        put(&sender, &frame("INSERT", r#"{"id":2,"done":null}"#, "job_"));
        put(&sender, &frame("INSERT", r#"{"id":3,"done":nul}"#, "jobs"));
        put(&sender, &frame("TRUNCATE", "{}", "jobs"));
        put(&sender, &frame("INSERT", r#"{"id":4,"done":null}"#, "jobs"));
        assert!(
            matches!(take(&mut stream), Some(ChangeEvent::Undecodable { new, .. }) if new.json().contains("one"))
        );
        assert!(matches!(take(&mut stream), Some(ChangeEvent::Lagged(1))));
        assert!(matches!(take(&mut stream), Some(ChangeEvent::Lagged(1))));
        assert!(matches!(take(&mut stream), Some(ChangeEvent::Insert(row)) if row.id == 4));
    }

    #[test]
    fn a_row_can_be_borrowed_from_its_frame() {
        #[derive(Deserialize)]
        struct Borrowed<'a> {
            title: &'a str,
        }
        let (sender, mut stream) = stream::<IgnoredAny>();
        put(&sender, &frame("INSERT", r#"{"title":"long"}"#, "jobs"));
        let Some(ChangeEvent::Insert(row)) = take(&mut stream) else { panic!("no row") };
        let counted = allocation_counter::measure(|| {
            let borrowed: Borrowed<'_> = row.raw().read().unwrap();
            assert_eq!(borrowed.title, "long");
        });
        // Its parts are found in place.
        assert_eq!(counted.count_total, 0);
    }

    #[tokio::test]
    async fn many_events_are_taken_at_once_and_the_end_comes_after_them() {
        let (sender, mut stream) = stream::<Job>();
        for id in 0..10 {
            put(&sender, &frame("INSERT", &format!(r#"{{"id":{id},"done":null}}"#), "jobs"));
        }
        sender.put(Delivery::End(Error::invalid("test", "the end")));
        let mut events = Vec::new();
        assert_eq!(stream.next_many(&mut events, 4).await.unwrap(), 4);
        assert_eq!(stream.next_many(&mut events, 100).await.unwrap(), 6);
        assert!(stream.next_many(&mut events, 100).await.is_err());
        assert_eq!(stream.next_many(&mut events, 100).await.unwrap(), 0);
        let ids: Vec<_> = events.iter().filter_map(ChangeEvent::row).map(|row| row.id).collect();
        assert_eq!(ids, (0..10).collect::<Vec<_>>());
    }
}
