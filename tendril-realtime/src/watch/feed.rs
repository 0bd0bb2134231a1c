//! What a watch follows between two lists: the row changes of its table, or broadcasts that tell of them.

use std::{
    pin::Pin,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use futures_util::{FutureExt as _, StreamExt as _};
use serde_json::value::RawValue;
use tokio::time::{Instant, sleep_until};

use super::{
    Query,
    hints::Place,
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

/// How long to wait before subscribing anew after the server refused it for good: the mistake may be mended meanwhile.
const RESUBSCRIBE: Duration = Duration::from_secs(60);

/// What the feed says.
pub(super) enum Heard {
    /// Rows may have changed before this point without a word; from here on, changes are told.
    Gap,
    /// A row as it is now.
    Row(RawRow),
    /// The row with this key changed, and its event does not hold all of it.
    Part(Key),
    /// Something changed there, says a broadcast.
    Hint(Place),
    /// The row with this key is gone.
    Gone(Key),
    /// Nothing is told for now, for this reason.
    Silent(Error),
}

/// What is listened to.
enum Source {
    Changes(ChangeStream<Box<RawValue>>),
    Broadcasts(BroadcastStream),
}

/// One event of it.
enum Event {
    Change(ChangeEvent<Box<RawValue>>),
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
        let mut feed =
            Self { client, query, source: None, ready: None, flows: false, again, taken: 0, gauge: None };
        if feed.subscribe().is_err() {
            // The next attempt is made at once, and says why it fails.
            feed.again = again;
        }
        feed
    }

    /// Whether changes are told as they happen.
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

    /// The number of the last event that is here already: all of them may be older than what is read from now on.
    pub(super) fn horizon(&self) -> u64 {
        self.taken + self.gauge.as_ref().map_or(0, Gauge::waiting)
    }

    /// The next thing said. May be dropped and called again.
    pub(super) async fn next(&mut self) -> Heard {
        loop {
            let heard = tokio::select! {
                answer = flowing(&mut self.ready) => {
                    self.ready = None;
                    self.flows = answer.is_ok();
                    // The stream tells of a failure too.
                    self.flows.then_some(Heard::Gap)
                }
                event = next_of(&mut self.source) => { self.taken += 1; match event {
                    Some(Ok(Event::Change(event))) => self.on_change(event),
                    Some(Ok(Event::Broadcast(event))) => { self.flows = true; Some(self.on_broadcast(&event)) }
                    Some(Err(error)) => { self.flows = false; Some(Heard::Silent(error)) }
                    None => { self.ended(); None }
                }}
                () = until(self.again) => self.subscribe().err().map(Heard::Silent),
            };
            if let Some(heard) = heard {
                return heard;
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
        let (source, gauge, ready) = match &self.query.hints {
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
        let mut changes = PostgresChanges::on("public", &self.query.table);
        if let Some(filter) = self.query.server_filter()? {
            changes = changes.filter(filter);
        }
        let name = format!("watch:{}:{number}", self.query.table);
        let channel = self.client.channel(&name).private(self.query.private);
        let (stream, ready) = channel.postgres_changes(changes).start()?;
        let gauge = stream.gauge();
        Ok((Source::Changes(stream), gauge, ready.boxed()))
    }

    /// Stored messages are not asked for: the list after each gap holds what they would tell, and is complete, which at most
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

    fn on_broadcast(&self, event: &BroadcastEvent) -> Heard {
        match event {
            BroadcastEvent::Message(message) => {
                Heard::Hint(Place::told_by(message.json(), message.id(), &self.query.key))
            }
            BroadcastEvent::Resync(_) | BroadcastEvent::Truncated | BroadcastEvent::Lagged(_) => Heard::Gap,
        }
    }

    fn on_change(&mut self, event: ChangeEvent<Box<RawValue>>) -> Option<Heard> {
        let key = |row: &RawRow| Record::parse(row.json()).and_then(|record| record.key(&self.query.key));
        match event {
            ChangeEvent::Insert(row) | ChangeEvent::Update { new: row, .. } => {
                self.flows = true;
                Some(Heard::Row(row.raw().clone()))
            }
            ChangeEvent::Incomplete { new, old, .. } => {
                Some(key(&new).or_else(|| key(&old)).map_or(Heard::Gap, Heard::Part))
            }
            ChangeEvent::Delete { old } => key(&old).map(Heard::Gone),
            ChangeEvent::Resync(_) | ChangeEvent::Lagged(_) => {
                self.flows = true;
                Some(Heard::Gap)
            }
        }
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
