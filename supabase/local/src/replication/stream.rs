//! The replication session: a temporary slot, one transaction after the other, and a new session when one breaks.
//!
//! The slot exists as long as its connection, so nothing is left behind by a crash. The price is that changes made
//! between two sessions are not seen; the real server loses them too.

use std::time::Duration;

use pgwire_replication::{PgWireError, ReplicationClient, ReplicationEvent};
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::pgoutput::{Decoder, RowChange};
use crate::database::Database;

/// Transactions that may wait for the reader; then PostgreSQL waits.
const BUFFERED: usize = 64;

/// Pause before a new session.
const RETRY: Duration = Duration::from_millis(200);

/// One committed transaction.
#[derive(Debug)]
pub(crate) struct Transaction {
    /// The lower 32 bits of its id.
    pub(crate) xid: u32,
    /// Microseconds since 2000-01-01 UTC.
    pub(crate) committed_at: i64,
    /// In the order in which they were made.
    pub(crate) changes: Vec<RowChange>,
}

/// Which database to follow.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    pub(crate) database: Database,
    /// Which tables.
    pub(crate) publication: &'static str,
    /// Unique in the server while the session lasts.
    pub(crate) slot: String,
}

/// Starts following the database. While the second is true, every later commit will come out of the first. Ends when `stop` is
/// cancelled or the first is dropped.
pub(crate) fn stream(
    source: Source,
    stop: CancellationToken,
) -> (mpsc::Receiver<Transaction>, watch::Receiver<bool>) {
    let (transactions, receiver) = mpsc::channel(BUFFERED);
    let (live, is_live) = watch::channel(false);
    tokio::spawn(async move {
        while !stop.is_cancelled() && !transactions.is_closed() {
            match session(&source, &stop, &transactions, &live).await {
                Ok(()) => debug!("replication ended"),
                Err(error) => warn!(%error, "replication broke; a new session follows"),
            }
            live.send_replace(false);
            tokio::select! {
                () = sleep(RETRY) => {}
                () = stop.cancelled() => {}
            }
        }
    });
    (receiver, is_live)
}

/// One session, until it breaks or is not wanted any more.
async fn session(
    source: &Source,
    stop: &CancellationToken,
    transactions: &mpsc::Sender<Transaction>,
    live: &watch::Sender<bool>,
) -> Result<(), PgWireError> {
    let config = source
        .database
        .replication(&source.slot, source.publication)
        // An acknowledged position lets PostgreSQL recycle its log and shut down without waiting.
        .with_status_interval(Duration::from_secs(1));
    let mut client = ReplicationClient::connect_gated(config).await?;
    let create = format!("CREATE_REPLICATION_SLOT \"{}\" TEMPORARY LOGICAL pgoutput", source.slot);
    client.simple_query(&create).await?;
    client.start().await?;
    client.wait_started().await?;
    live.send_replace(true);
    let mut decoder = Decoder::default();
    let mut open: Option<Transaction> = None;
    loop {
        let event = tokio::select! {
            event = client.recv() => event?,
            () = stop.cancelled() => return client.shutdown().await,
            () = transactions.closed() => return client.shutdown().await,
        };
        match event {
            None => return Ok(()),
            Some(ReplicationEvent::Begin { xid, commit_time_micros, .. }) => {
                open = Some(Transaction { xid, committed_at: commit_time_micros, changes: Vec::new() });
            }
            Some(ReplicationEvent::XLogData { data, .. }) => match (decoder.decode(data), &mut open) {
                (Ok(Some(change)), Some(transaction)) => transaction.changes.push(change),
                (Ok(_), _) => {}
                (Err(error), _) => return Err(PgWireError::Protocol(error.to_string())),
            },
            Some(ReplicationEvent::Commit { end_lsn, .. }) => {
                if let Some(transaction) = open.take().filter(|open| !open.changes.is_empty())
                    && transactions.send(transaction).await.is_err()
                {
                    return client.shutdown().await;
                }
                client.update_applied_lsn(end_lsn);
            }
            Some(ReplicationEvent::KeepAlive { wal_end, .. }) => {
                if open.is_none() {
                    client.update_applied_lsn(wal_end);
                }
            }
            Some(_) => {}
        }
    }
}
