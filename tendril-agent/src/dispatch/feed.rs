//! Keeps the queue up to date: a list of the cluster's open rows, then live events, and a list again after each gap. While no events
//! come it polls.
//!
//! With [`Intake::Auto`] it follows broadcasts, and row changes while broadcasts do not come:
//!
//! ```text
//! broadcast -> row changes   the database has none; their channel is refused, or not joined in time; a job was not announced
//! row changes -> broadcast   the database has them and their channel can be joined; tried at growing intervals
//! ```

use std::time::Duration;

use futures_util::StreamExt as _;
use jiff::Timestamp;
use tendril_realtime::{
    Client, Error,
    watch::{Query, Watch, WatchEvent},
};
use tokio::{
    sync::watch,
    task::{JoinError, JoinHandle},
    time::{Instant, sleep_until},
};
use uuid::Uuid;

use crate::{
    control_plane::{Backoff, BroadcastSubscription, HeartbeatReport, SubscriptionState, around},
    dispatch::{
        intake::{Intake, NO_BROADCASTS, Way, broadcasts},
        queue::{COLUMNS, COLUMNS_BEFORE, QueueEvent, Row},
    },
    job::Status,
};

/// How long the first list waits for the answer to the request for broadcasts: what is announced before a list is in it.
const HOLD: Duration = Duration::from_secs(10);
/// How long the channel of the broadcasts may take to be joined while the socket is open.
const JOIN: Duration = Duration::from_secs(20);
/// How long a job that a heartbeat counts may take to be announced.
const ANNOUNCE: Duration = Duration::from_secs(4);
/// How long jobs that were looked for are not looked for again.
const SOUGHT: Duration = Duration::from_secs(60);
/// The pause before broadcasts are tried again is drawn from zero to a limit that doubles from the first to the second.
const TRY_AGAIN: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(600));
/// Broadcasts that came for so long are trusted again.
const TRUSTED: Duration = Duration::from_secs(900);

/// How often the table is read while events come, for a database whose heartbeat counts the jobs that wait. What is lost shows in that
/// count, and cancels and approvals come with it too.
const RESYNC: Duration = Duration::from_secs(2 * 3600);
/// How often it is read while jobs wait: their stack may become free without an event.
const WHILE_JOBS_WAIT: Duration = Duration::from_secs(60);

/// See the module.
#[derive(Debug)]
pub(crate) struct Feed {
    client: Client,
    rows: Rows,
    intake: Intake,
    way: Way,
    /// Since when this way is used.
    since: Instant,
    watch: Watch<Row>,
    /// Whether the first list of the watch replaces what an earlier one reported.
    restarts: bool,
    subscription: Option<BroadcastSubscription>,
    is_granted: bool,
    /// The first list waits until then.
    hold_until: Option<Instant>,
    /// That the database sends no broadcasts was logged.
    complained: bool,
    /// What heartbeats report.
    heartbeats: watch::Receiver<HeartbeatReport>,
    /// Whether the database can send broadcasts, by the last heartbeat.
    has_broadcasts: Option<bool>,
    /// Since when no events come although the socket is open.
    silent_since: Option<Instant>,
    unannounced: Unannounced,
    /// When the table was last read because of what waits or is missing.
    relisted: Instant,
    again: Backoff,
    /// When broadcasts are tried again.
    try_at: Option<Instant>,
    /// The attempt.
    attempt: Option<Attempt>,
}

/// Jobs that heartbeats count, and that nothing announced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Unannounced {
    #[default]
    None,
    /// Since then, and this was the database's clock; perhaps their announcement is on its way.
    Suspected(Instant, Option<Timestamp>),
    /// They are looked for since then. What waits and was there at that time of the database's clock is one of them.
    Sought(Instant, Option<Timestamp>),
}

/// A join of the cluster's channel that shows whether broadcasts can be received.
#[derive(Debug)]
struct Attempt(JoinHandle<Result<(), Error>>);

impl Drop for Attempt {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Feed {
    /// Nothing is sent before the first call of [`next`](Self::next). Errors: the query cannot work.
    pub(crate) fn open(
        client: &Client,
        cluster_id: Uuid,
        intake: Intake,
        has_stacks: bool,
        mut heartbeats: watch::Receiver<HeartbeatReport>,
    ) -> Result<Self, Box<Error>> {
        let rows = Rows { cluster_id, has_stacks };
        let has_broadcasts = heartbeats.borrow_and_update().broadcast;
        let mut way = intake.first_way();
        if intake == Intake::Auto && has_broadcasts == Some(false) {
            way = Way::PostgresChanges;
            tracing::info!(
                "the database has no broadcasts yet: jobs are found by row changes until it has them"
            );
        }
        Ok(Self {
            watch: client.watch(rows.query(way))?,
            client: client.clone(),
            rows,
            intake,
            way,
            since: Instant::now(),
            restarts: false,
            subscription: None,
            is_granted: false,
            hold_until: None,
            complained: false,
            heartbeats,
            has_broadcasts,
            silent_since: None,
            unannounced: Unannounced::None,
            relisted: Instant::now(),
            again: Backoff::new(TRY_AGAIN.0, TRY_AGAIN.1),
            try_at: None,
            attempt: None,
        })
    }

    /// Whether jobs arrive as events; otherwise they are found by polling.
    pub(crate) fn is_live(&self) -> bool {
        self.watch.is_live()
    }

    /// The way that is in use.
    pub(crate) fn way(&self) -> Way {
        self.way
    }

    /// The next event. May be dropped and called again.
    pub(crate) async fn next(&mut self) -> QueueEvent {
        if self.intake != Intake::PostgresChanges && self.subscription.is_none() {
            self.subscription = Some(BroadcastSubscription::request(self.client.rest().clone()));
            self.hold_until = (self.way == Way::Broadcast).then(|| Instant::now() + HOLD);
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
                changed = self.heartbeats.changed() => {
                    if changed.is_err() {
                        // The heartbeat has ended: the agent is about to end.
                        std::future::pending::<()>().await;
                    }
                    self.on_heartbeat();
                    continue;
                }
                () = until(self.try_at), if self.try_at.is_some() => {
                    self.try_broadcasts();
                    continue;
                }
                tried = ended(&mut self.attempt) => {
                    self.on_attempt(tried);
                    continue;
                }
                event = self.watch.next(), if self.hold_until.is_none() => event,
            };
            match event {
                Some(Ok(WatchEvent::Init)) if std::mem::take(&mut self.restarts) => {
                    return QueueEvent::Restart;
                }
                Some(Ok(WatchEvent::InitApply(row))) => return row.event(),
                Some(Ok(WatchEvent::Apply(row))) => {
                    self.on_row(&row);
                    return row.event();
                }
                Some(Ok(WatchEvent::Delete(row))) => return QueueEvent::Gone(row.id),
                Some(Ok(WatchEvent::Interrupted(error)))
                    if self.way == Way::Broadcast && error.code() == "Unauthorized" =>
                {
                    tracing::debug!(error = %format_args!("{error:#}"), "the channel of the cluster cannot be joined");
                    self.no_broadcasts("the channel of the cluster is refused");
                }
                Some(
                    Ok(WatchEvent::Interrupted(error) | WatchEvent::Undecodable { error, .. }) | Err(error),
                ) => {
                    tracing::warn!(error = %format_args!("{error:#}"), "the queue cannot be read now: trying again");
                }
                Some(Ok(_)) => {}
                // Only a client that was shut down ends its watches; then the agent is about to end too.
                None => std::future::pending().await,
            }
        }
    }

    /// Judges from time to time whether events come. `waiting`: how many jobs are in the queue.
    pub(crate) fn observe(&mut self, waiting: usize) {
        let now = Instant::now();
        self.seek_unannounced(waiting, now);
        if waiting == 0 {
            self.relisted = now;
        } else if self.watch.is_live() && now.duration_since(self.relisted) > WHILE_JOBS_WAIT {
            self.relisted = now;
            self.watch.relist();
        }
        if self.intake != Intake::Auto || self.way != Way::Broadcast || self.hold_until.is_some() {
            return;
        }
        if self.watch.is_live() || !self.client.status().borrow().is_connected() {
            self.silent_since = None;
            if self.watch.is_live() && now.duration_since(self.since) > TRUSTED {
                self.again.reset();
            }
        } else if now.duration_since(*self.silent_since.get_or_insert(now)) > JOIN {
            self.no_broadcasts("the channel of the cluster is not joined in time");
        }
    }

    /// Heartbeats count jobs that wait, and the queue has none: after a moment the table is read.
    fn seek_unannounced(&mut self, waiting: usize, now: Instant) {
        let report = *self.heartbeats.borrow();
        let is_missing = waiting == 0 && report.queued > 0 && self.watch.is_live();
        self.unannounced = match self.unannounced {
            Unannounced::Sought(since, at) if now.duration_since(since) < SOUGHT => {
                Unannounced::Sought(since, at)
            }
            _ if !is_missing => Unannounced::None,
            Unannounced::Suspected(since, at) if now.duration_since(since) >= ANNOUNCE => {
                self.watch.relist();
                Unannounced::Sought(now, at)
            }
            Unannounced::Suspected(since, at) => Unannounced::Suspected(since, at),
            Unannounced::None | Unannounced::Sought(..) => Unannounced::Suspected(now, report.now),
        };
    }

    fn on_row(&mut self, row: &Row) {
        let Unannounced::Sought(since, Some(at)) = self.unannounced else { return };
        if row.status == Some(Status::Queued) && row.created_at <= at {
            self.unannounced = Unannounced::Sought(since, None);
            if self.way == Way::Broadcast {
                self.no_broadcasts("a job was not announced");
                // That their channel can be joined proves nothing.
                self.try_at = self.is_granted.then(|| Instant::now() + around(TRY_AGAIN.1));
            } else {
                tracing::warn!(deployment = %row.id, "a job was not announced by the row changes: it was found by reading the table");
            }
        }
    }

    fn on_heartbeat(&mut self) {
        let broadcast = self.heartbeats.borrow_and_update().broadcast;
        let before = std::mem::replace(&mut self.has_broadcasts, broadcast);
        match broadcast {
            Some(false) if self.way == Way::Broadcast => {
                self.no_broadcasts("the database cannot send them");
            }
            // They were just installed: there is no need to wait for the next request or attempt.
            Some(true)
                if before == Some(false)
                    && self.is_granted
                    && self.way == Way::PostgresChanges
                    && self.attempt.is_none() =>
            {
                self.again.reset();
                self.try_at = Some(Instant::now());
            }
            Some(true) if !self.is_granted => {
                if let Some(subscription) = &self.subscription {
                    subscription.ask_now();
                }
            }
            _ => {}
        }
    }

    fn on_subscription(&mut self, state: SubscriptionState) {
        match state {
            SubscriptionState::Open => {}
            SubscriptionState::Granted(_) => {
                self.is_granted = true;
                self.complained = false;
                if self.way == Way::PostgresChanges {
                    self.try_at = Some(Instant::now());
                } else if self.hold_until.take().is_none() {
                    // What happened until now was not announced; a list that is still to come has it.
                    self.watch.relist();
                }
            }
            SubscriptionState::Refused => {
                self.is_granted = false;
                self.hold_until = None;
                self.no_broadcasts("the database cannot send them");
            }
        }
    }

    /// No broadcasts come: row changes are followed, unless only broadcasts are allowed.
    fn no_broadcasts(&mut self, why: &str) {
        if self.intake == Intake::Broadcast {
            // Once, however often it is found out.
            if !std::mem::replace(&mut self.complained, true) {
                tracing::error!("{NO_BROADCASTS}");
            }
            return;
        }
        if self.way == Way::PostgresChanges {
            return;
        }
        tracing::warn!(
            "jobs do not arrive by broadcast ({why}): they are found by row changes until they do again"
        );
        self.attempt = None;
        self.try_at = self.is_granted.then(|| Instant::now() + self.again.next(None));
        self.follow(Way::PostgresChanges);
    }

    /// Joins the channel of the cluster beside the row changes that are followed.
    fn try_broadcasts(&mut self) {
        self.try_at = None;
        if self.way == Way::Broadcast || !self.is_granted {
            return;
        }
        if self.has_broadcasts == Some(false) {
            self.try_at = Some(Instant::now() + self.again.next(None));
            return;
        }
        let (topic, event) = broadcasts(self.rows.cluster_id);
        let mut channel = self.client.channel(&topic).private(true);
        self.attempt = Some(Attempt(tokio::spawn(async move {
            let _messages = channel.on_broadcast(event);
            let joined = channel.join().await?;
            joined.leave().await
        })));
    }

    fn on_attempt(&mut self, tried: Result<Result<(), Error>, JoinError>) {
        self.attempt = None;
        match tried {
            Ok(Ok(())) => {
                tracing::info!("jobs arrive by broadcast from now on");
                self.follow(Way::Broadcast);
            }
            tried => {
                let pause = self.again.next(None);
                tracing::debug!(?tried, ?pause, "broadcasts do not come yet");
                self.try_at = Some(Instant::now() + pause);
            }
        }
    }

    fn follow(&mut self, way: Way) {
        match self.client.watch(self.rows.query(way)) {
            Ok(watch) => {
                (self.watch, self.way, self.since, self.restarts) = (watch, way, Instant::now(), true);
                self.silent_since = None;
            }
            Err(error) => {
                tracing::error!(error = %format_args!("{error:#}"), "the queue cannot be followed otherwise");
            }
        }
    }
}

/// What is followed: the open deployments of a cluster.
#[derive(Clone, Copy, Debug)]
struct Rows {
    cluster_id: Uuid,
    /// Whether the database is of contract 3 or later.
    has_stacks: bool,
}

impl Rows {
    fn query(self, way: Way) -> Query {
        let query = Query::table("deployments")
            .select(if self.has_stacks { COLUMNS } else { COLUMNS_BEFORE })
            .immutable_eq("cluster_id", self.cluster_id)
            .in_list("status", [Status::Queued, Status::Processing].map(Status::as_str))
            .order("created_at")
            .order("id");
        let query = if self.has_stacks { query.resync_interval(RESYNC) } else { query };
        match way {
            Way::PostgresChanges => query,
            Way::Broadcast => {
                let (topic, event) = broadcasts(self.cluster_id);
                query.invalidated_by_broadcast(topic, event)
            }
        }
    }
}

async fn changed(subscription: &mut Option<BroadcastSubscription>) -> SubscriptionState {
    match subscription {
        Some(subscription) => subscription.changed().await,
        None => std::future::pending().await,
    }
}

async fn ended(attempt: &mut Option<Attempt>) -> Result<Result<(), Error>, JoinError> {
    match attempt {
        Some(Attempt(task)) => task.await,
        None => std::future::pending().await,
    }
}

pub(crate) async fn until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}
