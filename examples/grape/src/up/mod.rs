//! From nothing to ONLINE, and back. Every step can be repeated: it checks what exists and does what is missing.
//!
//! ```text
//! provision    the Kubernetes cluster, made by templates
//! registration the cluster's row, its key, the agent's first heartbeat
//! inputs       values of the templates' variables, from options and from outputs of the templates before
//! journal      options and progress, stored beside Terraform's state; one `up` at a time
//! terraform    one template and its state
//! kubernetes   context, namespace, the Secret with the key, pods
//! helm         the agent's chart
//! steps        progress
//! tool         a program of this machine
//! down         the way back
//! ```

pub mod down;
mod helm;
mod inputs;
mod journal;
mod kubernetes;
mod provision;
mod registration;
mod steps;
mod terraform;
mod tool;

use std::path::Path;

use futures_util::FutureExt as _;
use serde_json::json;
use tokio::signal::unix::{Signal, SignalKind, signal};

use self::{
    helm::Chart,
    journal::{Journal, Record},
    kubernetes::{Kubernetes, current_context},
    steps::{Step, Steps, Went},
};
use crate::{
    cli,
    context::Context,
    control_plane::{cluster::Cluster, project::Project},
    failure::{Failure, FailureKind, Result},
    output::style::Tone,
};

/// What makes a Kubernetes cluster on AWS from nothing, in this order.
const TEMPLATES: [&str; 4] = ["vpc", "eks-cluster", "eks-node-group", "eks-addons"];

/// One `up`, with what its steps share.
struct Up<'a> {
    context: &'a Context,
    options: &'a cli::Up,
    project: Project,
    journal: Journal,
    record: Record,
    steps: Steps,
    interrupt: Signal,
}

/// Brings a cluster online.
///
/// # Errors
/// Of the step that failed, with what to check. A repetition continues from there.
pub async fn up(context: &Context, options: &cli::Up) -> Result<()> {
    let project = context.project()?;
    // Before anything is made: is there a session, and is that our database?
    project.contract().await?;
    inspect_before(options)?;
    let journal = Journal::open(&context.dir, &project.name, &options.name, options.state_dir.as_deref())?;
    let record = record(journal.read()?, options, &project)?;
    if !options.skip_provision {
        // An invalid template or variable is refused before anything is recorded.
        inputs::Inputs::read(options, &record, &record.templates)?;
    }
    journal.write(&record)?;
    // Ctrl-C reaches Terraform too, which stops in good order: until then this program must not go.
    let interrupt = signal(SignalKind::interrupt())?;
    let steps = Steps::new(context.out);
    let mut up = Up { context, options, project, journal, record, steps, interrupt };
    let cluster = up.all().await?;

    if context.out.is_json() {
        return context.out.json_line(&json!({
            "type": "done", "cluster": cluster, "context": up.record.context, "kubeconfig": up.record.kubeconfig, "state": up.journal.dir,
        }));
    }
    let out = context.out;
    out.line(format_args!(
        "Cluster {} is {}.",
        out.style.paint(Tone::Bold, &cluster.name),
        out.style.paint(Tone::Good, &cluster.status)
    ))?;
    if let Some(file) = &up.record.kubeconfig {
        out.note(format_args!("  export KUBECONFIG={}", file.display()));
    }
    out.note(format_args!(
        "  grape templates --cluster {name}\n  grape deploy hello --cluster {name} --var name=world",
        name = cluster.name
    ));
    Ok(())
}

/// What can be known to fail before anything is made.
fn inspect_before(options: &cli::Up) -> Result<()> {
    let is_local = !options.chart.starts_with("oci://");
    if is_local
        && !Path::new(&options.chart).join("Chart.yaml").is_file()
        && !Path::new(&options.chart).is_file()
    {
        return Err(Failure::new(FailureKind::NotFound, format!("There is no Helm chart at {}.", options.chart))
            .next("Run this in a checkout of Tendril, or name the chart: --chart oci://ghcr.io/tendril-dev/charts/tendril-agent"));
    }
    if let Some(missing) = options.values.iter().find(|file| !file.is_file()) {
        return Err(Failure::new(
            FailureKind::Usage,
            format!("There is no file of values at {}.", missing.display()),
        ));
    }
    Ok(())
}

/// What is known from before, with the current options.
fn record(before: Option<Record>, options: &cli::Up, project: &Project) -> Result<Record> {
    let templates = if options.template.is_empty() {
        TEMPLATES.map(str::to_owned).into()
    } else {
        options.template.clone()
    };
    let Some(mut record) = before else {
        return Ok(Record {
            project: project.profile.url.clone(),
            region: options.region.clone(),
            templates: if options.skip_provision { Vec::new() } else { templates },
            context: options.kubernetes.context.clone(),
            kubeconfig: None,
            namespace: options.kubernetes.namespace.clone(),
            release: options.kubernetes.release.clone(),
            cluster: None,
            rotating: false,
        });
    };
    if record.project != project.profile.url {
        return Err(Failure::new(
            FailureKind::Refused,
            format!("{} was brought up for another project: {}.", options.name, record.project),
        )
        .next("Use the profile of that project (--profile), or another name."));
    }
    if !options.template.is_empty() && record.templates != options.template {
        if !options.template.starts_with(&record.templates) {
            let made = record.templates.join(", ");
            return Err(Failure::new(
                FailureKind::Refused,
                format!("{} was brought up with other templates: {made}.", options.name),
            )
            .next(
                "Leave --template out, or put further ones behind these, or start again after `grape down`.",
            ));
        }
        record.templates = templates;
    }
    if options.region.is_some() {
        record.region.clone_from(&options.region);
    }
    if let Some(context) = &options.kubernetes.context {
        record.context = Some(context.clone());
        record.kubeconfig = None;
    }
    Ok(record)
}

impl Up<'_> {
    async fn all(&mut self) -> Result<Cluster> {
        self.tools().await?;
        if !self.options.skip_provision {
            self.provision().await?;
        }
        let kubernetes = self.kubernetes().await?;
        let begun = self.steps.begin(format!("namespace {}", kubernetes.namespace));
        begun
            .run(async |step: &Step<'_>| {
                Ok(if kubernetes.namespace(step).await? { Went::Done } else { Went::Unchanged })
            })
            .await?;
        self.go_on()?;
        let cluster = self.cluster().await?;
        self.key(&kubernetes, &cluster).await?;
        self.go_on()?;
        let chart = Chart {
            name: self.options.chart.clone(),
            version: self.options.chart_version.clone(),
            files: self.options.values.clone(),
            set: self.options.set.clone(),
        };
        self.steps
            .begin("agent (helm)")
            .run(async |step: &Step<'_>| chart.install(&kubernetes, step).await)
            .await?;
        self.go_on()?;
        let cluster = self.online(&kubernetes, &cluster).await?;
        self.promote(&cluster).await?;
        Ok(cluster)
    }

    /// Whether Ctrl-C was not pressed meanwhile.
    fn go_on(&mut self) -> Result<()> {
        match self.interrupt.recv().now_or_never() {
            None => Ok(()),
            Some(_) => Err(stopped()),
        }
    }

    /// Where to install. A context that was not named needs a confirmation.
    async fn kubernetes(&mut self) -> Result<Kubernetes> {
        let context = if let Some(context) = &self.record.context {
            context.clone()
        } else {
            let context = current_context().await?;
            let question =
                format!("Install the agent of {} into the Kubernetes context {context}?", self.options.name);
            self.context.confirm(question, self.options.yes).await?;
            self.record.context = Some(context.clone());
            self.journal.write(&self.record)?;
            context
        };
        Ok(Kubernetes {
            context,
            kubeconfig: self.record.kubeconfig.clone(),
            namespace: self.record.namespace.clone(),
            release: self.record.release.clone(),
        })
    }
}

fn stopped() -> Failure {
    Failure::new(FailureKind::Interrupted, "Stopped.")
        .next("Repeat the command: it continues where it stopped.")
}
