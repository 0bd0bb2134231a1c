//! Which jobs wait, and the choice of the next one.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::Duration,
};

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::time::Instant;
use uuid::Uuid;

use crate::{
    control_plane::{around, contract::known},
    job::{Status, source::Source, state_key},
};

/// A row that waits, as far as the choice needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Queued {
    pub(crate) id: Uuid,
    /// Its place in the order of arrival.
    order: i64,
    state_key: String,
    /// Whether the database computed the key.
    is_stored: bool,
}

/// A watched row. Rows that an agent holds are watched too, for the sake of their cancel requests.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Row {
    pub(crate) id: Uuid,
    /// None: one of a later contract. Such a row is no job for this agent.
    #[serde(deserialize_with = "known")]
    pub(crate) status: Option<Status>,
    pub(crate) created_at: Timestamp,
    /// Of contract 3.
    queue_order: Option<i64>,
    /// Of contract 3.
    state_key: Option<String>,
    claim_token: Option<Uuid>,
    cancel_requested_at: Option<Timestamp>,
    approved_plan: Option<String>,
    #[serde(default)]
    config_snapshot: Snapshot,
}

/// The columns of [`Row`], and `attempt`: it shows that a row was claimed and queued again meanwhile.
pub(crate) const COLUMNS: &str =
    "id,status,created_at,attempt,claim_token,cancel_requested_at,approved_plan,queue_order,state_key";
/// The same of the contract before: the key is computed here.
pub(crate) const COLUMNS_BEFORE: &str =
    "id,status,created_at,attempt,claim_token,cancel_requested_at,approved_plan,config_snapshot";

/// The fields that name the state. They may be invalid: that is reported once the job is claimed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Snapshot {
    source: String,
    stack: Option<String>,
}

impl<'de> Deserialize<'de> for Snapshot {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // The variables are none of its business, and may hold what no double can.
        #[derive(Deserialize, serde::Serialize)]
        struct Named {
            template: Option<Box<RawValue>>,
            source: Option<Box<RawValue>>,
            stack: Option<Box<RawValue>>,
        }
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        let named = serde_json::from_str::<Named>(raw.get()).ok();
        let value = named.and_then(|named| serde_json::to_value(named).ok()).unwrap_or_default();
        let text = |field: &str| value.get(field).and_then(|value| value.as_str()).map(str::to_owned);
        Ok(Self { source: Source::key_in(&value), stack: text("stack") })
    }
}

impl Queued {
    /// The state that the job would work on.
    pub(crate) fn state_key(&self) -> &str {
        &self.state_key
    }

    /// The key, if the database computed it.
    pub(crate) fn stored_state_key(&self) -> Option<String> {
        self.is_stored.then(|| self.state_key.clone())
    }
}

/// What changes in the queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum QueueEvent {
    /// All that was known is void: the rows that count follow.
    Restart,
    /// A row waits.
    Waits(Queued),
    /// A row neither waits nor runs any more: its stack may be free.
    Gone(Uuid),
    /// A row is run, by this agent or another one.
    Runs(Running),
    /// A row is run, and its user requested a cancel: the holder of this claim ends it.
    Cancel(Running, Uuid),
    /// A row is run, and its user approved this plan: the holder of this claim applies it.
    Approved(Running, Uuid, String),
}

/// A row that is run, and so occupies its stack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Running {
    id: Uuid,
    state_key: String,
}

impl Row {
    /// What it means for the queue.
    pub(crate) fn event(self) -> QueueEvent {
        let Self { id, status, created_at, queue_order, state_key: stored, claim_token, .. } = self;
        let Snapshot { source, stack } = &self.config_snapshot;
        let is_stored = stored.is_some();
        let state_key = stored.unwrap_or_else(|| state_key(source, stack.as_deref(), id));
        if status == Some(Status::Queued) {
            let order = queue_order.unwrap_or_else(|| created_at.as_microsecond());
            return QueueEvent::Waits(Queued { id, order, state_key, is_stored });
        }
        if status != Some(Status::Processing) {
            return QueueEvent::Gone(id);
        }
        let runs = Running { id, state_key };
        match (claim_token, self.cancel_requested_at, self.approved_plan) {
            (Some(claim_token), Some(_), _) => QueueEvent::Cancel(runs, claim_token),
            (Some(claim_token), None, Some(plan)) => QueueEvent::Approved(runs, claim_token, plan),
            _ => QueueEvent::Runs(runs),
        }
    }
}

/// The rows that wait, in the order of arrival, and the stacks that are busy.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    waiting: BTreeMap<(i64, Uuid), Queued>,
    places: HashMap<Uuid, i64>,
    /// The stack of each row that is run, by whichever agent.
    running: HashMap<Uuid, String>,
    /// Rows whose claim was out of turn although nothing here showed it: the event that explains it has not arrived yet.
    deferred: HashMap<Uuid, Deferred>,
}

#[derive(Debug)]
struct Deferred {
    until: Instant,
    refusals: u32,
}

/// How long a row is left alone after its first claim out of turn; it doubles with each further one.
const DEFER: Duration = Duration::from_millis(500);
/// The longest that a row is left alone. An event of its stack ends that at once.
const DEFER_MOST: Duration = Duration::from_secs(15);

impl Queue {
    /// A row waits.
    pub(crate) fn put(&mut self, row: Queued) {
        self.remove(row.id);
        self.places.insert(row.id, row.order);
        self.waiting.insert((row.order, row.id), row);
    }

    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// A row neither waits nor runs any more.
    pub(crate) fn remove(&mut self, id: Uuid) {
        self.deferred.remove(&id);
        if let Some(order) = self.places.remove(&id)
            && let Some(row) = self.waiting.remove(&(order, id))
        {
            self.stack_changed(&row.state_key);
        }
        if let Some(key) = self.running.remove(&id) {
            self.stack_changed(&key);
        }
    }

    /// A run of this agent has ended. The row may wait again already: that it was queued once more can arrive before this.
    pub(crate) fn ended(&mut self, id: Uuid) {
        if let Some(key) = self.running.remove(&id) {
            self.stack_changed(&key);
        }
    }

    /// A row is run: its stack is busy until it ends.
    pub(crate) fn runs(&mut self, row: Running) {
        if self.running.get(&row.id) != Some(&row.state_key) {
            self.remove(row.id);
            self.running.insert(row.id, row.state_key);
        }
    }

    /// Takes the oldest row of a stack without a running job; of the first `choice` such stacks any one, so that agents that race
    /// for the same rows do not all run for the same one. Of each stack only the oldest row may be claimed.
    pub(crate) fn take(&mut self, choice: usize, is_busy: impl Fn(&str) -> bool) -> Option<Queued> {
        let now = Instant::now();
        let mut busy: HashSet<&str> = self.running.values().map(String::as_str).collect();
        let mut candidates = Vec::new();
        for row in self.waiting.values() {
            let is_first = busy.insert(row.state_key());
            let is_deferred = self.deferred.get(&row.id).is_some_and(|deferred| deferred.until > now);
            if is_first && !is_deferred && !is_busy(row.state_key()) {
                candidates.push((row.order, row.id));
                if candidates.len() >= choice.max(1) {
                    break;
                }
            }
        }
        let place = *candidates.get(fastrand::usize(..candidates.len().max(1)))?;
        self.places.remove(&place.1);
        self.waiting.remove(&place)
    }

    /// A claim of this row was out of turn: it waits on, and is left alone for a while, or until an event of its stack.
    pub(crate) fn defer(&mut self, row: Queued) {
        let refusals = self.deferred.get(&row.id).map_or(0, |deferred| deferred.refusals);
        let pause = DEFER.saturating_mul(2_u32.saturating_pow(refusals)).min(DEFER_MOST);
        let until = Instant::now() + around(pause);
        let id = row.id;
        self.put(row);
        self.deferred.insert(id, Deferred { until, refusals: refusals.saturating_add(1) });
    }

    /// When the next row that was left alone may be claimed again.
    pub(crate) fn due(&self) -> Option<Instant> {
        let now = Instant::now();
        self.deferred.values().map(|deferred| deferred.until).filter(|until| *until > now).min()
    }

    fn stack_changed(&mut self, key: &str) {
        let of_stack = |id: &Uuid| {
            let row = self.places.get(id).and_then(|order| self.waiting.get(&(*order, *id)));
            row.is_some_and(|row| row.state_key == key)
        };
        let now = Instant::now();
        for id in self.deferred.keys().copied().filter(of_stack).collect::<Vec<_>>() {
            if let Some(deferred) = self.deferred.get_mut(&id) {
                deferred.until = now;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event(status: &str, more: &serde_json::Value) -> QueueEvent {
        let mut row = json!({
            "id": Uuid::nil(), "status": status, "created_at": "2026-01-01T00:00:00+00:00",
            "claim_token": null, "cancel_requested_at": null, "approved_plan": null, "config_snapshot": {"template": "hello"},
        });
        let more = more.as_object().unwrap().clone();
        row.as_object_mut().unwrap().extend(more);
        serde_json::from_value::<Row>(row).unwrap().event()
    }

    fn row(id: u128, second: i64, stack: &serde_json::Value) -> Queued {
        let id = Uuid::from_u128(id);
        let created_at = Timestamp::from_second(second).unwrap();
        let more = json!({"id": id, "created_at": created_at, "config_snapshot": {"template": "hello", "stack": stack}});
        match event("QUEUED", &more) {
            QueueEvent::Waits(row) => row,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_row_is_read_as_event() {
        let claim = Uuid::from_u128(7);
        let cancelled = json!({"claim_token": claim, "cancel_requested_at": "2026-01-01T00:00:00Z"});
        let runs = || Running { id: Uuid::nil(), state_key: Uuid::nil().to_string() };
        assert_eq!(event("PROCESSING", &cancelled), QueueEvent::Cancel(runs(), claim));
        assert_eq!(event("PROCESSING", &json!({"claim_token": claim})), QueueEvent::Runs(runs()));
        let approved = json!({"claim_token": claim, "approved_plan": "abc"});
        assert_eq!(event("PROCESSING", &approved), QueueEvent::Approved(runs(), claim, "abc".to_owned()));
        assert_eq!(event("CANCELLED", &cancelled), QueueEvent::Gone(Uuid::nil()));
        assert_eq!(event("PAUSED_BY_A_LATER_CONTRACT", &cancelled), QueueEvent::Gone(Uuid::nil()));
        assert!(matches!(event("QUEUED", &json!({})), QueueEvent::Waits(_)));
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
    fn a_row_that_is_gone_is_not_taken() {
        let mut queue = Queue::default();
        queue.put(row(1, 10, &json!("a")));
        queue.remove(Uuid::from_u128(1));
        queue.remove(Uuid::from_u128(7));
        assert_eq!(queue.take(5, |_| false), None);
    }

    #[test]
    fn a_snapshot_of_any_shape_is_taken() {
        for config in [json!([]), json!({"stack": 3}), json!("x"), json!(null)] {
            match event("QUEUED", &json!({"config_snapshot": config})) {
                QueueEvent::Waits(row) => assert_eq!(row.state_key(), Uuid::nil().to_string()),
                other => panic!("{other:?}"),
            }
        }
    }

    /// A row as a database of contract 3 has it.
    fn stored(id: u128, order: i64, key: &str) -> Queued {
        let id = Uuid::from_u128(id);
        match event("QUEUED", &json!({"id": id, "queue_order": order, "state_key": key})) {
            QueueEvent::Waits(row) => row,
            other => panic!("{other:?}"),
        }
    }

    fn running(id: u128, key: &str) -> Running {
        Running { id: Uuid::from_u128(id), state_key: key.to_owned() }
    }

    #[test]
    fn of_a_stack_only_the_oldest_row_is_offered_however_wide_the_choice() {
        for _ in 0..50 {
            let mut queue = Queue::default();
            for (id, order, key) in [(1, 3, "a"), (2, 1, "a"), (3, 2, "a"), (4, 4, "b")] {
                queue.put(stored(id, order, key));
            }
            let taken = queue.take(512, |_| false).unwrap();
            assert!(taken.id == Uuid::from_u128(2) || taken.id == Uuid::from_u128(4), "{taken:?}");
        }
    }

    #[test]
    fn a_stack_that_another_agent_works_on_is_offered_once_that_has_ended() {
        let mut queue = Queue::default();
        queue.put(stored(1, 1, "a"));
        queue.put(stored(2, 2, "a"));
        queue.runs(running(1, "a"));
        assert_eq!(queue.take(5, |_| false), None);
        queue.remove(Uuid::from_u128(1));
        assert_eq!(queue.take(5, |_| false).unwrap().id, Uuid::from_u128(2));
    }

    #[test]
    fn a_row_that_is_queued_again_before_the_end_of_its_run_is_known_is_offered() {
        let mut queue = Queue::default();
        queue.runs(running(1, "a"));
        queue.put(stored(1, 1, "a"));
        queue.ended(Uuid::from_u128(1));
        assert_eq!(queue.take(1, |_| false).map(|row| row.id), Some(Uuid::from_u128(1)));
        queue.runs(running(2, "b"));
        queue.put(stored(3, 3, "b"));
        assert_eq!(queue.take(1, |_| false), None);
        queue.ended(Uuid::from_u128(2));
        assert_eq!(queue.take(1, |_| false).map(|row| row.id), Some(Uuid::from_u128(3)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_row_that_was_out_of_turn_is_left_alone_until_an_event_of_its_stack_or_a_while_has_passed() {
        let mut queue = Queue::default();
        queue.put(stored(2, 2, "a"));
        let row = queue.take(1, |_| false).unwrap();
        queue.defer(row);
        assert_eq!(queue.take(1, |_| false), None);
        queue.put(stored(1, 1, "a"));
        queue.remove(Uuid::from_u128(1));
        let row = queue.take(1, |_| false).expect("an older one of its stack is gone");
        queue.defer(row);
        assert_eq!(queue.take(1, |_| false), None);
        tokio::time::sleep_until(queue.due().expect("it is due")).await;
        let row = queue.take(1, |_| false).expect("a while has passed");
        for _ in 0..40 {
            queue.defer(row.clone());
        }
        assert!(queue.due().unwrap() - Instant::now() <= DEFER_MOST.mul_f64(1.2));
    }

    #[test]
    fn the_key_that_the_database_computed_is_taken_as_it_is() {
        let row = stored(1, 1, "git-infra-0123456789abcdef.prod");
        assert_eq!(row.state_key(), "git-infra-0123456789abcdef.prod");
        assert_eq!(row.stored_state_key().as_deref(), Some("git-infra-0123456789abcdef.prod"));
    }
}
