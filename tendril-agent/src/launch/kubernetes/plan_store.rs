//! Where a plan that waits for approval is kept between two pods: a Secret that goes with the first Job, or a volume.
//!
//! The pod that made the plan is given the right to create Secrets and can read none; the kubelet mounts this one into the pod that
//! applies.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use k8s_openapi::api::core::v1::Secret;
use kube::{Api, api::PostParams};
use tokio::time::{Instant, sleep};

use crate::{
    launch::{
        attempt_file::AttemptId,
        kubernetes::{
            election::answered,
            names::{
                self, DIR_VARIABLE, IN_SECRET, JOB_UID_VARIABLE, PLAN_ACCESS_VARIABLE, PLAN_FILE,
                PLAN_SECRET_VARIABLE, Part, STORE_VARIABLE,
            },
            plan_access::{Owner, PlanAccess},
            plan_archive,
        },
    },
    os::{
        blocking,
        files::{rename_durably, sync_file},
    },
    template::Workspace,
};

/// Of the values of a Secret; the server refuses more.
const LARGEST_SECRET: usize = 1024 * 1024;

/// How long a server that does not answer is asked to keep a plan, and the pause between.
const TRIED_FOR: Duration = Duration::from_secs(600);
const PAUSE: Duration = Duration::from_secs(5);

/// Where a plan is mounted: there, or where the environment says, for tests without mounts.
pub(crate) fn dir(usual: &str) -> String {
    std::env::var(DIR_VARIABLE).unwrap_or_else(|_| usual.to_owned())
}

/// Where plans are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PlanStore {
    /// In a Secret of this name that the Job with this uid owns; the file says how it may be created.
    Secret { name: String, job_uid: String, access: PathBuf },
    /// In a directory: a volume that every run of this deployment has.
    Dir(PathBuf),
}

impl PlanStore {
    /// What the environment of a run's container says; none outside of one.
    pub(crate) fn from_env(variable: impl Fn(&str) -> Option<String>) -> Option<Self> {
        match variable(STORE_VARIABLE)?.as_str() {
            IN_SECRET => Some(Self::Secret {
                name: variable(PLAN_SECRET_VARIABLE)?,
                job_uid: variable(JOB_UID_VARIABLE)?,
                access: variable(PLAN_ACCESS_VARIABLE)?.into(),
            }),
            dir => Some(Self::Dir(dir.into())),
        }
    }

    /// Keeps what the plan of this attempt needs. Errors: a sentence for the deployment's user.
    pub(crate) async fn keep(&self, id: AttemptId, workspace: &Path) -> Result<(), String> {
        let root = workspace.to_path_buf();
        let packed = blocking(move || plan_archive::pack(&root))
            .await
            .map_err(|error| format!("The plan cannot be packed for its approval: {error}."))?;
        match self {
            Self::Secret { name, job_uid, access } => {
                keep_in_secret(id, name, job_uid, access.clone(), packed).await
            }
            Self::Dir(dir) => {
                let file = dir.join(PLAN_FILE);
                blocking(move || write_whole(&file, &packed)).await.map_err(|error| {
                    format!("The plan cannot be kept on the volume for plans ({}): {error}.", dir.display())
                })
            }
        }
    }
}

async fn keep_in_secret(
    id: AttemptId,
    name: &str,
    job_uid: &str,
    access: PathBuf,
    packed: Vec<u8>,
) -> Result<(), String> {
    if packed.len() > LARGEST_SECRET {
        return Err(format!(
            "The plan and its template are {} KiB, and a Secret takes 1024 KiB, so the plan cannot wait for approval there. Give the agent a volume for plans (--plan-volume-claim), or make the template smaller.",
            packed.len() / 1024
        ));
    }
    let access =
        blocking(move || Ok(PlanAccess::load(&access))).await.unwrap_or_else(|error| Err(error.to_string()));
    let connection = access
        .and_then(PlanAccess::connect)
        .map_err(|error| format!("The plan cannot be kept until it is approved: {error}."))?;
    let owner = Owner { name: names::name(id, Part::First), uid: job_uid.to_owned() };
    let secret = owner.secret(name.to_owned(), PLAN_FILE, packed);
    let secrets: Api<Secret> = Api::namespaced(connection.client, &connection.namespace);
    let begun = Instant::now();
    let kept = loop {
        match answered(secrets.create(&PostParams::default(), &secret)).await {
            // The lease is extended meanwhile: nothing is lost but time.
            Err(error) if passes(&error) && begun.elapsed() < TRIED_FOR => {
                tracing::warn!(%error, "the plan is not kept yet: trying again");
                sleep(PAUSE).await;
            }
            kept => break kept,
        }
    };
    match kept {
        Ok(_) => Ok(()),
        // An answer was lost; or somebody else made it, and its digest is another.
        Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => Ok(()),
        Err(kube::Error::Api(status)) => Err(format!(
            "The plan cannot be kept in a Secret until it is approved: {}. The service account of --plan-account needs the right to create secrets, and no other.",
            status.message
        )),
        Err(error) => Err(format!("The plan cannot be kept in a Secret until it is approved: {error}.")),
    }
}

/// Whether the server is away, or has no time.
fn passes(error: &kube::Error) -> bool {
    match error {
        kube::Error::Api(status) => status.code == 429 || status.code >= 500,
        _ => true,
    }
}

/// All of it, or nothing.
fn write_whole(file: &Path, bytes: &[u8]) -> io::Result<()> {
    let part = file.with_extension("part");
    fs::write(&part, bytes)?;
    sync_file(&fs::File::open(&part)?)?;
    rename_durably(&part, file)
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
        plan_archive::unpack(&packed, &workspace)?;
        // What was left out, empty; and that Terraform has to install its providers.
        let workspace = Workspace::at(workspace);
        fs::create_dir_all(workspace.home_dir())?;
        fs::write(workspace.restored_file(), b"")?;
        Ok(true)
    })
    .await
}
