//! What a run reaches the API server with, to keep its plan: a token of an account that may create Secrets and nothing else.
//!
//! The accounts of runs have no rights in the cluster. The token is made for one pod, and ends with it.

use std::{fmt, fs, path::Path, time::Duration};

use crate::launch::{
    kubernetes::{
        connection::Connection,
        election::answered,
        launcher::{KubernetesLauncher, failure},
        view::PodView,
    },
    launcher::LaunchError,
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use kube::{Config, api::PostParams};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

/// The shortest time that the server takes.
const SHORTEST: Duration = Duration::from_secs(600);
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
    /// What the run in this pod may keep its plan with.
    pub(super) async fn plan_access(&self, pod: &PodView) -> Result<PlanAccess, LaunchError> {
        let inner = &self.inner;
        let lives = inner.settings.plan_deadline.unwrap_or(LONGEST).clamp(SHORTEST, LONGEST);
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
                "a token of the service account {account}, with which the run keeps its plan until it is approved, cannot be made"
            );
            failure(&context, error)
        })?;
        let token = made.status.and_then(|status| status.token).unwrap_or_default();
        Ok(PlanAccess {
            url: inner.connection.url.clone(),
            namespace: inner.connection.namespace.clone(),
            authorities: inner.connection.authorities.iter().map(|der| BASE64_STANDARD.encode(der)).collect(),
            token,
        })
    }
}
