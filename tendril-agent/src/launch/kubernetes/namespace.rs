//! The namespace of the runs, when somebody deletes it: every object in it goes, the agent's Role too.

use k8s_openapi::api::core::v1::Secret;
use kube::{
    api::PostParams,
    core::{ObjectMeta, Status},
};

use crate::launch::kubernetes::{election::answered, launcher::KubernetesLauncher};

impl KubernetesLauncher {
    /// Whether the namespace is being deleted. It needs no right of its own: a server that would create a Secret says so. False where
    /// nobody can tell.
    pub(super) async fn namespace_leaves(&self) -> bool {
        let metadata =
            ObjectMeta { generate_name: Some("tendril-trial-".to_owned()), ..ObjectMeta::default() };
        let trial = PostParams { dry_run: true, ..PostParams::default() };
        let secret = Secret { metadata, ..Secret::default() };
        match answered(self.inner.secrets.create(&trial, &secret)).await {
            Err(kube::Error::Api(status)) => is_leaving(&status),
            Ok(_) | Err(_) => false,
        }
    }
}

/// Whether a refusal is that of a namespace that is being deleted.
pub(super) fn is_leaving(status: &Status) -> bool {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    causes.into_iter().any(|cause| cause.reason == "NamespaceTerminating")
}
