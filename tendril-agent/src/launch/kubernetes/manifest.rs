//! The Job and the Secret of one run: pure functions of settings and attempt.

use std::{collections::BTreeMap, time::Duration};

use k8s_openapi::{
    ByteString,
    api::{
        batch::v1::{Job, JobSpec},
        core::v1::{
            Capabilities, Container, EmptyDirVolumeSource, EnvVar, PersistentVolumeClaimVolumeSource,
            PodSpec, PodTemplateSpec, Secret, SecretVolumeSource, SecurityContext, Volume, VolumeMount,
        },
    },
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::launch::{
    attempt_file::AttemptId,
    kubernetes::{
        account_map::AccountRule,
        names::{
            ATTEMPT, ATTEMPT_DIR, ATTEMPT_FILE, ATTEMPT_VOLUME, CLAIM, CLUSTER, DEPLOYMENT, DIR_VARIABLE,
            END_MESSAGE, END_MESSAGE_VARIABLE, HOME, IN_SECRET, JOB_UID_VARIABLE, KEPT_VOLUME, LATE_DIR,
            LATE_VOLUME, MANAGED_BY, PART, PLAN_ACCESS_FILE, PLAN_ACCESS_VARIABLE, PLAN_DIR,
            PLAN_SECRET_VARIABLE, POD_UID_VARIABLE, Part, STACK, STATE_ACCESS_VARIABLE, STATE_DIR,
            STATE_SECRET_VARIABLE, STATE_STORE_VARIABLE, STORE_VARIABLE, name,
        },
        pod_defaults::{harden, of_field, remove_empty, resources},
        settings::{CONTAINER, KubernetesSettings},
    },
};

impl Run<'_> {
    /// Whether it keeps its plan in a Secret, which it has to be given the right for.
    pub(crate) fn keeps_plan_in_secret(&self, settings: &KubernetesSettings) -> bool {
        self.waits_for_approval && settings.plan_volume_claim.is_none()
    }
}

/// What the manifests are made of, beside the settings.
#[derive(Clone, Debug)]
pub(crate) struct Run<'a> {
    pub(crate) id: AttemptId,
    pub(crate) part: Part,
    pub(crate) cluster_id: Uuid,
    /// Digest of the claim.
    pub(crate) claim: &'a str,
    /// `deployments.state_key`.
    pub(crate) stack: &'a str,
    pub(crate) rule: &'a AccountRule,
    /// The longest that it may take, with its own timeouts; none: no limit.
    pub(crate) deadline: Option<Duration>,
    /// Its plan waits for approval: the Job stays until that is decided, and what the plan is kept in with it.
    pub(crate) waits_for_approval: bool,
    /// End of the names of its Secrets, which nobody can guess.
    pub(crate) secret: String,
}

/// Name of the Secret that a run is given.
fn secret_name(run: &Run<'_>) -> String {
    format!("{}-{}", name(run.id, run.part), run.secret)
}

/// Name of the Secret with the plan of a run that waits for approval; both parts of the run have the same.
pub(crate) fn plan_name(run: &Run<'_>) -> String {
    format!("{}-{}-plan", name(run.id, Part::First), run.secret)
}

/// Name of the Secret with which a run may keep a state that its backend does not take. It is made when it is needed.
fn late_name(run: &Run<'_>) -> String {
    format!("{}-{}-late", name(run.id, run.part), run.secret)
}

/// What the names of the Secrets of such a state begin with.
fn state_name(run: &Run<'_>) -> String {
    format!("{}-{}-state", name(run.id, Part::First), run.secret)
}

/// The folder of the volume for what is kept of a stack's state: no name of a stack is a path.
fn state_folder(run: &Run<'_>) -> String {
    let digest = Sha256::new().chain_update(run.cluster_id).chain_update(run.stack).finalize();
    digest.iter().take(16).fold("state-".to_owned(), |text, byte| text + &format!("{byte:02x}"))
}

/// Labels by which an agent finds its runs.
pub(crate) fn labels(run: &Run<'_>) -> BTreeMap<String, String> {
    [
        ("app.kubernetes.io/name", "tendril-run".to_owned()),
        (MANAGED_BY.0, MANAGED_BY.1.to_owned()),
        (CLUSTER, run.cluster_id.to_string()),
        (DEPLOYMENT, run.id.deployment_id.to_string()),
        (ATTEMPT, run.id.attempt.to_string()),
        (PART, run.part.name().to_owned()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

/// The selector of the runs of a cluster.
pub(crate) fn selector(cluster_id: Uuid) -> String {
    format!("{}={},{CLUSTER}={cluster_id}", MANAGED_BY.0, MANAGED_BY.1)
}

/// The Job of a run.
///
/// `backoffLimit: 0` and no `podFailurePolicy`: with a rule that ignores disruptions the server would start a second pod
/// after an eviction, and an apply would run twice.
pub(crate) fn job(settings: &KubernetesSettings, run: &Run<'_>) -> Job {
    let labels = labels(run);
    let annotations =
        [(STACK, run.stack), (CLAIM, run.claim)].map(|(name, value)| (name.to_owned(), value.to_owned()));
    let spec = JobSpec {
        backoff_limit: Some(0),
        completions: Some(1),
        parallelism: Some(1),
        active_deadline_seconds: run.deadline.map(seconds),
        ttl_seconds_after_finished: i32::try_from(settings.keep_finished.as_secs())
            .ok()
            .filter(|_| !run.waits_for_approval),
        pod_replacement_policy: Some("Failed".to_owned()),
        template: pod(settings, run, &labels),
        ..JobSpec::default()
    };
    Job {
        metadata: ObjectMeta {
            name: Some(name(run.id, run.part)),
            labels: Some(labels),
            annotations: Some(annotations.into()),
            ..ObjectMeta::default()
        },
        spec: Some(spec),
        status: None,
    }
}

/// The Secret of a run: the files that its executor is given. It goes with the Job.
pub(crate) fn secret(
    run: &Run<'_>,
    job_uid: &str,
    files: impl IntoIterator<Item = (&'static str, Vec<u8>)>,
) -> Secret {
    let data = files.into_iter().map(|(name, bytes)| (name.to_owned(), ByteString(bytes))).collect();
    Secret {
        metadata: ObjectMeta {
            name: Some(secret_name(run)),
            labels: Some(labels(run)),
            owner_references: Some(vec![OwnerReference {
                api_version: "batch/v1".to_owned(),
                kind: "Job".to_owned(),
                name: name(run.id, run.part),
                uid: job_uid.to_owned(),
                ..OwnerReference::default()
            }]),
            ..ObjectMeta::default()
        },
        immutable: Some(true),
        data: Some(data),
        ..Secret::default()
    }
}

fn pod(settings: &KubernetesSettings, run: &Run<'_>, labels: &BTreeMap<String, String>) -> PodTemplateSpec {
    let mut template = settings.pod_template.clone();
    let metadata = template.metadata.get_or_insert_default();
    metadata.labels.get_or_insert_default().extend(labels.clone());
    let annotations = metadata.annotations.get_or_insert_default();
    // Neither autoscaler ends a node under an apply.
    for name in ["cluster-autoscaler.kubernetes.io/safe-to-evict", "karpenter.sh/do-not-disrupt"] {
        let wanted = if name.starts_with("karpenter") { "true" } else { "false" };
        annotations.entry(name.to_owned()).or_insert_with(|| wanted.to_owned());
    }
    let spec = template.spec.get_or_insert_default();
    spec.restart_policy = Some("Never".to_owned());
    spec.service_account_name = Some(run.rule.service_account.clone());
    // What a run may do in its cloud comes with its account's own volume; the API of the cluster is no business of a template.
    spec.automount_service_account_token.get_or_insert(false);
    spec.enable_service_links.get_or_insert(false);
    spec.termination_grace_period_seconds = Some(seconds(settings.grace));
    spec.node_selector.get_or_insert_default().extend(run.rule.node_selector.clone());
    spec.tolerations.get_or_insert_default().extend(run.rule.tolerations.iter().cloned());
    harden(spec.security_context.get_or_insert_default());
    volumes(spec, &secret_name(run));
    container(settings, run, spec);
    plan(settings, run, spec);
    state(settings, run, spec);
    remove_empty(spec);
    template
}

fn volumes(spec: &mut PodSpec, secret: &str) {
    let empty = |name: &str| Volume {
        name: name.to_owned(),
        empty_dir: Some(EmptyDirVolumeSource::default()),
        ..Volume::default()
    };
    let attempt = Volume {
        name: ATTEMPT_VOLUME.to_owned(),
        secret: Some(SecretVolumeSource {
            secret_name: Some(secret.to_owned()),
            // 0440: the group is the pod's.
            default_mode: Some(0o440),
            ..SecretVolumeSource::default()
        }),
        ..Volume::default()
    };
    let volumes = spec.volumes.get_or_insert_default();
    for volume in [attempt, empty("tendril-home"), empty("tendril-tmp")] {
        // A template may bring its own of these: a larger disk, or one in memory.
        if !volumes.iter().any(|there| there.name == volume.name && there.secret.is_none()) {
            volumes.retain(|there| there.name != volume.name);
            volumes.push(volume);
        }
    }
}

fn container(settings: &KubernetesSettings, run: &Run<'_>, spec: &mut PodSpec) {
    let at = spec.containers.iter().position(|container| container.name == CONTAINER).unwrap_or_else(|| {
        spec.containers.insert(0, Container { name: CONTAINER.to_owned(), ..Container::default() });
        0
    });
    let Some(container) = spec.containers.get_mut(at) else { return };
    container.image = Some(settings.image.clone());
    container.image_pull_policy.clone_from(&settings.image_pull_policy);
    container.args = Some(
        ["execute", "--attempt"]
            .map(str::to_owned)
            .into_iter()
            .chain([format!("{ATTEMPT_DIR}/{ATTEMPT_FILE}")])
            .collect(),
    );
    let env = container.env.get_or_insert_default();
    let fixed = [
        ("TENDRIL_WORK_DIR", format!("{HOME}/work")),
        ("TENDRIL_STATE_DIR", format!("{HOME}/state")),
        // It ends by itself before the kubelet ends it.
        ("TENDRIL_SHUTDOWN_GRACE", format!("{}s", settings.grace.as_secs().saturating_sub(30))),
        (END_MESSAGE_VARIABLE, END_MESSAGE.to_owned()),
        ("HOME", HOME.to_owned()),
        ("TMPDIR", "/tmp".to_owned()),
    ];
    for (name, value) in fixed {
        env.retain(|there| there.name != name);
        env.push(EnvVar { name: name.to_owned(), value: Some(value), ..EnvVar::default() });
    }
    env.retain(|there| there.name != POD_UID_VARIABLE);
    env.push(of_field(POD_UID_VARIABLE, "metadata.uid"));
    let context = container.security_context.get_or_insert_with(SecurityContext::default);
    context.allow_privilege_escalation.get_or_insert(false);
    context.read_only_root_filesystem.get_or_insert(true);
    context.capabilities.get_or_insert_with(|| Capabilities {
        drop: Some(vec!["ALL".to_owned()]),
        ..Capabilities::default()
    });
    // The end of its log is its message where it ends badly: readable without the right to read logs.
    container.termination_message_policy = Some("FallbackToLogsOnError".to_owned());
    let mounts = container.volume_mounts.get_or_insert_default();
    for (name, path, is_read_only) in
        [(ATTEMPT_VOLUME, ATTEMPT_DIR, true), ("tendril-home", HOME, false), ("tendril-tmp", "/tmp", false)]
    {
        mounts.retain(|there| there.mount_path != path);
        mounts.push(VolumeMount {
            name: name.to_owned(),
            mount_path: path.to_owned(),
            read_only: is_read_only.then_some(true),
            ..VolumeMount::default()
        });
    }
    resources(run.rule, container.resources.get_or_insert_default());
}

/// What a run needs to keep its plan until it is approved, or to go on with it.
fn plan(settings: &KubernetesSettings, run: &Run<'_>, spec: &mut PodSpec) {
    let volumes = spec.volumes.get_or_insert_default();
    let Some(container) = spec.containers.iter_mut().find(|container| container.name == CONTAINER) else {
        return;
    };
    let env = container.env.get_or_insert_default();
    let mounts = container.volume_mounts.get_or_insert_default();
    let mut mount = |name: &str, path: &str, sub_path: Option<String>| {
        mounts.push(VolumeMount {
            name: name.to_owned(),
            mount_path: path.to_owned(),
            read_only: sub_path.is_none().then_some(true),
            sub_path,
            ..VolumeMount::default()
        });
    };
    let mut set = |name: &str, value: &str| {
        env.push(EnvVar { name: name.to_owned(), value: Some(value.to_owned()), ..EnvVar::default() });
    };
    let goes_on = run.part == Part::Approved;
    if !goes_on && !run.waits_for_approval {
        return;
    }
    if let Some(claim) = &settings.plan_volume_claim {
        volumes.push(claimed(claim));
        // Its own folder of the volume, and no other run's.
        mount(KEPT_VOLUME, PLAN_DIR, Some(name(run.id, Part::First)));
        set(STORE_VARIABLE, PLAN_DIR);
        set(DIR_VARIABLE, PLAN_DIR);
    } else if goes_on {
        volumes.push(Volume {
            name: KEPT_VOLUME.to_owned(),
            secret: Some(SecretVolumeSource {
                secret_name: Some(plan_name(run)),
                default_mode: Some(0o440),
                ..SecretVolumeSource::default()
            }),
            ..Volume::default()
        });
        mount(KEPT_VOLUME, PLAN_DIR, None);
        set(DIR_VARIABLE, PLAN_DIR);
    } else {
        set(STORE_VARIABLE, IN_SECRET);
        set(PLAN_SECRET_VARIABLE, &plan_name(run));
        set(PLAN_ACCESS_VARIABLE, &format!("{ATTEMPT_DIR}/{PLAN_ACCESS_FILE}"));
        // The Job's uid: what owns the Secret. Nothing else in the pod knows it.
        env.push(of_field(JOB_UID_VARIABLE, "metadata.labels['batch.kubernetes.io/controller-uid']"));
    }
}

/// What a run needs to keep a state that its backend does not take: a folder of the volume, or a place for the right to create Secrets.
/// It gets that right when it asks, after its template has ended.
fn state(settings: &KubernetesSettings, run: &Run<'_>, spec: &mut PodSpec) {
    let volumes = spec.volumes.get_or_insert_default();
    let Some(container) = spec.containers.iter_mut().find(|container| container.name == CONTAINER) else {
        return;
    };
    let (env, mounts) =
        (container.env.get_or_insert_default(), container.volume_mounts.get_or_insert_default());
    let mut set = |name: &str, value: String| {
        env.retain(|there| there.name != name);
        env.push(EnvVar { name: name.to_owned(), value: Some(value), ..EnvVar::default() });
    };
    if let Some(claim) = &settings.plan_volume_claim {
        if !volumes.iter().any(|volume| volume.name == KEPT_VOLUME) {
            volumes.push(claimed(claim));
        }
        set(STATE_STORE_VARIABLE, STATE_DIR.to_owned());
        mounts.push(VolumeMount {
            name: KEPT_VOLUME.to_owned(),
            mount_path: STATE_DIR.to_owned(),
            sub_path: Some(state_folder(run)),
            ..VolumeMount::default()
        });
        return;
    }
    set(STATE_STORE_VARIABLE, IN_SECRET.to_owned());
    set(STATE_SECRET_VARIABLE, state_name(run));
    set(STATE_ACCESS_VARIABLE, format!("{LATE_DIR}/{PLAN_ACCESS_FILE}"));
    volumes.push(Volume {
        name: LATE_VOLUME.to_owned(),
        secret: Some(SecretVolumeSource {
            secret_name: Some(late_name(run)),
            default_mode: Some(0o440),
            optional: Some(true),
            ..SecretVolumeSource::default()
        }),
        ..Volume::default()
    });
    mounts.push(VolumeMount {
        name: LATE_VOLUME.to_owned(),
        mount_path: LATE_DIR.to_owned(),
        read_only: Some(true),
        ..VolumeMount::default()
    });
}

/// The volume of plans and states.
fn claimed(claim: &str) -> Volume {
    Volume {
        name: KEPT_VOLUME.to_owned(),
        persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
            claim_name: claim.to_owned(),
            ..PersistentVolumeClaimVolumeSource::default()
        }),
        ..Volume::default()
    }
}

fn seconds(time: Duration) -> i64 {
    i64::try_from(time.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
#[path = "manifest_tests.rs"]
mod tests;
