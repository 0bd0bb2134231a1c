//! How runs become pods.

use std::{collections::BTreeMap, path::Path, time::Duration};

use k8s_openapi::{
    api::core::v1::{Container, PodTemplateSpec},
    apimachinery::pkg::api::resource::Quantity,
};
use serde_json::Value;

use crate::launch::kubernetes::account_map::AccountMap;

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
    pub(crate) lease: Option<String>,
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

/// Fields of a pod that are texts and look like numbers or booleans.
const TEXTS: &[&str] = &["value", "sizeLimit"];
/// Fields whose fields are such texts.
const MAPS_OF_TEXTS: &[&str] =
    &["annotations", "labels", "limits", "matchLabels", "nodeSelector", "overhead", "requests"];

/// Reads `--pod-template`: a `PodTemplateSpec` in YAML or JSON, whose container [`CONTAINER`] is the run's.
///
/// Errors: what is wrong with it.
pub(crate) fn pod_template(path: &Path) -> Result<PodTemplateSpec, String> {
    let flag = "--pod-template / TENDRIL_POD_TEMPLATE";
    let text = std::fs::read_to_string(path)
        .map_err(|error| format!("{flag} {}: it cannot be read ({error})", path.display()))?;
    let template = template_in(&text)
        .map_err(|why| format!("{flag} {}: it is no PodTemplateSpec ({why})", path.display()))?;
    check_template(&template).map_err(|why| format!("{flag} {}: {why}", path.display()))?;
    Ok(template)
}

/// Reads the text by way of JSON, which pods are read from anyway: a second reader of every field of a pod would be a sixth of the program.
fn template_in(text: &str) -> Result<PodTemplateSpec, String> {
    let first_line = |error: String| error.lines().next().unwrap_or_default().to_owned();
    let mut value: Value = serde_saphyr::from_str(text).map_err(|error| first_line(error.to_string()))?;
    quote_scalars(&mut value);
    serde_json::from_str(&value.to_string()).map_err(|error| {
        let text = error.to_string();
        // The place is one in the JSON.
        text.split(" at line ").next().unwrap_or_default().to_owned()
    })
}

/// Makes texts of the numbers and booleans that people write without quotes where texts are meant, such as `cpu: 2`.
fn quote_scalars(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                if TEXTS.contains(&name.as_str()) {
                    quote(value);
                } else if MAPS_OF_TEXTS.contains(&name.as_str())
                    && let Value::Object(texts) = value
                {
                    texts.values_mut().for_each(quote);
                } else {
                    quote_scalars(value);
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(quote_scalars),
        _ => {}
    }
}

fn quote(value: &mut Value) {
    if matches!(value, Value::Number(_) | Value::Bool(_)) {
        *value = Value::String(value.to_string());
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_template_is_read_as_people_write_it() {
        let text = "
metadata:
  annotations: {example.com/restarts: 3, example.com/on: true}
spec:
  terminationGracePeriodSeconds: 30
  containers:
    - name: run
      env: [{name: PORT, value: 8080}, {name: DEBUG, value: true}]
      resources: {requests: {cpu: 2, memory: 1Gi}, limits: {cpu: 2.5}}
  tolerations: [{key: spot, value: true}]
  volumes: [{name: scratch, emptyDir: {sizeLimit: 1000}}]
";
        let template = template_in(text).unwrap();
        let json = serde_json::to_value(&template).unwrap();
        let run = &json["spec"]["containers"][0];
        assert_eq!(json["metadata"]["annotations"]["example.com/on"], "true");
        assert_eq!(json["spec"]["terminationGracePeriodSeconds"], 30);
        assert_eq!((&run["env"][0]["value"], &run["env"][1]["value"]), (&"8080".into(), &"true".into()));
        assert_eq!(run["resources"]["requests"]["cpu"], "2");
        assert_eq!(run["resources"]["limits"]["cpu"], "2.5");
        assert_eq!(json["spec"]["tolerations"][0]["value"], "true");
        assert_eq!(json["spec"]["volumes"][0]["emptyDir"]["sizeLimit"], "1000");
    }

    #[test]
    fn what_is_no_pod_template_is_said_in_one_sentence() {
        let why = template_in("spec: {containers: 3}").unwrap_err();
        assert_eq!(why, "invalid type: integer `3`, expected a sequence");
        let why = template_in("spec: [").unwrap_err();
        assert!(!why.is_empty() && !why.contains('\n'), "{why}");
    }
}
