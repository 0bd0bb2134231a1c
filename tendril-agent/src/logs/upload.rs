//! Chunks from the spool to `deployment_logs`: at most one request per flush interval, repeated until it is stored.
//!
//! Inserts are idempotent, so that a lost answer costs nothing. What the database will never take is replaced by a note in
//! its place; the log never decides how a job ends.

use std::{io, time::Duration};

use serde::{Deserialize, Serialize};
use tendril_realtime::{Error, ErrorKind, Rest, Retry, col};
use tokio::time::{Instant, sleep, sleep_until};
use uuid::Uuid;

use crate::{
    control_plane::{
        Backoff,
        auth::session,
        revocation::{is_revoked, revoked, stays_on_disk},
    },
    logs::spool::{Chunk, SpoolReader},
    os::failpoint,
    telemetry,
};

/// Most text in one request. A busy run's megabytes go in few requests, and no gateway's body limit is near.
const BATCH_BYTES: usize = 4 * 1024 * 1024;
/// How often the note in place of a refused chunk is sent.
const NOTE_TRIES: usize = 8;
/// Most rows in one request.
const BATCH_ROWS: usize = 500;

/// Most between two tries. The control plane is back for at most this long before the lines of an outage are on their way.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Uploads the log of one attempt.
#[derive(Debug)]
pub(crate) struct LogSink {
    rest: Rest,
    deployment_id: Uuid,
    attempt: i32,
    /// Least time between two requests.
    interval: Duration,
    /// Earliest time of the next request.
    next_slot: Instant,
    backoff: Backoff,
    /// The cluster was revoked: nothing is stored any more.
    is_revoked: bool,
}

/// A row of `deployment_logs`.
#[derive(Serialize)]
struct Row<'a> {
    deployment_id: Uuid,
    attempt: i32,
    #[serde(flatten)]
    chunk: &'a Chunk,
}

impl LogSink {
    /// For one attempt.
    pub(crate) fn new(rest: Rest, deployment_id: Uuid, attempt: i32, interval: Duration) -> Self {
        let backoff = Backoff::new(Duration::from_secs(1), LONGEST_PAUSE);
        let now = Instant::now();
        // The first lines of a job must not delay the second ones.
        let next_slot = now.checked_sub(interval).unwrap_or(now);
        Self { rest, deployment_id, attempt, interval, next_slot, backoff, is_revoked: false }
    }

    /// Uploads until the spool is finished and everything in it is stored. Answers how many chunks there are.
    ///
    /// Errors: the spool cannot be read; or the cluster was revoked, and the log stays on disk.
    pub(crate) async fn upload(mut self, mut reader: SpoolReader) -> io::Result<u64> {
        loop {
            let is_last = reader.more().await;
            // What is cut until then is sent with it.
            sleep_until(self.next_slot).await;
            let batch;
            (reader, batch) = next_batch(reader).await?;
            if !batch.is_empty() {
                failpoint!("sink.read");
                if !self.store(batch).await {
                    if self.is_revoked {
                        return Err(stays_on_disk());
                    }
                    tracing::warn!(deployment = %self.deployment_id, "the deployment was deleted, or is another agent's: its log ends here");
                    return Ok(reader.seq());
                }
                failpoint!("sink.stored");
            } else if is_last {
                return Ok(reader.seq());
            }
        }
    }

    /// Number of the last chunk that the database has. It is stored in order, so that it has all before it too. Repeated until
    /// there is an answer; a refusal counts as none, because storing a chunk twice does no harm.
    pub(crate) async fn last_stored(&mut self) -> u64 {
        #[derive(Deserialize)]
        struct Row {
            seq: u64,
        }
        loop {
            let request =
                self.rest.from("deployment_logs").select("seq").eq("deployment_id", self.deployment_id);
            let request = request.eq("attempt", self.attempt).order(col("seq").desc()).limit(1);
            match request.rows::<Row>().await {
                Ok(rows) => return rows.first().map_or(0, |row| row.seq),
                Err(error) if classify(&error) != ErrorClass::Retry || is_revoked(&error) => return 0,
                Err(error) => sleep(self.backoff.after(&error)).await,
            }
        }
    }

    /// Stores a batch; splits it where the database refuses a part. Answers whether there is a deployment to store it for.
    async fn store(&mut self, batch: Vec<Chunk>) -> bool {
        // Depth first, left to right: the order of the rows stays.
        let mut work = vec![batch];
        while let Some(mut batch) = work.pop() {
            let Err(error) = self.insert_until_decided(&batch).await else {
                metrics::counter!(telemetry::CHUNKS_STORED).increment(batch.len() as u64);
                continue;
            };
            if self.is_revoked || classify(&error) == ErrorClass::DeploymentDeleted {
                return false;
            }
            if batch.len() > 1 {
                let second = batch.split_off(batch.len() / 2);
                work.push(second);
                work.push(batch);
            } else if let Some(chunk) = batch.pop() {
                self.store_note(chunk, &error).await;
            }
        }
        true
    }

    /// Puts a note in the place of a chunk that was refused.
    async fn store_note(&mut self, chunk: Chunk, error: &Error) {
        tracing::warn!(seq = chunk.seq, error = %format_args!("{error:#}"), "the control plane refused a fragment of the log");
        metrics::counter!(telemetry::CHUNKS_REFUSED).increment(1);
        let lines = chunk.text.lines().count();
        let text =
            format!("… {lines} lines are missing here: the control plane refused them ({})\n", error.code());
        let note = Chunk { text, ..chunk };
        // A note is harmless: who refuses it has another reason, and that may pass.
        for _ in 0..NOTE_TRIES {
            match self.insert_until_decided(std::slice::from_ref(&note)).await {
                Ok(()) => return,
                Err(error) => sleep(self.backoff.after(&error)).await,
            }
        }
        tracing::error!(seq = note.seq, "the control plane refuses even a note; the log has a gap");
    }

    /// Sends a batch until it is stored, or refused for its content.
    async fn insert_until_decided(&mut self, batch: &[Chunk]) -> Result<(), Error> {
        loop {
            self.wait_for_slot().await;
            match self.insert(batch).await {
                Ok(()) => {
                    self.backoff.reset();
                    return Ok(());
                }
                Err(error)
                    if classify(&error) != ErrorClass::Retry || self.learns_revocation(&error).await =>
                {
                    return Err(error);
                }
                Err(error) => {
                    tracing::debug!(error = %format_args!("{error:#}"), "log lines wait on disk: the control plane does not take them now");
                    sleep(self.backoff.after(&error)).await;
                }
            }
        }
    }

    /// Whether this refusal means that the cluster was revoked: its agents may write no log.
    async fn learns_revocation(&mut self, error: &Error) -> bool {
        let may_be = error.postgrest().is_some_and(|api| api.status == 403);
        self.is_revoked = is_revoked(error) || may_be && revoked(&self.rest).await.unwrap_or(false);
        self.is_revoked
    }

    /// Waits for this run's next slot: one request per interval on average. One that was not used may be caught up, so that the
    /// last lines of a short run need not wait.
    async fn wait_for_slot(&mut self) {
        sleep_until(self.next_slot).await;
        self.next_slot += self.interval;
        self.next_slot = self.next_slot.max(Instant::now());
    }

    async fn insert(&self, batch: &[Chunk]) -> Result<(), Error> {
        failpoint!("sink.sending");
        metrics::counter!(telemetry::LOG_REQUESTS).increment(1);
        let row = |chunk| Row { deployment_id: self.deployment_id, attempt: self.attempt, chunk };
        let rows: Vec<Row<'_>> = batch.iter().map(row).collect();
        let request = self.rest.from("deployment_logs").insert(&rows);
        request.on_conflict(["deployment_id", "attempt", "seq"]).ignore_duplicates().execute().await.map(drop)
    }
}

/// What a refusal means for the rows that were sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ErrorClass {
    /// It is not about them: the same rows may be taken later.
    Retry,
    /// They themselves are at fault, and would be refused again.
    Content,
    /// The deployment has been deleted, and its log with it; or it is another agent's.
    DeploymentDeleted,
}

/// What is not surely about the rows is not: lines can wait, and cannot be had again. A token that is not accepted (401, 403)
/// may be replaced; a gateway without such an address (404) or a schema cache that is behind (`PGRST2…`) recovers.
fn classify(error: &Error) -> ErrorClass {
    if session::is_claim_over(error) {
        return ErrorClass::DeploymentDeleted;
    }
    let api = match error.kind() {
        ErrorKind::Postgrest(api) if error.retry() == Retry::Never => api,
        ErrorKind::InvalidInput { .. } => return ErrorClass::Content,
        _ => return ErrorClass::Retry,
    };
    let of_data = ["22", "23"].iter().any(|class| api.code.len() == 5 && api.code.starts_with(class));
    match (api.status, api.code.as_str()) {
        (_, "23503") => ErrorClass::DeploymentDeleted,
        (_, code) if code.starts_with("PGRST") && code != "PGRST102" => ErrorClass::Retry,
        (400 | 413 | 422, _) => ErrorClass::Content,
        _ if of_data => ErrorClass::Content,
        _ => ErrorClass::Retry,
    }
}

/// The next chunks, as many as fit into a request; those before are stored. Reads the disk on a thread that may wait for
/// it.
async fn next_batch(mut reader: SpoolReader) -> io::Result<(SpoolReader, Vec<Chunk>)> {
    let read = tokio::task::spawn_blocking(move || {
        if let Err(error) = reader.forget(reader.seq()) {
            tracing::warn!(error = %format_args!("{error:#}"), "log lines that are stored cannot be removed from the disk yet");
        }
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while bytes < BATCH_BYTES && batch.len() < BATCH_ROWS {
            let Some(chunk) = reader.next_chunk()? else { break };
            bytes += chunk.text.len();
            batch.push(chunk);
        }
        Ok((reader, batch))
    });
    read.await.map_err(io::Error::other)?
}

#[cfg(test)]
#[path = "upload_tests.rs"]
mod tests;
