//! Reads the table, or single rows of it, and reports the difference.

use std::collections::{HashMap, HashSet};

use serde_json::value::RawValue;
use tokio::time::Instant;

use super::{
    event::RawWatchEvent,
    invalidation::Target,
    record::{Key, Record},
    task::{ReceiverDropped, State, spread},
};
use crate::{
    error::{Error, ErrorKind},
    rest::Count,
};

/// No more keys than this go into one request, and no more bytes of them: gateways refuse long addresses.
const KEYS_IN_ONE_REQUEST: usize = 100;
const BYTES_IN_ONE_REQUEST: usize = 4 * 1024;

impl State {
    /// Reads what was invalidated and is due.
    pub(super) async fn refetch(&mut self) -> Result<(), ReceiverDropped> {
        let began = Instant::now();
        let due = self.invalidations.take(began);
        if due.is_empty() {
            return Ok(());
        }
        let mut rows = Vec::new();
        for (target, repeats) in due {
            match target {
                Target::Row(key) => rows.push((key, repeats)),
                Target::Table => {
                    if self.list().await? == Some(false) {
                        self.invalidations.repeat(Target::Table, repeats, Instant::now());
                    }
                }
            }
        }
        self.read_rows(&rows).await?;
        self.invalidations.cost(began.elapsed());
        Ok(())
    }

    /// Reads single rows, each with how often the read is repeated while it shows no change.
    async fn read_rows(&mut self, wanted: &[(Key, u8)]) -> Result<(), ReceiverDropped> {
        for some in chunks(wanted) {
            self.read_some_rows(some).await?;
        }
        Ok(())
    }

    async fn read_some_rows(&mut self, wanted: &[(Key, u8)]) -> Result<(), ReceiverDropped> {
        let found = match self.fetch_rows(wanted).await {
            Ok(found) => found,
            Err(error) => {
                // A list will find what this could not.
                self.list_due = self.list_due.min(Instant::now() + self.backoff.next_pause());
                return self.emit(RawWatchEvent::Failed(error)).await;
            }
        };
        let reading = self.reading();
        self.read_at.extend(wanted.iter().map(|(key, _)| (key.clone(), reading)));
        let mut changed = HashSet::new();
        let missing = wanted.iter().map(|(key, _)| (key.clone(), None));
        let found: HashMap<Key, Option<Record>> =
            missing.chain(found.into_iter().map(|(key, record)| (key, Some(record)))).collect();
        // What is gone first: a row may have another key now.
        for (key, _) in found.iter().filter(|(_, record)| record.is_none()) {
            if self.delete(key).await? {
                changed.insert(key.clone());
            }
        }
        for (key, record) in found {
            let Some(record) = record else { continue };
            self.learn_columns(&record);
            if self.apply(key.clone(), record).await? {
                changed.insert(key);
            }
        }
        for (key, repeats) in wanted.iter().filter(|(key, _)| !changed.contains(key)) {
            self.invalidations.repeat(Target::Row(key.clone()), *repeats, reading.at);
        }
        Ok(())
    }

    /// The rows with these keys. The others are requested again from a server that gives fewer at once.
    async fn fetch_rows(&mut self, wanted: &[(Key, u8)]) -> Result<Vec<(Key, Record)>, Error> {
        let mut keys: Vec<&Key> = wanted.iter().map(|(key, _)| key).collect();
        let mut found = Vec::with_capacity(keys.len());
        while !keys.is_empty() {
            let request = self.query.rows_request(self.client.rest(), &keys).count(Count::Exact);
            let response = request.read().await?;
            let rows: Vec<Box<RawValue>> = response.json()?;
            let more = response.count().is_none_or(|total| total > rows.len() as u64) && !rows.is_empty();
            for row in rows {
                let record = Record::parse(row.get());
                found.extend(record.and_then(|record| Some((record.key(&self.query.key)?, record))));
            }
            if !more {
                break;
            }
            let seen: HashSet<&Key> = found.iter().map(|(key, _)| key).collect();
            let before = keys.len();
            keys.retain(|key| !seen.contains(key));
            if keys.len() == before {
                // The server writes these keys otherwise than the request did.
                break;
            }
        }
        Ok(found)
    }

    /// Reads the table, and reports the difference. Answers whether there was any, if the table could be read.
    pub(super) async fn list(&mut self) -> Result<Option<bool>, ReceiverDropped> {
        let (rows, is_sure) = match self.fetch_all().await {
            Ok(fetched) => fetched,
            Err(error) => {
                self.list_due = Instant::now() + self.backoff.next_pause();
                self.emit(RawWatchEvent::Failed(error)).await?;
                return Ok(None);
            }
        };
        self.backoff.reset();
        let first = self.listed_at.is_none();
        let mut is_news = first;
        let pause = if self.feed.flows() { self.query.resync_interval } else { self.query.poll_interval };
        self.list_due = Instant::now() + spread(pause);
        if first {
            // A list that breaks off is none: the next one is the first then, and says when it is complete.
            let has_key = |row: &RawValue| {
                Record::parse(row.get()).is_none_or(|row| row.key(&self.query.key).is_some())
            };
            if !rows.iter().all(|row| has_key(row)) {
                self.emit(RawWatchEvent::Failed(self.row_without_key())).await?;
                return Ok(None);
            }
        }
        self.listed_at = Some(self.reading());
        if first {
            self.emit(RawWatchEvent::Init).await?;
        }
        if !first {
            // What is gone first: a row may have another key now.
            is_news |= self.delete_all_but(&rows, is_sure).await?;
        }
        for row in rows {
            let Some(record) = Record::parse(row.get()) else { continue };
            let Some(key) = record.key(&self.query.key) else {
                self.emit(RawWatchEvent::Failed(self.row_without_key())).await?;
                return Ok(None);
            };
            self.learn_columns(&record);
            if first {
                let cached = self.cached(&record);
                let json = cached.json.clone();
                if self.rows.insert(key.clone(), cached).is_none() {
                    self.emit(RawWatchEvent::InitApply(key, json)).await?;
                }
            } else {
                is_news |= self.apply(key, record).await?;
            }
        }
        if first {
            self.emit(RawWatchEvent::InitDone).await?;
        }
        Ok(Some(is_news))
    }

    fn row_without_key(&self) -> Error {
        let (table, key) = (&self.query.table, self.query.key.join(","));
        let reason = format!("a row of `{table}` has no value in a column of the key `{key}`");
        Error::new(ErrorKind::InvalidInput { field: "key", reason })
    }

    /// Reports those as deleted that are not among these rows. Answers whether there were any.
    async fn delete_all_but(
        &mut self,
        rows: &[Box<RawValue>],
        is_sure: bool,
    ) -> Result<bool, ReceiverDropped> {
        let mut there = HashSet::with_capacity(rows.len());
        for record in rows.iter().filter_map(|row| Record::parse(row.get())) {
            // Without the key of one of them it is unknown which is gone.
            let Some(key) = record.key(&self.query.key) else { return Ok(false) };
            there.insert(key);
        }
        let vanished: Vec<_> = self.rows.keys().filter(|key| !there.contains(key)).cloned().collect();
        if !is_sure {
            // A row may have slipped from one page to the other while they were read: request it before it is reported deleted.
            let vanished: Vec<_> = vanished.into_iter().map(|key| (key, 0)).collect();
            self.read_rows(&vanished).await?;
            return Ok(false);
        }
        let mut is_news = false;
        for key in vanished {
            is_news |= self.delete(&key).await?;
        }
        Ok(is_news)
    }

    /// All rows, and whether one that is not among them is certainly not there.
    ///
    /// The server may give fewer rows than a page has. How many there are in all comes with the first page; if there are more, the
    /// server is asked until it has none left.
    async fn fetch_all(&mut self) -> Result<(Vec<Box<RawValue>>, bool), Error> {
        let mut all: Vec<Box<RawValue>> = Vec::new();
        let limit = self.query.limit.unwrap_or(u64::MAX);
        let mut is_one_page = true;
        loop {
            let last = all.last().and_then(|row| Record::parse(row.get()));
            let mut request = self.query.page_request(self.client.rest(), last.as_ref(), all.len() as u64);
            if all.is_empty() {
                request = request.count(Count::Exact);
            }
            let response = request.read().await?;
            let rows: Vec<Box<RawValue>> = response.json()?;
            let has_all = match response.count() {
                Some(total) if all.is_empty() => total <= rows.len() as u64,
                _ => rows.is_empty(),
            };
            is_one_page &= all.is_empty() || rows.is_empty();
            all.extend(rows);
            if has_all || all.len() as u64 >= limit {
                // Of the first so many rows, one page more may have moved.
                let is_sure = is_one_page || (self.query.pages_by_key() && self.query.limit.is_none());
                return Ok((all, is_sure || self.query.limit.is_some()));
            }
        }
    }
}

/// As many keys as fit into one request.
fn chunks(wanted: &[(Key, u8)]) -> Vec<&[(Key, u8)]> {
    let mut chunks = Vec::new();
    let (mut start, mut bytes) = (0, 0);
    for (place, (key, _)) in wanted.iter().enumerate() {
        let size = key.values().iter().map(|value| encoded_length(value)).sum::<usize>();
        if place > start && (place - start == KEYS_IN_ONE_REQUEST || bytes + size > BYTES_IN_ONE_REQUEST) {
            chunks.push(&wanted[start..place]);
            (start, bytes) = (place, 0);
        }
        bytes += size;
    }
    if start < wanted.len() {
        chunks.push(&wanted[start..]);
    }
    chunks
}

/// The bytes of a value in an address, with the quotes and the comma around it.
fn encoded_length(value: &str) -> usize {
    let of = |byte: u8| if byte.is_ascii_alphanumeric() || b"-_.*".contains(&byte) { 1 } else { 3 };
    value.bytes().map(of).sum::<usize>() + 9
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(count: usize, length: usize) -> Vec<(Key, u8)> {
        (0..count).map(|_| (Key::new(vec!["k".repeat(length)]), 0)).collect()
    }

    #[test]
    fn requests_are_bounded_in_keys_and_in_bytes() {
        for (count, length) in [(0, 1), (1, 1), (100, 1), (101, 1), (250, 36), (150, 700), (3, 10_000)] {
            let wanted = keys(count, length);
            let chunks = chunks(&wanted);
            assert_eq!(chunks.iter().map(|chunk| chunk.len()).sum::<usize>(), count, "{count} x {length}");
            for chunk in chunks {
                let bytes = chunk.len() * (length + 9);
                assert!(chunk.len() <= 100 && (bytes <= BYTES_IN_ONE_REQUEST || chunk.len() == 1));
            }
        }
    }
}
