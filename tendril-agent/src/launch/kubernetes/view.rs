//! What is kept of a Job and its pod: a few words each, so that hundreds of them are small.

use k8s_openapi::{
    api::{
        batch::v1::Job,
        core::v1::{ContainerStatus, Pod},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use uuid::Uuid;

use crate::launch::{
    attempt_file::AttemptId,
    kubernetes::{
        names::{ATTEMPT, CLAIM, DEPLOYMENT, PART, Part, STACK},
        settings::CONTAINER,
    },
};

/// A Job of this agent's cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct JobView {
    pub(crate) name: String,
    pub(crate) uid: String,
    pub(crate) id: AttemptId,
    pub(crate) part: Part,
    /// Digest of its claim.
    pub(crate) claim: Option<String>,
    /// The state that it works on.
    pub(crate) stack: Option<String>,
    /// `activeDeadlineSeconds`.
    pub(crate) deadline: Option<i64>,
    /// When it was made, in seconds since 1970.
    pub(crate) created: i64,
    /// Whether it is being deleted.
    pub(crate) leaves: bool,
    /// Why it is failing, while its pod may still run.
    pub(crate) failing: Option<Cause>,
    /// How it ended; none, while it has not.
    pub(crate) finished: Option<Finished>,
}

/// Reason and message of a condition or state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cause {
    pub(crate) reason: String,
    pub(crate) message: String,
}

/// The end of a Job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Finished {
    Complete,
    Failed(Cause),
}

/// The pod of a Job.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PodView {
    pub(crate) name: String,
    pub(crate) uid: String,
    /// Name of its Job.
    pub(crate) job: String,
    pub(crate) node: Option<String>,
    pub(crate) image: String,
    /// `Pending`, `Running`, `Succeeded`, `Failed`.
    pub(crate) phase: String,
    /// No node can take it.
    pub(crate) unschedulable: Option<String>,
    /// What it asks a node for, as text: `memory 512Mi`.
    pub(crate) requests: Vec<(String, String)>,
    /// Its memory limit.
    pub(crate) memory_limit: Option<String>,
    /// Its container does not run yet.
    pub(crate) waiting: Option<Cause>,
    /// Its container has ended.
    pub(crate) terminated: Option<Terminated>,
    /// Of the whole pod, such as `Evicted`.
    pub(crate) cause: Option<Cause>,
    /// It is being ended from outside.
    pub(crate) disruption: Option<Cause>,
    /// Its node does not answer.
    pub(crate) is_silent: bool,
    /// Somebody deleted it.
    pub(crate) leaves: bool,
    /// Its object is gone: what is kept of it is what was seen last.
    pub(crate) is_gone: bool,
}

/// How a container ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Terminated {
    pub(crate) code: i32,
    /// `Completed`, `Error`, `OOMKilled`, `StartError`, `ContainerStatusUnknown`.
    pub(crate) reason: String,
    /// What the program or the kubelet said.
    pub(crate) message: String,
    /// When, in seconds since 1970.
    pub(crate) at: Option<i64>,
}

impl Terminated {
    /// Whether it ended later than that, in seconds since 1970; false, where either is not known.
    pub(crate) fn is_after(&self, since: Option<i64>) -> bool {
        since.zip(self.at).is_some_and(|(since, at)| at > since)
    }
}

impl JobView {
    /// None, if its labels are not those of a run.
    pub(crate) fn of(job: &Job) -> Option<Self> {
        let metadata = &job.metadata;
        let annotation = |name: &str| metadata.annotations.as_ref()?.get(name).cloned();
        let identity = Self {
            name: metadata.name.clone()?,
            uid: metadata.uid.clone()?,
            id: id(metadata)?,
            part: Part::parse(label(metadata, PART)?)?,
            claim: annotation(CLAIM),
            stack: annotation(STACK),
            deadline: job.spec.as_ref().and_then(|spec| spec.active_deadline_seconds),
            created: metadata.creation_timestamp.as_ref().map_or(0, |time| time.0.as_second()),
            leaves: false,
            failing: None,
            finished: None,
        };
        Some(identity.now(job))
    }

    /// The same Job, as it is now. Whose it is, is what was read first: labels and annotations can be changed by hand.
    pub(crate) fn now(self, job: &Job) -> Self {
        let status = job.status.as_ref();
        let condition = |kind: &str| {
            let conditions = status.and_then(|status| status.conditions.as_deref()).unwrap_or_default();
            let found = conditions.iter().find(|there| there.type_ == kind && there.status == "True")?;
            Some(cause(found.reason.as_deref(), found.message.as_deref()))
        };
        let finished = if condition("Complete").is_some() {
            Some(Finished::Complete)
        } else {
            condition("Failed").map(Finished::Failed)
        };
        Self {
            leaves: job.metadata.deletion_timestamp.is_some(),
            failing: condition("FailureTarget"),
            finished,
            ..self
        }
    }
}

impl PodView {
    /// None, if it belongs to no Job.
    pub(crate) fn of(pod: &Pod) -> Option<Self> {
        let metadata = &pod.metadata;
        let job = label(metadata, "batch.kubernetes.io/job-name").or_else(|| label(metadata, "job-name"))?;
        let spec = pod.spec.as_ref();
        let run = spec.and_then(|spec| spec.containers.iter().find(|container| container.name == CONTAINER));
        let resources = run.and_then(|run| run.resources.as_ref());
        let amounts = |all: Option<&std::collections::BTreeMap<String, _>>| {
            all.into_iter()
                .flatten()
                .map(|(name, amount): (&String, &k8s_openapi::apimachinery::pkg::api::resource::Quantity)| {
                    (name.clone(), amount.0.clone())
                })
                .collect::<Vec<_>>()
        };
        let status = pod.status.as_ref();
        let condition = |kind: &str, wanted: &str| {
            let conditions = status.and_then(|status| status.conditions.as_deref()).unwrap_or_default();
            let found = conditions.iter().find(|there| there.type_ == kind && there.status == wanted)?;
            Some(cause(found.reason.as_deref(), found.message.as_deref()))
        };
        let phase = status.and_then(|status| status.phase.clone()).unwrap_or_default();
        let container = status
            .and_then(|status| status.container_statuses.as_deref())
            .and_then(|all| all.iter().find(|container| container.name == CONTAINER));
        let state = container.and_then(|container| container.state.as_ref());
        let is_ready_container = container.is_some_and(|container| container.ready);
        Some(Self {
            name: metadata.name.clone()?,
            uid: metadata.uid.clone().unwrap_or_default(),
            job: job.to_owned(),
            node: spec.and_then(|spec| spec.node_name.clone()),
            image: run.and_then(|run| run.image.clone()).unwrap_or_default(),
            unschedulable: condition("PodScheduled", "False")
                .filter(|cause| cause.reason == "Unschedulable")
                .map(|cause| cause.message),
            requests: amounts(resources.and_then(|resources| resources.requests.as_ref())),
            memory_limit: resources
                .and_then(|resources| resources.limits.as_ref()?.get("memory"))
                .map(|amount| amount.0.clone()),
            waiting: state
                .and_then(|state| state.waiting.as_ref())
                .map(|waiting| cause(waiting.reason.as_deref(), waiting.message.as_deref())),
            terminated: container.and_then(terminated),
            cause: status
                .filter(|status| status.reason.is_some())
                .map(|status| cause(status.reason.as_deref(), status.message.as_deref())),
            disruption: condition("DisruptionTarget", "True"),
            // The node controller changes the pod's condition and leaves the container's status as it was.
            is_silent: phase == "Running" && is_ready_container && condition("Ready", "False").is_some(),
            leaves: metadata.deletion_timestamp.is_some(),
            is_gone: false,
            phase,
        })
    }

    /// Whether its container is being created, for which only events say why it takes long.
    pub(crate) fn is_created_silently(&self) -> bool {
        self.waiting.as_ref().is_some_and(|waiting| waiting.reason == "ContainerCreating")
    }

    /// Of one that ended well: hundreds of them are kept, and nobody asks any more.
    pub(crate) fn forget_message(&mut self) {
        if let Some(ended) = self.terminated.as_mut().filter(|ended| ended.code == 0) {
            ended.message = String::new();
        }
    }

    /// Whether its container runs.
    pub(crate) fn is_running(&self) -> bool {
        self.phase == "Running" && self.terminated.is_none() && self.waiting.is_none()
    }
}

fn terminated(container: &ContainerStatus) -> Option<Terminated> {
    let ended = container.state.as_ref()?.terminated.as_ref()?;
    Some(Terminated {
        code: ended.exit_code,
        reason: ended.reason.clone().unwrap_or_default(),
        message: ended.message.clone().unwrap_or_default(),
        at: ended.finished_at.as_ref().map(|time| time.0.as_second()),
    })
}

fn cause(reason: Option<&str>, message: Option<&str>) -> Cause {
    Cause { reason: reason.unwrap_or_default().to_owned(), message: message.unwrap_or_default().to_owned() }
}

fn label<'a>(metadata: &'a ObjectMeta, name: &str) -> Option<&'a str> {
    metadata.labels.as_ref()?.get(name).map(String::as_str)
}

fn id(metadata: &ObjectMeta) -> Option<AttemptId> {
    Some(AttemptId {
        deployment_id: Uuid::parse_str(label(metadata, DEPLOYMENT)?).ok()?,
        attempt: label(metadata, ATTEMPT)?.parse().ok()?,
    })
}
