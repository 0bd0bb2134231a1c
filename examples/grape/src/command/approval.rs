//! Plans: look, approve, reject, cancel.

use serde_json::json;
use tendril_examples::screen::printable;

use super::lists::to_json;
use crate::{
    cli,
    context::Context,
    control_plane::{
        deployment::{self, Deployment},
        plan::{self, AttributeChange, Change},
    },
    failure::{Failure, FailureKind, Result},
    output::{
        style::Tone,
        table::{Table, plain, status},
    },
};

/// Shows a plan as rows.
pub(super) async fn plan(context: &Context, options: &cli::Plan) -> Result<()> {
    let project = context.project()?;
    let row = deployment::find(&project, &options.id).await?;
    let changes = plan::changes(&project, &row).await?;
    if context.out.is_json() {
        return context.out.json(&json!({ "deployment": row, "changes": changes }));
    }
    if row.plan_summary.is_none() && changes.as_ref().is_none_or(Vec::is_empty) {
        let failure = if row.is_finished() {
            let text = format!("Deployment {} ended ({}) without a plan.", row.id, row.status);
            Failure::new(FailureKind::NotFound, text).next(format!("`grape logs {}` shows why.", row.id))
        } else {
            let text = format!("Deployment {} has no plan yet: it is {}.", row.id, row.state());
            let next = format!("Wait for it: `grape wait {} --until approval`.", row.id);
            Failure::new(FailureKind::NotFound, text).next(next)
        };
        return Err(failure);
    }
    show(context, &row, changes.as_deref(), options.short)
}

fn show(context: &Context, row: &Deployment, changes: Option<&[Change]>, short: bool) -> Result<()> {
    let out = context.out;
    let named = row.stack().map_or_else(|| row.template(), |stack| format!("{}.{stack}", row.template()));
    out.line(format_args!(
        "{} {} of {}: {}",
        out.style.paint(Tone::of_status(row.state()), row.state()),
        row.action(),
        out.style.paint(Tone::Bold, printable(&named)),
        row.summary().unwrap_or_else(|| "no plan yet".to_owned()),
    ))?;
    if let Some(cost) = row
        .cost
        .as_ref()
        .and_then(|cost| Some((cost.get("monthly")?.as_str()?, cost.get("currency")?.as_str()?)))
    {
        let partly =
            if row.cost_status.as_deref() == Some("PARTIAL") { ", not everything counted" } else { "" };
        out.line(format_args!("Cost: {} {} a month{partly}", printable(cost.0), printable(cost.1)))?;
    }
    match changes {
        None => out.note(format_args!(
            "The plan's rows are not in the database; its text is in the log: `grape logs {}`.",
            row.id
        )),
        Some(changes) => {
            out.line("")?;
            table(context, changes, short)?;
        }
    }
    if row.waits_for_approval() {
        let until = row.approval_expires_at.map(|time| format!(" until {time:.0}")).unwrap_or_default();
        out.note(format_args!(
            "\nIt waits for approval{until}: `grape approve {id}` or `grape reject {id} -m WHY`.",
            id = row.id
        ));
    }
    Ok(())
}

fn table(context: &Context, changes: &[Change], short: bool) -> Result<()> {
    let out = context.out;
    let mut table = Table::new(out.style, &["", "RESOURCE", "ACTION", "PROGRESS", "CHANGES"]);
    let mut omitted = 0;
    for change in changes {
        if let Some(count) = change.omitted() {
            omitted += count;
            continue;
        }
        let tone = match change.action.as_str() {
            "create" | "import" => Tone::Good,
            "delete" | "replace" | "forget" => Tone::Bad,
            "update" | "move" => Tone::Attention,
            _ => Tone::Plain,
        };
        let action =
            if change.drift { format!("{} (changed outside)", change.action) } else { change.action.clone() };
        let progress = match (change.seconds, change.status.as_str()) {
            (Some(seconds), "DONE") => (Tone::Good, format!("DONE {seconds:.0} s")),
            (_, state) => status(state),
        };
        let mut attributes: Vec<_> = change.attributes().iter().map(AttributeChange::sentence).collect();
        if let Some(error) = &change.error {
            attributes.push(error.clone());
        }
        let attributes = if short { String::new() } else { attributes.join("\n") };
        table.row([
            (tone, change.sign().to_owned()),
            plain(&change.address),
            (tone, action),
            progress,
            plain(attributes),
        ]);
    }
    out.line(table)?;
    if omitted > 0 {
        out.note(format_args!("{omitted} more changes are left out; all are in the log."));
    }
    Ok(())
}

/// Approves the plan that waits.
pub(super) async fn approve(context: &Context, options: &cli::Approve) -> Result<()> {
    let project = context.project()?;
    let row = deployment::find(&project, &options.id).await?;
    if !row.waits_for_approval() {
        return Err(not_waiting(&row));
    }
    if let Some(plan) = &options.plan
        && row.plan_sha256.as_ref() != Some(plan)
    {
        return Err(Failure::new(
            FailureKind::Refused,
            "Another plan waits by now than the one that you name with --plan.",
        )
        .next(format!("See the plan: `grape plan {}`.", row.id)));
    }
    if !options.yes && options.plan.is_none() {
        if context.out.can_ask() {
            let changes = plan::changes(&project, &row).await?;
            show(context, &row, changes.as_deref(), false)?;
        }
        let question =
            format!("Apply this plan ({})?", row.summary().unwrap_or_else(|| "counts unknown".to_owned()));
        context.confirm(question, false).await?;
    }
    deployment::approve(&project, &row, options.message.as_deref()).await?;
    if context.out.is_json() {
        return context.out.json(&json!({ "id": row.id, "approved_plan": row.plan_sha256 }));
    }
    context.out.line(format_args!("Approved. `grape logs -f {}` follows the apply.", row.id))
}

fn not_waiting(row: &Deployment) -> Failure {
    let (text, next) = if row.is_finished() {
        (format!("Deployment {} has ended ({}): nothing is left to approve.", row.id, row.status), None)
    } else if row.approved_plan.is_some() {
        (
            format!("The plan of deployment {} is approved already.", row.id),
            Some(format!("`grape logs -f {}` follows the apply.", row.id)),
        )
    } else if row.cancel_requested_at.is_some() {
        (format!("Deployment {} is being cancelled.", row.id), None)
    } else if row.config_snapshot.get("approval") != Some(&true.into()) {
        (format!("Deployment {} needs no approval: it was created without --approval.", row.id), None)
    } else {
        let next = format!("Wait for its plan: `grape wait {} --until approval`.", row.id);
        (format!("Deployment {} has no plan to approve yet: it is {}.", row.id, row.state()), Some(next))
    };
    let failure = Failure::new(FailureKind::Refused, text);
    match next {
        Some(next) => failure.next(next),
        None => failure,
    }
}

/// Rejects the plan that waits.
pub(super) async fn reject(context: &Context, options: &cli::Reject) -> Result<()> {
    let project = context.project()?;
    let row = deployment::find(&project, &options.id).await?;
    if !row.waits_for_approval() {
        return Err(not_waiting(&row));
    }
    // Where the database stores no comments, the rejection matters more than its reason.
    let comment = options.message.as_deref();
    let saved = comment.is_none() || project.has_stacks().await?;
    deployment::cancel(&project, row.id, comment.filter(|_| saved)).await?;
    if !saved {
        context
            .out
            .note("The project's database stores no comments (contract 3 does): the reason is not stored.");
    }
    if context.out.is_json() {
        return context
            .out
            .json(&json!({ "id": row.id, "rejected": true, "comment_stored": comment.is_some() && saved }));
    }
    context
        .out
        .line(format_args!("Rejected: deployment {} ends as CANCELLED, and nothing is applied.", row.id))
}

/// Requests the cancellation of a deployment.
pub(super) async fn cancel(context: &Context, options: &cli::Cancel) -> Result<()> {
    let project = context.project()?;
    let row = deployment::find(&project, &options.id).await?;
    if row.is_finished() {
        return Err(Failure::new(
            FailureKind::Refused,
            format!("Deployment {} has ended already: {}.", row.id, row.status),
        ));
    }
    deployment::cancel(&project, row.id, options.message.as_deref()).await?;
    let now = deployment::find(&project, &row.id.to_string()).await?;
    if context.out.is_json() {
        return context.out.json(&to_json(&now));
    }
    context.out.line(if now.status == "CANCELLED" {
        format!("Deployment {} is cancelled.", now.id)
    } else {
        format!("A cancel of deployment {} is requested; Terraform stops gracefully. `grape wait {}` waits for it.", now.id, now.id)
    })
}
