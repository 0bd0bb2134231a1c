//! The watcher: decides when to read the table, and what is news.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    pin::Pin,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use futures_util::{FutureExt as _, StreamExt as _};
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};

use super::{
    Query, WatchEvent,
    query::Verdict,
    record::{Key, Record},
};
use crate::{
    backoff::Backoff,
    channel::changes::Changes,
    client::Client,
    driver::Gauge,
    error::{Error, ErrorKind},
    stream::{
        changes::{ChangeEvent, ChangeStream},
        row::RawRow,
    },
};

/// Events are usually less than a second behind the table. One that comes so soon after its row was read may be older than
/// what was read: it is taken as a hint to read the row again.
const SETTLING: Duration = Duration::from_secs(2);
/// How long to wait before subscribing anew after the server refused it for good: the mistake may be mended meanwhile.
const RESUBSCRIBE: Duration = Duration::from_secs(60);

/// An event on its way to the reader, not yet of the reader's type.
pub(super) enum Told {
    Init,
    InitDone,
    InitApplied(Key, Box<str>),
    Applied(Key, Box<str>),
    Deleted(Key, Box<str>),
    Failed(Error),
}

impl Told {
    /// Decodes on the reader's task.
    pub(super) fn read<T: DeserializeOwned>(self) -> Result<WatchEvent<T>, Error> {
        let row = |json: &str| serde_json::from_str(json).map_err(|error| Error::decode("a row", &error));
        Ok(match self {
            Self::Init => WatchEvent::Init,
            Self::InitDone => WatchEvent::InitDone,
            Self::InitApplied(_, json) => WatchEvent::InitApplied(row(&json)?),
            Self::Applied(_, json) => WatchEvent::Applied(row(&json)?),
            Self::Deleted(_, json) => WatchEvent::Deleted(row(&json)?),
            Self::Failed(error) => return Err(error),
        })
    }
}

/// The reader is gone.
struct Gone;

/// When something was read, and which events were on their way then: those may be older than what was read, however long
/// they wait to be looked at.
#[derive(Debug, Clone, Copy)]
struct Reading {
    at: Instant,
    /// The number of the last event that waited at that moment.
    horizon: u64,
}

/// A row in the watch.
struct Known {
    fingerprint: u64,
    json: Box<str>,
}

type ReadyFuture = Pin<Box<dyn Future<Output = Result<(), Error>> + Send>>;

/// One of the columns that an event says its table has.
#[derive(serde::Deserialize)]
struct Column {
    name: String,
}

/// Where the events come from, and how far that is.
struct Feed {
    stream: Option<ChangeStream<Box<RawValue>>>,
    /// Resolves when rows flow for the first time.
    ready: Option<ReadyFuture>,
    flows: bool,
    /// When to subscribe anew after a final refusal.
    again: Option<Instant>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Watcher {
    client: Client,
    query: Query,
}

struct State {
    client: Client,
    query: Query,
    told: mpsc::Sender<Told>,
    rows: BTreeMap<Key, Known>,
    /// When single rows were last read; forgotten when settled.
    read_at: HashMap<Key, Reading>,
    listed_at: Option<Reading>,
    /// How many events were taken from the feed.
    taken: u64,
    /// How many wait there.
    gauge: Option<Gauge>,
    list_due: Instant,
    backoff: Backoff,
}

impl Watcher {
    pub(super) fn new(client: Client, query: Query) -> Self {
        Self { client, query }
    }

    pub(super) async fn run(self, told: mpsc::Sender<Told>) {
        let mut state = State {
            client: self.client,
            query: self.query,
            told,
            rows: BTreeMap::new(),
            read_at: HashMap::new(),
            listed_at: None,
            taken: 0,
            gauge: None,
            list_due: Instant::now(),
            backoff: Backoff::new(Duration::from_secs(1), Duration::from_secs(30)),
        };
        // The reader is gone, or the client was shut down: either way there is nobody to tell.
        let Err(Gone) = state.watch().await;
    }
}

/// Never succeeds: a watch has no natural end.
enum Never {}

impl State {
    async fn watch(&mut self) -> Result<Never, Gone> {
        let mut feed = self.subscribe().await?;
        let mut status = self.client.status();
        let mut connected = false;
        loop {
            if Instant::now() >= self.list_due {
                self.list(feed.flows).await?;
            }
            tokio::select! {
                answer = flowing(&mut feed.ready) => {
                    feed.ready = None;
                    match answer {
                        Ok(()) => { feed.flows = true; self.list_due = Instant::now(); }
                        // The stream tells it too.
                        Err(_) => feed.flows = false,
                    }
                }
                event = next_of(&mut feed.stream) => { self.taken += 1; match event {
                    Some(Ok(event)) => self.on_event(event, &mut feed).await?,
                    Some(Err(error)) => { feed.flows = false; self.hurry(); self.tell(Told::Failed(error)).await?; }
                    None => {
                        feed = Feed { stream: None, ready: None, flows: false, again: Some(Instant::now() + RESUBSCRIBE) };
                    }
                }}
                changed = status.changed() => {
                    if changed.is_err() || status.borrow().phase == crate::driver::Phase::Closed {
                        return Err(Gone);
                    }
                    let is_open = status.borrow().is_open();
                    if connected && !is_open {
                        feed.flows = false;
                        self.hurry();
                    }
                    connected = is_open;
                }
                () = sleep_until(self.list_due) => {}
                () = until(feed.again) => feed = self.subscribe().await?,
                () = self.told.closed() => return Err(Gone),
            }
        }
    }

    async fn subscribe(&mut self) -> Result<Feed, Gone> {
        /// So that a client may have several watches on one table: a socket holds each topic once.
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let mut changes = Changes::on("public", &self.query.table);
        // Checked when the watch was made.
        if let Ok(Some(filter)) = self.query.server_filter() {
            changes = changes.filter(filter);
        }
        let name = format!("watch:{}:{number}", self.query.table);
        let channel = self.client.channel(&name).private(self.query.private);
        match channel.changes(changes).start() {
            Ok((stream, ready)) => {
                self.gauge = Some(stream.gauge());
                Ok(Feed { stream: Some(stream), ready: Some(ready.boxed()), flows: false, again: None })
            }
            Err(error) => {
                self.tell(Told::Failed(error)).await?;
                Ok(Feed {
                    stream: None,
                    ready: None,
                    flows: false,
                    again: Some(Instant::now() + RESUBSCRIBE),
                })
            }
        }
    }

    async fn tell(&self, told: Told) -> Result<(), Gone> {
        self.told.send(told).await.map_err(|_| Gone)
    }

    /// Events stopped: the next read comes after the shorter pause, spread over half of it.
    fn hurry(&mut self) {
        let pause = self.query.poll;
        self.list_due = self.list_due.min(Instant::now() + spread(pause));
    }

    async fn on_event(&mut self, event: ChangeEvent<Box<RawValue>>, feed: &mut Feed) -> Result<(), Gone> {
        match event {
            ChangeEvent::Insert(row) | ChangeEvent::Update { new: row, .. } => {
                feed.flows = true;
                self.on_row(row.raw()).await
            }
            ChangeEvent::Incomplete { new, old, .. } => {
                let with_key = |row: &RawRow| {
                    Record::parse(row.json()).filter(|record| record.key(&self.query.key).is_some())
                };
                if let Some(record) = with_key(&new).or_else(|| with_key(&old)) {
                    return self.read_row(&record).await;
                }
                self.list_due = Instant::now();
                Ok(())
            }
            ChangeEvent::Delete { old } => {
                let key = Record::parse(old.json()).and_then(|record| record.key(&self.query.key));
                match key {
                    Some(key) => self.gone(&key).await,
                    None => Ok(()),
                }
            }
            ChangeEvent::Resync(_) | ChangeEvent::Lagged(_) => {
                feed.flows = true;
                self.list_due = Instant::now();
                Ok(())
            }
        }
    }

    /// A row as an event brought it: used as it is if it is whole, certainly in or out, and not older than what was read.
    async fn on_row(&mut self, raw: &RawRow) -> Result<(), Gone> {
        if self.listed_at.is_none() {
            // The list to come has it.
            return Ok(());
        }
        let Some(record) = Record::parse(raw.json()) else { return Ok(()) };
        let Some(key) = record.key(&self.query.key) else {
            self.list_due = Instant::now();
            return Ok(());
        };
        let verdict = self.query.judge(&record);
        if verdict == Verdict::DoesNot && !self.rows.contains_key(&key) {
            return Ok(());
        }
        if self.is_settling(&key) || !self.is_whole(&record, raw) || verdict == Verdict::Unknown {
            return self.read_row(&record).await;
        }
        match verdict {
            Verdict::DoesNot => self.gone(&key).await,
            _ => self.applied(key, record).await,
        }
    }

    /// Whether an event of this row may be older than what we read.
    fn is_settling(&mut self, key: &Key) -> bool {
        let (now, event) = (Instant::now(), self.taken);
        let is_open =
            |reading: &Reading| now.duration_since(reading.at) < SETTLING || event <= reading.horizon;
        self.read_at.retain(|_, reading| is_open(reading));
        self.read_at.contains_key(key) || self.listed_at.as_ref().is_some_and(is_open)
    }

    /// Something was read just now.
    fn reading(&self) -> Reading {
        let waiting = self.gauge.as_ref().map_or(0, Gauge::waiting);
        Reading { at: Instant::now(), horizon: self.taken + waiting }
    }

    /// Whether all columns that the reader wants are there: large values that did not change are not.
    fn is_whole(&self, record: &Record, raw: &RawRow) -> bool {
        if self.query.needs_server() {
            return false;
        }
        if let Some(columns) = self.query.plain_columns() {
            return columns.iter().all(|column| record.has(column));
        }
        let columns: Vec<Column> = serde_json::from_str(raw.columns()).unwrap_or_default();
        columns.iter().all(|column| record.has(&column.name))
    }

    /// Reads one row.
    async fn read_row(&mut self, record: &Record) -> Result<(), Gone> {
        let (Some(key), Some(request)) =
            (record.key(&self.query.key), self.query.key_request(self.client.rest(), record))
        else {
            return Ok(());
        };
        match request.maybe_one::<Box<RawValue>>().await {
            Ok(found) => {
                let reading = self.reading();
                self.read_at.insert(key.clone(), reading);
                match found.and_then(|row| Record::parse(row.get())) {
                    Some(row) => self.applied(key, row).await,
                    None => self.gone(&key).await,
                }
            }
            Err(error) => {
                // A list will find what this could not.
                self.list_due = self.list_due.min(Instant::now() + self.backoff.next_pause());
                self.tell(Told::Failed(error)).await
            }
        }
    }

    /// Reads the table, and tells the difference.
    async fn list(&mut self, flows: bool) -> Result<(), Gone> {
        let (rows, is_sure) = match self.fetch_all().await {
            Ok(fetched) => fetched,
            Err(error) => {
                self.list_due = Instant::now() + self.backoff.next_pause();
                return self.tell(Told::Failed(error)).await;
            }
        };
        self.backoff.reset();
        let first = self.listed_at.is_none();
        self.listed_at = Some(self.reading());
        let pause = if flows { self.query.safety_poll } else { self.query.poll };
        self.list_due = Instant::now() + spread(pause);
        if first {
            self.tell(Told::Init).await?;
        }
        let mut seen = HashSet::with_capacity(rows.len());
        for row in rows {
            let Some(record) = Record::parse(row.get()) else { continue };
            let Some(key) = record.key(&self.query.key) else {
                let reason = format!(
                    "the rows of `{}` have no column `{}`",
                    self.query.table,
                    self.query.key.join(",")
                );
                let error = Error::new(ErrorKind::InvalidInput { field: "key", reason });
                return self.tell(Told::Failed(error)).await;
            };
            seen.insert(key.clone());
            if first {
                let known = self.known(&record);
                let json = known.json.clone();
                if self.rows.insert(key.clone(), known).is_none() {
                    self.tell(Told::InitApplied(key, json)).await?;
                }
            } else {
                self.applied(key, record).await?;
            }
        }
        let vanished: Vec<_> = self.rows.keys().filter(|key| !seen.contains(key)).cloned().collect();
        for key in vanished {
            let known = self.rows.get(&key).and_then(|known| Record::parse(&known.json));
            match known {
                // A row may have slipped from one page to the other while they were read: ask for it before it is called gone.
                Some(record) if !is_sure => self.read_row(&record).await?,
                _ => self.gone(&key).await?,
            }
        }
        if first {
            self.tell(Told::InitDone).await?;
        }
        Ok(())
    }

    /// All rows, and whether one that is not among them is certainly not there.
    async fn fetch_all(&self) -> Result<(Vec<Box<RawValue>>, bool), Error> {
        let mut all: Vec<Box<RawValue>> = Vec::new();
        let mut pages = 0;
        loop {
            let last = all.last().and_then(|row| Record::parse(row.get()));
            let (request, page) =
                self.query.page_request(self.client.rest(), last.as_ref(), all.len() as u64);
            let rows: Vec<Box<RawValue>> = request.rows().await?;
            let is_last = (rows.len() as u64) < page;
            all.extend(rows);
            pages += 1;
            if is_last {
                return Ok((all, pages == 1 || self.query.pages_by_key()));
            }
        }
    }

    fn known(&self, record: &Record) -> Known {
        let columns = self.query.plain_columns();
        let record = record.clone().narrowed(columns.as_deref());
        Known { fingerprint: record.fingerprint(), json: record.json().into_boxed_str() }
    }

    /// The row is so now; told if that is news.
    async fn applied(&mut self, key: Key, record: Record) -> Result<(), Gone> {
        let known = self.known(&record);
        if self.rows.get(&key).is_some_and(|before| before.fingerprint == known.fingerprint) {
            return Ok(());
        }
        let json = known.json.clone();
        self.rows.insert(key.clone(), known);
        self.tell(Told::Applied(key, json)).await
    }

    async fn gone(&mut self, key: &Key) -> Result<(), Gone> {
        match self.rows.remove(key) {
            Some(known) => self.tell(Told::Deleted(key.clone(), known.json)).await,
            None => Ok(()),
        }
    }
}

/// Three quarters of the pause to five quarters of it: watches that began together do not poll together for ever.
fn spread(pause: Duration) -> Duration {
    let mut jitter = Backoff::new(pause / 4, pause / 2);
    pause * 3 / 4 + jitter.next_pause()
}

async fn flowing(ready: &mut Option<ReadyFuture>) -> Result<(), Error> {
    match ready {
        Some(ready) => ready.await,
        None => std::future::pending().await,
    }
}

async fn next_of(
    stream: &mut Option<ChangeStream<Box<RawValue>>>,
) -> Option<Result<ChangeEvent<Box<RawValue>>, Error>> {
    match stream {
        Some(stream) => stream.next().await,
        None => std::future::pending().await,
    }
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}
