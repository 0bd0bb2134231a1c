//! The watcher: follows the events, and decides when to read.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{Notify, mpsc},
    time::{Instant, sleep_until},
};

use super::{
    Query,
    column_type::ColumnTypes,
    event::RawWatchEvent,
    feed::{Feed, FeedEvent, until},
    invalidation::{Invalidations, Target},
    judge::FilterMatch,
    record::{Key, Record},
};
use crate::{backoff::Backoff, client::Client, stream::row::RawRow};

/// Events are usually less than a second behind the table. One that comes so soon after its row was read may be older than
/// what was read: it makes the row be read again.
const GRACE_PERIOD: Duration = Duration::from_secs(2);
/// After a gap that many clients share, such as a restart of the server, their lists are spread over twice this time.
const SPREAD: Duration = Duration::from_secs(1);

/// The reader is gone.
pub(super) struct ReceiverDropped;

/// When something was read, and which events were on their way then: those may be older than what was read, however long
/// they wait to be handled.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reading {
    pub(super) at: Instant,
    /// The number of the last event that waited at that moment.
    pub(super) in_flight: u64,
}

/// A row in the watch.
pub(super) struct CachedRow {
    pub(super) fingerprint: u64,
    pub(super) json: Box<str>,
}

/// What the holder of a watch and its task share beside the events.
#[derive(Debug, Default)]
pub(super) struct Link {
    /// Whether changes are reported as they happen.
    pub(super) live: AtomicBool,
    /// The holder requests a read of the table now.
    pub(super) relist: Notify,
}

impl Link {
    pub(super) fn is_live(&self) -> bool {
        self.live.load(Ordering::Relaxed)
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Watcher {
    client: Client,
    query: Query,
    link: Arc<Link>,
}

/// The whole state of a running watch.
pub(super) struct State {
    pub(super) client: Client,
    pub(super) query: Query,
    events: mpsc::Sender<RawWatchEvent>,
    pub(super) rows: BTreeMap<Key, CachedRow>,
    /// The columns of the row that was read last: events leave out generated columns, and those of a table that was altered may
    /// be other ones.
    pub(super) columns: Option<Vec<String>>,
    /// When single rows were last read; forgotten after the grace period.
    pub(super) read_at: HashMap<Key, Reading>,
    pub(super) listed_at: Option<Reading>,
    pub(super) feed: Feed,
    /// What events announced without saying all.
    pub(super) invalidations: Invalidations,
    link: Arc<Link>,
    pub(super) list_due: Instant,
    pub(super) backoff: Backoff,
}

impl Watcher {
    pub(super) fn new(client: Client, query: Query) -> Self {
        Self { client, query, link: Arc::default() }
    }

    pub(super) fn link(&self) -> Arc<Link> {
        Arc::clone(&self.link)
    }

    pub(super) async fn run(self, events: mpsc::Sender<RawWatchEvent>) {
        let mut state = State {
            feed: Feed::open(self.client.clone(), self.query.clone()),
            client: self.client,
            query: self.query,
            events,
            rows: BTreeMap::new(),
            columns: None,
            read_at: HashMap::new(),
            listed_at: None,
            invalidations: Invalidations::default(),
            link: self.link,
            list_due: Instant::now(),
            backoff: Backoff::new(Duration::from_secs(1), Duration::from_secs(30)),
        };
        // The reader is gone, or the client was shut down: either way there is no reader left.
        let Err(ReceiverDropped) = state.watch().await;
    }
}

/// Never succeeds: a watch has no natural end.
enum Never {}

impl State {
    async fn watch(&mut self) -> Result<Never, ReceiverDropped> {
        let mut status = self.client.status();
        let mut connected = false;
        loop {
            if Instant::now() >= self.list_due {
                self.list().await?;
            }
            self.refetch().await?;
            self.link.live.store(self.feed.flows(), Ordering::Relaxed);
            tokio::select! {
                event = self.feed.next() => self.on_event(event).await?,
                changed = status.changed() => {
                    if changed.is_err() || status.borrow().phase == crate::driver::Phase::Closed {
                        return Err(ReceiverDropped);
                    }
                    let is_open = status.borrow().is_connected();
                    if connected && !is_open {
                        self.feed.cut();
                        self.poll_soon();
                    }
                    connected = is_open;
                }
                () = sleep_until(self.list_due) => {}
                () = until(self.invalidations.due()) => {}
                () = self.link.relist.notified() => self.list_due = Instant::now(),
                () = self.events.closed() => return Err(ReceiverDropped),
            }
        }
    }

    pub(super) async fn emit(&mut self, event: RawWatchEvent) -> Result<(), ReceiverDropped> {
        self.events.send(event).await.map_err(|_| ReceiverDropped)
    }

    /// Events stopped: the next read comes after the shorter pause, spread over half of it.
    fn poll_soon(&mut self) {
        let pause = self.query.poll_interval;
        self.list_due = self.list_due.min(Instant::now() + spread(pause));
    }

    async fn on_event(&mut self, event: FeedEvent) -> Result<(), ReceiverDropped> {
        match event {
            // All clients of a server that restarts see this gap: their lists are spread.
            FeedEvent::Gap { shared: true } if self.listed_at.is_some() => {
                let pause = Backoff::new(SPREAD, SPREAD * 2).next_pause();
                self.list_due = self.list_due.min(Instant::now() + pause);
            }
            FeedEvent::Gap { .. } => self.invalidate(Target::Table, false),
            FeedEvent::Row(row, before) => {
                if let Some(before) = before {
                    self.on_delete(before).await?;
                }
                self.on_row(&row).await?;
            }
            FeedEvent::Part(target) => self.invalidate(target, false),
            FeedEvent::Broadcast(target) => self.invalidate(target, true),
            FeedEvent::Deleted(key) => self.on_delete(key).await?,
            FeedEvent::Silent(error) => {
                self.poll_soon();
                self.emit(RawWatchEvent::Failed(error)).await?;
            }
        }
        Ok(())
    }

    /// Something changed there; the list to come has it, if there was none yet.
    fn invalidate(&mut self, target: Target, twice: bool) {
        if self.listed_at.is_some() {
            // Of the first so many rows, one that changed may make room for one that did not.
            let target = if self.query.limit.is_some() { Target::Table } else { target };
            match &target {
                Target::Row(key) if !self.rows.contains_key(key) => {
                    self.invalidations.add_new(target, twice, Instant::now());
                }
                _ => self.invalidations.add(target, twice, Instant::now()),
            }
        }
    }

    /// A row as an event brought it: used as it is if it is whole, certainly in or out, and not older than what was read.
    async fn on_row(&mut self, raw: &RawRow) -> Result<(), ReceiverDropped> {
        if self.listed_at.is_none() {
            // The list to come has it.
            return Ok(());
        }
        let Some(record) = Record::parse(raw.json()) else { return Ok(()) };
        let types = ColumnTypes::parse(raw.columns());
        let matched = self.query.judge(&record, &types);
        let Some(key) = record.key_of_event(&self.query.key, &types) else {
            self.invalidate(Target::Table, false);
            return Ok(());
        };
        if matched == FilterMatch::NoMatch && !self.rows.contains_key(&key) {
            return Ok(());
        }
        let must_read = self.query.limit.is_some()
            || matched == FilterMatch::Unknown
            || self.is_settling(&key)
            || (matched == FilterMatch::Match && !self.is_whole(&record, &types));
        if must_read {
            self.invalidate(Target::Row(key), false);
            return Ok(());
        }
        match matched {
            FilterMatch::NoMatch => self.delete(&key).await.map(drop),
            _ => self.apply(key, record).await.map(drop),
        }
    }

    /// The row with this key was deleted, unless it came back before it was read.
    async fn on_delete(&mut self, key: Key) -> Result<(), ReceiverDropped> {
        if !self.rows.contains_key(&key) {
            return Ok(());
        }
        if self.query.limit.is_some() || self.is_settling(&key) {
            self.invalidate(Target::Row(key), false);
            return Ok(());
        }
        self.delete(&key).await.map(drop)
    }

    /// Whether an event of this row may be older than what was read.
    fn is_settling(&mut self, key: &Key) -> bool {
        let (now, event) = (Instant::now(), self.feed.taken());
        let is_open =
            |reading: &Reading| now.duration_since(reading.at) < GRACE_PERIOD || event <= reading.in_flight;
        self.read_at.retain(|_, reading| is_open(reading));
        self.read_at.contains_key(key) || self.listed_at.as_ref().is_some_and(is_open)
    }

    /// Something was read just now.
    pub(super) fn reading(&self) -> Reading {
        Reading { at: Instant::now(), in_flight: self.feed.in_flight() }
    }

    /// Whether all columns that the reader selects are there, as a read would return them. Large values that did not change are not
    /// there, and some types are written differently.
    fn is_whole(&self, record: &Record, types: &ColumnTypes) -> bool {
        if self.query.needs_server() {
            return false;
        }
        match self.query.plain_columns() {
            Some(columns) => record.is_whole(columns.into_iter(), types),
            None => self.columns.as_ref().is_some_and(|columns| {
                record.names().eq(columns.iter().map(String::as_str))
                    && record.is_whole(columns.iter().map(String::as_str), types)
            }),
        }
    }

    /// A row as it was read.
    pub(super) fn learn_columns(&mut self, record: &Record) {
        let known = self.columns.as_ref();
        if known.is_none_or(|known| !record.names().eq(known.iter().map(String::as_str))) {
            self.columns = Some(record.names().map(str::to_owned).collect());
        }
    }

    pub(super) fn cached(&self, record: &Record) -> CachedRow {
        let columns = self.query.plain_columns();
        let record = record.clone().narrowed(columns.as_deref());
        CachedRow { fingerprint: record.fingerprint(), json: record.json().into_boxed_str() }
    }

    /// The row is so now; reported if that is a change, and answers whether it is.
    pub(super) async fn apply(&mut self, key: Key, record: Record) -> Result<bool, ReceiverDropped> {
        let cached = self.cached(&record);
        if self.rows.get(&key).is_some_and(|before| before.fingerprint == cached.fingerprint) {
            return Ok(false);
        }
        let json = cached.json.clone();
        self.rows.insert(key.clone(), cached);
        self.emit(RawWatchEvent::Apply(key, json)).await?;
        Ok(true)
    }

    /// The row is not in the watch; reported if it was.
    pub(super) async fn delete(&mut self, key: &Key) -> Result<bool, ReceiverDropped> {
        let Some(cached) = self.rows.remove(key) else { return Ok(false) };
        self.emit(RawWatchEvent::Delete(key.clone(), cached.json)).await?;
        Ok(true)
    }
}

/// Three quarters of the pause to five quarters of it: watches that began together do not poll together for ever.
pub(super) fn spread(pause: Duration) -> Duration {
    let mut jitter = Backoff::new(pause / 4, pause / 2);
    pause * 3 / 4 + jitter.next_pause()
}
