//! How runs become pods.

use std::{collections::BTreeMap, path::Path, time::Duration};

use k8s_openapi::{
    api::core::v1::{Container, PodTemplateSpec},
    apimachinery::pkg::api::resource::Quantity,
};

use crate::launch::kubernetes::{account_map::AccountMap, yaml};

/// Name of the container that runs the executor, in the pod template too.
pub(crate) const CONTAINER: &str = "run";

/// The settings of this launcher; made by `config`.
#[derive(Clone, Debug)]
pub(crate) struct KubernetesSettings {
    /// Namespace of the runs; none: that of the agent's own service account, or of the kubeconfig's context.
    pub(crate) namespace: Option<String>,
    /// Image of the executor. Its entry point is this program.
    pub(crate) image: String,
    /// `Always`, `IfNotPresent`, `Never`; none: what Kubernetes makes of the tag.
    pub(crate) image_pull_policy: Option<String>,
    /// Which runs have which service account.
    pub(crate) accounts: AccountMap,
    /// What every pod of a run has beside what the launcher gives it.
    pub(crate) pod_template: PodTemplateSpec,
    /// How long a pod may take to start.
    pub(crate) start_deadline: Duration,
    /// How long a finished Job is kept.
    pub(crate) keep_finished: Duration,
    /// From SIGTERM to SIGKILL of a run: every rung of the ladder, and the last upload.
    pub(crate) grace: Duration,
    /// The longest that a run may take, with every stage at its own limit; none, if a stage has none.
    pub(crate) deadline: Option<Duration>,
    /// A claim that every node can mount, for plans that wait for approval; none: a Secret for each.
    pub(crate) plan_volume_claim: Option<String>,
    /// The account that makes those Secrets.
    pub(crate) plan_account: String,
    /// The longest that a run may take until its plan is kept; none, if a stage has no limit.
    pub(crate) plan_deadline: Option<Duration>,
    /// The Lease whose holder is at work; none: this agent is the only one.
    pub(crate) lease: Option<LeaseSettings>,
}

/// The Lease by which one of several dispatchers is at work.
#[derive(Clone, Debug)]
pub(crate) struct LeaseSettings {
    pub(crate) name: String,
    /// How long it holds without being renewed.
    pub(crate) duration: Duration,
    /// How long its holder works without having renewed it: less than that, so that nobody else has it by then.
    pub(crate) renew_deadline: Duration,
}

impl LeaseSettings {
    /// Between two renewals: with a minute, two requests a minute.
    pub(crate) fn renew_every(&self) -> Duration {
        self.renew_deadline * 3 / 5
    }

    /// Between two tries of a renewal that failed.
    pub(crate) fn retry_every(&self) -> Duration {
        (self.renew_deadline / 10).min(Duration::from_secs(3))
    }

    /// Between two looks of one that waits.
    pub(crate) fn look_every(&self) -> Duration {
        self.duration / 4
    }
}

impl KubernetesSettings {
    /// What a run may use where neither the pod template nor its rule says it.
    pub(crate) fn usual_resources() -> (BTreeMap<String, Quantity>, BTreeMap<String, Quantity>) {
        let amounts = |amounts: [(&str, &str); 3]| {
            amounts.map(|(name, amount)| (name.to_owned(), Quantity(amount.to_owned()))).into()
        };
        (
            amounts([("cpu", "250m"), ("memory", "512Mi"), ("ephemeral-storage", "2Gi")]),
            amounts([("cpu", "2"), ("memory", "2Gi"), ("ephemeral-storage", "10Gi")]),
        )
    }
}

/// Reads `--pod-template`: a `PodTemplateSpec` in YAML or JSON, whose container [`CONTAINER`] is the run's.
///
/// Errors: what is wrong with it.
pub(crate) fn pod_template(path: &Path) -> Result<PodTemplateSpec, String> {
    let flag = "--pod-template / TENDRIL_POD_TEMPLATE";
    let text = std::fs::read_to_string(path)
        .map_err(|error| format!("{flag} {}: it cannot be read ({error})", path.display()))?;
    let template: PodTemplateSpec = yaml::read(&text)
        .map_err(|why| format!("{flag} {}: it is no PodTemplateSpec ({why})", path.display()))?;
    check_template(&template).map_err(|why| format!("{flag} {}: {why}", path.display()))?;
    Ok(template)
}

fn check_template(template: &PodTemplateSpec) -> Result<(), String> {
    let Some(spec) = &template.spec else { return Ok(()) };
    if spec.restart_policy.as_deref().is_some_and(|policy| policy != "Never") {
        return Err("restartPolicy must be Never: an apply is never started twice".to_owned());
    }
    let is_run = |container: &&Container| container.name == CONTAINER;
    if !spec.containers.is_empty() && spec.containers.iter().filter(is_run).count() != 1 {
        let names: Vec<&str> = spec.containers.iter().map(|container| container.name.as_str()).collect();
        return Err(format!(
            "one container must have the name \"{CONTAINER}\", and it has {}",
            names.join(", ")
        ));
    }
    if let Some(run) = spec.containers.iter().find(is_run)
        && (run.command.is_some() || run.args.is_some())
    {
        return Err(format!("the container \"{CONTAINER}\" has a command or args: the agent sets them"));
    }
    Ok(())
}
