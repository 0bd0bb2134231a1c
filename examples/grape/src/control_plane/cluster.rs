//! Clusters, and their keys.

use std::collections::HashMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tendril_realtime::{Rest, watch::Query};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::project::{Project, variable};
use crate::failure::{Failure, FailureKind, Result};

const COLUMNS: &str = "id,name,status,agent_version,revoked_at,created_at";

/// A row of `clusters`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cluster {
    /// Made by the database.
    pub id: Uuid,
    /// For people.
    pub name: String,
    /// `PENDING` until the first heartbeat, then `ONLINE` or `OFFLINE`.
    pub status: String,
    /// The status that its agents reported last.
    pub agent_version: Option<String>,
    /// The last heartbeat of its agents.
    #[serde(default)]
    pub last_seen_at: Option<Timestamp>,
    /// When its owner shut it out; final.
    pub revoked_at: Option<Timestamp>,
    /// When it was added.
    pub created_at: Timestamp,
}

impl Cluster {
    /// Its status; `REVOKED` for a revoked cluster, whatever its row has.
    pub fn state(&self) -> &str {
        if self.revoked_at.is_some() { "REVOKED" } else { &self.status }
    }

    /// All clusters of the caller, to watch.
    pub fn query() -> Query {
        Query::table("clusters").select(COLUMNS)
    }

    /// The one with this id, to watch.
    pub fn query_one(id: Uuid) -> Query {
        Query::table("clusters").select(COLUMNS).immutable_eq("id", id)
    }
}

/// When a key was made and used.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct KeyState {
    /// Unknown for a hash that was set directly.
    pub created_at: Option<Timestamp>,
    /// Null while no agent has used it.
    pub last_used_at: Option<Timestamp>,
}

/// The keys of a cluster.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Keys {
    /// The key in use.
    pub current: Option<KeyState>,
    /// The next one, during a rotation.
    pub next: Option<KeyState>,
}

/// All clusters of the caller, by name.
///
/// # Errors
/// What the project answers.
pub async fn list(project: &Project) -> Result<Vec<Cluster>> {
    let request = |rest: &Rest| rest.from("clusters").select(COLUMNS).order("name").order("id");
    let mut clusters: Vec<Cluster> = project.all(request).await?;
    let seen = last_seen(project).await?;
    let seen: HashMap<Uuid, Option<Timestamp>> =
        seen.into_iter().map(|seen| (seen.id, seen.last_seen_at)).collect();
    for cluster in &mut clusters {
        cluster.last_seen_at = seen.get(&cluster.id).copied().flatten();
    }
    Ok(clusters)
}

/// The last heartbeat of a cluster's agents.
#[derive(Deserialize)]
struct Seen {
    id: Uuid,
    last_seen_at: Option<Timestamp>,
}

/// The view of contract 3, or the table's own column before it.
async fn last_seen(project: &Project) -> Result<Vec<Seen>> {
    let place = if project.has_stacks().await? { "cluster_status" } else { "clusters" };
    match project.all(|rest| rest.from(place).select("id,last_seen_at").order("id")).await {
        Ok(rows) => Ok(rows),
        Err(error) if matches!(error.code(), "PGRST205" | "42P01" | "42703" | "42501") => Ok(Vec::new()),
        Err(error) => Err(error.into()),
    }
}

/// The cluster with this name or id; without one, the profile's, or the only one there is.
///
/// # Errors
/// [`FailureKind::NotFound`], and [`FailureKind::Usage`] where more than one could be meant.
pub async fn find(project: &Project, requested: Option<&str>) -> Result<Cluster> {
    let clusters = list(project).await?;
    let wanted = requested
        .map(str::to_owned)
        .or_else(|| variable("TENDRIL_CLUSTER"))
        .or_else(|| project.profile.cluster.clone());
    choose(&clusters, wanted.as_deref())
}

fn choose(clusters: &[Cluster], wanted: Option<&str>) -> Result<Cluster> {
    let names = |clusters: &[Cluster]| {
        let names: Vec<_> = clusters.iter().map(|cluster| cluster.name.as_str()).take(10).collect();
        names.join(", ")
    };
    let Some(wanted) = wanted else {
        let mut live: Vec<_> =
            clusters.iter().filter(|cluster| cluster.revoked_at.is_none()).cloned().collect();
        return match live.len() {
            1 => Ok(live.remove(0)),
            0 => Err(Failure::new(FailureKind::NotFound, "You have no cluster yet.")
                .next("Make one: `grape up NAME --region REGION`, or its row and key alone: `grape cluster create NAME`.")),
            _ => Err(Failure::new(FailureKind::Usage, "You have several clusters: choose one.")
                .next(format!("Add --cluster NAME, one of: {}.", names(&live)))),
        };
    };
    let by_id = wanted.parse::<Uuid>().ok();
    let mut found: Vec<_> = clusters
        .iter()
        .filter(|cluster| cluster.name == wanted || Some(cluster.id) == by_id)
        .cloned()
        .collect();
    // A name may have been used before by one that was revoked.
    if found.len() > 1 && found.iter().any(|cluster| cluster.revoked_at.is_none()) {
        found.retain(|cluster| cluster.revoked_at.is_none());
    }
    match found.len() {
        1 => Ok(found.remove(0)),
        0 if clusters.is_empty() => {
            Err(Failure::new(FailureKind::NotFound, format!("You have no cluster `{wanted}`, and no other."))
                .next(format!("Make it: `grape cluster create {wanted}`. `grape whoami` shows who you are.")))
        }
        0 => Err(Failure::new(FailureKind::NotFound, format!("You have no cluster `{wanted}`."))
            .next(format!("You have: {}.", names(clusters)))),
        _ => Err(Failure::new(
            FailureKind::Usage,
            format!("More than one of your clusters is called `{wanted}`."),
        )
        .next(
            found
                .iter()
                .map(|cluster| format!("Name it by its id: {}", cluster.id))
                .collect::<Vec<_>>()
                .join("\n"),
        )),
    }
}

/// The caller's cluster with exactly this name that is not revoked, if there is one.
///
/// # Errors
/// What the project answers.
pub async fn by_name(project: &Project, name: &str) -> Result<Option<Cluster>> {
    let live =
        list(project).await?.into_iter().find(|cluster| cluster.name == name && cluster.revoked_at.is_none());
    Ok(live)
}

/// Adds a cluster.
///
/// # Errors
/// What the project answers.
pub async fn create(project: &Project, name: &str) -> Result<Cluster> {
    let row = project.rest().from("clusters").insert(&json!({ "name": name })).select(COLUMNS);
    Ok(row.single().await?)
}

/// What can be done to the keys of a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyChange {
    /// The first key.
    Create,
    /// A next key beside the current one.
    Rotate,
}

impl KeyChange {
    const fn function(self) -> &'static str {
        match self {
            Self::Create => "create_cluster_key",
            Self::Rotate => "rotate_cluster_key",
        }
    }
}

/// Makes a key. It is answered this once.
///
/// # Errors
/// Errors of the database.
pub async fn new_key(project: &Project, cluster: Uuid, change: KeyChange) -> Result<Zeroizing<String>> {
    let answer =
        project.rest().rpc(change.function(), &json!({ "cluster_id": cluster })).value::<String>().await?;
    Ok(Zeroizing::new(answer))
}

/// Ends a rotation: the next key becomes the only one.
///
/// # Errors
/// Errors of the database: no next key, or one that was never used.
pub async fn promote_key(project: &Project, cluster: Uuid, unused: bool) -> Result<()> {
    let arguments = json!({ "cluster_id": cluster, "unused": unused });
    let answer = project.rest().rpc("promote_cluster_key", &arguments).execute().await;
    match answer {
        Err(error) if error.code() == "TD007" && error.to_string().contains("never used") => {
            let text = error.postgrest().map_or_else(String::new, |api| api.message.clone());
            Err(Failure::new(FailureKind::Refused, text)
                .next("Give the new key to the agent first; `grape cluster show` shows when it is used. To promote it all the same: --unused.")
                .caused_by(error))
        }
        other => Ok(other.map(drop)?),
    }
}

/// Takes both keys away.
///
/// # Errors
/// Errors of the database.
pub async fn revoke_keys(project: &Project, cluster: Uuid) -> Result<()> {
    Ok(project
        .rest()
        .rpc("revoke_cluster_key", &json!({ "cluster_id": cluster }))
        .execute()
        .await
        .map(drop)?)
}

/// Shuts the cluster's agents out at once and for ever.
///
/// # Errors
/// Errors of the database.
pub async fn revoke(project: &Project, cluster: Uuid) -> Result<()> {
    let revoked = json!({ "revoked_at": "now" });
    let update = project.rest().from("clusters").update(&revoked).eq("id", cluster).idempotent(true);
    Ok(update.execute().await.map(drop)?)
}

/// When the keys were made and used.
///
/// # Errors
/// Errors of the database.
pub async fn keys(project: &Project, cluster: Uuid) -> Result<Keys> {
    let answer: Value =
        project.rest().rpc("cluster_key_status", &json!({ "cluster_id": cluster })).value().await?;
    serde_json::from_value(answer).map_err(|error| {
        Failure::new(FailureKind::Unexpected, "The state of the keys cannot be read.").caused_by(error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster(name: &str, id: u128, revoked: bool) -> Cluster {
        Cluster {
            id: Uuid::from_u128(id),
            name: name.to_owned(),
            status: "ONLINE".to_owned(),
            agent_version: None,
            last_seen_at: None,
            revoked_at: revoked.then_some(Timestamp::UNIX_EPOCH),
            created_at: Timestamp::UNIX_EPOCH,
        }
    }

    #[test]
    fn the_only_cluster_need_not_be_named() {
        assert_eq!(choose(&[cluster("a", 1, false), cluster("b", 2, true)], None).unwrap().name, "a");
        assert_eq!(choose(&[], None).unwrap_err().kind(), FailureKind::NotFound);
        let several = choose(&[cluster("a", 1, false), cluster("b", 2, false)], None).unwrap_err();
        assert_eq!(several.kind(), FailureKind::Usage);
        assert!(several.next_step().unwrap().contains("a, b"));
    }

    #[test]
    fn a_cluster_is_found_by_name_or_id_and_a_revoked_one_gives_way() {
        let all = || vec![cluster("a", 1, true), cluster("a", 2, false), cluster("b", 3, false)];
        assert_eq!(choose(&all(), Some("a")).unwrap().id, Uuid::from_u128(2));
        assert_eq!(choose(&all(), Some(&Uuid::from_u128(1).to_string())).unwrap().id, Uuid::from_u128(1));
        assert_eq!(choose(&all(), Some("c")).unwrap_err().kind(), FailureKind::NotFound);
        let twins = vec![cluster("a", 1, false), cluster("a", 2, false)];
        assert_eq!(choose(&twins, Some("a")).unwrap_err().kind(), FailureKind::Usage);
    }
}
