//! Follows a deployment to its end: two watches, and the chunks of the log in order.

use std::{collections::VecDeque, time::Duration};

use futures_util::StreamExt as _;
use tendril_realtime::{
    Client, Error, Retry,
    watch::{Watch, WatchEvent},
};
use tokio::time::{Instant, sleep_until, timeout};
use uuid::Uuid;

use crate::{
    deployment::Deployment,
    log::{Chunk, LogOrder},
};

/// How often the tables are read while events do not flow, and while they do.
const POLLS: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(20));

/// How long the last chunks may take once the deployment has ended: longer than a poll.
const LAST_CHUNKS: Duration = Duration::from_secs(30);

/// What happened.
#[derive(Debug)]
pub enum FollowEvent {
    /// The row changed.
    Changed(Deployment),
    /// The next chunk of the log.
    Logged(Chunk),
    /// It ended, and all of its log was delivered before. The last event.
    Ended(Deployment),
}

/// A deployment that is being followed.
///
/// A watch reads the table, follows the events, and reads again after each gap, so nothing is missed even when the connection
/// breaks; [`LogOrder`] does the rest.
#[derive(Debug)]
pub struct Follow {
    rows: Watch<Deployment>,
    chunks: Watch<Chunk>,
    order: LogOrder,
    /// The events to deliver next.
    ready: VecDeque<FollowEvent>,
    end: End,
}

/// How far the end is.
#[derive(Debug)]
enum End {
    /// The deployment is not at its end.
    Ahead,
    /// It ended with this row; its last chunks are waited for until then.
    Near(Box<Deployment>, Instant),
    /// It was delivered.
    Delivered,
}

impl Follow {
    /// Follows the deployment with this id, whether it is there already or not.
    ///
    /// # Errors
    /// None that a valid client and id can cause.
    pub fn start(client: &Client, id: Uuid) -> Result<Self, Error> {
        Ok(Self {
            rows: client.watch(Deployment::query(id).poll_interval(POLLS.0).resync_interval(POLLS.1))?,
            chunks: client.watch(Chunk::query(id).poll_interval(POLLS.0).resync_interval(POLLS.1))?,
            order: LogOrder::default(),
            ready: VecDeque::new(),
            end: End::Ahead,
        })
    }

    /// Reads both tables, and waits until their events flow, so that what comes next is delivered at once. If they do not flow
    /// soon, polling does the work.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    pub async fn live(&mut self, client: &Client) -> Result<(), Error> {
        let (mut rows_read, mut chunks_read) = (false, false);
        while !(rows_read && chunks_read) {
            tokio::select! {
                Some(event) = self.rows.next(), if !rows_read => {
                    rows_read = matches!(event, Ok(WatchEvent::InitDone));
                    self.row(event)?;
                }
                Some(event) = self.chunks.next(), if !chunks_read => {
                    chunks_read = matches!(event, Ok(WatchEvent::InitDone));
                    self.chunk(event)?;
                }
                else => return Ok(()),
            }
        }
        let mut status = client.status();
        let flowing =
            status.wait_for(|status| status.channels > 0 && status.subscribed_channels == status.channels);
        let _ = timeout(Duration::from_secs(10), flowing).await;
        Ok(())
    }

    /// The next event; `None` after [`FollowEvent::Ended`], or when the client was shut down.
    ///
    /// # Errors
    /// What trying again cannot fix, such as a token that has expired.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn next(&mut self) -> Result<Option<FollowEvent>, Error> {
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
                Some(event) = self.chunks.next() => self.chunk(event)?,
                Some(event) = self.rows.next() => self.row(event)?,
                () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => self.print_end(),
                else => return Ok(None),
            }
        }
    }

    fn print_end(&mut self) {
        self.ready.extend(self.order.rest().into_iter().map(FollowEvent::Logged));
        if let End::Near(row, _) = std::mem::replace(&mut self.end, End::Delivered) {
            self.ready.push_back(FollowEvent::Ended(*row));
        }
    }

    fn row(&mut self, event: Result<WatchEvent<Deployment>, Error>) -> Result<(), Error> {
        match applied(event)? {
            Some(row) if row.is_finished() => {
                self.end = End::Near(Box::new(row), Instant::now() + LAST_CHUNKS);
            }
            Some(row) => self.ready.push_back(FollowEvent::Changed(row)),
            None => {}
        }
        Ok(())
    }

    fn chunk(&mut self, event: Result<WatchEvent<Chunk>, Error>) -> Result<(), Error> {
        if let Some(chunk) = applied(event)? {
            self.ready.extend(self.order.put(chunk).into_iter().map(FollowEvent::Logged));
        }
        Ok(())
    }
}

/// The row of an event that has one. Errors that pass are left to the watch, which continues.
fn applied<T>(event: Result<WatchEvent<T>, Error>) -> Result<Option<T>, Error> {
    match event {
        Ok(WatchEvent::InitApply(row) | WatchEvent::Apply(row)) => Ok(Some(row)),
        // The examples have one token each: there is no fresh one to wait for.
        Ok(WatchEvent::Interrupted(error) | WatchEvent::Undecodable { error, .. })
            if matches!(error.retry(), Retry::Never | Retry::RefreshToken) =>
        {
            Err(error)
        }
        Ok(_) => Ok(None),
        Err(error) => Err(error),
    }
}
