//! Follows a deployment to its end: two watches, and the chunks of the log in order.
//!
//! A watch reads the table, follows the events, and reads again after each gap, so nothing is missed when the connection
//! breaks or the session is renewed. Tokens renew themselves below; only a session that has ended ends a follow.

use std::{collections::VecDeque, time::Duration};

use futures_util::StreamExt as _;
use tendril_examples::log::{Chunk, LogOrder};
use tendril_realtime::{
    Error, Retry,
    watch::{Watch, WatchEvent},
};
use tokio::time::{Instant, sleep_until};
use uuid::Uuid;

use super::{
    deployment::{self, Deployment},
    project::{Identity, Project},
};
use crate::failure::{Failure, FailureKind, Result};

/// How often the tables are read while events do not flow, and while they do.
const POLLS: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(20));

/// How long the last chunks may take once the deployment has ended: longer than a poll.
const LAST_CHUNKS: Duration = Duration::from_secs(30);

/// How long it may be impossible to reach the project before that is reported.
const SILENCE: Duration = Duration::from_secs(5);

/// What happened.
#[derive(Debug)]
pub enum FollowEvent {
    /// The row changed.
    Changed(Box<Deployment>),
    /// The next chunk of the log.
    Logged(Chunk),
    /// It ended, and all of its log was delivered before. The last event.
    Ended(Box<Deployment>),
    /// The project cannot be reached; following continues.
    Unreachable(String),
}

/// A deployment that is being followed.
#[derive(Debug)]
pub struct Follow {
    rows: Watch<Deployment>,
    chunks: Watch<Chunk>,
    order: LogOrder,
    ready: VecDeque<FollowEvent>,
    end: End,
    /// Since when each attempt to read failed.
    failing: Option<Instant>,
    /// Whether a new token can be had.
    renews: bool,
}

#[derive(Debug)]
enum End {
    Ahead,
    /// It ended with this row; its last chunks are waited for until then.
    Near(Box<Deployment>, Instant),
    Delivered,
}

impl Follow {
    /// Follows the deployment with this id, whether it is there already or not.
    ///
    /// # Errors
    /// What the project answers.
    pub async fn start(project: &Project, id: Uuid) -> Result<Self> {
        let rows = deployment::query_one(project, id).await?;
        Ok(Self {
            rows: project.client.watch(rows.poll_interval(POLLS.0).resync_interval(POLLS.1))?,
            chunks: project.client.watch(Chunk::query(id).poll_interval(POLLS.0).resync_interval(POLLS.1))?,
            order: LogOrder::default(),
            ready: VecDeque::new(),
            end: End::Ahead,
            failing: None,
            renews: matches!(project.identity, Identity::Session(_)),
        })
    }

    /// The next event; `None` after [`FollowEvent::Ended`].
    ///
    /// # Errors
    /// What a retry cannot fix, such as a session that has ended.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn next(&mut self) -> Result<Option<FollowEvent>> {
        loop {
            if let Some(update) = self.ready.pop_front() {
                return Ok(Some(update));
            }
            let deadline = match &self.end {
                End::Ahead => None,
                End::Near(row, deadline) if !self.order.has(row.attempt, row.log_count) => Some(*deadline),
                End::Near(..) => {
                    self.print_end();
                    continue;
                }
                End::Delivered => return Ok(None),
            };
            tokio::select! {
                Some(event) = self.chunks.next() => {
                    if let Some(chunk) = self.applied(event)? {
                        self.ready.extend(self.order.put(chunk).into_iter().map(FollowEvent::Logged));
                    }
                }
                Some(event) = self.rows.next() => match self.applied(event)? {
                    Some(row) if row.is_finished() => {
                        self.end = End::Near(Box::new(row), Instant::now() + LAST_CHUNKS);
                    }
                    Some(row) => self.ready.push_back(FollowEvent::Changed(Box::new(row))),
                    None => {}
                },
                () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => self.print_end(),
                else => return Ok(None),
            }
        }
    }

    fn print_end(&mut self) {
        self.ready.extend(self.order.rest().into_iter().map(FollowEvent::Logged));
        if let End::Near(row, _) = std::mem::replace(&mut self.end, End::Delivered) {
            self.ready.push_back(FollowEvent::Ended(row));
        }
    }

    /// The row of an event that has one. Errors that pass are left to the watch, which continues.
    fn applied<T>(&mut self, event: Result<WatchEvent<T>, Error>) -> Result<Option<T>> {
        match event {
            Ok(WatchEvent::Interrupted(error) | WatchEvent::Undecodable { error, .. }) | Err(error) => {
                let fresh_token = error.retry() == Retry::RefreshToken;
                let is_final = error.retry() == Retry::Never || (fresh_token && !self.renews);
                let message = error.to_string();
                let failure = Failure::from(error);
                if is_final || failure.kind() == FailureKind::NotSignedIn && !fresh_token {
                    return Err(failure);
                }
                let now = Instant::now();
                let since = *self.failing.get_or_insert(now);
                if now.duration_since(since) >= SILENCE {
                    self.failing = Some(now + Duration::from_secs(60));
                    self.ready.push_back(FollowEvent::Unreachable(message));
                }
                Ok(None)
            }
            Ok(event) => {
                self.failing = None;
                Ok(event.applied())
            }
        }
    }
}
