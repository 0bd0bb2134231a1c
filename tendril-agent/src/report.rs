//! What the control plane is told about a job: progress while it runs, and its end.

use std::{io, path::Path, time::Duration};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tendril_realtime::{Error, ErrorKind, Rest};
use tokio::{sync::watch, time::sleep};
use uuid::Uuid;

use crate::{
    failpoint::failpoint,
    job::{Ending, ErrorCode, Job, Phase, Status},
    pace::Backoff,
    stop::{Stop, StopReason},
    terraform::message::Changes,
    workspace::private_file,
};

/// The deployment and the claim that all writes carry.
#[derive(Clone, Debug)]
pub(crate) struct Reporter {
    rest: Rest,
    id: Uuid,
    claim_token: Uuid,
}

/// The end of a job, as it is stored: first on disk, then in the row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct FinalStatus {
    pub(crate) status: Status,
    pub(crate) error_code: Option<ErrorCode>,
    pub(crate) error_message: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) plan_summary: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) outputs: Option<Value>,
    /// Known once the last chunk is stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) log_count: Option<u64>,
}

impl FinalStatus {
    /// Of an ending, with what the run left to say.
    pub(crate) fn new(
        ending: &Ending,
        changes: Option<Changes>,
        outputs: Option<Map<String, Value>>,
    ) -> Self {
        let (error_code, error_message) = match ending {
            Ending::Success => (None, None),
            Ending::Failed(failure) => (Some(failure.code), Some(failure.message.clone())),
            Ending::Cancelled(message) => (Some(ErrorCode::Cancelled), Some(message.clone())),
        };
        Self {
            status: ending.status(),
            error_code,
            error_message,
            plan_summary: changes.map(|changes| json!(changes)),
            outputs: outputs.map(Value::from),
            log_count: None,
        }
    }

    /// Keeps it on disk until it is stored.
    pub(crate) fn save(&self, path: &Path) -> io::Result<()> {
        private_file(path, &serde_json::to_vec(self)?)
    }

    /// What an earlier life kept.
    pub(crate) fn load(path: &Path) -> io::Result<Self> {
        Ok(serde_json::from_slice(&std::fs::read(path)?)?)
    }
}

/// What became of a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Written {
    /// The row says it.
    Stored,
    /// The claim is not ours any more, or the row is gone; the database's words.
    Refused(String),
}

impl Reporter {
    /// For a job that was won.
    pub(crate) const fn new(rest: Rest, id: Uuid, claim_token: Uuid) -> Self {
        Self { rest, id, claim_token }
    }

    /// Stores the end: tries until the database takes or refuses it.
    pub(crate) async fn finish(&self, end: &FinalStatus) -> Written {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(15));
        // Serialising a struct of strings and numbers into a Value cannot fail.
        let body = serde_json::to_value(end).unwrap_or_default();
        loop {
            match self.write(body.clone()).await {
                Ok(written) => return written,
                Err(error) => {
                    tracing::warn!(%error, "the final status is not stored yet: trying again");
                    sleep(backoff.after(&error)).await;
                }
            }
        }
    }

    /// One PATCH with the claim. Errors: it may be tried again.
    async fn write(&self, mut body: Value) -> Result<Written, Error> {
        #[derive(Deserialize)]
        struct Row {}
        body["claim_token"] = json!(self.claim_token);
        // The same write twice changes nothing, so that the library may repeat it.
        let request =
            self.rest.from("deployments").update(&body).eq("id", self.id).select("id").idempotent(true);
        match request.rows::<Row>().await {
            Ok(rows) if rows.is_empty() => Ok(Written::Refused("there is no such deployment".to_owned())),
            Ok(_) => Ok(Written::Stored),
            Err(error) => match error.kind() {
                ErrorKind::Api(api) if matches!(api.code.as_str(), "TD001" | "TD002") => {
                    Ok(Written::Refused(api.message.clone()))
                }
                _ => Err(error),
            },
        }
    }
}

/// Tells the row where the job is, without making the job wait, except where it must.
#[derive(Debug)]
pub(crate) struct ProgressBoard {
    wanted: watch::Sender<Wanted>,
    /// The last version that the row has.
    stored: watch::Receiver<u64>,
    stop: Stop,
}

/// What the row should say.
#[derive(Clone, Debug, Default)]
struct Wanted {
    version: u64,
    fields: Map<String, Value>,
}

impl ProgressBoard {
    /// Starts telling. Must be called inside a runtime; ends by itself when the board is dropped.
    pub(crate) fn start(reporter: Reporter, stop: Stop) -> Self {
        let (wanted, wishes) = watch::channel(Wanted::default());
        let (told, stored) = watch::channel(0);
        tokio::spawn(tell(reporter, wishes, told, stop.clone()));
        Self { wanted, stored, stop }
    }

    /// The job entered a phase.
    pub(crate) fn phase(&self, phase: Phase) {
        self.want("phase", json!(phase));
    }

    /// The plan is made.
    pub(crate) fn plan(&self, changes: Changes) {
        self.want("plan_summary", json!(changes));
    }

    /// The saved plan has this SHA-256: what a person may approve.
    pub(crate) fn sealed(&self, plan: &str) {
        self.want("plan_sha256", json!(plan));
    }

    /// Waits until the row says all of it, or the job is told to stop. After `phase(Apply)` this must come first: a row
    /// that does not say that the apply began would be run again if this agent died.
    pub(crate) async fn settled(&self) {
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
            wanted.fields.insert(field.to_owned(), value);
        });
    }
}

async fn tell(reporter: Reporter, mut wishes: watch::Receiver<Wanted>, told: watch::Sender<u64>, stop: Stop) {
    let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(10));
    while wishes.changed().await.is_ok() {
        loop {
            let wanted = wishes.borrow_and_update().clone();
            match reporter.write(Value::from(wanted.fields)).await {
                Ok(Written::Stored) => {
                    backoff.reset();
                    told.send_replace(wanted.version);
                    failpoint!("progress.stored");
                    break;
                }
                Ok(Written::Refused(why)) => {
                    tracing::warn!(deployment = %reporter.id, why, "the claim is lost: ending the run politely");
                    stop.request(StopReason::Fenced);
                    return;
                }
                Err(error) => {
                    tracing::debug!(%error, "progress is not stored yet");
                    sleep(backoff.after(&error)).await;
                    // The board may have gone while the control plane was away; the final status says more.
                    if wishes.has_changed().is_err() {
                        return;
                    }
                }
            }
        }
    }
}

/// What a later life must know about a claim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ClaimRecord {
    pub(crate) deployment_id: Uuid,
    pub(crate) attempt: i32,
    pub(crate) claim_token: Uuid,
    /// How far it got.
    pub(crate) phase: Phase,
    /// The state that it works on; none where `config_snapshot` names none that can be.
    #[serde(default)]
    pub(crate) state_key: Option<String>,
}

impl ClaimRecord {
    /// Of a job that enters a phase.
    pub(crate) fn new(job: &Job, phase: Phase) -> Self {
        let Job { id, attempt, claim_token, .. } = *job;
        Self { deployment_id: id, attempt, claim_token, phase, state_key: job.state_key() }
    }

    /// Keeps it on disk.
    pub(crate) fn save(&self, path: &Path) -> io::Result<()> {
        private_file(path, &serde_json::to_vec(self)?)
    }

    /// What an earlier life kept.
    pub(crate) fn load(path: &Path) -> io::Result<Self> {
        Ok(serde_json::from_slice(&std::fs::read(path)?)?)
    }
}
