//! What a run reaches the API server with, to keep its plan: a token of an account that may create Secrets and nothing else.
//!
//! The accounts of runs have no rights in the cluster. The token is made for one pod, and ends with it.

use std::{collections::BTreeMap, fmt, fs, path::Path, time::Duration};

use crate::launch::{
    kubernetes::{
        connection::Connection,
        election::answered,
        launcher::{KubernetesLauncher, failure},
        names::MANAGED_BY,
        view::PodView,
    },
    launcher::LaunchError,
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use k8s_openapi::{
    ByteString,
    api::{
        authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec},
        core::v1::Secret,
    },
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use kube::{Config, api::PostParams};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

/// The shortest time that the server takes.
const SHORTEST: Duration = Duration::from_secs(600);
/// To keep a state: the API server may be away in between.
const FOR_A_STATE: Duration = Duration::from_secs(6 * 3600);
/// Of a run without a limit.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// A file in the Secret of a run.
#[derive(Serialize, Deserialize)]
pub(crate) struct PlanAccess {
    url: String,
    namespace: String,
    /// Certificates in DER, Base64. Empty: what the platform trusts.
    authorities: Vec<String>,
    token: String,
    /// What owns the Secrets that it is for, where the run does not know it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) owner: Option<Owner>,
}

/// A Job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Owner {
    pub(crate) name: String,
    pub(crate) uid: String,
}

impl Owner {
    /// A Secret that goes with it.
    pub(crate) fn secret(&self, name: String, file: &str, bytes: Vec<u8>) -> Secret {
        Secret {
            metadata: ObjectMeta {
                name: Some(name),
                labels: Some([(MANAGED_BY.0.to_owned(), MANAGED_BY.1.to_owned())].into()),
                owner_references: Some(vec![self.reference()]),
                ..ObjectMeta::default()
            },
            immutable: Some(true),
            data: Some(BTreeMap::from([(file.to_owned(), ByteString(bytes))])),
            ..Secret::default()
        }
    }

    pub(crate) fn reference(&self) -> OwnerReference {
        OwnerReference {
            api_version: "batch/v1".to_owned(),
            kind: "Job".to_owned(),
            name: self.name.clone(),
            uid: self.uid.clone(),
            ..OwnerReference::default()
        }
    }
}

impl fmt::Debug for PlanAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PlanAccess").field("url", &self.url).finish_non_exhaustive()
    }
}

impl PlanAccess {
    /// Reads the file. Errors: a sentence.
    pub(crate) fn load(path: &Path) -> Result<Self, String> {
        let read = fs::read(path).and_then(|bytes| Ok(serde_json::from_slice(&bytes)?));
        read.map_err(|error| format!("{} cannot be read: {error}", path.display()))
    }

    pub(crate) fn to_json(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(self)
    }

    /// The connection of a run. Errors: a sentence.
    pub(crate) fn connect(self) -> Result<Connection, String> {
        let url = self.url.parse().map_err(|error| format!("{} is no address: {error}", self.url))?;
        let mut config = Config::new(url);
        config.default_namespace = self.namespace;
        let authorities: Result<Vec<Vec<u8>>, _> =
            self.authorities.iter().map(|text| BASE64_STANDARD.decode(text)).collect();
        let authorities = authorities.map_err(|error| format!("a certificate cannot be read: {error}"))?;
        config.root_cert = Some(authorities).filter(|all| !all.is_empty());
        config.auth_info.token = Some(SecretString::from(self.token));
        Connection::of(config)
    }
}

impl KubernetesLauncher {
    /// What the run in this pod may keep its plan with, or with an owner its state.
    pub(super) async fn plan_access(
        &self,
        pod: &PodView,
        owner: Option<Owner>,
    ) -> Result<PlanAccess, LaunchError> {
        let inner = &self.inner;
        let lives = match &owner {
            Some(_) => FOR_A_STATE,
            None => inner.settings.plan_deadline.unwrap_or(LONGEST).clamp(SHORTEST, LONGEST),
        };
        let request = TokenRequest {
            spec: Some(TokenRequestSpec {
                expiration_seconds: i64::try_from(lives.as_secs()).ok(),
                bound_object_ref: Some(BoundObjectReference {
                    api_version: Some("v1".to_owned()),
                    kind: Some("Pod".to_owned()),
                    name: Some(pod.name.clone()),
                    uid: Some(pod.uid.clone()),
                }),
                ..TokenRequestSpec::default()
            }),
            ..TokenRequest::default()
        };
        let (account, params) = (&inner.settings.plan_account, PostParams::default());
        let made = inner.accounts.create_token_request(account, &params, &request);
        let made = answered(made).await.map_err(|error| {
            let context = format!(
                "a token of the service account {account}, with which the run keeps its plan or state in a Secret, cannot be made"
            );
            failure(&context, error)
        })?;
        let token = made.status.and_then(|status| status.token).unwrap_or_default();
        Ok(PlanAccess {
            url: inner.connection.url.clone(),
            namespace: inner.connection.namespace.clone(),
            authorities: inner.connection.authorities.iter().map(|der| BASE64_STANDARD.encode(der)).collect(),
            token,
            owner,
        })
    }
}
