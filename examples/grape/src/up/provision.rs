//! The Kubernetes cluster, made by templates, and the way to it.

use serde_json::{Map, Value};

use super::{
    Up, inputs,
    steps::{Step, Went},
    terraform::{self, Workspace},
    tool::Tool,
};
use crate::failure::{Failure, FailureKind, Result};

impl Up<'_> {
    /// Whether everything is installed: better now than after twenty minutes.
    pub(super) async fn tools(&mut self) -> Result<()> {
        let provision = !self.options.skip_provision;
        let begun = self.steps.begin("tools");
        begun
            .run(async |_: &Step<'_>| {
                Tool::kubectl().command(["version", "--client"]).quiet().await?;
                Tool::helm().command(["version", "--short"]).quiet().await?;
                if provision {
                    Tool::terraform().command(["version"]).quiet().await?;
                }
                Ok(Went::Unchanged)
            })
            .await?;
        self.go_on()
    }

    /// Each template in its turn; outputs of one are inputs of the next.
    pub(super) async fn provision(&mut self) -> Result<()> {
        let (context, options) = (self.context, self.options);
        let templates = self.record.templates.clone();
        let inputs = inputs::Inputs::read(options, &self.record, &templates)?;
        let mut outputs = Map::new();
        for template in &templates {
            let workspace = Workspace::prepare(&self.journal.dir, &options.templates_dir, template)?;
            let values = inputs.of(template, workspace.values(), &outputs)?;
            workspace.set(&values)?;
            if workspace.needs_aws() {
                self.credentials().await?;
            }
            let begun = self.steps.begin(format!("provision {template}"));
            begun
                .run(async |step: &Step<'_>| {
                    let went = workspace.apply(step, context, options.yes).await?;
                    outputs.extend(workspace.outputs(step).await?);
                    Ok(went)
                })
                .await?;
            self.go_on()?;
        }
        let aws = templates.iter().any(|template| Workspace::at(&self.journal.dir, template).needs_aws());
        if aws && options.kubernetes.context.is_none() {
            self.kubeconfig(&outputs).await?;
        }
        Ok(())
    }

    /// Whether AWS accepts the credentials.
    async fn credentials(&self) -> Result<()> {
        let answer = Tool::aws().command(["sts", "get-caller-identity", "--output", "json"]).quiet().await?;
        if answer.ok() {
            return Ok(());
        }
        Err(terraform::credentials(&answer.tail).unwrap_or_else(|| {
            Failure::new(
                FailureKind::NoCloudCredentials,
                format!("AWS does not accept the credentials: {}", answer.tail.trim()),
            )
            .next("`aws sts get-caller-identity` must answer. Sign in (`aws sso login`), or set AWS_PROFILE.")
        }))
    }

    /// The way to the cluster that was made: a kubeconfig beside the state, so that the user's own is left alone.
    async fn kubeconfig(&mut self, outputs: &Map<String, Value>) -> Result<()> {
        let Some(name) = outputs.get("cluster_name").and_then(Value::as_str) else { return Ok(()) };
        let file = self.journal.dir.join("kubeconfig");
        let region = self.record.region.clone().unwrap_or_default();
        let alias = self.options.name.clone();
        let path = file.display().to_string();
        let begun = self.steps.begin("kubeconfig");
        begun
            .run(async |step: &Step<'_>| {
                let message = [
                    "eks",
                    "update-kubeconfig",
                    "--name",
                    name,
                    "--region",
                    &region,
                    "--alias",
                    &alias,
                    "--kubeconfig",
                    &path,
                ];
                let made = Tool::aws().command(message).finish(|line| step.note(line)).await?;
                if made.ok() {
                    return Ok(Went::Done);
                }
                Err(terraform::credentials(&made.tail).unwrap_or_else(|| {
                    Failure::new(
                        FailureKind::StepFailed,
                        format!("aws eks update-kubeconfig failed: {}", made.tail.trim()),
                    )
                }))
            })
            .await?;
        (self.record.context, self.record.kubeconfig) = (Some(alias), Some(file));
        self.journal.write(&self.record)
    }
}
