//! A user with a cluster: queues deployments as that user, mints tokens.

use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};
use tendril_realtime::{AccessToken, Client, Rest};
use uuid::Uuid;

use crate::{deployment::Deployment, project::Project, wait::until};

/// How long minted tokens live.
const HOUR: Duration = Duration::from_secs(3600);

/// A cluster and its owner.
#[derive(Debug, Clone)]
pub struct Cluster {
    /// The cluster.
    pub id: Uuid,
    /// Its owner.
    pub user: Uuid,
    pub(crate) project: Arc<Project>,
    pub(crate) database: Arc<tokio_postgres::Client>,
}

impl Cluster {
    /// A token of the owner.
    pub fn user_token(&self) -> String {
        self.project.jwt.user_token(&self.user.to_string(), HOUR)
    }

    /// A token of the cluster's agent.
    pub fn machine_token(&self) -> String {
        self.machine_token_for(HOUR)
    }

    /// A token of the cluster's agent that expires after `ttl`.
    pub fn machine_token_for(&self, ttl: Duration) -> String {
        self.project.jwt.machine_token(&self.id.to_string(), ttl)
    }

    /// The cluster's first API key, made by its owner.
    pub async fn key(&self) -> String {
        self.as_owner("create_cluster_key").await
    }

    /// The answer of a function about the cluster's keys to its owner: `rotate_cluster_key`, `cluster_key_status`, …
    pub async fn as_owner<T: serde::de::DeserializeOwned>(&self, function: &str) -> T {
        let rest = self.as_user().rest().clone();
        let answer = rest.rpc(function, &json!({"cluster_id": self.id})).value().await;
        answer.unwrap_or_else(|error| panic!("{function}: {error}"))
    }

    /// The project as the owner sees it.
    pub fn as_user(&self) -> Client {
        self.client(&self.user_token())
    }

    /// The project as the cluster's agent sees it.
    pub fn as_agent(&self) -> Client {
        self.client(&self.machine_token())
    }

    fn client(&self, token: &str) -> Client {
        let token = AccessToken::new(token).expect("a token");
        Client::builder(&self.project.url, &self.project.anon_key)
            .token_source(token)
            .build()
            .expect("a client")
    }

    /// Queues a deployment, as the owner over REST.
    pub async fn queue(&self, config_snapshot: Value) -> Deployment {
        let mut queued = self.queue_all([config_snapshot]).await;
        queued.pop().expect("one deployment")
    }

    /// Queues deployments in one request.
    pub async fn queue_all(&self, config_snapshots: impl IntoIterator<Item = Value>) -> Vec<Deployment> {
        #[derive(serde::Deserialize)]
        struct Queued {
            id: Uuid,
            status: String,
        }
        let rows: Vec<Value> = config_snapshots
            .into_iter()
            .map(|config| json!({"cluster_id": self.id, "config_snapshot": config}))
            .collect();
        let rest = self.as_user().rest().clone();
        let queued: Vec<Queued> = rest
            .from("deployments")
            .insert(&rows)
            .select("id,status")
            .rows()
            .await
            .expect("deployments are queued");
        assert!(queued.iter().all(|row| row.status == "QUEUED"));
        queued.into_iter().map(|row| self.deployment(row.id, &rest)).collect()
    }

    fn deployment(&self, id: Uuid, as_user: &Rest) -> Deployment {
        Deployment { id, as_user: as_user.clone(), database: Arc::clone(&self.database) }
    }

    /// The cluster's status.
    pub async fn status(&self) -> String {
        let query = "select status from public.clusters where id = $1";
        self.database.query_one(query, &[&self.id]).await.expect("the cluster").get(0)
    }

    /// Waits for the first heartbeat.
    pub async fn online(&self) {
        until("the cluster is ONLINE", async || {
            let status = self.status().await;
            if status == "ONLINE" { Ok(()) } else { Err(status) }
        })
        .await;
    }
}
