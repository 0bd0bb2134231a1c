//! The Jobs of a state that its backend did not take: one that owns what it is kept in, and those that store it. Pure.
//!
//! Both are made from the Job of the run, so that a push has the account, the image and the variables that the run had. The first one is
//! suspended for ever: it has no pod, and its removal removes the state's Secrets, which the agent itself may not delete.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::{
        batch::v1::{Job, JobSpec},
        core::v1::{
            Container, PodSpec, ProjectedVolumeSource, SecretProjection, SecretVolumeSource, Volume,
            VolumeMount, VolumeProjection,
        },
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use crate::launch::kubernetes::{
    names::{
        ATTEMPT_VOLUME, DIR_VARIABLE, JOB_UID_VARIABLE, KEPT_VOLUME, LATE_VOLUME, PART, PLAN_ACCESS_VARIABLE,
        PLAN_SECRET_VARIABLE, Part, STATE_ACCESS_VARIABLE, STATE_DIR, STATE_SECRET_VARIABLE,
        STATE_STORE_VARIABLE, STORE_VARIABLE, name,
    },
    plan_access::Owner,
    settings::CONTAINER,
    state_parts::MOST_PARTS,
    view::JobView,
};

/// How long a push may take, with the start of its pod.
const PUSH_SECONDS: i64 = 1800;
/// How long one that has ended is kept, for people.
const KEEP_PUSH_SECONDS: i32 = 3600;
/// Of a state and not of a run: nothing of the plan's wait.
const OF_RUNS: &[&str] = &[
    STORE_VARIABLE,
    PLAN_SECRET_VARIABLE,
    PLAN_ACCESS_VARIABLE,
    DIR_VARIABLE,
    JOB_UID_VARIABLE,
    STATE_SECRET_VARIABLE,
    STATE_ACCESS_VARIABLE,
];

/// What the Job of a run says of the state that it may have to keep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Keeping {
    /// What the names of its Secrets begin with; none: it is kept on a volume.
    pub(super) secret: Option<String>,
    /// Name of the Secret with which the run may create them.
    pub(super) late: Option<String>,
}

impl Keeping {
    /// None, if it is a run of an agent that keeps no states.
    pub(super) fn of(job: &Job) -> Option<Self> {
        let spec = pod_spec(job)?;
        let container = spec.containers.iter().find(|container| container.name == CONTAINER)?;
        variable(container, STATE_STORE_VARIABLE)?;
        let volume = spec.volumes.iter().flatten().find(|volume| volume.name == LATE_VOLUME);
        Some(Self {
            secret: variable(container, STATE_SECRET_VARIABLE),
            late: volume.and_then(|volume| volume.secret.as_ref()?.secret_name.clone()),
        })
    }

    /// Name of the Secret with which a push is started.
    pub(super) fn push(&self, run: &JobView) -> String {
        let base = self.secret.clone().unwrap_or_else(|| name(run.id, Part::State));
        format!("{base}-push")
    }
}

/// The Job that owns what the state of a run is kept in.
pub(super) fn holder(run: &Job, view: &JobView, keeping: &Keeping) -> Job {
    let mut template = run.spec.as_ref().map(|spec| spec.template.clone()).unwrap_or_default();
    let labels = labels(run, Part::State);
    template.metadata = Some(ObjectMeta {
        labels: Some(labels.clone()),
        annotations: template.metadata.and_then(|metadata| metadata.annotations),
        ..ObjectMeta::default()
    });
    if let Some(spec) = &mut template.spec {
        to_push(spec, view, keeping);
    }
    Job {
        metadata: ObjectMeta {
            name: Some(name(view.id, Part::State)),
            labels: Some(labels),
            annotations: run.metadata.annotations.clone(),
            ..ObjectMeta::default()
        },
        spec: Some(JobSpec {
            suspend: Some(true),
            backoff_limit: Some(0),
            completions: Some(1),
            parallelism: Some(1),
            template,
            ..JobSpec::default()
        }),
        status: None,
    }
}

/// The Job that tries to store the state for the nth time.
pub(super) fn push(holder: &Job, view: &JobView, number: u32) -> Job {
    let mut spec = holder.spec.clone().unwrap_or_default();
    // What the server filled in is the other Job's.
    (spec.selector, spec.manual_selector) = (None, None);
    spec.suspend = None;
    spec.active_deadline_seconds = Some(PUSH_SECONDS);
    spec.ttl_seconds_after_finished = Some(KEEP_PUSH_SECONDS);
    let labels = labels(holder, Part::Push);
    let annotations = spec.template.metadata.take().and_then(|metadata| metadata.annotations);
    spec.template.metadata =
        Some(ObjectMeta { labels: Some(labels.clone()), annotations, ..ObjectMeta::default() });
    Job {
        metadata: ObjectMeta {
            name: Some(format!("{}-{number}", name(view.id, Part::Push))),
            labels: Some(labels),
            annotations: holder.metadata.annotations.clone(),
            owner_references: Some(vec![owner(view).reference()]),
            ..ObjectMeta::default()
        },
        spec: Some(spec),
        status: None,
    }
}

/// The Job as the owner of other objects.
pub(super) fn owner(view: &JobView) -> Owner {
    Owner { name: view.name.clone(), uid: view.uid.clone() }
}

/// The labels of a run, without those that its controller gave it.
fn labels(job: &Job, part: Part) -> BTreeMap<String, String> {
    let mut labels = job.metadata.labels.clone().unwrap_or_default();
    labels.retain(|name, _| !name.contains("controller-uid") && !name.contains("job-name"));
    labels.insert(PART.to_owned(), part.name().to_owned());
    labels
}

/// Makes the pod of a run one that stores its state.
fn to_push(spec: &mut PodSpec, view: &JobView, keeping: &Keeping) {
    let volumes = spec.volumes.get_or_insert_default();
    volumes.retain(|volume| {
        volume.name != LATE_VOLUME && (volume.name != KEPT_VOLUME || keeping.secret.is_none())
    });
    for volume in volumes.iter_mut().filter(|volume| volume.name == ATTEMPT_VOLUME) {
        volume.secret = Some(SecretVolumeSource {
            secret_name: Some(keeping.push(view)),
            default_mode: Some(0o440),
            ..SecretVolumeSource::default()
        });
    }
    if let Some(base) = &keeping.secret {
        volumes.push(parts(base));
    }
    let Some(container) = spec.containers.iter_mut().find(|container| container.name == CONTAINER) else {
        return;
    };
    let there: Vec<&str> = volumes.iter().map(|volume| volume.name.as_str()).collect();
    let env = container.env.get_or_insert_default();
    env.retain(|variable| !OF_RUNS.contains(&variable.name.as_str()));
    for variable in env.iter_mut().filter(|variable| variable.name == STATE_STORE_VARIABLE) {
        variable.value = Some(STATE_DIR.to_owned());
    }
    let mounts = container.volume_mounts.get_or_insert_default();
    mounts.retain(|mount| {
        there.contains(&mount.name.as_str()) && (mount.name != KEPT_VOLUME || mount.mount_path == STATE_DIR)
    });
    if keeping.secret.is_some() {
        mounts.push(VolumeMount {
            name: KEPT_VOLUME.to_owned(),
            mount_path: STATE_DIR.to_owned(),
            read_only: Some(true),
            ..VolumeMount::default()
        });
    }
}

/// Every Secret that a state may be in, as one directory.
fn parts(base: &str) -> Volume {
    let source = |index: usize| VolumeProjection {
        secret: Some(SecretProjection {
            name: format!("{base}-{index}"),
            optional: Some(true),
            ..SecretProjection::default()
        }),
        ..VolumeProjection::default()
    };
    Volume {
        name: KEPT_VOLUME.to_owned(),
        projected: Some(ProjectedVolumeSource {
            default_mode: Some(0o440),
            sources: Some((0..MOST_PARTS).map(source).collect()),
        }),
        ..Volume::default()
    }
}

fn pod_spec(job: &Job) -> Option<&PodSpec> {
    job.spec.as_ref()?.template.spec.as_ref()
}

fn variable(container: &Container, name: &str) -> Option<String> {
    let env = container.env.as_deref().unwrap_or_default();
    env.iter().find(|variable| variable.name == name)?.value.clone()
}
