//! The namespace of the runs, when somebody deletes it: every object in it goes, the agent's Role too.

use k8s_openapi::api::core::v1::Secret;
use kube::{
    api::PostParams,
    core::{ObjectMeta, Status},
};

use uuid::Uuid;

use crate::launch::{
    attempt_file::AttemptId,
    kubernetes::{
        election::answered,
        launcher::KubernetesLauncher,
        names::{Part, name},
    },
};

impl KubernetesLauncher {
    /// Whether the namespace is being deleted. It needs no right of its own: a server that would create a Secret says so. False where
    /// nobody can tell.
    pub(super) async fn namespace_leaves(&self) -> bool {
        // Of no run, and called as one: a policy of the cluster may want that.
        let id = AttemptId { deployment_id: Uuid::nil(), attempt: 0 };
        let name = format!("{}-trial", name(id, Part::First));
        let metadata = ObjectMeta { name: Some(name), ..ObjectMeta::default() };
        let trial = PostParams { dry_run: true, ..PostParams::default() };
        let secret = Secret { metadata, ..Secret::default() };
        match answered(self.inner.secrets.create(&trial, &secret)).await {
            Err(kube::Error::Api(status)) => is_leaving(&status),
            Ok(_) | Err(_) => false,
        }
    }
}

/// Whether a refusal is that of a namespace that is being deleted, or is gone.
pub(super) fn is_leaving(status: &Status) -> bool {
    let Some(details) = &status.details else { return false };
    let is_gone = status.code == 404 && details.kind == "namespaces";
    is_gone || details.causes.iter().any(|cause| cause.reason == "NamespaceTerminating")
}
