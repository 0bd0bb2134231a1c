//! Clusters and their keys.

use jiff::Timestamp;
use serde_json::json;

use crate::{
    cli,
    context::Context,
    control_plane::cluster::{self, Cluster, KeyChange, KeyState},
    failure::{Failure, FailureKind, Result},
    output::{
        style::Tone,
        table::{Table, plain, status},
        time::ago,
    },
};

/// Lists the caller's clusters.
pub(super) async fn list(context: &Context) -> Result<()> {
    let project = context.project()?;
    let clusters = cluster::list(&project).await?;
    if context.out.is_json() {
        return context.out.json(&clusters);
    }
    if clusters.is_empty() {
        context.out.note("You have no cluster yet. `grape up NAME --region REGION` brings one online.");
        return Ok(());
    }
    let now = Timestamp::now();
    let mut table = Table::new(context.out.style, &["NAME", "STATUS", "SEEN", "AGENT", "AGE", "ID"]);
    for cluster in clusters {
        table.row([
            plain(&cluster.name),
            status(cluster.state()),
            plain(cluster.last_seen_at.map_or_else(|| "-".to_owned(), |time| ago(time, now))),
            plain(cluster.agent_version.as_deref().unwrap_or("-")),
            plain(ago(cluster.created_at, now)),
            (Tone::Dim, cluster.id.to_string()),
        ]);
    }
    context.out.line(table)
}

/// Makes and changes a cluster and its keys.
pub(super) async fn change(context: &Context, action: cli::Cluster) -> Result<()> {
    match action {
        cli::Cluster::Create { name, no_key } => create(context, &name, no_key).await,
        cli::Cluster::Show { name } => show(context, &name).await,
        cli::Cluster::Rotate { name } => rotate(context, &name).await,
        cli::Cluster::Promote { name, unused } => promote(context, &name, unused).await,
        cli::Cluster::Revoke { name, forever, yes } => revoke(context, &name, forever, yes).await,
    }
}

async fn create(context: &Context, name: &str, no_key: bool) -> Result<()> {
    let project = context.project()?;
    if let Some(existing) = cluster::by_name(&project, name).await? {
        return Err(Failure::new(
            FailureKind::Refused,
            format!("You have a cluster `{name}` already ({}).", existing.id),
        )
        .next(format!(
            "`grape cluster show {name}` shows its state; `grape cluster rotate {name}` creates another key."
        )));
    }
    let made = cluster::create(&project, name).await?;
    let key = if no_key { None } else { Some(cluster::new_key(&project, made.id, KeyChange::Create).await?) };
    if context.out.is_json() {
        return context.out.json(&json!({ "cluster": made, "key": key.as_deref() }));
    }
    context.out.note(format_args!("Cluster {} is made ({}).", made.name, made.id));
    show_key(context, key.as_deref().map(String::as_str))
}

/// The key alone on stdout, so that it can be piped; what it is on stderr.
fn show_key(context: &Context, key: Option<&str>) -> Result<()> {
    let Some(key) = key else { return Ok(()) };
    context.out.note("The API key for its agents (TENDRIL_AGENT_TOKEN). It is shown this once:");
    context.out.line(key)
}

async fn show(context: &Context, name: &str) -> Result<()> {
    let project = context.project()?;
    let found = cluster::find(&project, Some(name)).await?;
    let keys = cluster::keys(&project, found.id).await?;
    if context.out.is_json() {
        return context.out.json(&json!({ "cluster": found, "keys": keys }));
    }
    let now = Timestamp::now();
    let out = context.out;
    let fact = |name: &str, value: String| {
        out.line(format_args!("{} {value}", out.style.paint(Tone::Dim, format!("{name:<9}"))))
    };
    let time = |time: Option<Timestamp>| {
        time.map_or_else(|| "never".to_owned(), |time| format!("{} ago", ago(time, now)))
    };
    let key = |key: &Option<KeyState>| match key {
        None => "none".to_owned(),
        Some(key) => format!("made {}, used {}", time(key.created_at), time(key.last_used_at)),
    };
    let Cluster { id, name, agent_version, last_seen_at, .. } = &found;
    fact("name", name.clone())?;
    fact("id", id.to_string())?;
    fact("status", out.style.paint(Tone::of_status(found.state()), found.state()))?;
    fact("seen", time(*last_seen_at))?;
    fact("agent", agent_version.clone().unwrap_or_else(|| "-".to_owned()))?;
    fact("key", key(&keys.current))?;
    fact("next key", key(&keys.next))
}

async fn rotate(context: &Context, name: &str) -> Result<()> {
    let project = context.project()?;
    let found = cluster::find(&project, Some(name)).await?;
    let key = cluster::new_key(&project, found.id, KeyChange::Rotate).await?;
    if context.out.is_json() {
        return context.out.json(&json!({ "cluster": found, "key": *key }));
    }
    context.out.note(format_args!(
        "Cluster {} has a next key; both work. Give it to the agents, see it used (`grape cluster show {}`), then `grape cluster promote {}`.",
        found.name, found.name, found.name
    ));
    show_key(context, Some(&key))
}

async fn promote(context: &Context, name: &str, unused: bool) -> Result<()> {
    let project = context.project()?;
    let found = cluster::find(&project, Some(name)).await?;
    cluster::promote_key(&project, found.id, unused).await?;
    if context.out.is_json() {
        return context.out.json(&json!({ "cluster": found, "promoted": true }));
    }
    context.out.line(format_args!("The next key of cluster {} is its only key now.", found.name))
}

async fn revoke(context: &Context, name: &str, forever: bool, yes: bool) -> Result<()> {
    let project = context.project()?;
    let found = cluster::find(&project, Some(name)).await?;
    let question = if forever {
        format!("Shut the agents of cluster {} out at once, for ever?", found.name)
    } else {
        format!("Take the keys of cluster {} away?", found.name)
    };
    context.confirm(question, yes).await?;
    cluster::revoke_keys(&project, found.id).await?;
    if forever {
        cluster::revoke(&project, found.id).await?;
    }
    if context.out.is_json() {
        return context.out.json(&json!({ "cluster": found, "revoked": true, "forever": forever }));
    }
    context.out.line(if forever {
        format!("Cluster {} is revoked.", found.name)
    } else {
        format!(
            "Cluster {} has no key. Its agents lose access within 15 minutes; `--forever` does it at once.",
            found.name
        )
    })
}
