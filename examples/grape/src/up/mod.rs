//! From nothing to ONLINE, and back. Every step can be repeated: it looks at what is there and does what is missing.
//!
//! ```text
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
mod steps;
mod terraform;
mod tool;

use std::{
    path::Path,
    time::{Duration, Instant},
};

use futures_util::{FutureExt as _, StreamExt as _};
use serde_json::{Map, Value, json};
use tendril_realtime::{Retry, watch::WatchEvent};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::{interval, timeout},
};

use self::{
    helm::Chart,
    journal::{Journal, Record},
    kubernetes::{Kubernetes, current_context},
    steps::{Step, Steps, Went},
    terraform::Workspace,
    tool::Tool,
};
use crate::{
    cli,
    context::Context,
    control_plane::{
        cluster::{self, Cluster, KeyChange},
        project::Project,
    },
    failure::{Failure, FailureKind, Result},
    output::{style::Tone, time::span},
};

/// What makes a Kubernetes cluster on AWS from nothing, in this order.
const TEMPLATES: [&str; 4] = ["vpc", "eks-cluster", "eks-node-group", "eks-addons"];

/// How often the pods are looked at while the agent is waited for.
const POLL_INTERVAL: Duration = Duration::from_secs(5);

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
/// Of the step that failed, with what to look at. A repetition goes on from there.
pub async fn up(context: &Context, options: &cli::Up) -> Result<()> {
    let project = context.project()?;
    // Before anything is made: is somebody signed in, and is that our database?
    project.contract().await?;
    inspect_before(options)?;
    let journal = Journal::open(&context.dir, &project.name, &options.name, options.state_dir.as_deref())?;
    let record = record(journal.read()?, options, &project)?;
    if !options.skip_provision {
        // A template or a variable that is none is no reason to remember it.
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

/// What is known from before, with what is asked for now.
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
                "Leave --template out, or put further ones behind these, or begin anew after `grape down`.",
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

    /// Whether nobody pressed Ctrl-C meanwhile.
    fn go_on(&mut self) -> Result<()> {
        match self.interrupt.recv().now_or_never() {
            None => Ok(()),
            Some(_) => Err(stopped()),
        }
    }

    /// Whether everything is installed: better now than after twenty minutes.
    async fn tools(&mut self) -> Result<()> {
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
    async fn provision(&mut self) -> Result<()> {
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

    /// Whether AWS knows who we are.
    async fn credentials(&self) -> Result<()> {
        let answer = Tool::aws().command(["sts", "get-caller-identity", "--output", "json"]).quiet().await?;
        if answer.ok() {
            return Ok(());
        }
        Err(terraform::credentials(&answer.tail).unwrap_or_else(|| {
            Failure::new(
                FailureKind::NoCloudCredentials,
                format!("AWS does not say who you are: {}", answer.tail.trim()),
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
                let made = Tool::aws().command(message).finish(|line| step.says(line)).await?;
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

    /// Where to install. A context that nobody named is asked about.
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

    /// The row in `clusters`.
    async fn cluster(&mut self) -> Result<Cluster> {
        let (context, options, project) = (self.context, self.options, &self.project);
        let (known, mut found) = (self.record.cluster, None);
        let begun = self.steps.begin(format!("cluster {}", options.name));
        begun
            .run(async |step: &Step<'_>| {
                if let Some(row) = cluster::by_name(project, &options.name).await? {
                    if known.is_none() && row.status == "ONLINE" {
                        let question = format!(
                            "You have a cluster {} already, and it is ONLINE. Install a further agent of it?",
                            row.name
                        );
                        step.pause(context.confirm(question, options.yes)).await?;
                    }
                    found = Some(row);
                    return Ok(Went::Unchanged);
                }
                found = Some(cluster::create(project, &options.name).await?);
                Ok(Went::Done)
            })
            .await?;
        let row = found.ok_or_else(|| Failure::new(FailureKind::Unexpected, "The cluster is not there."))?;
        self.record.cluster = Some(row.id);
        self.journal.write(&self.record)?;
        Ok(row)
    }

    /// The key, in a Secret. A key is shown once: where the Secret does not have it, another is made.
    async fn key(&mut self, kubernetes: &Kubernetes, cluster: &Cluster) -> Result<()> {
        let begun = self.steps.begin("key (Secret)");
        let (project, journal, record) = (&self.project, &self.journal, &mut self.record);
        begun
            .run(async |step: &Step<'_>| {
                if kubernetes.has_key(project, cluster.id).await? {
                    return Ok(Went::Unchanged);
                }
                let change = match cluster::keys(project, cluster.id).await?.current {
                    None => KeyChange::Create,
                    Some(_) => KeyChange::Rotate,
                };
                if change == KeyChange::Rotate {
                    step.says("there was a key before: a next one is made beside it");
                    record.rotating = true;
                    journal.write(record)?;
                }
                let key = cluster::new_key(project, cluster.id, change).await?;
                kubernetes.write_key(project, cluster.id, &key).await?;
                Ok(Went::Done)
            })
            .await
            .map(drop)
    }

    /// Waits for the agent's first heartbeat.
    async fn online(&mut self, kubernetes: &Kubernetes, cluster: &Cluster) -> Result<Cluster> {
        let poll = (Duration::from_secs(2), Duration::from_secs(10));
        let mut rows = self
            .project
            .client
            .watch::<Cluster>(Cluster::query_one(cluster.id).poll_interval(poll.0).resync_interval(poll.1))?;
        let (time_limit, start) = (self.options.timeout, Instant::now());
        let (interrupt, mut online) = (&mut self.interrupt, None);
        let begun = self.steps.begin("agent ONLINE");
        begun
            .run(async |step: &Step<'_>| {
                let mut look = interval(POLL_INTERVAL);
                let wait = async {
                    loop {
                        tokio::select! {
                            Some(event) = rows.next() => match event {
                                Ok(WatchEvent::Interrupted(error) | WatchEvent::Undecodable { error, .. }) | Err(error) => {
                                    if error.retry() == Retry::Never {
                                        return Err(Failure::from(error));
                                    }
                                    step.says(&error.to_string());
                                }
                                Ok(event) => if let Some(row) = event.applied()
                                    && row.status == "ONLINE" { return Ok(row) },
                            },
                            _ = look.tick() => step.says(&kubernetes.pods().await?),
                            _ = interrupt.recv() => return Err(stopped()),
                        }
                    }
                };
                let Ok(row) = timeout(time_limit, wait).await else {
                    let waited = span(start.elapsed());
                    let text = format!("The agent did not come online within {waited}.\n{}", kubernetes.evidence().await);
                    return Err(Failure::new(FailureKind::StepFailed, text.trim_end()).next(advice(kubernetes)));
                };
                online = Some(row?);
                Ok(Went::Done)
            })
            .await?;
        self.go_on()?;
        online.ok_or_else(|| Failure::new(FailureKind::Unexpected, "The cluster is not there."))
    }

    /// Where an earlier key was replaced, the old one ends once the agent uses the new one.
    async fn promote(&mut self, cluster: &Cluster) -> Result<()> {
        if !self.record.rotating {
            return Ok(());
        }
        let begun = self.steps.begin("old key");
        let project = &self.project;
        begun
            .run(async |_: &Step<'_>| {
                let next = cluster::keys(project, cluster.id).await?.next;
                match next {
                    None => Ok(Went::Unchanged),
                    // Not used yet: the cluster was online by an agent with the old key. The next `up` looks again.
                    Some(key) if key.last_used_at.is_none() => Ok(Went::Unchanged),
                    Some(_) => cluster::promote_key(project, cluster.id, false).await.map(|()| Went::Done),
                }
            })
            .await?;
        if cluster::keys(&self.project, cluster.id).await?.next.is_none() {
            self.record.rotating = false;
            self.journal.write(&self.record)?;
        } else {
            self.context.out.note("The agent does not use the new key yet: `grape cluster show` says when, then `grape cluster promote`.");
        }
        Ok(())
    }
}

fn advice(kubernetes: &Kubernetes) -> String {
    let place = format!("--context {} --namespace {}", kubernetes.context, kubernetes.namespace);
    let release = &kubernetes.release;
    format!(
        "kubectl {place} describe pod {release}-0\nkubectl {place} logs {release}-0\nkubectl {place} exec {release}-0 -- env TENDRIL_HEALTH_ADDR= tendril-agent doctor\nThen repeat the command: it picks up where it stopped."
    )
}

fn stopped() -> Failure {
    Failure::new(FailureKind::Interrupted, "Stopped.")
        .next("Repeat the command: it picks up where it stopped.")
}
