//! Queue a deployment and follow it.

use std::{io::IsTerminal as _, time::Duration};

use serde_json::{Map, Value, json};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::{Instant, sleep_until},
};
use uuid::Uuid;

use super::{lists::to_json, log_printer::Printer};
use crate::{
    cli::{self, Until},
    context::Context,
    control_plane::{
        catalogue::Catalogue,
        cluster,
        deployment::{self, Deployment},
        follow::{Follow, FollowEvent},
        project::Project,
    },
    failure::{Failure, FailureKind, Result},
    output::style::Tone,
    variable::{schema::Schema, values},
};

/// How long the log is quiet before a plan that waits is announced.
const QUIET: Duration = Duration::from_millis(800);

/// Queues a deployment; unless detached, follows it.
pub(super) async fn deploy(context: &Context, options: cli::Deploy) -> Result<()> {
    let project = context.project()?;
    let cluster = cluster::find(&project, options.of.cluster.as_deref()).await?;
    if cluster.revoked_at.is_some() {
        return Err(Failure::new(
            FailureKind::Refused,
            format!("Cluster {} is revoked: nothing runs there.", cluster.name),
        )
        .next("Name another with --cluster."));
    }
    let schema = schema(context, &project, cluster.id, &options).await?;
    let files = options.var_files.iter().map(|file| values::read_file(file)).collect::<Result<Vec<_>>>()?;
    let variables = values::typed(schema.as_ref(), files, &options.vars)?;
    let snapshot = snapshot(&options, &variables);
    if options.destroy {
        let what = options.stack.as_deref().unwrap_or("a new state of its own");
        context
            .confirm(format!("Remove everything of stack {what} in cluster {}?", cluster.name), options.yes)
            .await?;
    }

    let id = Uuid::new_v4();
    if options.detach {
        deployment::queue(&project, id, cluster.id, &snapshot).await?;
        return if context.out.is_json() {
            context.out.json(&json!({ "id": id }))
        } else {
            context.out.line(id)
        };
    }
    // Listening before it exists: nothing of it can be missed.
    let follow = Follow::start(&project, id).await?;
    deployment::queue(&project, id, cluster.id, &snapshot).await?;
    context.out.note(format_args!("Deployment {id} is queued for cluster {}.", cluster.name));
    if cluster.status != "ONLINE" {
        context.out.note(context.out.notes.paint(
            Tone::Attention,
            format_args!("The cluster is {}: the deployment waits until an agent comes.", cluster.status),
        ));
    }
    let printer = Printer::new(context.out, options.timestamps);
    to_the_end(context, id, follow, printer, options.until).await
}

/// The schema of the template, where it is known.
async fn schema(
    context: &Context,
    project: &Project,
    cluster: Uuid,
    options: &cli::Deploy,
) -> Result<Option<Schema>> {
    let Some(name) = &options.template else { return Ok(None) };
    let catalogue = Catalogue::of(project, cluster, options.templates_dir.as_deref()).await?;
    let Some(template) = catalogue.find(name)? else {
        if !options.vars.is_empty() {
            context.out.note(
                "The cluster's agents have published no templates, so each --var is passed as text. Types come from --var-file, or from --templates-dir.",
            );
        }
        return Ok(None);
    };
    let schema = serde_json::from_value(template.variables.clone()).map_err(|error| {
        Failure::new(
            FailureKind::Unexpected,
            format!("The schema of template {name} cannot be read: {error}"),
        )
    })?;
    Ok(Some(schema))
}

/// The column `config_snapshot`.
fn snapshot(options: &cli::Deploy, variables: &Map<String, Value>) -> Value {
    let action = if options.plan {
        "plan"
    } else if options.destroy {
        "destroy"
    } else {
        "apply"
    };
    let mut snapshot = json!({ "action": action, "variables": variables });
    if let Some(template) = &options.template {
        snapshot["template"] = template.as_str().into();
    }
    if let Some(git) = &options.git {
        let mut source = json!({ "git": git });
        for (name, value) in [("ref", &options.git_ref), ("path", &options.path)] {
            if let Some(value) = value {
                source[name] = value.as_str().into();
            }
        }
        snapshot["source"] = source;
    }
    if let Some(stack) = &options.stack {
        snapshot["stack"] = stack.as_str().into();
    }
    if options.approval {
        snapshot["approval"] = true.into();
    }
    snapshot
}

/// Follows a deployment and prints its log. Ctrl-C leaves the deployment running, with a note.
pub(super) async fn to_the_end(
    context: &Context,
    id: Uuid,
    mut follow: Follow,
    mut printer: Printer,
    until: Until,
) -> Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut asked_for = None;
    // A plan that waits, and since when its log is quiet: what was printed before comes first.
    let mut waits: Option<(Box<Deployment>, Instant)> = None;
    loop {
        let quiet = waits.as_ref().map_or_else(Instant::now, |(_, since)| *since + QUIET);
        let event = tokio::select! {
            event = follow.next() => event?,
            _ = interrupt.recv() => return Err(left(id)),
            () = sleep_until(quiet), if waits.is_some() => {
                if let Some((row, _)) = waits.take() {
                    print_what_waits(context, &row);
                    if until == Until::Approval {
                        printer.end(&row)?;
                        return Err(waiting(&row));
                    }
                }
                continue;
            }
        };
        match event {
            Some(FollowEvent::Logged(chunk)) => {
                printer.chunk(&chunk)?;
                if let Some((_, since)) = &mut waits {
                    *since = Instant::now();
                }
            }
            Some(FollowEvent::Changed(row)) => {
                printer.status(&row)?;
                if !row.waits_for_approval() {
                    waits = None;
                } else if asked_for != row.plan_sha256 {
                    asked_for.clone_from(&row.plan_sha256);
                    waits = Some((row, Instant::now()));
                }
            }
            Some(FollowEvent::Unreachable(message)) => {
                context.out.note(format_args!("grape: {message}; following continues."));
            }
            Some(FollowEvent::Ended(row)) => {
                printer.end(&row)?;
                return row.outcome();
            }
            None => {
                return Err(Failure::new(
                    FailureKind::Unexpected,
                    "The deployment was not followed to its end.",
                ));
            }
        }
    }
}

/// Announces that a plan waits, and for what.
fn print_what_waits(context: &Context, row: &Deployment) {
    let out = context.out;
    let summary = row.summary().unwrap_or_else(|| "a plan".to_owned());
    out.note(out.notes.paint(Tone::Attention, format_args!("Its plan waits for approval: {summary}.")));
    out.note(format_args!(
        "  grape plan {id}\n  grape approve {id}\n  grape reject {id} -m WHY",
        id = row.id
    ));
}

/// The plan waits, and that was waited for.
pub(super) fn waiting(row: &Deployment) -> Failure {
    Failure::new(FailureKind::WaitsForApproval, "The plan waits for approval.")
        .next(format!("`grape approve {}`", row.id))
        .shown()
}

/// Ctrl-C.
pub(super) fn left(id: Uuid) -> Failure {
    if std::io::stderr().is_terminal() {
        // The terminal has printed ^C.
        eprintln!();
    }
    Failure::new(FailureKind::Interrupted, format!("Left. Deployment {id} continues."))
        .next(format!("`grape logs -f {id}` follows it again; `grape cancel {id}` ends it."))
}

/// The last row of a deployment, as JSON.
pub(super) fn answer(context: &Context, row: &Deployment) -> Result<()> {
    if context.out.is_json() { context.out.json(&to_json(row)) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, Command};

    fn options(arguments: &[&str]) -> cli::Deploy {
        let cli = Cli::parse_from(["grape", "deploy"].iter().chain(arguments));
        match cli.command {
            Command::Deploy(options) => *options,
            other => unreachable!("{other:?}"),
        }
    }

    #[test]
    fn what_is_asked_for_becomes_a_snapshot() {
        let plain = snapshot(&options(&["hello", "--stack", "prod", "--approval"]), &Map::new());
        assert_eq!(
            plain,
            json!({ "template": "hello", "action": "apply", "variables": {}, "stack": "prod", "approval": true })
        );
        let git = snapshot(&options(&["--git", "https://a.co/b.git", "--ref", "v1", "--plan"]), &Map::new());
        assert_eq!(
            git,
            json!({ "source": { "git": "https://a.co/b.git", "ref": "v1" }, "action": "plan", "variables": {} })
        );
        assert_eq!(snapshot(&options(&["hello", "--destroy"]), &Map::new())["action"], "destroy");
    }
}
