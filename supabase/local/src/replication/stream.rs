//! The replication session: a temporary slot, one transaction after the other, and a new session when one breaks.
//!
//! The slot lives as long as its connection, so nothing is left behind by a crash. The price is that changes made
//! between two sessions are not seen; the real server loses them too.

use std::time::Duration;

use pgwire_replication::{PgWireError, ReplicationClient, ReplicationConfig, ReplicationEvent};
use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::pgoutput::{Decoder, RowChange};
use crate::database::ADMIN;

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
    pub(crate) port: u16,
    pub(crate) database: String,
    /// Which tables.
    pub(crate) publication: &'static str,
    /// Unique in the server while the session lasts.
    pub(crate) slot: String,
}

/// Starts following the database. When `started` is heard, every later commit will come out of the receiver. Ends
/// when `stop` is cancelled or the receiver is dropped.
pub(crate) fn stream(
    source: Source,
    stop: CancellationToken,
) -> (mpsc::Receiver<Transaction>, oneshot::Receiver<()>) {
    let (transactions, receiver) = mpsc::channel(BUFFERED);
    let (started, first_start) = oneshot::channel();
    tokio::spawn(async move {
        let mut started = Some(started);
        while !stop.is_cancelled() && !transactions.is_closed() {
            match session(&source, &stop, &transactions, &mut started).await {
                Ok(()) => debug!("replication ended"),
                Err(error) => warn!(%error, "replication broke; a new session follows"),
            }
            tokio::select! {
                () = sleep(RETRY) => {}
                () = stop.cancelled() => {}
            }
        }
    });
    (receiver, first_start)
}

/// One session, until it breaks or is not wanted any more.
async fn session(
    source: &Source,
    stop: &CancellationToken,
    transactions: &mpsc::Sender<Transaction>,
    started: &mut Option<oneshot::Sender<()>>,
) -> Result<(), PgWireError> {
    let config = ReplicationConfig::new(
        "127.0.0.1",
        ADMIN,
        "postgres",
        &source.database,
        &source.slot,
        source.publication,
    )
    .with_port(source.port)
    // An acknowledged position lets PostgreSQL recycle its log and shut down without waiting.
    .with_status_interval(Duration::from_secs(1));
    let mut client = ReplicationClient::connect_gated(config).await?;
    let create = format!("CREATE_REPLICATION_SLOT \"{}\" TEMPORARY LOGICAL pgoutput", source.slot);
    client.simple_query(&create).await?;
    client.start().await?;
    client.wait_started().await?;
    if let Some(started) = started.take() {
        // Nobody may wait for it; the stream goes on.
        let _ = started.send(());
    }
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
