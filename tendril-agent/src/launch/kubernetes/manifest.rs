//! The Job and the Secret of one run: pure functions of settings and attempt.

use std::{collections::BTreeMap, time::Duration};

use k8s_openapi::{
    ByteString,
    api::{
        batch::v1::{Job, JobSpec},
        core::v1::{
            Capabilities, Container, EmptyDirVolumeSource, EnvVar, EnvVarSource, ObjectFieldSelector,
            PersistentVolumeClaimVolumeSource, PodSecurityContext, PodSpec, PodTemplateSpec,
            ResourceRequirements, SeccompProfile, Secret, SecretVolumeSource, SecurityContext, Volume,
            VolumeMount,
        },
    },
    apimachinery::pkg::{
        api::resource::Quantity,
        apis::meta::v1::{ObjectMeta, OwnerReference},
    },
};
use uuid::Uuid;

use crate::launch::{
    attempt_file::AttemptId,
    kubernetes::{
        account_map::AccountRule,
        settings::{CONTAINER, KubernetesSettings},
    },
};

/// Every object of this launcher has it.
pub(crate) const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "tendril-agent");
/// The cluster of the deployment, as the control plane names it: agents of several clusters may share a namespace.
pub(crate) const CLUSTER: &str = "tendril.dev/cluster";
/// `deployments.id`.
pub(crate) const DEPLOYMENT: &str = "tendril.dev/deployment";
/// `deployments.attempt`.
pub(crate) const ATTEMPT: &str = "tendril.dev/attempt";
/// Part of a run: before the approval, or after it.
pub(crate) const PART: &str = "tendril.dev/part";
/// SHA-256 of the claim, so that a Job of the same name can be told from this claim's.
pub(crate) const CLAIM: &str = "tendril.dev/claim";
/// The stack, for people.
pub(crate) const STACK: &str = "tendril.dev/stack";

/// Where the Secret of the run is mounted.
const ATTEMPT_DIR: &str = "/var/run/tendril";
/// Names of its files.
pub(crate) const ATTEMPT_FILE: &str = "attempt.json";
pub(crate) const TOKEN_FILE: &str = "token";
pub(crate) const PLAN_ACCESS_FILE: &str = "plan-access.json";
/// The only place where a run can write, but for `/tmp`.
const HOME: &str = "/var/lib/tendril";
/// The user of the image.
const USER: i64 = 65532;

/// Variable of a run's container: the pod that it is in.
pub(crate) const POD_UID_VARIABLE: &str = "TENDRIL_POD_UID";

/// Variables of a run's container; the launcher sets them where a plan may wait.
pub(crate) const STORE_VARIABLE: &str = "TENDRIL_PLAN_STORE";
pub(crate) const JOB_UID_VARIABLE: &str = "TENDRIL_JOB_UID";
/// Name of the Secret of its plan, and the file with which the run may create it.
pub(crate) const PLAN_SECRET_VARIABLE: &str = "TENDRIL_PLAN_SECRET";
pub(crate) const PLAN_ACCESS_VARIABLE: &str = "TENDRIL_PLAN_ACCESS";
/// Where the plan of a run is mounted that goes on.
pub(crate) const DIR_VARIABLE: &str = "TENDRIL_PLAN_DIR";
/// The value that means a Secret; another one is a directory.
pub(crate) const IN_SECRET: &str = "secret";
/// Where the plan is mounted that goes on.
pub(crate) const PLAN_DIR: &str = "/var/run/tendril-plan";
/// Its file there, and its key in the Secret.
pub(crate) const PLAN_FILE: &str = "plan";

impl Run<'_> {
    /// Whether it keeps its plan in a Secret, which it has to be given the right for.
    pub(crate) fn keeps_plan_in_secret(&self, settings: &KubernetesSettings) -> bool {
        self.waits_for_approval && settings.plan_volume_claim.is_none()
    }
}

/// Which part of a run a Job is: a plan that waits for approval ends its pod, and goes on in another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// From the beginning, to the end or the approval.
    First,
    /// From the approval to the end.
    Approved,
}

impl Part {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Approved => "approved",
        }
    }

    pub(crate) fn parse(name: &str) -> Option<Self> {
        [Self::First, Self::Approved].into_iter().find(|part| part.name() == name)
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

/// Name of the Job of a run: `tendril-<deployment>-<attempt>`, at most 63 letters. One attempt has one name,
/// so that what is created twice is refused by the server.
pub(crate) fn name(id: AttemptId, part: Part) -> String {
    let AttemptId { deployment_id, attempt } = id;
    match part {
        Part::First => format!("tendril-{deployment_id}-{attempt}"),
        Part::Approved => format!("tendril-{deployment_id}-{attempt}-go"),
    }
}

/// Name of the Secret that a run is given.
fn secret_name(run: &Run<'_>) -> String {
    format!("{}-{}", name(run.id, run.part), run.secret)
}

/// Name of the Secret with the plan of a run that waits for approval; both parts of the run have the same.
pub(crate) fn plan_name(run: &Run<'_>) -> String {
    format!("{}-{}-plan", name(run.id, Part::First), run.secret)
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
    remove_empty(spec);
    template
}

/// The profile `restricted`, where the template does not say otherwise.
fn harden(context: &mut PodSecurityContext) {
    context.run_as_non_root.get_or_insert(true);
    context.run_as_user.get_or_insert(USER);
    context.run_as_group.get_or_insert(USER);
    context.fs_group.get_or_insert(USER);
    context.seccomp_profile.get_or_insert_with(|| SeccompProfile {
        type_: "RuntimeDefault".to_owned(),
        ..SeccompProfile::default()
    });
}

fn volumes(spec: &mut PodSpec, secret: &str) {
    let empty = |name: &str| Volume {
        name: name.to_owned(),
        empty_dir: Some(EmptyDirVolumeSource::default()),
        ..Volume::default()
    };
    let attempt = Volume {
        name: "tendril-attempt".to_owned(),
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
    for (name, path, is_read_only) in [
        ("tendril-attempt", ATTEMPT_DIR, true),
        ("tendril-home", HOME, false),
        ("tendril-tmp", "/tmp", false),
    ] {
        mounts.retain(|there| there.mount_path != path);
        mounts.push(VolumeMount {
            name: name.to_owned(),
            mount_path: path.to_owned(),
            read_only: is_read_only.then_some(true),
            ..VolumeMount::default()
        });
    }
    resources(run, container.resources.get_or_insert_default());
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
        volumes.push(Volume {
            name: "tendril-plan".to_owned(),
            persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                claim_name: claim.clone(),
                ..PersistentVolumeClaimVolumeSource::default()
            }),
            ..Volume::default()
        });
        // Its own folder of the volume, and no other run's.
        mount("tendril-plan", PLAN_DIR, Some(name(run.id, Part::First)));
        set(STORE_VARIABLE, PLAN_DIR);
        set(DIR_VARIABLE, PLAN_DIR);
    } else if goes_on {
        volumes.push(Volume {
            name: "tendril-plan".to_owned(),
            secret: Some(SecretVolumeSource {
                secret_name: Some(plan_name(run)),
                default_mode: Some(0o440),
                ..SecretVolumeSource::default()
            }),
            ..Volume::default()
        });
        mount("tendril-plan", PLAN_DIR, None);
        set(DIR_VARIABLE, PLAN_DIR);
    } else {
        set(STORE_VARIABLE, IN_SECRET);
        set(PLAN_SECRET_VARIABLE, &plan_name(run));
        set(PLAN_ACCESS_VARIABLE, &format!("{ATTEMPT_DIR}/{PLAN_ACCESS_FILE}"));
        // The Job's uid: what owns the Secret. Nothing else in the pod knows it.
        env.push(of_field(JOB_UID_VARIABLE, "metadata.labels['batch.kubernetes.io/controller-uid']"));
    }
}

/// A variable with the value of a field of the pod.
fn of_field(name: &str, path: &str) -> EnvVar {
    let field = ObjectFieldSelector { field_path: path.to_owned(), ..ObjectFieldSelector::default() };
    let source = EnvVarSource { field_ref: Some(field), ..EnvVarSource::default() };
    EnvVar { name: name.to_owned(), value_from: Some(source), ..EnvVar::default() }
}

/// The rule first, then the template, then what is usual. A limit below a request lowers the request.
fn resources(run: &Run<'_>, resources: &mut ResourceRequirements) {
    let (requests, limits) = KubernetesSettings::usual_resources();
    let fill = |there: &mut Option<BTreeMap<String, Quantity>>,
                rule: &BTreeMap<String, Quantity>,
                usual: BTreeMap<String, Quantity>| {
        let all = there.get_or_insert_default();
        for (name, amount) in usual {
            all.entry(name).or_insert(amount);
        }
        all.extend(rule.clone());
    };
    fill(&mut resources.requests, &run.rule.resources.requests, requests);
    fill(&mut resources.limits, &run.rule.resources.limits, limits);
    let limits = resources.limits.clone().unwrap_or_default();
    for (name, request) in resources.requests.iter_mut().flatten() {
        if let Some(limit) = limits.get(name)
            && super::account_map::amount(request) > super::account_map::amount(limit)
        {
            request.clone_from(limit);
        }
    }
}

fn remove_empty(spec: &mut PodSpec) {
    if spec.node_selector.as_ref().is_some_and(BTreeMap::is_empty) {
        spec.node_selector = None;
    }
    if spec.tolerations.as_ref().is_some_and(Vec::is_empty) {
        spec.tolerations = None;
    }
}

fn seconds(time: Duration) -> i64 {
    i64::try_from(time.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
#[path = "manifest_tests.rs"]
mod tests;
