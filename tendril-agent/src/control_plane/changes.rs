//! Stores the planned changes of a deployment, and reports how far they get. Neither ever fails or holds up a run.

use std::time::Duration;

use serde_json::{Value, json};
use tendril_realtime::{Error, ErrorKind, Rest};
use tokio::time::sleep;
use uuid::Uuid;

use crate::control_plane::{backoff::Backoff, revocation::is_revoked};

/// Rows of one request.
const ROWS: usize = 100;
/// Reports of one request.
const REPORTS: usize = 1000;
/// The longest that one request may take.
const TIMEOUT: Duration = Duration::from_secs(15);

/// What a state holds after an apply, and where it is stored.
#[derive(Clone, Debug)]
pub(crate) struct AppliedState {
    pub(crate) resources: u64,
    pub(crate) backend: &'static str,
    pub(crate) fingerprint: Option<String>,
}

/// The changes of one claimed attempt.
#[derive(Clone, Debug)]
pub(crate) struct ChangeReporter {
    pub(crate) rest: Rest,
    pub(crate) deployment_id: Uuid,
    pub(crate) claim_token: Uuid,
}

impl ChangeReporter {
    /// Stores planned changes; tries again until they are stored, or refused.
    pub(crate) async fn store(&self, rows: Vec<Value>) {
        for some in rows.chunks(ROWS) {
            let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(10));
            while let Err(error) = self.call("agent_store_changes", some).await {
                if is_final(&error) {
                    tracing::warn!(deployment = %self.deployment_id, %error, "the planned changes are not stored");
                    return;
                }
                tracing::debug!(deployment = %self.deployment_id, %error, "the planned changes are not stored yet");
                sleep(backoff.after(&error)).await;
            }
        }
    }

    /// Reports how far changes got. Answers what could not be reported now and may be later.
    pub(crate) async fn report(&self, reports: Vec<Value>) -> Vec<Value> {
        let mut left = Vec::new();
        for some in reports.chunks(REPORTS) {
            match self.call("agent_report_changes", some).await {
                Ok(()) => {}
                Err(error) if is_final(&error) => {
                    tracing::debug!(deployment = %self.deployment_id, %error, "the progress of changes is refused");
                }
                Err(_) => left.extend_from_slice(some),
            }
        }
        left
    }

    /// What the state of the stack contains now. Tried once: the next apply reports it again.
    pub(crate) async fn applied(&self, state: &AppliedState) {
        let arguments = json!({
            "deployment_id": self.deployment_id,
            "claim_token": self.claim_token,
            "resources": state.resources,
            "backend": state.backend,
            "fingerprint": state.fingerprint,
        });
        let request = self.rest.rpc("agent_stack_applied", &arguments).timeout(TIMEOUT).idempotent(true);
        if let Err(error) = request.execute().await {
            tracing::debug!(deployment = %self.deployment_id, %error, "what the stack holds is not reported");
        }
    }

    async fn call(&self, function: &str, changes: &[Value]) -> Result<(), Error> {
        let changes: Vec<Value> = changes.iter().map(without_nul).collect();
        let arguments =
            json!({"deployment_id": self.deployment_id, "claim_token": self.claim_token, "changes": changes});
        self.rest.rpc(function, &arguments).timeout(TIMEOUT).idempotent(true).execute().await.map(drop)
    }
}

/// The same with what a database can hold in the place of NUL: one of them would have all rows refused.
fn without_nul(value: &Value) -> Value {
    match value {
        Value::String(text) => Value::String(text.replace('\0', "\u{fffd}")),
        Value::Array(items) => items.iter().map(without_nul).collect(),
        Value::Object(fields) => {
            fields.iter().map(|(name, field)| (name.replace('\0', "\u{fffd}"), without_nul(field))).collect()
        }
        other => other.clone(),
    }
}

/// Whether trying again cannot help: the claim is over, the content is refused, or the database has no such function.
fn is_final(error: &Error) -> bool {
    if is_revoked(error) {
        return true;
    }
    match error.kind() {
        ErrorKind::Postgrest(api) => {
            (400..500).contains(&api.status) && !matches!(api.status, 401 | 408 | 429)
        }
        ErrorKind::InvalidInput { .. } => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_nul_is_left_in_names_and_texts() {
        let change =
            json!({"address": "a[\"\0\"]", "attributes": [{"path\0": "\0x", "n": 1.10}, null, true]});
        let expected = json!({"address": "a[\"\u{fffd}\"]", "attributes": [{"path\u{fffd}": "\u{fffd}x", "n": 1.10}, null, true]});
        assert_eq!(without_nul(&change), expected);
    }
}
