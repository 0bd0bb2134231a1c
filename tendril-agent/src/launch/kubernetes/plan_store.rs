//! Where a plan that waits for approval is kept between two pods: a Secret that goes with the first Job, or a volume.
//!
//! The pod that made the plan may create Secrets and cannot read any; the kubelet mounts this one into the pod that applies.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use k8s_openapi::{
    ByteString,
    api::core::v1::Secret,
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use kube::{Api, api::PostParams};

use crate::{
    launch::{
        attempt_file::AttemptId,
        kubernetes::{
            connection::Connection,
            election::answered,
            manifest::{
                self, DIR_VARIABLE, IN_SECRET, JOB_UID_VARIABLE, MANAGED_BY, PLAN_FILE, Part, STORE_VARIABLE,
            },
            parcel,
        },
    },
    os::blocking,
    template::Workspace,
};

/// Of the values of a Secret; the server refuses more.
const LARGEST_SECRET: usize = 1024 * 1024;

/// Where a plan is mounted: there, or where the environment says, for tests without mounts.
pub(crate) fn dir(usual: &str) -> String {
    std::env::var(DIR_VARIABLE).unwrap_or_else(|_| usual.to_owned())
}

/// Where plans are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PlanStore {
    /// In a Secret that the Job with this uid owns.
    Secret { job_uid: String },
    /// In a directory: a volume that every run of this deployment has.
    Dir(PathBuf),
}

impl PlanStore {
    /// What the environment of a run's container says; none outside of one.
    pub(crate) fn from_env(variable: impl Fn(&str) -> Option<String>) -> Option<Self> {
        match variable(STORE_VARIABLE)?.as_str() {
            IN_SECRET => Some(Self::Secret { job_uid: variable(JOB_UID_VARIABLE)? }),
            dir => Some(Self::Dir(dir.into())),
        }
    }

    /// Keeps what the plan of this attempt needs. Errors: a sentence for the deployment's user.
    pub(crate) async fn keep(&self, id: AttemptId, workspace: &Path) -> Result<(), String> {
        let root = workspace.to_path_buf();
        let packed = blocking(move || parcel::pack(&root))
            .await
            .map_err(|error| format!("The plan cannot be packed for its approval: {error}."))?;
        match self {
            Self::Secret { job_uid } => keep_in_secret(id, job_uid, packed).await,
            Self::Dir(dir) => {
                let file = dir.join(PLAN_FILE);
                blocking(move || write_whole(&file, &packed)).await.map_err(|error| {
                    format!("The plan cannot be kept on the volume for plans ({}): {error}.", dir.display())
                })
            }
        }
    }
}

async fn keep_in_secret(id: AttemptId, job_uid: &str, packed: Vec<u8>) -> Result<(), String> {
    if packed.len() > LARGEST_SECRET {
        return Err(format!(
            "The plan and its template are {} KiB, and a Secret takes 1024 KiB, so the plan cannot wait for approval there. Give the agent a volume for plans (--plan-volume-claim), or make the template smaller.",
            packed.len() / 1024
        ));
    }
    let connection =
        Connection::open(None).await.map_err(|error| format!("The plan cannot be kept: {error}."))?;
    let owner = manifest::name(id, Part::First);
    let secret = Secret {
        metadata: ObjectMeta {
            name: Some(manifest::plan_name(id)),
            labels: Some([(MANAGED_BY.0.to_owned(), MANAGED_BY.1.to_owned())].into()),
            owner_references: Some(vec![OwnerReference {
                api_version: "batch/v1".to_owned(),
                kind: "Job".to_owned(),
                name: owner,
                uid: job_uid.to_owned(),
                ..OwnerReference::default()
            }]),
            ..ObjectMeta::default()
        },
        immutable: Some(true),
        data: Some(BTreeMap::from([(PLAN_FILE.to_owned(), ByteString(packed))])),
        ..Secret::default()
    };
    let secrets: Api<Secret> = Api::namespaced(connection.client, &connection.namespace);
    match answered(secrets.create(&PostParams::default(), &secret)).await {
        Ok(_) => Ok(()),
        // An answer was lost; or somebody else made it, and its digest is another.
        Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => Ok(()),
        Err(kube::Error::Api(status)) => Err(format!(
            "The plan cannot be kept in a Secret until it is approved: {}. The run's service account needs the right to create secrets, and no other.",
            status.message
        )),
        Err(error) => Err(format!("The plan cannot be kept in a Secret until it is approved: {error}.")),
    }
}

/// All of it, or nothing.
fn write_whole(file: &Path, bytes: &[u8]) -> io::Result<()> {
    let part = file.with_extension("part");
    fs::write(&part, bytes)?;
    fs::File::open(&part)?.sync_all()?;
    fs::rename(part, file)
}

/// Lays out the workspace of an approved plan, where this pod has one and it is not laid out yet.
pub(crate) async fn restore(plan_dir: &Path, workspace: PathBuf) -> io::Result<bool> {
    let file = plan_dir.join(PLAN_FILE);
    blocking(move || {
        if workspace.exists() {
            return Ok(false);
        }
        let packed = match fs::read(&file) {
            Ok(packed) => packed,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        if let Some(parent) = workspace.parent() {
            fs::create_dir_all(parent)?;
        }
        parcel::unpack(&packed, &workspace)?;
        // What was left out, empty; and that Terraform has to install its providers.
        let workspace = Workspace::at(workspace);
        fs::create_dir_all(workspace.home_dir())?;
        fs::write(workspace.restored_file(), b"")?;
        Ok(true)
    })
    .await
}
