//! Which jobs wait: a list-then-watch of the cluster's QUEUED rows, and the choice of the next one.

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;
use serde::Deserialize;
use uuid::Uuid;

use tendril_realtime::Rest;

use crate::job::state_key;

/// A QUEUED row, as far as the choice needs it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Queued {
    pub(crate) id: Uuid,
    pub(crate) created_at: Timestamp,
    config_snapshot: Snapshot,
}

/// The fields that name the state. Anything may stand there: what is wrong with it is said once the job is claimed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Snapshot {
    template: Option<String>,
    stack: Option<String>,
}

impl<'de> Deserialize<'de> for Snapshot {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = serde_json::Value::deserialize(deserializer)?;
        let text = |field: &str| value.get(field).and_then(|value| value.as_str()).map(str::to_owned);
        Ok(Self { template: text("template"), stack: text("stack") })
    }
}

impl Queued {
    /// The state that the job would work on.
    pub(crate) fn state_key(&self) -> String {
        let Snapshot { template, stack } = &self.config_snapshot;
        state_key(template.as_deref().unwrap_or_default(), stack.as_deref(), self.id)
    }
}

/// What changes in the queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum QueueNews {
    /// All rows that wait.
    List(Vec<Queued>),
    /// A row waits.
    Waits(Queued),
    /// A row waits no more.
    Gone(Uuid),
    /// The user asked to cancel the job of this claim.
    Cancel(Uuid),
}

/// The rows that wait, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    waiting: BTreeMap<(Timestamp, Uuid), Queued>,
    places: HashMap<Uuid, Timestamp>,
}

impl Queue {
    /// A row waits.
    pub(crate) fn put(&mut self, row: Queued) {
        self.remove(row.id);
        self.places.insert(row.id, row.created_at);
        self.waiting.insert((row.created_at, row.id), row);
    }

    /// A row waits no more.
    pub(crate) fn remove(&mut self, id: Uuid) {
        if let Some(created_at) = self.places.remove(&id) {
            self.waiting.remove(&(created_at, id));
        }
    }

    /// Replaces everything by a fresh list.
    pub(crate) fn replace(&mut self, rows: impl IntoIterator<Item = Queued>) {
        *self = Self::default();
        rows.into_iter().for_each(|row| self.put(row));
    }

    /// Takes the oldest row whose state nobody works on; of the first `choice` such rows any one, so that agents that race
    /// for the same rows do not all run for the same one.
    pub(crate) fn take(&mut self, choice: usize, is_busy: impl Fn(&str) -> bool) -> Option<Queued> {
        let free = self.waiting.values().filter(|row| !is_busy(&row.state_key()));
        let candidates: Vec<Uuid> = free.take(choice.max(1)).map(|row| row.id).collect();
        let id = *candidates.get(fastrand::usize(..candidates.len().max(1)))?;
        let created_at = self.places.remove(&id)?;
        self.waiting.remove(&(created_at, id))
    }
}

/// What keeps the queue true. TODO-WATCH
pub(crate) struct Feed {
    rest: Rest,
    cluster_id: Uuid,
}

impl Feed {
    pub(crate) fn open(rest: Rest, cluster_id: Uuid) -> Self {
        Self { rest, cluster_id }
    }

    pub(crate) async fn next(&mut self) -> QueueNews {
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        let rows = self
            .rest
            .from("deployments")
            .select("id,created_at,config_snapshot")
            .eq("cluster_id", self.cluster_id)
            .eq("status", "QUEUED")
            .order("created_at.asc")
            .limit(100);
        match rows.rows::<Queued>().await {
            Ok(rows) => QueueNews::List(rows),
            Err(_) => QueueNews::List(vec![]),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn row(id: u128, second: i64, stack: &serde_json::Value) -> Queued {
        let created_at = Timestamp::from_second(second).unwrap();
        let config = json!({"template": "hello", "stack": stack, "variables": {}});
        serde_json::from_value(
            json!({"id": Uuid::from_u128(id), "created_at": created_at, "config_snapshot": config}),
        )
        .unwrap()
    }

    #[test]
    fn the_oldest_row_whose_state_is_free_comes_first() {
        let mut queue = Queue::default();
        queue.put(row(1, 30, &json!("c")));
        queue.put(row(2, 10, &json!("a")));
        queue.put(row(3, 20, &json!(null)));
        let next = queue.take(1, |key| key == "hello.a").unwrap();
        assert_eq!(next.id, Uuid::from_u128(3));
        assert_eq!(next.state_key(), next.id.to_string());
        assert_eq!(queue.take(1, |_| false).unwrap().id, Uuid::from_u128(2));
        assert_eq!(queue.take(1, |_| true), None);
    }

    #[test]
    fn a_row_that_is_put_twice_is_taken_once() {
        let mut queue = Queue::default();
        queue.put(row(1, 10, &json!("a")));
        queue.put(row(1, 20, &json!("b")));
        assert_eq!(queue.take(5, |_| false).unwrap().state_key(), "hello.b");
        assert_eq!(queue.take(5, |_| false), None);
    }

    #[test]
    fn a_fresh_list_forgets_what_is_not_in_it() {
        let mut queue = Queue::default();
        queue.put(row(1, 10, &json!("a")));
        queue.replace([row(2, 10, &json!("a"))]);
        queue.remove(Uuid::from_u128(7));
        assert_eq!(queue.take(5, |_| false).unwrap().id, Uuid::from_u128(2));
        assert_eq!(queue.take(5, |_| false), None);
    }

    #[test]
    fn a_snapshot_of_any_shape_is_taken() {
        for config in [json!([]), json!({"stack": 3}), json!("x"), json!(null)] {
            let value = json!({"id": Uuid::nil(), "created_at": "2026-01-01T00:00:00+00:00", "config_snapshot": config});
            let row: Queued = serde_json::from_value(value).unwrap();
            assert_eq!(row.state_key(), Uuid::nil().to_string());
        }
    }
}
