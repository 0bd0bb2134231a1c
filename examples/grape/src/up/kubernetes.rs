//! The Kubernetes cluster: its context, the namespace, the Secret with the key, the agent's pods.

use std::{fmt::Write as _, path::PathBuf};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::{
    steps::Step,
    tool::{Finished, Run, Tool},
};
use crate::{
    control_plane::project::Project,
    failure::{Failure, FailureKind, Result},
};

/// The label with the cluster of a Secret's key.
const CLUSTER_LABEL: &str = "tendril.dev/cluster";

/// How a Kubernetes cluster is reached, and where in it the agent is.
#[derive(Debug, Clone)]
pub(super) struct Kubernetes {
    /// Context of kubectl and Helm.
    pub(super) context: String,
    /// A kubeconfig of our own; the user's without one.
    pub(super) kubeconfig: Option<PathBuf>,
    /// Namespace of the agent.
    pub(super) namespace: String,
    /// The release, the Secret and the `StatefulSet`.
    pub(super) release: String,
}

/// The context that kubectl uses by itself.
pub(super) async fn current_context() -> Result<String> {
    let printed = Tool::kubectl().command(["config", "current-context"]).quiet().await?;
    let context = printed.out.trim();
    if printed.ok() && !context.is_empty() {
        return Ok(context.to_owned());
    }
    Err(Failure::new(FailureKind::NoKubernetes, "kubectl has no current context: it is not known which Kubernetes cluster is meant.")
        .next("Name one with --context (`kubectl config get-contexts` lists them), or make one: `aws eks update-kubeconfig --name …`."))
}

impl Kubernetes {
    /// Begins a command of kubectl in this context and namespace.
    pub(super) fn kubectl(&self, arguments: &[&str]) -> Run {
        let place = ["--context", &self.context, "--namespace", &self.namespace];
        self.at(Tool::kubectl().command(place.iter().chain(arguments)))
    }

    /// Begins a command of Helm in this context and namespace.
    pub(super) fn helm(&self, arguments: &[String]) -> Run {
        let place = ["--kube-context", &self.context, "--namespace", &self.namespace].map(str::to_owned);
        self.at(Tool::helm().command(arguments.iter().chain(&place)))
    }

    fn at(&self, run: Run) -> Run {
        match &self.kubeconfig {
            Some(file) => run.env("KUBECONFIG", file),
            None => run,
        }
    }

    /// Makes the namespace, where it is not there. The first exchange with the cluster: it shows whether the cluster can be reached.
    pub(super) async fn namespace(&self, step: &Step<'_>) -> Result<bool> {
        let found = self
            .kubectl(&["get", "namespace", &self.namespace, "--output", "name"])
            .finish(|line| step.note(line))
            .await?;
        if found.ok() {
            return Ok(false);
        }
        if !found.tail.contains("NotFound") && !found.tail.contains("not found")
            || found.tail.contains("context")
        {
            return Err(self.unreachable(&found));
        }
        let made =
            self.kubectl(&["create", "namespace", &self.namespace]).finish(|line| step.note(line)).await?;
        // Two at once: the other one was quicker.
        if made.ok() || made.tail.contains("AlreadyExists") {
            Ok(true)
        } else {
            Err(self.failed("create namespace", &made))
        }
    }

    /// Whether the Secret is there with a key of this cluster, for this project.
    pub(super) async fn has_key(&self, project: &Project, cluster: Uuid) -> Result<bool> {
        let label = format!("--selector={CLUSTER_LABEL}={cluster}");
        let printed = self.kubectl(&["get", "secret", &label, "--output", "json"]).quiet().await?;
        if !printed.ok() {
            return Err(self.failed("get secret", &printed));
        }
        let printed = Zeroizing::new(printed.out);
        let list: Value = serde_json::from_str(&printed).unwrap_or_default();
        let url = STANDARD.encode(&project.profile.url);
        let ours = |secret: &&Value| {
            let text = |pointer: &str| secret.pointer(pointer).and_then(Value::as_str);
            text("/metadata/name") == Some(&self.release)
                && text("/data/TENDRIL_AGENT_TOKEN").is_some_and(|key| !key.is_empty())
                && text("/data/SUPABASE_URL") == Some(&url)
        };
        Ok(list
            .get("items")
            .and_then(Value::as_array)
            .is_some_and(|items| items.iter().any(|item| ours(&item))))
    }

    /// Writes the Secret. It goes through stdin: in no argument, in no file. Server-side, so that no annotation repeats it.
    pub(super) async fn write_key(&self, project: &Project, cluster: Uuid, key: &str) -> Result<()> {
        let manifest = json!({
            "apiVersion": "v1", "kind": "Secret", "type": "Opaque",
            "metadata": {
                "name": self.release, "namespace": self.namespace,
                "labels": { CLUSTER_LABEL: cluster.to_string(), "app.kubernetes.io/managed-by": "grape" },
            },
            "stringData": {
                "SUPABASE_URL": project.profile.url, "SUPABASE_PUBLISHABLE_KEY": project.profile.key, "TENDRIL_AGENT_TOKEN": key,
            },
        });
        let run = self.kubectl(&[
            "apply",
            "--server-side",
            "--force-conflicts",
            "--field-manager=grape",
            "--filename=-",
        ]);
        let written = run.input(manifest.to_string().into_bytes()).quiet().await?;
        if written.ok() { Ok(()) } else { Err(self.failed("apply (Secret)", &written)) }
    }

    /// How the agent's pods are, in a line.
    pub(super) async fn pods(&self) -> Result<String> {
        let selector = format!("--selector=app.kubernetes.io/instance={}", self.release);
        let printed = self.kubectl(&["get", "pods", &selector, "--no-headers"]).quiet().await?;
        let pods: Vec<_> = printed
            .out
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>())
            .filter_map(|columns| Some(format!("{} {}", columns.first()?, columns.get(2)?)))
            .collect();
        Ok(if pods.is_empty() { "no pod yet".to_owned() } else { pods.join(", ") })
    }

    /// What explains that the agent does not come online: events of the namespace, and the last lines of the pod.
    pub(super) async fn evidence(&self) -> String {
        let selector = format!("--selector=app.kubernetes.io/instance={}", self.release);
        let questions: [(&str, Vec<&str>); 3] = [
            ("Pods", vec!["get", "pods", &selector]),
            ("Events", vec!["get", "events", "--sort-by=.lastTimestamp"]),
            ("Log", vec!["logs", &selector, "--all-containers", "--tail=20"]),
        ];
        let mut text = String::new();
        for (title, arguments) in questions {
            if let Ok(printed) = self.kubectl(&arguments).quiet().await {
                let lines: Vec<_> = printed
                    .out
                    .lines()
                    .chain(if printed.ok() { "" } else { &printed.tail }.lines())
                    .collect();
                let last = &lines[lines.len().saturating_sub(20)..];
                if !last.is_empty() {
                    // Writing to a String cannot fail.
                    let _ = writeln!(text, "{title}:\n  {}", last.join("\n  "));
                }
            }
        }
        text
    }

    fn unreachable(&self, finished: &Finished) -> Failure {
        let tail = finished.tail.trim();
        if let Some(failure) = super::terraform::credentials(tail) {
            return failure;
        }
        let missing = tail.contains("does not exist")
            || tail.contains("no context exists")
            || tail.contains("context was not found");
        let failure = if missing {
            format!("kubectl has no context `{}`.", self.context)
        } else {
            format!(
                "The Kubernetes cluster of context `{}` does not answer: {}",
                self.context,
                tail.lines().last().unwrap_or_default()
            )
        };
        Failure::new(FailureKind::NoKubernetes, failure).next(if missing {
            "`kubectl config get-contexts` lists them; name one with --context."
        } else {
            "Try `kubectl get namespaces`. Where its API is private, be in its network; where it is public, be in its public_access_cidrs."
        })
    }

    /// A command that failed, with its last output.
    pub(super) fn failed(&self, command: &str, finished: &Finished) -> Failure {
        Failure::new(
            FailureKind::StepFailed,
            format!("kubectl {command} failed in context {}:\n{}", self.context, finished.tail.trim()),
        )
        .next("Fix the cause, then repeat the command: it continues where it stopped.")
    }
}
