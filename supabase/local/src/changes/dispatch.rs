//! From a committed transaction to notices in mailboxes.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::mpsc;
use tracing::warn;

use super::audience::{Audience, Notice, Seats};
use super::inspection::Inspection;
use super::oracle::Oracle;
use crate::replication::{RowChange, Source, Transaction};

/// Delivers transactions until the stream ends.
pub(super) async fn run(source: Source, seats: Arc<Seats>, mut transactions: mpsc::Receiver<Transaction>) {
    let mut oracle: Option<Oracle> = None;
    while let Some(transaction) = transactions.recv().await {
        let audiences = seats.audiences();
        let wanted = |change: &RowChange| audiences.iter().any(|audience| audience.wants(change));
        if !transaction.changes.iter().any(wanted) {
            continue;
        }
        if oracle.as_ref().is_none_or(Oracle::is_closed) {
            oracle = Oracle::connect(source.port, &source.database)
                .await
                .map_err(|error| warn!(%error, "changes are lost: no connection"))
                .ok();
        }
        if let Some(oracle) = &oracle
            && let Err(error) = deliver(oracle, &transaction, &audiences).await
        {
            warn!(%error, "the changes of a transaction are lost");
        }
    }
}

/// Sends what each audience may hear of a transaction, in the order of its changes.
async fn deliver(
    oracle: &Oracle,
    transaction: &Transaction,
    audiences: &[Arc<Audience>],
) -> Result<(), tokio_postgres::Error> {
    oracle.wait_visible(transaction.xid).await?;
    // One look at each table, for all of its rows. A table altered in mid-transaction counts as two.
    let mut tables: HashMap<usize, Vec<usize>> = HashMap::new();
    for (index, change) in transaction.changes.iter().enumerate() {
        tables.entry(Arc::as_ptr(&change.relation).addr()).or_default().push(index);
    }
    let mut notices: Vec<Vec<(usize, Notice)>> = vec![Vec::new(); transaction.changes.len()];
    for indexes in tables.into_values() {
        let changes: Vec<&RowChange> = indexes.iter().map(|index| &transaction.changes[*index]).collect();
        if let Some(inspection) = Inspection::of(oracle, &changes, audiences).await? {
            for (row, index) in indexes.into_iter().enumerate() {
                notices[index] = inspection.notices(row, transaction.committed_at);
            }
        }
    }
    for (audience, notice) in notices.into_iter().flatten() {
        // A socket that is gone needs no notice.
        let _ = audiences[audience].mailbox.send(notice);
    }
    Ok(())
}
