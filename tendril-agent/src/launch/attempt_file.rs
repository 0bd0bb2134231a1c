//! `attempt.json`: what an executor is given, and all that a dispatcher and an executor say to each other at its start.
//!
//! The file holds the claim and the deployment's variables: it is of mode 0600, and `Debug` shows no secret. A reader ignores
//! fields that it does not know. What it must know makes another [`FORMAT`], which an older executor refuses.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

use crate::{
    control_plane::auth::{Claim, Credential},
    cost::infracost::Found,
    execute::Start,
    job::{ConfigSnapshot, Job},
    os::files::private_file,
    process::SlotUsers,
    terraform::KnownTerraform,
};

/// The format of a run.
pub(crate) const FORMAT: u32 = 1;
/// The format of what stores a state that a run left, and the newest that this program reads.
pub(crate) const FORMAT_OF_PUSH: u32 = 2;

/// One attempt, by the name of its directory: `<deployment>.<attempt>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct AttemptId {
    /// `deployments.id`.
    pub(crate) deployment_id: Uuid,
    /// 1 for the first try.
    pub(crate) attempt: i32,
}

impl AttemptId {
    /// Reads the name of an attempt's directory.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        let (id, attempt) = name.split_once('.')?;
        Some(Self { deployment_id: Uuid::parse_str(id).ok()?, attempt: attempt.parse().ok()? })
    }
}

impl fmt::Display for AttemptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.deployment_id, self.attempt)
    }
}

/// How an executor gets its machine token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum TokenFrom {
    /// The claim is exchanged at the Edge Function `agent-token`: the token reaches this deployment only.
    Claim,
    /// The token or key in this file, which is read again when it changes. A relative path is one beside `attempt.json`.
    File(PathBuf),
}

/// What an executor is given.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct AttemptFile {
    /// [`FORMAT`] of its writer.
    pub(crate) format: u32,
    /// Version of the program that wrote it.
    pub(crate) version: String,
    pub(crate) deployment_id: Uuid,
    pub(crate) attempt: i32,
    /// Carried by every write about the deployment.
    pub(crate) claim_token: Uuid,
    /// `deployments.state_key`; none in a database of the contract before this agent's.
    #[serde(default)]
    pub(crate) state_key: Option<String>,
    /// Where the run begins.
    pub(crate) start: Start,
    /// `deployments.config_snapshot`, digit by digit.
    pub(crate) config_snapshot: ConfigSnapshot,
    /// Base URL of the project.
    pub(crate) supabase_url: String,
    /// The publishable key.
    #[serde(serialize_with = "exposed", deserialize_with = "secret")]
    pub(crate) supabase_key: SecretString,
    /// The cluster of the deployment.
    pub(crate) cluster_id: Uuid,
    /// The agent that claimed, as in `claimed_by`.
    pub(crate) agent_name: String,
    pub(crate) token: TokenFrom,
    /// The program that the dispatcher found, where the executor runs on the same machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) terraform: Option<KnownTerraform>,
    /// What it found to estimate costs with: of use with `terraform` only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) infracost: Option<Found>,
    /// The users of runs, where they have users of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) slot_users: Option<SlotUsers>,
    /// `metadata.uid` of the pod that runs it, where it is a pod: another one must not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) pod_uid: Option<String>,
    /// Pods of earlier runs of the same state that have ended: what they locked is nobody's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) ended_pods: Vec<String>,
    /// It is no run: it stores the state that this attempt left ([`FORMAT_OF_PUSH`]).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) stores_state: bool,
}

impl AttemptFile {
    /// What the dispatcher found to estimate costs with, where the executor runs on the same machine.
    pub(crate) fn known_infracost(&self) -> Option<Found> {
        self.infracost.clone().filter(|_| self.terraform.is_some())
    }

    pub(crate) const fn id(&self) -> AttemptId {
        AttemptId { deployment_id: self.deployment_id, attempt: self.attempt }
    }

    /// The job that an executor runs.
    pub(crate) fn job(&self) -> Job {
        Job {
            id: self.deployment_id,
            attempt: self.attempt,
            claim_token: self.claim_token,
            config: self.config_snapshot.clone(),
            state_key: self.state_key.clone(),
        }
    }

    /// What its executor gets its token with.
    pub(crate) fn credential(&self) -> Credential {
        match &self.token {
            TokenFrom::File(file) => Credential::File(file.clone()),
            TokenFrom::Claim => Credential::Claim(Claim {
                cluster_id: self.cluster_id,
                deployment_id: self.deployment_id,
                token: self.claim_token,
            }),
        }
    }

    /// Its text, with the secrets in it.
    pub(crate) fn to_json(&self) -> io::Result<Vec<u8>> {
        Ok(serde_json::to_vec(self)?)
    }

    /// Writes it for this user only.
    pub(crate) fn save(&self, path: &Path) -> io::Result<()> {
        private_file(path, &self.to_json()?)
    }

    /// Reads it. Errors: it cannot be read, or its format is of a later version.
    pub(crate) fn load(path: &Path) -> io::Result<Self> {
        #[derive(Deserialize)]
        struct Head {
            format: u32,
            version: String,
        }
        let text = std::fs::read(path)?;
        let Head { format, version } = serde_json::from_slice(&text)?;
        if format > FORMAT_OF_PUSH {
            return Err(io::Error::other(format!(
                "it is of format {format}, written by tendril-agent {version}, and this is tendril-agent {} with format {FORMAT_OF_PUSH}: run the same version of both",
                env!("CARGO_PKG_VERSION")
            )));
        }
        let mut file: Self = serde_json::from_slice(&text)?;
        if let TokenFrom::File(token) = &mut file.token
            && let Some(dir) = path.parent()
        {
            *token = dir.join(&token);
        }
        Ok(file)
    }
}

fn exposed<S: Serializer>(secret: &SecretString, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(secret.expose_secret())
}

fn secret<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SecretString, D::Error> {
    String::deserialize(deserializer).map(SecretString::from)
}

impl fmt::Debug for AttemptFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AttemptFile")
            .field("format", &self.format)
            .field("version", &self.version)
            .field("id", &self.id().to_string())
            .field("claim_token", &"[hidden]")
            .field("state_key", &self.state_key)
            .field("start", &self.start)
            .field("config_snapshot", &"[hidden]")
            .field("supabase_url", &self.supabase_url)
            .field("supabase_key", &"[hidden]")
            .field("cluster_id", &self.cluster_id)
            .field("agent_name", &self.agent_name)
            .field("token", &self.token)
            .field("terraform", &self.terraform)
            .field("pod_uid", &self.pod_uid)
            .field("ended_pods", &self.ended_pods)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn file() -> AttemptFile {
        AttemptFile {
            format: FORMAT,
            version: "1.2.3".to_owned(),
            deployment_id: Uuid::from_u128(1),
            attempt: 2,
            claim_token: Uuid::from_u128(3),
            state_key: Some("hello.prod".to_owned()),
            start: Start::Workspace,
            config_snapshot: serde_json::from_str(
                r#"{"variables":{"n":12345678901234567890.10,"p":"s3cret"}}"#,
            )
            .unwrap(),
            supabase_url: "https://abcd.supabase.co".to_owned(),
            supabase_key: SecretString::from("sb_publishable_x"),
            cluster_id: Uuid::from_u128(4),
            agent_name: "one".to_owned(),
            token: TokenFrom::File("token".into()),
            terraform: None,
            infracost: None,
            slot_users: None,
            pod_uid: None,
            ended_pods: Vec::new(),
            stores_state: false,
        }
    }

    #[test]
    fn what_is_written_is_read_digit_by_digit_by_this_user_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("attempt.json");
        file().save(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let read = AttemptFile::load(&path).unwrap();
        assert_eq!(read.config_snapshot, file().config_snapshot);
        assert_eq!(read.id(), file().id());
        assert_eq!(read.start, Start::Workspace);
        assert_eq!(read.supabase_key.expose_secret(), "sb_publishable_x");
        assert_eq!(read.token, TokenFrom::File(dir.path().join("token")));
    }

    #[test]
    fn debug_shows_no_secret() {
        let shown = format!("{:?}", file());
        for secret in ["s3cret", "sb_publishable_x", &Uuid::from_u128(3).to_string()] {
            assert!(!shown.contains(secret), "{shown}");
        }
    }

    #[test]
    fn a_later_format_is_refused_and_unknown_fields_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("attempt.json");
        let mut value: serde_json::Value = serde_json::from_slice(&file().to_json().unwrap()).unwrap();
        value["of_a_later_version"] = serde_json::json!({"x": 1});
        std::fs::write(&path, value.to_string()).unwrap();
        AttemptFile::load(&path).unwrap();
        value["format"] = serde_json::json!(FORMAT_OF_PUSH + 1);
        value["start"] = serde_json::json!("elsewhere");
        std::fs::write(&path, value.to_string()).unwrap();
        let refused = AttemptFile::load(&path).unwrap_err().to_string();
        assert!(refused.contains("written by tendril-agent 1.2.3"), "{refused}");
    }

    #[test]
    fn an_attempts_name_is_read_back() {
        let id = file().id();
        assert_eq!(AttemptId::parse(&id.to_string()), Some(id));
        for name in
            ["", ".", "x.1", "00000000-0000-0000-0000-000000000001", "00000000-0000-0000-0000-000000000001.x"]
        {
            assert_eq!(AttemptId::parse(name), None, "{name}");
        }
    }
}
