//! What all sockets of a stack share.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::feed::{self, Feed};
use super::options::RealtimeOptions;
use super::rate::Rate;
use super::rooms::Rooms;
use super::users::Users;
use crate::changes::Changes;
use crate::database::Database;
use crate::fault::Faults;
use crate::keys::ProjectKeys;
use crate::link::Link;
use crate::replication::Source;

/// The message where the database cannot be reached.
pub(super) const NO_DATABASE: &str = "Realtime was unable to connect to the project database";

/// What all sockets of a stack share.
#[derive(Debug)]
pub(crate) struct Realtime {
    pub(crate) keys: Arc<ProjectKeys>,
    pub(crate) faults: Faults,
    pub(crate) options: RealtimeOptions,
    pub(crate) changes: Arc<Changes>,
    /// Cancelled when the stack stops: sockets are closed with 1012.
    pub(crate) stop: CancellationToken,
    pub(super) feed: Arc<Feed>,
    pub(super) rooms: Arc<Rooms>,
    /// For queries of permissions and of earlier messages.
    pub(super) link: Link,
    pub(super) users: Users,
    pub(super) joins: Rate,
    /// Broadcasts, sent and delivered.
    pub(super) events: Rate,
    /// Presence calls.
    pub(super) calls: Rate,
}

impl Realtime {
    pub(crate) fn new(
        keys: Arc<ProjectKeys>,
        faults: Faults,
        options: RealtimeOptions,
        database: &Database,
        stop: CancellationToken,
    ) -> Arc<Self> {
        let source = |publication, slot: &str| Source {
            database: database.clone(),
            publication,
            slot: Database::slot(slot),
        };
        let changes = Changes::new(
            source(crate::changes::PUBLICATION, "supabase_realtime"),
            options.poll_interval,
            stop.clone(),
        );
        let feed = Feed::new(source(feed::PUBLICATION, "supabase_realtime_messages"), stop.clone());
        let rate = |limit| Rate::new(limit, options.rate_tick, faults.rates());
        let (joins, events, calls) = (
            rate(options.max_joins_per_second),
            rate(options.max_events_per_second),
            rate(options.max_presence_per_second),
        );
        Arc::new(Self {
            keys,
            faults,
            changes,
            stop,
            feed,
            rooms: Arc::default(),
            link: Link::new(database.clone()),
            users: Users::new(options.max_users),
            joins,
            events,
            calls,
            options,
        })
    }
}
