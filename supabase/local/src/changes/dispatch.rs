//! From committed transactions to notices in mailboxes.
//!
//! Transactions that wait are delivered together: one query covers all rows of a table, so that a busy table costs no more round
//! trips than a quiet one.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::sleep;
use tracing::warn;

use super::index::Index;
use super::inspection::Inspection;
use super::oracle::Oracle;
use super::registry::Registry;
use super::subscriber::{Mailbox, Notice};
use crate::replication::{RowChange, Source, Transaction};

/// Transactions that are delivered together at most, and after how many rows no further one is added.
const TOGETHER: usize = 256;
const ROWS: usize = 2000;

/// Delivers transactions until the stream ends; with an interval, those of each interval together.
pub(super) async fn run(
    source: Source,
    registry: Arc<Registry>,
    mut transactions: mpsc::Receiver<Transaction>,
    interval: Duration,
) {
    let mut oracle: Option<Oracle> = None;
    while let Some(first) = transactions.recv().await {
        if !interval.is_zero() {
            sleep(interval).await;
        }
        let mut batch = vec![first];
        let mut rows = batch[0].changes.len();
        while batch.len() < TOGETHER && rows < ROWS {
            let Ok(next) = transactions.try_recv() else { break };
            rows += next.changes.len();
            batch.push(next);
        }
        let index = registry.index();
        let wanted = |change: &RowChange| index.interest(change.relation.oid).is_some();
        batch.retain(|transaction| transaction.changes.iter().any(wanted));
        if batch.is_empty() {
            continue;
        }
        if oracle.as_ref().is_none_or(Oracle::is_closed) {
            oracle = Oracle::connect(&source.database)
                .await
                .map_err(|error| warn!(%error, "changes are lost: no connection"))
                .ok();
        }
        if let Some(oracle) = &oracle
            && let Err(error) = deliver(oracle, &batch, &index).await
        {
            warn!(%error, "the changes of {} transactions are lost", batch.len());
        }
    }
}

/// Sends each subscriber what it may receive of the transactions, in the order of their changes.
async fn deliver(oracle: &Oracle, batch: &[Transaction], index: &Index) -> Result<(), tokio_postgres::Error> {
    let xids: Vec<i64> = batch.iter().map(|transaction| i64::from(transaction.xid)).collect();
    oracle.wait_visible(&xids).await?;
    let changes: Vec<(&RowChange, i64)> = batch
        .iter()
        .flat_map(|transaction| transaction.changes.iter().map(|change| (change, transaction.committed_at)))
        .collect();
    // One inspection of each table, for all of its rows. A table that was altered meanwhile counts as two.
    let mut tables: HashMap<usize, Vec<usize>> = HashMap::new();
    for (position, (change, _)) in changes.iter().enumerate() {
        tables.entry(Arc::as_ptr(&change.relation).addr()).or_default().push(position);
    }
    let mut notices: Vec<Vec<(&Mailbox, Notice)>> = Vec::new();
    notices.resize_with(changes.len(), Vec::new);
    for positions in tables.into_values() {
        let rows: Vec<&RowChange> = positions.iter().map(|position| changes[*position].0).collect();
        if let Some(inspection) = Inspection::of(oracle, rows, index).await? {
            for (row, position) in positions.into_iter().enumerate() {
                notices[position] = inspection.notices(row, changes[position].1);
            }
        }
    }
    for (mailbox, notice) in notices.into_iter().flatten() {
        // A socket that is gone needs no notice.
        let _ = mailbox.send(notice);
    }
    Ok(())
}
