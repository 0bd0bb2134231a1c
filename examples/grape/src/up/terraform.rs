//! One template, run by Terraform on this machine, with its state in a directory of its own.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use serde_json::{Map, Value};

use super::{
    steps::{Step, Went},
    tool::{Finished, Run, Tool},
};
use crate::{
    context::Context,
    failure::{Failure, FailureKind, Result},
    session::private_file::write_private,
};

/// Values of variables, beside the template.
const VALUES: &str = "zz_grape.auto.tfvars.json";

/// One that a killed `up` started may still be ending.
const LOCK: &str = "-lock-timeout=2m";

/// A template with its state.
#[derive(Debug)]
pub(super) struct Workspace {
    /// The template's name.
    pub(super) template: String,
    dir: PathBuf,
    terraform: Tool,
}

/// An output of a template.
#[derive(Deserialize)]
struct Output {
    value: Value,
    #[serde(default)]
    sensitive: bool,
}

impl Workspace {
    /// The workspace of a template, made or brought up to date from its folder. State and settings that are there stay.
    pub(super) fn prepare(home: &Path, templates: &Path, template: &str) -> Result<Self> {
        let workspace = Self::at(home, template);
        let source = templates.join(template);
        let copy = || -> io::Result<()> {
            fs::create_dir_all(&workspace.dir)?;
            for entry in fs::read_dir(&source)? {
                let entry = entry?;
                if entry.file_type()?.is_file() {
                    fs::copy(entry.path(), workspace.dir.join(entry.file_name()))?;
                }
            }
            Ok(())
        };
        copy().map_err(|error| {
            Failure::new(
                FailureKind::Unexpected,
                format!("The template {} cannot be copied: {error}", source.display()),
            )
            .caused_by(error)
        })?;
        Ok(workspace)
    }

    /// The workspace that an earlier run made.
    pub(super) fn at(home: &Path, template: &str) -> Self {
        Self { template: template.to_owned(), dir: home.join(template), terraform: Tool::terraform() }
    }

    /// Whether there is a workspace: whether `up` came that far.
    pub(super) fn exists(&self) -> bool {
        self.dir.is_dir()
    }

    /// Whether it works on AWS.
    pub(super) fn needs_aws(&self) -> bool {
        let entries = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        let files = entries
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "tf"));
        files.filter_map(|path| fs::read_to_string(path).ok()).any(|text| text.contains("\"hashicorp/aws\""))
    }

    /// Whether the template has a variable of this name.
    pub(super) fn declares(&self, variable: &str) -> bool {
        let text = fs::read_to_string(self.dir.join("variables.tf")).unwrap_or_default();
        text.contains(&format!("variable \"{variable}\""))
    }

    /// Sets the values of its variables.
    pub(super) fn set(&self, values: &Map<String, Value>) -> Result<()> {
        let text = serde_json::to_vec_pretty(values).map_err(io::Error::from)?;
        Ok(write_private(&self.dir.join(VALUES), &text)?)
    }

    /// The values that were set last.
    pub(super) fn values(&self) -> Map<String, Value> {
        let text = fs::read(self.dir.join(VALUES)).unwrap_or_default();
        serde_json::from_slice(&text).unwrap_or_default()
    }

    /// Plans; where something would change, prompts and applies exactly that plan.
    pub(super) async fn apply(&self, step: &Step<'_>, context: &Context, yes: bool) -> Result<Went> {
        self.init(step).await?;
        let plan = self
            .terraform(
                step,
                &["plan", "-input=false", "-no-color", LOCK, "-detailed-exitcode", "-out=grape.plan"],
            )
            .await?;
        match plan.code {
            0 => return Ok(Went::Unchanged),
            2 => {}
            _ => return Err(self.failed("plan", &plan)),
        }
        let summary =
            plan.out.lines().find(|line| line.starts_with("Plan:")).unwrap_or("Outputs change.").to_owned();
        let question = format!("{}: {summary} Apply it?", self.template);
        if !yes {
            step.pause(async {
                context.out.note(&plan.out);
                context.confirm(question, false).await
            })
            .await?;
        }
        let apply = self.terraform(step, &["apply", "-input=false", "-no-color", LOCK, "grape.plan"]).await?;
        let _ = fs::remove_file(self.dir.join("grape.plan"));
        if apply.ok() { Ok(Went::Done) } else { Err(self.failed("apply", &apply)) }
    }

    /// Destroys everything that it made.
    pub(super) async fn destroy(&self, step: &Step<'_>) -> Result<Went> {
        self.init(step).await?;
        if !self.has_resources(step).await? {
            return Ok(Went::Unchanged);
        }
        let destroy =
            self.terraform(step, &["destroy", "-input=false", "-no-color", LOCK, "-auto-approve"]).await?;
        if destroy.ok() { Ok(Went::Done) } else { Err(self.failed("destroy", &destroy)) }
    }

    async fn has_resources(&self, step: &Step<'_>) -> Result<bool> {
        let list = self.terraform(step, &["state", "list"]).await?;
        // Without a state there is nothing to list, which Terraform calls an error.
        Ok(list.ok() && !list.out.trim().is_empty())
    }

    /// Its outputs, without the sensitive ones.
    pub(super) async fn outputs(&self, step: &Step<'_>) -> Result<Map<String, Value>> {
        step.note("outputs");
        // In silence: sensitive ones are printed too.
        let printed = self.command(&["output", "-json", "-no-color"]).quiet().await?;
        if !printed.ok() {
            return Err(self.failed("output", &printed));
        }
        let outputs: std::collections::BTreeMap<String, Output> = serde_json::from_str(&printed.out)
            .map_err(|error| {
                Failure::new(
                    FailureKind::StepFailed,
                    format!("The outputs of {} cannot be read: {error}", self.template),
                )
            })?;
        Ok(outputs
            .into_iter()
            .filter(|(_, output)| !output.sensitive)
            .map(|(name, output)| (name, output.value))
            .collect())
    }

    async fn init(&self, step: &Step<'_>) -> Result<()> {
        let init = self.terraform(step, &["init", "-input=false", "-no-color"]).await?;
        if init.ok() { Ok(()) } else { Err(self.failed("init", &init)) }
    }

    async fn terraform(&self, step: &Step<'_>, arguments: &[&str]) -> Result<Finished> {
        self.command(arguments).finish(|line| step.note(line)).await
    }

    fn command(&self, arguments: &[&str]) -> Run {
        // Its hints about other commands make no sense here.
        self.terraform.command(arguments).directory(&self.dir).env("TF_IN_AUTOMATION", "1")
    }

    fn failed(&self, command: &str, finished: &Finished) -> Failure {
        let tail = finished.tail.trim();
        if let Some(failure) = credentials(tail) {
            return failure;
        }
        let name = self.terraform.name();
        if finished.code == 130 || tail.contains("Interrupt received") {
            return Failure::new(
                FailureKind::Interrupted,
                format!("{name} {command} of {} was interrupted.", self.template),
            )
            .next("Repeat the command: it continues where it stopped.");
        }
        let locked = if tail.contains("Error acquiring the state lock") {
            "\nSomebody else works on this state, or died of it: its ID is above, and `terraform force-unlock ID` frees it."
        } else {
            ""
        };
        Failure::new(FailureKind::StepFailed, format!("{name} {command} of {} failed:\n{tail}", self.template)).next(format!(
            "Its files and state are in {}. Fix the cause, then repeat the command: it continues where it stopped.{locked}",
            self.dir.display()
        ))
    }
}

/// Messages of AWS and its provider without credentials, or with ones that are not accepted.
pub(super) fn credentials(text: &str) -> Option<Failure> {
    const SIGNS: [&str; 8] = [
        "No valid credential sources",
        "Unable to locate credentials",
        "ExpiredToken",
        "InvalidClientTokenId",
        "UnrecognizedClientException",
        "The security token included in the request is",
        "The config profile",
        "SSO session",
    ];
    SIGNS.iter().any(|sign| text.contains(sign)).then(|| {
        let last = text.lines().find(|line| SIGNS.iter().any(|sign| line.contains(sign))).unwrap_or_default();
        let last = last.trim_start_matches(['│', '╷', ' ']);
        Failure::new(FailureKind::NoCloudCredentials, format!("There are no AWS credentials that are accepted: {last}"))
            .next("Sign in to AWS (`aws sso login`), or set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY. `aws sts get-caller-identity` must answer.")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_credentials_are_told_from_other_failures() {
        let text = "╷\n│ Error: No valid credential sources found\n│ \n╵";
        let failure = credentials(text).unwrap();
        assert_eq!(failure.kind(), FailureKind::NoCloudCredentials);
        assert!(failure.to_string().ends_with("Error: No valid credential sources found"), "{failure}");
        assert!(credentials("Error: creating EKS Cluster: UnsupportedAvailabilityZone").is_none());
    }

    #[test]
    fn a_workspace_keeps_its_state_when_the_template_is_copied_again() {
        let home = tempfile::tempdir().unwrap();
        let templates = home.path().join("templates");
        fs::create_dir_all(templates.join("vpc")).unwrap();
        fs::write(templates.join("vpc/main.tf"), "source = \"hashicorp/aws\"").unwrap();
        let workspace = Workspace::prepare(&home.path().join("state"), &templates, "vpc").unwrap();
        assert!(workspace.needs_aws());
        fs::write(workspace.dir.join("terraform.tfstate"), "{}").unwrap();
        fs::write(templates.join("vpc/main.tf"), "").unwrap();
        let workspace = Workspace::prepare(&home.path().join("state"), &templates, "vpc").unwrap();
        assert!(!workspace.needs_aws() && workspace.dir.join("terraform.tfstate").is_file());
    }
}
