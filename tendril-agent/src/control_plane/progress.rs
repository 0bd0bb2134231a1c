//! What the row of a job shows while the job runs.

use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};
use tokio::{
    sync::{Notify, watch},
    time::sleep,
};
use tracing::Instrument as _;

use super::{
    backoff::Backoff,
    final_status::{Reporter, Written, is_about_content, leave_out},
    lease::Lease,
};
use crate::{
    job::{Changes, CostStatus, Fields, Phase},
    os::failpoint,
    process::{StopReason, StopSignal},
};

/// Writes the progress of the job to its row, without making the job wait, except where it must.
#[derive(Debug)]
pub(crate) struct ProgressBoard {
    wanted: watch::Sender<Wanted>,
    /// The last version that the row has.
    stored: watch::Receiver<u64>,
    stop: StopSignal,
}

/// What the row should contain.
#[derive(Clone, Debug, Default)]
struct Wanted {
    version: u64,
    fields: Fields,
}

impl ProgressBoard {
    /// Starts to report. Must be called inside a runtime; ends by itself when the board is dropped.
    pub(crate) fn start(reporter: Reporter, lease: &Lease) -> Self {
        let stop = lease.stop.clone();
        let (wanted, requested) = watch::channel(Wanted::default());
        let (acknowledge, stored) = watch::channel(0);
        let reports =
            report(reporter, requested, acknowledge, stop.clone(), Arc::clone(&lease.phase_mismatch));
        tokio::spawn(reports.in_current_span());
        Self { wanted, stored, stop }
    }

    /// The job entered a phase.
    pub(crate) fn phase(&self, phase: Phase) {
        self.want("phase", json!(phase));
    }

    /// The cost is estimated, or it is known why it cannot be.
    pub(crate) fn cost(&self, status: CostStatus, cost: &Value) {
        self.want("cost", cost.clone());
        self.want("cost_status", json!(status));
    }

    /// The plan is made.
    pub(crate) fn plan(&self, changes: Changes) {
        self.want("plan_summary", json!(changes));
    }

    /// The saved plan has this SHA-256: what a person may approve.
    pub(crate) fn digest(&self, plan: &str) {
        self.want("plan_sha256", json!(plan));
    }

    /// The program that runs it, such as `terraform 1.11.4`.
    pub(crate) fn terraform(&self, title: &str) {
        self.want("terraform_version", json!(title));
    }

    /// The template is of this commit.
    pub(crate) fn commit(&self, commit: &str) {
        self.want("template_commit", json!(commit));
    }

    /// Waits until the row has all of it, or a stop is requested. After `phase(Apply)` this must come first: a row
    /// that does not show that the apply began would be run again if this agent died.
    pub(crate) async fn flushed(&self) {
        let version = self.wanted.borrow().version;
        let mut stored = self.stored.clone();
        tokio::select! {
            _ = stored.wait_for(|stored| *stored >= version) => {}
            () = self.stop.wait() => {}
        }
    }

    fn want(&self, field: &str, value: Value) {
        self.wanted.send_modify(|wanted| {
            wanted.version += 1;
            wanted.fields.insert(field.to_owned(), value.into());
        });
    }
}

async fn report(
    reporter: Reporter,
    mut requested: watch::Receiver<Wanted>,
    acknowledge: watch::Sender<u64>,
    stop: StopSignal,
    phase_mismatch: Arc<Notify>,
) {
    let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(10));
    // Whether the row shows that the apply began.
    let mut is_applying = false;
    loop {
        tokio::select! {
            changed = requested.changed() => if changed.is_err() { return },
            // All of it is written again.
            () = phase_mismatch.notified() => {}
        }
        let mut left_out = Vec::new();
        loop {
            let wanted = requested.borrow_and_update().clone();
            let mut body = wanted.fields;
            for field in &left_out {
                body.remove(*field);
            }
            match reporter.write(body.clone()).await {
                Ok(Written::Stored) => {
                    is_applying |= changes_the_world(&body);
                    backoff.reset();
                    acknowledge.send_replace(wanted.version);
                    failpoint!("progress.stored");
                    break;
                }
                Ok(Written::Revoked) => {
                    // An apply that runs goes on; one that has not begun must not begin any more.
                    if !is_applying {
                        tracing::warn!(deployment = %reporter.id, "the cluster was revoked: the run is ended before its apply");
                        stop.request(StopReason::Fenced);
                    }
                    return;
                }
                Ok(Written::Refused(why)) => {
                    tracing::warn!(deployment = %reporter.id, why, "the claim is lost: the run is ended gracefully");
                    stop.request(StopReason::Fenced);
                    return;
                }
                Err(error)
                    if is_about_content(&error)
                        && let Some(field) = leave_out(&mut body) =>
                {
                    tracing::error!(error = %format_args!("{error:#}"), field, "progress is refused for its content: it is sent without that");
                    left_out.push(field);
                }
                Err(error) => {
                    tracing::debug!(error = %format_args!("{error:#}"), "progress is not stored yet");
                    sleep(backoff.after(&error)).await;
                    // The board may be dropped while the control plane is away; the final status has everything.
                    if requested.has_changed().is_err() {
                        return;
                    }
                }
            }
        }
    }
}

/// Whether this makes the row show that the apply began.
fn changes_the_world(body: &Fields) -> bool {
    let phase = body.get("phase").and_then(|phase| serde_json::from_value(phase.to_value().ok()?).ok());
    phase.is_some_and(Phase::changes_the_world)
}
