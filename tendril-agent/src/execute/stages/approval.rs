//! The wait of a plan for its approval.

use std::time::SystemTime;

use crate::{
    control_plane::ClaimRecord,
    execute::{
        approval_check::{Approval, approval_of},
        stages::Run,
    },
    job::{ErrorCode, Failure, Job, Phase},
    os::failpoint,
    process::TerminationStage,
    terraform::{PlanDigest, StageError, Step},
};

impl Run<'_> {
    /// Shows the plan in the row, and leaves it to wait for its approval unless it is approved by then.
    pub(super) async fn wait_for_approval(&self, digest: &PlanDigest) -> Result<(), StageError> {
        self.save_phase(Phase::Approval).await?;
        failpoint!("approval.saved");
        self.phase(Phase::Approval);
        self.log.writer.annotate(format!("The plan {} waits for approval.", digest.plan)).await;
        self.board.flushed().await;
        failpoint!("approval.shown");
        self.ask_approval(digest).await
    }

    /// Reads whether the plan is approved. If it is not yet, that it waits, and until when, is saved on disk.
    pub(super) async fn ask_approval(&self, digest: &PlanDigest) -> Result<(), StageError> {
        match approval_of(&self.context.rest, self.job, &digest.plan, self.stop).await {
            Approval::Approved => {
                self.log.writer.annotate("The plan is approved.").await;
                Ok(())
            }
            Approval::Open(left) => {
                let expires_at = left.map(|left| SystemTime::now() + left);
                let record = ClaimRecord::new(self.job, Phase::Approval);
                self.save(ClaimRecord { waits: true, expires_at, ..record }).await?;
                Err(StageError::Waiting)
            }
            Approval::Expired => Err(approval_expired(self.job).into()),
            Approval::Stopped => Err(StageError::Stopped(Step::Apply, TerminationStage::Untouched, None)),
        }
    }
}

/// The plan was not approved in time.
fn approval_expired(job: &Job) -> Failure {
    let seconds = job.config.parse().ok().and_then(|config| config.to_value().ok());
    let within = match seconds.as_ref().and_then(|config| config["approval_expires"].as_u64()) {
        Some(1) => "within a second".to_owned(),
        Some(seconds) => format!("within {seconds} seconds"),
        None => "in time".to_owned(),
    };
    let message = format!(
        "Nobody approved the plan {within} (config_snapshot.approval_expires). Nothing was changed: queue a new deployment."
    );
    Failure::new(ErrorCode::ApprovalExpired, message)
}
