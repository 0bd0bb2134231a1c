//! What a watch follows between two lists: the row changes of its table, or broadcasts that announce them.

use std::{
    pin::Pin,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use futures_util::{FutureExt as _, StreamExt as _};
use serde::de::IgnoredAny;
use tokio::time::{Instant, sleep_until};

use super::{
    Query,
    column_type::ColumnTypes,
    invalidation::Target,
    record::{Key, Record},
};
use crate::{
    channel::changes::PostgresChanges,
    client::Client,
    driver::Gauge,
    error::{Error, ErrorKind},
    stream::{
        broadcast::{BroadcastEvent, BroadcastStream},
        changes::{ChangeEvent, ChangeStream},
        row::RawRow,
    },
};

/// How long to wait before subscribing anew after the server refused it for good: the mistake may be corrected meanwhile.
const RESUBSCRIBE: Duration = Duration::from_secs(60);

/// What comes out of the feed.
pub(super) enum FeedEvent {
    /// Rows may have changed before this point without an event; from here on, each change has one.
    Gap {
        /// Whether other clients are likely to see a gap in the same moment.
        shared: bool,
    },
    /// A row as it is now, and its key before, if that was another.
    Row(RawRow, Option<Key>),
    /// Something changed there, and its event does not contain all of it.
    Part(Target),
    /// A broadcast announces a change there.
    Broadcast(Target),
    /// The row with this key was deleted.
    Deleted(Key),
    /// No events come for now, for this reason.
    Silent(Error),
}

/// What is listened to.
enum Source {
    Changes(ChangeStream<IgnoredAny>),
    Broadcasts(BroadcastStream),
}

/// One event of it.
enum Event {
    Change(ChangeEvent<IgnoredAny>),
    Broadcast(BroadcastEvent),
}

type ReadyFuture = Pin<Box<dyn Future<Output = Result<(), Error>> + Send>>;

/// Where the events come from, and how far that is.
pub(super) struct Feed {
    client: Client,
    query: Query,
    source: Option<Source>,
    /// Resolves when events flow for the first time.
    ready: Option<ReadyFuture>,
    flows: bool,
    /// Whether events ever flowed.
    flowed: bool,
    /// When to subscribe anew after a final refusal.
    again: Option<Instant>,
    /// How many events were taken.
    taken: u64,
    /// How many wait.
    gauge: Option<Gauge>,
}

impl Feed {
    /// Subscribes, without waiting for it.
    pub(super) fn open(client: Client, query: Query) -> Self {
        let again = Some(Instant::now());
        let mut feed = Self {
            client,
            query,
            source: None,
            ready: None,
            flows: false,
            flowed: false,
            again,
            taken: 0,
            gauge: None,
        };
        if feed.subscribe().is_err() {
            // The next attempt is made at once, and reports why it fails.
            feed.again = again;
        }
        feed
    }

    /// Whether changes are reported as they happen.
    pub(super) fn flows(&self) -> bool {
        self.flows
    }

    /// The connection is gone.
    pub(super) fn cut(&mut self) {
        self.flows = false;
    }

    /// The number of the event that was taken last.
    pub(super) fn taken(&self) -> u64 {
        self.taken
    }

    /// The number of the last event that has arrived: all of them may be older than what is read from now on.
    pub(super) fn in_flight(&self) -> u64 {
        self.taken + self.gauge.as_ref().map_or(0, Gauge::waiting)
    }

    /// The next event. May be dropped and called again.
    pub(super) async fn next(&mut self) -> FeedEvent {
        loop {
            let event = tokio::select! {
                answer = flowing(&mut self.ready) => {
                    self.ready = None;
                    self.flows = answer.is_ok();
                    // The stream reports a failure too.
                    self.flows.then_some(FeedEvent::Gap { shared: std::mem::replace(&mut self.flowed, true) })
                }
                event = next_of(&mut self.source) => { self.taken += 1; match event {
                    Some(Ok(Event::Change(event))) => Some(self.on_change(event)),
                    Some(Ok(Event::Broadcast(event))) => { self.flows = true; Some(self.on_broadcast(&event)) }
                    Some(Err(error)) => { self.flows = false; Some(FeedEvent::Silent(error)) }
                    None => { self.ended(); None }
                }}
                () = until(self.again) => self.subscribe().err().map(FeedEvent::Silent),
            };
            if let Some(event) = event {
                return event;
            }
        }
    }

    fn ended(&mut self) {
        self.source = None;
        self.ready = None;
        self.flows = false;
        self.again = Some(Instant::now() + RESUBSCRIBE);
    }

    fn subscribe(&mut self) -> Result<(), Error> {
        self.ended();
        let (source, gauge, ready) = match &self.query.broadcasts {
            None => self.follow_changes()?,
            Some((topic, event)) => self.follow_broadcasts(topic, event)?,
        };
        (self.source, self.gauge, self.ready, self.again) = (Some(source), Some(gauge), Some(ready), None);
        Ok(())
    }

    fn follow_changes(&self) -> Result<(Source, Gauge, ReadyFuture), Error> {
        /// So that a client may have several watches on one table: a socket holds each topic once.
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let schema = self.query.schema.as_deref().unwrap_or("public");
        let mut changes = PostgresChanges::on(schema, &self.query.table);
        if let Some(filter) = self.query.server_filter()? {
            changes = changes.filter(filter);
        }
        let name = format!("watch:{}:{number}", self.query.table);
        let channel = self.client.channel(&name).private(self.query.private);
        let (stream, ready) = channel.postgres_changes(changes).start()?;
        let gauge = stream.gauge();
        Ok((Source::Changes(stream), gauge, ready.boxed()))
    }

    /// Stored messages are not requested: the list after each gap holds what they would announce, and is complete, which at most
    /// 25 messages are not.
    fn follow_broadcasts(&self, topic: &str, event: &str) -> Result<(Source, Gauge, ReadyFuture), Error> {
        let mut channel = self.client.channel(topic).private(true).replication_ready(true);
        let stream = channel.on_broadcast(event);
        let gauge = stream.gauge();
        let (_, ready) = channel.open()?;
        let ready =
            ready.map(|answer| answer.unwrap_or_else(|_| Err(Error::new(ErrorKind::Closed))).map(drop));
        Ok((Source::Broadcasts(stream), gauge, ready.boxed()))
    }

    fn on_broadcast(&mut self, event: &BroadcastEvent) -> FeedEvent {
        match event {
            BroadcastEvent::Message(message) => {
                FeedEvent::Broadcast(Target::of_broadcast(message.json(), message.id(), &self.query.key))
            }
            BroadcastEvent::Resync(_) => FeedEvent::Gap { shared: true },
            BroadcastEvent::Truncated | BroadcastEvent::Lagged(_) => FeedEvent::Gap { shared: false },
            // An unreadable message may have been about any row.
            BroadcastEvent::Malformed(_) => FeedEvent::Broadcast(Target::Table),
            BroadcastEvent::Interrupted(error) => {
                self.flows = false;
                FeedEvent::Silent(error.clone())
            }
        }
    }

    fn on_change(&mut self, event: ChangeEvent<IgnoredAny>) -> FeedEvent {
        match event {
            ChangeEvent::Insert(row) => {
                self.flows = true;
                FeedEvent::Row(row.raw().clone(), None)
            }
            ChangeEvent::Update { new: row, old } => {
                self.flows = true;
                let new = row.raw().clone();
                let before = self.key(&old).filter(|before| self.key(&new).as_ref() != Some(before));
                FeedEvent::Row(new, before)
            }
            ChangeEvent::Incomplete { new, old, .. } | ChangeEvent::Undecodable { new, old, .. } => {
                FeedEvent::Part(match (self.key(&new), self.key(&old)) {
                    // The row has another key now: two rows of the watch are not what they were.
                    (Some(new), Some(old)) if new != old => Target::Table,
                    (new, old) => new.or(old).map_or(Target::Table, Target::Row),
                })
            }
            ChangeEvent::Delete { old } => {
                self.key(&old).map_or(FeedEvent::Part(Target::Table), FeedEvent::Deleted)
            }
            ChangeEvent::Resync(_) => {
                self.flows = true;
                FeedEvent::Gap { shared: true }
            }
            ChangeEvent::Interrupted(error) => {
                self.flows = false;
                FeedEvent::Silent(error)
            }
            ChangeEvent::Lagged(_) => {
                self.flows = true;
                FeedEvent::Gap { shared: false }
            }
        }
    }

    fn key(&self, row: &RawRow) -> Option<Key> {
        Record::parse(row.json())?.key_of_event(&self.query.key, &ColumnTypes::parse(row.columns()))
    }
}

async fn flowing(ready: &mut Option<ReadyFuture>) -> Result<(), Error> {
    match ready {
        Some(ready) => ready.await,
        None => std::future::pending().await,
    }
}

async fn next_of(source: &mut Option<Source>) -> Option<Result<Event, Error>> {
    match source {
        Some(Source::Changes(stream)) => stream.next().await.map(|event| event.map(Event::Change)),
        Some(Source::Broadcasts(stream)) => stream.next().await.map(|event| event.map(Event::Broadcast)),
        None => std::future::pending().await,
    }
}

pub(super) async fn until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}
