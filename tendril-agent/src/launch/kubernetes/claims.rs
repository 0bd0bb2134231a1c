//! What the control plane knows of the runs in the cluster.

use serde::Deserialize;
use serde_json::json;
use tendril_realtime::{Error, Rest};
use uuid::Uuid;

use crate::{
    control_plane::{contract::known, state_hold},
    job::{ConfigSnapshot, Phase},
    launch::{attempt_file::AttemptId, kubernetes::view::JobView},
};

/// Rows of one request: their ids are in its address.
const AT_ONCE: usize = 50;

/// Reads claims, and writes what keeps a run from starting.
#[derive(Clone, Debug)]
pub(crate) struct Claims {
    rest: Rest,
}

/// The claim of a deployment.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct ClaimRow {
    pub(crate) id: Uuid,
    pub(crate) attempt: i32,
    pub(crate) claim_token: Option<Uuid>,
    #[serde(default)]
    pub(crate) state_key: Option<String>,
    pub(crate) config_snapshot: ConfigSnapshot,
}

/// A stack whose newest state is in no backend.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct HeldStack {
    pub(crate) state_key: String,
    /// The agent that is said to have it.
    pub(crate) state_held_by: String,
}

impl HeldStack {
    /// Whether a Job works on it.
    pub(crate) fn is_of(&self, job: &JobView) -> bool {
        job.stack.as_deref() == Some(&self.state_key)
    }
}

impl Claims {
    pub(crate) const fn new(rest: Rest) -> Self {
        Self { rest }
    }

    pub(crate) const fn rest(&self) -> &Rest {
        &self.rest
    }

    /// The claims of these deployments that are not over.
    pub(crate) async fn of(&self, ids: &[Uuid]) -> Result<Vec<ClaimRow>, Error> {
        self.rows(ids, &[("status", "PROCESSING")]).await
    }

    /// The claims of those deployments that ended because their run was asked to stop, by whom they could not know.
    pub(crate) async fn stopped(&self, ids: &[Uuid]) -> Result<Vec<ClaimRow>, Error> {
        self.rows(ids, &[("status", "FAILED"), ("error_code", "AGENT_STOPPED")]).await
    }

    /// The claims of those deployments whose columns have these values.
    async fn rows(&self, ids: &[Uuid], values: &[(&str, &str)]) -> Result<Vec<ClaimRow>, Error> {
        let mut rows = Vec::new();
        for ids in ids.chunks(AT_ONCE) {
            let mut request =
                self.rest.from("deployments").select("id,attempt,claim_token,state_key,config_snapshot");
            for (column, value) in values {
                request = request.eq(*column, *value);
            }
            rows.extend(request.in_list("id", ids).rows::<ClaimRow>().await?);
        }
        Ok(rows)
    }

    /// The stacks of this cluster whose newest states are in no backend.
    pub(crate) async fn held(&self) -> Result<Vec<HeldStack>, Error> {
        let request = self.rest.from("stacks").select("state_key,state_held_by").not_null("state_held_by");
        request.rows().await
    }

    /// Who has the newest state of a stack; none, if that is in its backend.
    pub(crate) async fn holder_of(&self, state_key: &str) -> Result<Option<String>, Error> {
        let request = self
            .rest
            .from("stacks")
            .select("state_key,state_held_by")
            .eq("state_key", state_key)
            .not_null("state_held_by");
        Ok(request.rows::<HeldStack>().await?.into_iter().next().map(|stack| stack.state_held_by))
    }

    /// The state of a stack is in its backend.
    pub(crate) async fn release(&self, stack: &HeldStack) -> Result<(), Error> {
        state_hold::release(&self.rest, &stack.state_key, &stack.state_held_by).await
    }

    /// Whether a claim is that of a plan that is shown, and waits for its approval or has it. Where nobody answers, it is believed.
    pub(crate) async fn awaits_approval(&self, id: AttemptId, claim_token: Uuid) -> bool {
        #[derive(Deserialize)]
        struct Row {
            #[serde(default, deserialize_with = "known")]
            phase: Option<Phase>,
        }
        let request = self
            .rest
            .from("deployments")
            .select("phase")
            .eq("id", id.deployment_id)
            .eq("claim_token", claim_token)
            .eq("status", "PROCESSING");
        match request.rows::<Row>().await {
            // One that is over, or another's, is not waited for: the supervisor finds that out.
            Ok(rows) => rows.first().is_none_or(|row| row.phase == Some(Phase::Approval)),
            Err(_) => true,
        }
    }

    /// Says in a row why its run does not start; none, that it does. What cannot be said now is logged: the end of the run
    /// says it again.
    pub(crate) async fn say(&self, id: AttemptId, claim_token: Uuid, sentence: Option<&str>) {
        if let Some(sentence) = sentence {
            tracing::warn!(deployment = %id.deployment_id, attempt = id.attempt, "{sentence}");
        }
        let request = self
            .rest
            .from("deployments")
            .update(&json!({"error_message": sentence, "claim_token": claim_token}))
            .eq("id", id.deployment_id)
            .eq("status", "PROCESSING")
            .idempotent(true);
        if let Err(error) = request.execute().await {
            tracing::debug!(deployment = %id.deployment_id, error = %format_args!("{error:#}"), "its row cannot be written now");
        }
    }
}
