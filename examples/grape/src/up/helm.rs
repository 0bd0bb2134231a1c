//! The agent's chart, installed by Helm.

use std::path::PathBuf;

use serde_json::Value;

use super::{
    kubernetes::Kubernetes,
    steps::{Step, Went},
    tool::Finished,
};
use crate::failure::{Failure, FailureKind, Result};

/// Which chart, with which values.
#[derive(Debug, Clone)]
pub(super) struct Chart {
    /// A directory, or `oci://…`.
    pub(super) name: String,
    /// Its version, where it comes from a registry.
    pub(super) version: Option<String>,
    /// Files of values.
    pub(super) files: Vec<PathBuf>,
    /// Single values.
    pub(super) set: Vec<String>,
}

impl Chart {
    /// Helm's values; the key is in the Secret, of which only the name is here.
    pub(super) fn arguments(&self, release: &str) -> Vec<String> {
        let mut arguments: Vec<String> =
            ["upgrade", "--install", release, &self.name].map(str::to_owned).into();
        if let Some(version) = &self.version {
            arguments.extend(["--version".to_owned(), version.clone()]);
        }
        for file in &self.files {
            arguments.extend(["--values".to_owned(), file.display().to_string()]);
        }
        // A changed Secret is taken without a restart: a key can be rotated later.
        for value in
            [format!("existingSecret={release}"), "tokenFrom=file".to_owned()].iter().chain(&self.set)
        {
            arguments.extend(["--set".to_owned(), value.clone()]);
        }
        arguments
    }

    /// Installs the chart, or upgrades it to the current options.
    pub(super) async fn install(&self, kubernetes: &Kubernetes, step: &Step<'_>) -> Result<Went> {
        recover(kubernetes, step).await?;
        let run = kubernetes.helm(&self.arguments(&kubernetes.release));
        let installed = run.finish(|line| step.note(line)).await?;
        if installed.ok() { Ok(Went::Done) } else { Err(failed("upgrade --install", &installed)) }
    }
}

/// A Helm that was killed leaves its release in the middle of something, and the next one refuses to touch it.
async fn recover(kubernetes: &Kubernetes, step: &Step<'_>) -> Result<()> {
    let release = kubernetes.release.clone();
    let arguments =
        |message: &[&str]| message.iter().map(|argument| (*argument).to_owned()).collect::<Vec<_>>();
    let printed = kubernetes.helm(&arguments(&["status", &release, "--output", "json"])).quiet().await?;
    if !printed.ok() {
        // No such release; or no such cluster, which the installation reports better.
        return Ok(());
    }
    let status: Value = serde_json::from_str(&printed.out).unwrap_or_default();
    let way = match status.pointer("/info/status").and_then(Value::as_str) {
        Some("pending-install" | "uninstalling") => arguments(&["uninstall", &release]),
        Some("pending-upgrade" | "pending-rollback") => arguments(&["rollback", &release]),
        _ => return Ok(()),
    };
    step.note("an earlier helm was interrupted: its release is repaired");
    let recovered = kubernetes.helm(&way).finish(|line| step.note(line)).await?;
    if recovered.ok() { Ok(()) } else { Err(failed(&way[0], &recovered)) }
}

/// Uninstalls the release; waits for running jobs to end gracefully, within the chart's grace period.
pub(super) async fn uninstall(kubernetes: &Kubernetes, step: &Step<'_>) -> Result<Went> {
    let message = ["uninstall", &kubernetes.release, "--ignore-not-found", "--wait", "--timeout", "30m"]
        .map(str::to_owned);
    let gone = kubernetes.helm(&message).finish(|line| step.note(line)).await?;
    match (gone.ok(), gone.out.contains("not found") || gone.tail.contains("not found")) {
        (true, false) => Ok(Went::Done),
        (_, true) => Ok(Went::Unchanged),
        (false, false) => Err(failed("uninstall", &gone)
            .next("Where the Kubernetes cluster is gone already: --skip-agent. Otherwise fix the cause, and repeat the command.")),
    }
}

fn failed(command: &str, finished: &Finished) -> Failure {
    Failure::new(FailureKind::StepFailed, format!("helm {command} failed:\n{}", finished.tail.trim()))
        .next("The chart's message names the value that it refuses. Fix it, then repeat the command: it continues where it stopped.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn helm_is_told_the_secrets_name_and_never_the_key() {
        let chart = Chart {
            name: "oci://ghcr.io/tendril-dev/charts/tendril-agent".to_owned(),
            version: Some("0.1.0".to_owned()),
            files: vec!["mine.yaml".into()],
            set: vec!["concurrency=4".to_owned()],
        };
        // scripts/check-chart.py checks these values as it checks all others.
        assert_eq!(
            chart.arguments("tendril-agent").join(" "),
            "upgrade --install tendril-agent oci://ghcr.io/tendril-dev/charts/tendril-agent --version 0.1.0 --values mine.yaml \
             --set existingSecret=tendril-agent --set tokenFrom=file --set concurrency=4"
        );
    }
}
