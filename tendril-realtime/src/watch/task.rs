//! The watcher: decides when to read the table, and what is news.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use serde_json::value::RawValue;
use tokio::{
    sync::{Notify, mpsc},
    time::{Instant, sleep_until},
};

use super::{
    Query,
    feed::{Feed, Heard, until},
    hints::{Hints, Place},
    query::Verdict,
    record::{Key, Record},
    told::Told,
};
use crate::{
    backoff::Backoff,
    client::Client,
    error::{Error, ErrorKind},
    stream::row::RawRow,
};

/// Events are usually less than a second behind the table. One that comes so soon after its row was read may be older than
/// what was read: it is taken as a hint to read the row again.
const SETTLING: Duration = Duration::from_secs(2);
/// As many keys as fit into a URL, whatever they are.
const ROWS_IN_ONE_REQUEST: usize = 100;

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

/// One of the columns that an event says its table has.
#[derive(serde::Deserialize)]
struct Column {
    name: String,
}

/// What the holder of a watch and its task tell each other beside the events.
#[derive(Debug, Default)]
pub(super) struct Link {
    /// Whether changes are told as they happen.
    pub(super) live: AtomicBool,
    /// The holder wants the table to be read now.
    pub(super) refresh: Notify,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Watcher {
    client: Client,
    query: Query,
    link: Arc<Link>,
}

struct State {
    client: Client,
    query: Query,
    told: mpsc::Sender<Told>,
    rows: BTreeMap<Key, Known>,
    /// When single rows were last read; forgotten when settled.
    read_at: HashMap<Key, Reading>,
    listed_at: Option<Reading>,
    feed: Feed,
    /// What events told of without saying all.
    hints: Hints,
    link: Arc<Link>,
    list_due: Instant,
    backoff: Backoff,
}

impl Watcher {
    pub(super) fn new(client: Client, query: Query) -> Self {
        Self { client, query, link: Arc::default() }
    }

    pub(super) fn link(&self) -> Arc<Link> {
        Arc::clone(&self.link)
    }

    pub(super) async fn run(self, told: mpsc::Sender<Told>) {
        let mut state = State {
            feed: Feed::open(self.client.clone(), self.query.clone()),
            client: self.client,
            query: self.query,
            told,
            rows: BTreeMap::new(),
            read_at: HashMap::new(),
            listed_at: None,
            hints: Hints::default(),
            link: self.link,
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
        let mut status = self.client.status();
        let mut connected = false;
        loop {
            if Instant::now() >= self.list_due {
                self.list().await?;
            }
            self.look().await?;
            self.link.live.store(self.feed.flows(), Ordering::Relaxed);
            tokio::select! {
                heard = self.feed.next() => self.on_heard(heard).await?,
                changed = status.changed() => {
                    if changed.is_err() || status.borrow().phase == crate::driver::Phase::Closed {
                        return Err(Gone);
                    }
                    let is_open = status.borrow().is_connected();
                    if connected && !is_open {
                        self.feed.cut();
                        self.hurry();
                    }
                    connected = is_open;
                }
                () = sleep_until(self.list_due) => {}
                () = until(self.hints.due()) => {}
                () = self.link.refresh.notified() => self.list_due = Instant::now(),
                () = self.told.closed() => return Err(Gone),
            }
        }
    }

    async fn tell(&mut self, told: Told) -> Result<(), Gone> {
        self.told.send(told).await.map_err(|_| Gone)
    }

    /// Events stopped: the next read comes after the shorter pause, spread over half of it.
    fn hurry(&mut self) {
        let pause = self.query.poll;
        self.list_due = self.list_due.min(Instant::now() + spread(pause));
    }

    async fn on_heard(&mut self, heard: Heard) -> Result<(), Gone> {
        match heard {
            Heard::Gap => {
                self.list_due = Instant::now();
                Ok(())
            }
            Heard::Row(row) => self.on_row(&row).await,
            Heard::Part(key) => {
                self.hint(Place::Row(key), false);
                Ok(())
            }
            Heard::Hint(place) => {
                self.hint(place, true);
                Ok(())
            }
            Heard::Gone(key) => self.gone(&key).await.map(drop),
            Heard::Silent(error) => {
                self.hurry();
                self.tell(Told::Failed(error)).await
            }
        }
    }

    /// Something changed there; the list to come has it, if there was none yet.
    fn hint(&mut self, place: Place, twice: bool) {
        if self.listed_at.is_some() {
            self.hints.add(place, twice, Instant::now());
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
            self.hint(Place::Row(key), false);
            return Ok(());
        }
        match verdict {
            Verdict::DoesNot => self.gone(&key).await.map(drop),
            _ => self.applied(key, record).await.map(drop),
        }
    }

    /// Whether an event of this row may be older than what we read.
    fn is_settling(&mut self, key: &Key) -> bool {
        let (now, event) = (Instant::now(), self.feed.taken());
        let is_open =
            |reading: &Reading| now.duration_since(reading.at) < SETTLING || event <= reading.horizon;
        self.read_at.retain(|_, reading| is_open(reading));
        self.read_at.contains_key(key) || self.listed_at.as_ref().is_some_and(is_open)
    }

    /// Something was read just now.
    fn reading(&self) -> Reading {
        Reading { at: Instant::now(), horizon: self.feed.horizon() }
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

    /// Looks into the hints whose time has come.
    async fn look(&mut self) -> Result<(), Gone> {
        let mut rows = Vec::new();
        for (place, twice) in self.hints.take(Instant::now()) {
            match place {
                Place::Row(key) => rows.push((key, twice)),
                Place::Table => {
                    if self.list().await? == Some(false) && twice {
                        self.hints.look_again(Place::Table, Instant::now());
                    }
                }
            }
        }
        for some in rows.chunks(ROWS_IN_ONE_REQUEST) {
            self.read_rows(some).await?;
        }
        Ok(())
    }

    /// Reads single rows, each with whether it is worth another look if it is not news.
    async fn read_rows(&mut self, wanted: &[(Key, bool)]) -> Result<(), Gone> {
        let found = match self.fetch_rows(wanted).await {
            Ok(found) => found,
            Err(error) => {
                // A list will find what this could not.
                self.list_due = self.list_due.min(Instant::now() + self.backoff.next_pause());
                return self.tell(Told::Failed(error)).await;
            }
        };
        let reading = self.reading();
        self.read_at.extend(wanted.iter().map(|(key, _)| (key.clone(), reading)));
        let mut news = HashSet::new();
        let missing = wanted.iter().map(|(key, _)| (key.clone(), None));
        let found: HashMap<Key, Option<Record>> =
            missing.chain(found.into_iter().map(|(key, record)| (key, Some(record)))).collect();
        for (key, record) in found {
            let is_news = match record {
                Some(record) => self.applied(key.clone(), record).await?,
                None => self.gone(&key).await?,
            };
            if is_news {
                news.insert(key);
            }
        }
        for (key, _) in wanted.iter().filter(|(key, twice)| *twice && !news.contains(key)) {
            self.hints.look_again(Place::Row(key.clone()), reading.at);
        }
        Ok(())
    }

    async fn fetch_rows(&mut self, wanted: &[(Key, bool)]) -> Result<Vec<(Key, Record)>, Error> {
        let keys: Vec<&Key> = wanted.iter().map(|(key, _)| key).collect();
        let mut found = Vec::with_capacity(keys.len());
        for request in self.query.key_requests(self.client.rest(), &keys) {
            for row in request.rows::<Box<RawValue>>().await? {
                let record = Record::parse(row.get());
                found.extend(record.and_then(|record| Some((record.key(&self.query.key)?, record))));
            }
        }
        Ok(found)
    }

    /// Reads the table, and tells the difference. Answers whether there was any, if the table could be read.
    async fn list(&mut self) -> Result<Option<bool>, Gone> {
        let (rows, is_sure) = match self.fetch_all().await {
            Ok(fetched) => fetched,
            Err(error) => {
                self.list_due = Instant::now() + self.backoff.next_pause();
                self.tell(Told::Failed(error)).await?;
                return Ok(None);
            }
        };
        self.backoff.reset();
        let first = self.listed_at.is_none();
        let mut is_news = first;
        self.listed_at = Some(self.reading());
        let pause = if self.feed.flows() { self.query.safety_poll } else { self.query.poll };
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
                self.tell(Told::Failed(error)).await?;
                return Ok(None);
            };
            seen.insert(key.clone());
            if first {
                let known = self.known(&record);
                let json = known.json.clone();
                if self.rows.insert(key.clone(), known).is_none() {
                    self.tell(Told::InitApplied(key, json)).await?;
                }
            } else {
                is_news |= self.applied(key, record).await?;
            }
        }
        let vanished: Vec<_> = self.rows.keys().filter(|key| !seen.contains(key)).cloned().collect();
        if is_sure {
            for key in vanished {
                is_news |= self.gone(&key).await?;
            }
        } else {
            // A row may have slipped from one page to the other while they were read: ask for it before it is called gone.
            let vanished: Vec<_> = vanished.into_iter().map(|key| (key, false)).collect();
            for some in vanished.chunks(ROWS_IN_ONE_REQUEST) {
                self.read_rows(some).await?;
            }
        }
        if first {
            self.tell(Told::InitDone).await?;
        }
        Ok(Some(is_news))
    }

    /// All rows, and whether one that is not among them is certainly not there.
    async fn fetch_all(&mut self) -> Result<(Vec<Box<RawValue>>, bool), Error> {
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

    /// The row is so now; told if that is news, and answers whether it is.
    async fn applied(&mut self, key: Key, record: Record) -> Result<bool, Gone> {
        let known = self.known(&record);
        if self.rows.get(&key).is_some_and(|before| before.fingerprint == known.fingerprint) {
            return Ok(false);
        }
        let json = known.json.clone();
        self.rows.insert(key.clone(), known);
        self.tell(Told::Applied(key, json)).await?;
        Ok(true)
    }

    /// The row is not in the watch; told if it was.
    async fn gone(&mut self, key: &Key) -> Result<bool, Gone> {
        let Some(known) = self.rows.remove(key) else { return Ok(false) };
        self.tell(Told::Deleted(key.clone(), known.json)).await?;
        Ok(true)
    }
}

/// Three quarters of the pause to five quarters of it: watches that began together do not poll together for ever.
fn spread(pause: Duration) -> Duration {
    let mut jitter = Backoff::new(pause / 4, pause / 2);
    pause * 3 / 4 + jitter.next_pause()
}
