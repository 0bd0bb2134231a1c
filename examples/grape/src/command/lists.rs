//! Lists: templates, stacks, deployments.

use std::collections::HashMap;

use jiff::Timestamp;
use serde_json::json;
use uuid::Uuid;

use crate::{
    cli,
    context::Context,
    control_plane::{
        catalogue::{Catalogue, Template},
        cluster::{self, Cluster},
        deployment::{self, Deployment},
        project::Project,
        stack,
    },
    failure::{Failure, FailureKind, Result},
    output::{
        style::Tone,
        table::{Table, plain, status},
        time::{ago, between, span},
    },
    variable::schema::Schema,
};

/// Lists the templates of a cluster, or describes one.
pub(super) async fn templates(context: &Context, options: cli::Templates) -> Result<()> {
    let project = context.project()?;
    let found = cluster::find(&project, options.of.cluster.as_deref()).await?;
    let catalogue = Catalogue::of(&project, found.id, options.templates_dir.as_deref()).await?;
    let Catalogue::Known(templates) = &catalogue else {
        return Err(Failure::new(
            FailureKind::NotFound,
            format!("The agents of cluster {} have published no templates.", found.name),
        )
        .next(
            "An agent of this version does when it starts. A directory will do too: --templates-dir DIR.",
        ));
    };
    if let Some(name) = &options.name {
        let template =
            catalogue.find(name)?.ok_or_else(|| Failure::new(FailureKind::NotFound, "no template"))?;
        return describe(context, template);
    }
    if context.out.is_json() {
        return context.out.json(templates);
    }
    let mut table = Table::new(context.out.style, &["NAME", "TITLE", "DESCRIPTION"]);
    for template in templates {
        let text = |text: &Option<String>| plain(text.as_deref().unwrap_or("-"));
        table.row([plain(&template.name), text(&template.title), text(&template.description)]);
    }
    context.out.line(table)
}

fn describe(context: &Context, template: &Template) -> Result<()> {
    if context.out.is_json() {
        return context.out.json(template);
    }
    let out = context.out;
    let schema: Schema = serde_json::from_value(template.variables.clone()).map_err(|error| {
        Failure::new(
            FailureKind::Unexpected,
            format!("The schema of template {} cannot be read: {error}", template.name),
        )
    })?;
    out.line(format_args!(
        "{}  {}",
        out.style.paint(Tone::Bold, &template.name),
        template.title.as_deref().unwrap_or_default()
    ))?;
    out.line(template.description.as_deref().unwrap_or_default())?;
    let mut table = Table::new(out.style, &["VARIABLE", "TYPE", "DEFAULT", "DESCRIPTION"]);
    for (name, variable) in &schema.properties {
        let default = match &variable.default {
            _ if schema.required.contains(name) => (Tone::Attention, "required".to_owned()),
            Some(value) => plain(value),
            None => plain("-"),
        };
        table.row([
            plain(name),
            plain(variable.kind_name()),
            default,
            plain(variable.description.as_deref().unwrap_or("-")),
        ]);
    }
    out.line("")?;
    out.line(table)
}

/// The cluster that lists are limited to, if one was named; a profile's default cluster does not limit a list.
async fn only(project: &Project, of: &cli::OfCluster) -> Result<Option<Uuid>> {
    match of.cluster.as_deref() {
        Some(name) => Ok(Some(cluster::find(project, Some(name)).await?.id)),
        None => Ok(None),
    }
}

/// Names of clusters by id.
pub(super) fn names(clusters: &[Cluster]) -> HashMap<Uuid, String> {
    clusters.iter().map(|cluster| (cluster.id, cluster.name.clone())).collect()
}

/// Lists stacks.
pub(super) async fn stacks(context: &Context, of: &cli::OfCluster) -> Result<()> {
    let project = context.project()?;
    let stacks = stack::list(&project, only(&project, of).await?).await?;
    if context.out.is_json() {
        return context.out.json(&stacks);
    }
    if stacks.is_empty() {
        context.out.note("There is no stack yet: `grape deploy TEMPLATE --stack NAME` makes one.");
        return Ok(());
    }
    let names = names(&cluster::list(&project).await?);
    let now = Timestamp::now();
    let mut table = Table::new(
        context.out.style,
        &["CLUSTER", "STACK", "LAST", "STATUS", "ENDED", "RESOURCES", "DEPLOYMENT"],
    );
    for stack in &stacks {
        let held = stack.state_held_by.as_ref().map(|agent| format!("state held by {agent}"));
        let state = stack.last_status.clone().unwrap_or_else(|| "-".to_owned());
        table.row([
            plain(names.get(&stack.cluster_id).map_or("-", String::as_str)),
            plain(&stack.state_key),
            plain(stack.last_action.as_deref().unwrap_or("-")),
            held.map_or_else(|| status(&state), |held| (Tone::Attention, held)),
            plain(
                stack
                    .last_finished_at
                    .map_or_else(|| "-".to_owned(), |time| format!("{} ago", ago(time, now))),
            ),
            plain(stack.resources.map_or_else(|| "-".to_owned(), |count| count.to_string())),
            (Tone::Dim, stack.last_deployment_id.map_or_else(|| "-".to_owned(), short_id)),
        ]);
    }
    context.out.line(table)
}

/// Lists the newest deployments.
pub(super) async fn deployments(context: &Context, options: &cli::Deployments) -> Result<()> {
    let project = context.project()?;
    let rows = deployment::newest(&project, only(&project, &options.of).await?, options.limit).await?;
    if context.out.is_json() {
        return context.out.json(&rows);
    }
    if rows.is_empty() {
        context.out.note("There is no deployment yet: `grape deploy TEMPLATE` makes one.");
        return Ok(());
    }
    let names = names(&cluster::list(&project).await?);
    let now = Timestamp::now();
    let mut table = Table::new(
        context.out.style,
        &["ID", "CLUSTER", "TEMPLATE", "STACK", "ACTION", "STATUS", "CHANGES", "TOOK", "AGE"],
    );
    for row in &rows {
        table.row([
            (Tone::Dim, short_id(row.id)),
            plain(names.get(&row.cluster_id).map_or("-", String::as_str)),
            plain(row.template()),
            plain(row.stack().unwrap_or("-")),
            plain(row.action()),
            status(row.state()),
            plain(counts(row)),
            plain(took(row, now)),
            plain(ago(row.created_at, now)),
        ]);
    }
    context.out.line(table)
}

/// The first digits of an id: enough to name it.
pub(super) fn short_id(id: Uuid) -> String {
    id.to_string().chars().take(8).collect()
}

/// The counts of a plan in a few characters.
pub(super) fn counts(row: &Deployment) -> String {
    let Some(counts) = &row.plan_summary else { return "-".to_owned() };
    let count = |name: &str| counts.get(name).and_then(serde_json::Value::as_u64).unwrap_or(0);
    format!("+{} ~{} -{}", count("add"), count("change"), count("remove"))
}

/// How long it has been running, or took.
pub(super) fn took(row: &Deployment, now: Timestamp) -> String {
    let Some(started) = row.started_at.or(row.claimed_at) else { return "-".to_owned() };
    let end = row.finished_at.or_else(|| (!row.is_finished()).then_some(now));
    end.map_or_else(|| "-".to_owned(), |end| span(between(started, end)))
}

/// A deployment in JSON, whole.
pub(super) fn to_json(row: &Deployment) -> serde_json::Value {
    json!({ "deployment": row })
}
