//! The way back: the agent, the Kubernetes cluster, the row. The record of each step is deleted once it is done, so a repetition continues.

use futures_util::FutureExt as _;
use serde_json::json;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{
    helm,
    journal::{Journal, Record},
    kubernetes::Kubernetes,
    steps::{Step, Steps, Went},
    stopped,
    terraform::Workspace,
};
use crate::{
    cli,
    context::{Context, prompt},
    control_plane::{cluster, project::Project, stack},
    failure::{Failure, FailureKind, Result},
};

/// Takes away what `up` made.
///
/// # Errors
/// Of the step that failed. A repetition continues from there.
pub async fn down(context: &Context, options: &cli::Down) -> Result<()> {
    let project = context.project()?;
    let journal = Journal::open(&context.dir, &project.name, &options.name, options.state_dir.as_deref())?;
    let Some(record) = journal.read()? else {
        return Err(Failure::new(FailureKind::NotFound, format!("Nothing is known of {} in {}.", options.name, journal.dir.display())).next(
            format!("Where `up` had a --state-dir, name it. A cluster without one: `grape cluster revoke {} --forever`.", options.name),
        ));
    };
    if record.project != project.profile.url {
        return Err(Failure::new(
            FailureKind::Refused,
            format!("{} was brought up for another project: {}.", options.name, record.project),
        )
        .next("Use the profile of that project: --profile."));
    }
    let destroys = !options.keep_kubernetes && !record.templates.is_empty();
    questions(context, options, &project, &record, destroys).await?;

    let interrupt = signal(SignalKind::interrupt())?;
    let mut way = Down { project, journal, record, steps: Steps::new(context.out), interrupt };
    if !options.skip_agent {
        way.agent(destroys).await?;
    }
    if destroys {
        way.templates(context, options).await?;
    }
    way.row().await?;
    if destroys || way.record.templates.is_empty() {
        way.journal.forget()?;
    }
    if context.out.is_json() {
        return context
            .out
            .json_line(&json!({ "type": "done", "cluster": options.name, "state": way.journal.dir }));
    }
    context.out.line(format_args!("Cluster {} is gone.", options.name))
}

/// Prompts twice: for a yes, and then for the name.
async fn questions(
    context: &Context,
    options: &cli::Down,
    project: &Project,
    record: &Record,
    destroys: bool,
) -> Result<()> {
    if let Some(id) = record.cluster {
        let stacks = stack::list(project, Some(id)).await?;
        let full = stacks.iter().filter(|stack| {
            stack.resources.is_none_or(|count| count > 0) && stack.last_action.as_deref() != Some("destroy")
        });
        let names: Vec<_> = full.map(|stack| stack.state_key.as_str()).take(10).collect();
        if !names.is_empty() {
            context.out.note(format_args!(
                "These stacks may still have resources: {}. They stay, and without an agent nobody removes them: `grape deploy TEMPLATE --stack NAME --destroy` first.",
                names.join(", ")
            ));
        }
    }
    let place = record.context.as_deref().unwrap_or("nowhere");
    let name = &options.name;
    context
        .confirm(
            format!("Remove the agent of {name} (context {place}), and revoke the cluster for ever?"),
            options.yes,
        )
        .await?;
    let what = if destroys {
        format!(
            "This destroys {} of {name}, and the agent's volume with its Terraform state.",
            record.templates.join(", ")
        )
    } else {
        format!("The cluster {name} cannot be used again.")
    };
    let answer = match &options.confirm {
        Some(answer) => answer.clone(),
        None if context.out.can_ask() => {
            context.out.note(&what);
            let question = format!("Write {name} to go on");
            prompt(move || {
                dialoguer::Input::<String>::new().with_prompt(question).allow_empty(true).interact_text()
            })
            .await?
        }
        None => {
            return Err(Failure::new(FailureKind::Usage, format!("There is no terminal to ask on. {what}"))
                .next(format!("Answer with --yes --confirm {name}.")));
        }
    };
    if answer.trim() == name {
        return Ok(());
    }
    Err(Failure::new(FailureKind::Interrupted, format!("That is not {name}: nothing was done.")))
}

struct Down {
    project: Project,
    journal: Journal,
    record: Record,
    steps: Steps,
    interrupt: Signal,
}

impl Down {
    fn go_on(&mut self) -> Result<()> {
        match self.interrupt.recv().now_or_never() {
            None => Ok(()),
            Some(_) => Err(stopped()),
        }
    }

    /// The release, the Secret; the volume too where the Kubernetes cluster goes, as it would be left in the account.
    async fn agent(&mut self, destroys: bool) -> Result<()> {
        let Some(context) = self.record.context.clone() else { return Ok(()) };
        let kubernetes = Kubernetes {
            context,
            kubeconfig: self.record.kubeconfig.clone(),
            namespace: self.record.namespace.clone(),
            release: self.record.release.clone(),
        };
        let begun = self.steps.begin("agent (helm)");
        begun.run(async |step: &Step<'_>| helm::uninstall(&kubernetes, step).await).await?;
        let begun = self.steps.begin("key (Secret)");
        begun
            .run(async |step: &Step<'_>| {
                delete(&kubernetes, step, &["secret", &kubernetes.release]).await?;
                if destroys {
                    let selector = format!("--selector=app.kubernetes.io/instance={}", kubernetes.release);
                    delete(&kubernetes, step, &["persistentvolumeclaim", &selector]).await?;
                }
                Ok(Went::Done)
            })
            .await?;
        self.record.context = None;
        self.journal.write(&self.record)?;
        self.go_on()
    }

    /// The templates, last made first.
    async fn templates(&mut self, context: &Context, options: &cli::Down) -> Result<()> {
        while let Some(template) = self.record.templates.last().cloned() {
            let workspace = Workspace::at(&self.journal.dir, &template);
            if workspace.exists() {
                // The folder may be newer; where it is gone, the copy will do.
                if options.templates_dir.join(&template).is_dir() {
                    Workspace::prepare(&self.journal.dir, &options.templates_dir, &template)?;
                }
                let begun = self.steps.begin(format!("destroy {template}"));
                begun
                    .run(async |step: &Step<'_>| {
                        let mut values = workspace.values();
                        if workspace.declares("deletion_protection")
                            && values.get("deletion_protection") != Some(&false.into())
                        {
                            step.note("deletion protection is switched off");
                            values.insert("deletion_protection".to_owned(), false.into());
                            workspace.set(&values)?;
                            workspace.apply(step, context, true).await?;
                        }
                        workspace.destroy(step).await
                    })
                    .await?;
            }
            self.record.templates.pop();
            self.journal.write(&self.record)?;
            self.go_on()?;
        }
        Ok(())
    }

    /// The row: revoked for ever, as its deployments and logs stay readable.
    async fn row(&mut self) -> Result<()> {
        let Some(id) = self.record.cluster else { return Ok(()) };
        let begun = self.steps.begin("cluster");
        let project = &self.project;
        begun
            .run(async |_: &Step<'_>| {
                cluster::revoke_keys(project, id).await?;
                cluster::revoke(project, id).await?;
                Ok(Went::Done)
            })
            .await?;
        self.record.cluster = None;
        self.journal.write(&self.record)
    }
}

async fn delete(kubernetes: &Kubernetes, step: &Step<'_>, what: &[&str]) -> Result<()> {
    let message: Vec<&str> = ["delete"].iter().chain(what).copied().chain(["--ignore-not-found"]).collect();
    let gone = kubernetes.kubectl(&message).finish(|line| step.note(line)).await?;
    if gone.ok() { Ok(()) } else { Err(kubernetes.failed(&format!("delete {}", what[0]), &gone)) }
}
