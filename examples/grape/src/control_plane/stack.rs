//! Stacks: what deployments work on, one state each.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tendril_realtime::Rest;
use uuid::Uuid;

use super::{deployment, project::Project};
use crate::failure::Result;

/// A stack and its last run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Stack {
    /// Where it is.
    pub cluster_id: Uuid,
    /// Its key in the cluster.
    pub state_key: String,
    /// The template, where it is not from Git.
    pub template: Option<String>,
    /// Its name.
    pub stack: Option<String>,
    /// The last deployment.
    pub last_deployment_id: Option<Uuid>,
    /// How that stands.
    pub last_status: Option<String>,
    /// What it did.
    pub last_action: Option<String>,
    /// When it ended.
    pub last_finished_at: Option<Timestamp>,
    /// How many resources it has; not known from older databases.
    #[serde(default)]
    pub resources: Option<i64>,
    /// The agent that holds a state that is not stored yet.
    #[serde(default)]
    pub state_held_by: Option<String>,
    /// Why it holds it.
    #[serde(default)]
    pub state_held_reason: Option<String>,
}

const COLUMNS: &str = "cluster_id,state_key,template,stack,last_deployment_id,last_status,last_action,last_finished_at,\
                       resources,state_held_by,state_held_reason";

/// How many deployments are read where the database has no table of stacks.
const LOOKBACK: u64 = 1000;

/// The stacks of a cluster, or of all.
///
/// # Errors
/// What the project answers.
pub async fn list(project: &Project, cluster: Option<Uuid>) -> Result<Vec<Stack>> {
    if !project.has_stacks().await? {
        return from_deployments(project, cluster).await;
    }
    let request = |rest: &Rest| {
        let rows = rest.from("stacks").select(COLUMNS).order("cluster_id").order("state_key");
        match cluster {
            Some(cluster) => rows.eq("cluster_id", cluster),
            None => rows,
        }
    };
    Ok(project.all(request).await?)
}

/// The stacks of the newest deployments, for databases before contract 3. Deployments without a stack's name are left out: each has
/// a state of its own.
async fn from_deployments(project: &Project, cluster: Option<Uuid>) -> Result<Vec<Stack>> {
    let mut stacks = BTreeMap::new();
    for row in deployment::newest(project, cluster, LOOKBACK).await? {
        let Some(name) = row.stack().map(str::to_owned) else { continue };
        let template = row.template();
        let key = (row.cluster_id, format!("{template}.{name}"));
        stacks.entry(key.clone()).or_insert_with(|| Stack {
            cluster_id: key.0,
            state_key: key.1,
            template: Some(template),
            stack: Some(name),
            last_deployment_id: Some(row.id),
            last_status: Some(row.status.clone()),
            last_action: Some(row.action().to_owned()),
            last_finished_at: row.finished_at,
            resources: None,
            state_held_by: None,
            state_held_reason: None,
        });
    }
    Ok(stacks.into_values().collect())
}
