//! Which jobs wait: a list-then-watch of the cluster's QUEUED rows, and the choice of the next one.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use futures_util::StreamExt as _;
use jiff::Timestamp;
use serde::Deserialize;
use tendril_realtime::{
    Client, Error, Rest,
    watch::{Query, Watch, WatchEvent},
};
use tokio::time::{Instant, sleep_until};
use uuid::Uuid;

use crate::{
    control_plane::{
        broadcast::{BroadcastSubscription, SubscriptionState},
        contract::known,
    },
    job::{
        source::Source,
        spec::{Status, state_key},
    },
};

/// How jobs are found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Intake {
    /// Realtime's changes of the table.
    #[default]
    PostgresChanges,
    /// Broadcasts of the database on a private channel of the cluster, for fleets of more than some hundreds of clusters.
    Broadcast,
}

impl Intake {
    /// Errors: what to write instead.
    pub(crate) fn read(text: Option<&str>) -> Result<Self, String> {
        let ways = [Self::PostgresChanges, Self::Broadcast];
        let text = text.unwrap_or(Self::default().name());
        ways.into_iter().find(|way| way.name() == text).ok_or_else(|| {
            format!("--intake / TENDRIL_INTAKE is \"{text}\": write \"postgres_changes\" or \"broadcast\"")
        })
    }

    /// As it is written in the configuration.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::PostgresChanges => "postgres_changes",
            Self::Broadcast => "broadcast",
        }
    }
}

/// The private channel on which the database tells of a cluster's jobs, and the name of its messages.
pub(crate) fn broadcasts(cluster_id: Uuid) -> (String, &'static str) {
    (format!("cluster:{cluster_id}"), "deployment")
}

/// How to fix a database that tells nothing by broadcast.
pub(crate) const NO_BROADCASTS: &str = "this database does not tell agents of their jobs by broadcast: apply supabase/migrations to it up to \
    20261125100300_broadcast_intake (and see supabase/README.md if agents have the role authenticated there), or use --intake \
    postgres_changes. Until then jobs are found by polling";

/// A row that waits, as far as the choice needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Queued {
    pub(crate) id: Uuid,
    created_at: Timestamp,
    config_snapshot: Snapshot,
}

/// A watched row. Rows that an agent holds are watched too, for the sake of their cancel requests.
#[derive(Clone, Debug, Deserialize)]
struct Row {
    id: Uuid,
    /// None: one of a later contract. Such a row is no job for this agent.
    #[serde(deserialize_with = "known")]
    status: Option<Status>,
    created_at: Timestamp,
    claim_token: Option<Uuid>,
    cancel_requested_at: Option<Timestamp>,
    approved_plan: Option<String>,
    config_snapshot: Snapshot,
}

/// The columns of [`Row`], and `attempt`: a row that was claimed and queued again while nobody looked is news by it.
const COLUMNS: &str =
    "id,status,created_at,attempt,claim_token,cancel_requested_at,approved_plan,config_snapshot";

/// The fields that name the state. Anything may stand there: what is wrong with it is said once the job is claimed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Snapshot {
    source: String,
    stack: Option<String>,
}

impl<'de> Deserialize<'de> for Snapshot {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = serde_json::Value::deserialize(deserializer)?;
        let text = |field: &str| value.get(field).and_then(|value| value.as_str()).map(str::to_owned);
        Ok(Self { source: Source::key_in(&value), stack: text("stack") })
    }
}

impl Queued {
    /// The state that the job would work on.
    pub(crate) fn state_key(&self) -> String {
        let Snapshot { source, stack } = &self.config_snapshot;
        state_key(source, stack.as_deref(), self.id)
    }
}

/// What changes in the queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum QueueNews {
    /// A row waits.
    Waits(Queued),
    /// A row waits no more.
    Gone(Uuid),
    /// A row waits no more, and its user asked to cancel it: whoever holds this claim ends it.
    Cancel(Uuid, Uuid),
    /// A row waits no more, and its user approved this plan: whoever holds this claim applies it.
    Approved(Uuid, Uuid, String),
}

impl Row {
    fn news(self) -> QueueNews {
        let Self { id, status, created_at, claim_token, cancel_requested_at, approved_plan, config_snapshot } =
            self;
        match (status, claim_token, cancel_requested_at) {
            (Some(Status::Queued), ..) => QueueNews::Waits(Queued { id, created_at, config_snapshot }),
            (Some(Status::Processing), Some(claim_token), Some(_)) => QueueNews::Cancel(id, claim_token),
            (Some(Status::Processing), Some(claim_token), None) => match approved_plan {
                Some(plan) => QueueNews::Approved(id, claim_token, plan),
                None => QueueNews::Gone(id),
            },
            _ => QueueNews::Gone(id),
        }
    }
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

    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// A row waits no more.
    pub(crate) fn remove(&mut self, id: Uuid) {
        if let Some(created_at) = self.places.remove(&id) {
            self.waiting.remove(&(created_at, id));
        }
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

/// What keeps the queue true: a list of the cluster's open rows, then live events, and a list again after each gap. While
/// the websocket is down it polls.
#[derive(Debug)]
pub(crate) struct Feed {
    watch: Watch<Row>,
    rest: Rest,
    intake: Intake,
    subscription: Option<BroadcastSubscription>,
    /// The first list waits for the subscription until then: what is told before a list is in it.
    hold_until: Option<Instant>,
    /// It was said that the database tells nothing by broadcast.
    complained: bool,
}

/// How long the first list waits for the answer to the subscription.
const HOLD: Duration = Duration::from_secs(10);

impl Feed {
    /// Nothing is sent before the first call of [`next`](Self::next). Errors: the query cannot work.
    pub(crate) fn open(client: &Client, cluster_id: Uuid, intake: Intake) -> Result<Self, Box<Error>> {
        let mut query = Query::table("deployments")
            .select(COLUMNS)
            .immutable_eq("cluster_id", cluster_id)
            .in_list("status", [Status::Queued, Status::Processing].map(Status::as_str))
            .order("created_at")
            .order("id");
        if intake == Intake::Broadcast {
            let (topic, event) = broadcasts(cluster_id);
            query = query.invalidated_by_broadcast(topic, event);
        }
        let (watch, rest) = (client.watch(query)?, client.rest().clone());
        Ok(Self { watch, rest, intake, subscription: None, hold_until: None, complained: false })
    }

    /// Whether jobs are told of as they come; otherwise they are found by polling.
    pub(crate) fn is_live(&self) -> bool {
        self.watch.is_live()
    }

    /// The next news. May be dropped and called again.
    pub(crate) async fn next(&mut self) -> QueueNews {
        if self.intake == Intake::Broadcast && self.subscription.is_none() {
            self.subscription = Some(BroadcastSubscription::ask(self.rest.clone()));
            self.hold_until = Some(Instant::now() + HOLD);
        }
        loop {
            let event = tokio::select! {
                state = changed(&mut self.subscription) => {
                    self.on_subscription(state);
                    continue;
                }
                () = until(self.hold_until), if self.hold_until.is_some() => {
                    self.hold_until = None;
                    continue;
                }
                event = self.watch.next(), if self.hold_until.is_none() => event,
            };
            match event {
                Some(Ok(WatchEvent::InitApply(row) | WatchEvent::Apply(row))) => return row.news(),
                Some(Ok(WatchEvent::Delete(row))) => return QueueNews::Gone(row.id),
                Some(Ok(_)) => {}
                Some(Err(error)) if self.intake == Intake::Broadcast && error.code() == "Unauthorized" => {
                    tracing::debug!(%error, "the channel of the cluster cannot be joined");
                    self.complain();
                }
                Some(Err(error)) => tracing::warn!(%error, "the queue cannot be read now: trying again"),
                // Only a client that was shut down ends its watches; then the agent is about to end too.
                None => std::future::pending().await,
            }
        }
    }

    fn on_subscription(&mut self, state: SubscriptionState) {
        match state {
            SubscriptionState::Open => {}
            SubscriptionState::Granted(_) => {
                // What happened until now was not told; a list that is still to come has it.
                if self.hold_until.take().is_none() {
                    self.watch.relist();
                }
                self.complained = false;
            }
            SubscriptionState::Refused => {
                self.hold_until = None;
                self.complain();
            }
        }
    }

    /// Once, however often it is found out.
    fn complain(&mut self) {
        if !std::mem::replace(&mut self.complained, true) {
            tracing::error!("{NO_BROADCASTS}");
        }
    }
}

async fn changed(subscription: &mut Option<BroadcastSubscription>) -> SubscriptionState {
    match subscription {
        Some(subscription) => subscription.changed().await,
        None => std::future::pending().await,
    }
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn news(status: &str, more: &serde_json::Value) -> QueueNews {
        let mut row = json!({
            "id": Uuid::nil(), "status": status, "created_at": "2026-01-01T00:00:00+00:00",
            "claim_token": null, "cancel_requested_at": null, "approved_plan": null, "config_snapshot": {"template": "hello"},
        });
        let more = more.as_object().unwrap().clone();
        row.as_object_mut().unwrap().extend(more);
        serde_json::from_value::<Row>(row).unwrap().news()
    }

    fn row(id: u128, second: i64, stack: &serde_json::Value) -> Queued {
        let id = Uuid::from_u128(id);
        let created_at = Timestamp::from_second(second).unwrap();
        let more = json!({"id": id, "created_at": created_at, "config_snapshot": {"template": "hello", "stack": stack}});
        match news("QUEUED", &more) {
            QueueNews::Waits(row) => row,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_way_that_is_none_is_refused_with_those_that_are() {
        assert_eq!(Intake::read(None), Ok(Intake::PostgresChanges));
        assert_eq!(Intake::read(Some("broadcast")), Ok(Intake::Broadcast));
        let problem = Intake::read(Some("fax")).unwrap_err();
        assert!(problem.contains("\"fax\": write \"postgres_changes\" or \"broadcast\""), "{problem}");
    }

    #[test]
    fn a_row_is_read_as_news() {
        let claim = Uuid::from_u128(7);
        let cancelled = json!({"claim_token": claim, "cancel_requested_at": "2026-01-01T00:00:00Z"});
        assert_eq!(news("PROCESSING", &cancelled), QueueNews::Cancel(Uuid::nil(), claim));
        assert_eq!(news("PROCESSING", &json!({"claim_token": claim})), QueueNews::Gone(Uuid::nil()));
        let approved = json!({"claim_token": claim, "approved_plan": "abc"});
        assert_eq!(news("PROCESSING", &approved), QueueNews::Approved(Uuid::nil(), claim, "abc".to_owned()));
        assert_eq!(news("CANCELLED", &cancelled), QueueNews::Gone(Uuid::nil()));
        assert_eq!(news("PAUSED_BY_A_LATER_CONTRACT", &cancelled), QueueNews::Gone(Uuid::nil()));
        assert!(matches!(news("QUEUED", &json!({})), QueueNews::Waits(_)));
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
            match news("QUEUED", &json!({"config_snapshot": config})) {
                QueueNews::Waits(row) => assert_eq!(row.state_key(), Uuid::nil().to_string()),
                other => panic!("{other:?}"),
            }
        }
    }
}
