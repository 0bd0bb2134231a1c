//! A deployment's log in the order in which it was written.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Deserialize;
use tendril_realtime::watch::Query;
use uuid::Uuid;

/// A row of `deployment_logs`: whole lines of one stream.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Chunk {
    /// The attempt that wrote it.
    pub attempt: i32,
    /// Its place among the chunks of that attempt: 1, 2, 3, …
    pub seq: i64,
    /// `stdout`, `stderr` or `agent`.
    pub stream: String,
    /// The lines, each with its newline.
    pub log_chunk: String,
    /// When its first line was written, by the agent's clock.
    #[serde(default)]
    pub ts: Option<Timestamp>,
}

impl Chunk {
    /// All chunks of a deployment, to watch.
    pub fn query(deployment: Uuid) -> Query {
        Query::table("deployment_logs")
            .select("id,attempt,seq,stream,log_chunk,ts")
            .immutable_eq("deployment_id", deployment)
            .order("attempt")
            .order("seq")
    }

    /// The lines without their newlines.
    pub fn lines(&self) -> impl Iterator<Item = &str> {
        self.log_chunk.lines()
    }
}

/// Puts chunks in order: each is given out once, after all that come before it.
///
/// Where a new attempt begins, the old one is over: what still comes of it is left out.
#[derive(Debug, Default)]
pub struct LogOrder {
    attempt: i32,
    /// The last chunk of the attempt that was given out.
    last: i64,
    /// Chunks that came before their predecessors.
    waiting: BTreeMap<i64, Chunk>,
}

impl LogOrder {
    /// Takes a chunk, gives those whose turn it is.
    pub fn put(&mut self, chunk: Chunk) -> Vec<Chunk> {
        let mut turn = Vec::new();
        if chunk.attempt > self.attempt {
            turn = self.rest();
            (self.attempt, self.last) = (chunk.attempt, 0);
        }
        if chunk.attempt == self.attempt && chunk.seq > self.last {
            self.waiting.insert(chunk.seq, chunk);
        }
        while let Some(next) = self.waiting.remove(&(self.last + 1)) {
            self.last += 1;
            turn.push(next);
        }
        turn
    }

    /// Whether so many chunks of this attempt were given out.
    pub fn has(&self, attempt: i32, count: i64) -> bool {
        count == 0 || (self.attempt == attempt && self.last >= count)
    }

    /// What still waits, in order, though there is a gap before it.
    pub fn rest(&mut self) -> Vec<Chunk> {
        std::mem::take(&mut self.waiting).into_values().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(attempt: i32, seq: i64) -> Chunk {
        Chunk { attempt, seq, stream: "stdout".to_owned(), log_chunk: format!("{attempt}.{seq}\n"), ts: None }
    }

    fn given(order: &mut LogOrder, chunks: &[(i32, i64)]) -> Vec<(i32, i64)> {
        let turn = chunks.iter().flat_map(|&(attempt, seq)| order.put(chunk(attempt, seq)));
        turn.map(|chunk| (chunk.attempt, chunk.seq)).collect()
    }

    #[test]
    fn chunks_come_once_and_in_order_however_they_arrive() {
        let mut order = LogOrder::default();
        assert_eq!(given(&mut order, &[(1, 2), (1, 3)]), []);
        assert_eq!(given(&mut order, &[(1, 1), (1, 1), (1, 2)]), [(1, 1), (1, 2), (1, 3)]);
        assert!(order.has(1, 3));
        assert!(!order.has(1, 4));
    }

    #[test]
    fn a_new_attempt_begins_at_one_and_ends_the_old_one() {
        let mut order = LogOrder::default();
        assert_eq!(
            given(&mut order, &[(1, 1), (1, 3), (2, 1), (1, 2), (2, 2)]),
            [(1, 1), (1, 3), (2, 1), (2, 2)]
        );
        assert!(!order.has(1, 1));
        assert!(order.has(2, 2));
    }

    #[test]
    fn what_waits_behind_a_gap_is_not_lost() {
        let mut order = LogOrder::default();
        assert_eq!(given(&mut order, &[(1, 1), (1, 3)]), [(1, 1)]);
        assert_eq!(order.rest(), [chunk(1, 3)]);
    }

    #[test]
    fn a_deployment_without_a_log_has_all_of_it() {
        assert!(LogOrder::default().has(1, 0));
    }
}
