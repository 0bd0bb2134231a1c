//! Very many plans that wait for approval, without the hours in which they would be made.

use std::{fs, path::Path};

use serde_json::json;
use uuid::Uuid;

use crate::{agent::AgentSetup, cluster::Cluster, world::World};

impl World {
    /// Queues so many deployments and leaves them as an agent does that has shown their plans: the rows, and what is in its work directory.
    /// The agent must not run.
    pub async fn plans_that_wait(&self, cluster: &Cluster, setup: &AgentSetup, count: usize) {
        let config = json!({"template": "story", "approval": true, "variables": {}});
        cluster.queue_all(std::iter::repeat_n(config, count)).await;
        let triggers = async |what: &str| {
            let statement = format!("alter table public.deployments {what} trigger user");
            self.database.batch_execute(&statement).await.expect("the triggers");
        };
        triggers("disable").await;
        let rest = "update public.deployments set status = 'PROCESSING', phase = 'APPROVAL', attempt = 1, claim_token = gen_random_uuid(), claimed_by = 'scenario',
            claimed_at = now(), started_at = now(), plan_sha256 = repeat('a', 64) where cluster_id = $1 and status = 'QUEUED'";
        let moved = self.database.execute(rest, &[&cluster.id]).await.expect("they wait");
        triggers("enable").await;
        assert_eq!(usize::try_from(moved).expect("a count"), count);
        let leases = "insert into tendril.leases (deployment_id, cluster_id) select id, cluster_id from public.deployments where cluster_id = $1 and status = 'PROCESSING' on conflict do nothing";
        self.database.execute(leases, &[&cluster.id]).await.expect("their leases");
        let work_dir = setup.cli.work_dir.clone().expect("a directory");
        let query = "select id, claim_token, state_key from public.deployments where cluster_id = $1 and status = 'PROCESSING'";
        for row in self.database.query(query, &[&cluster.id]).await.expect("rows") {
            let (id, claim_token, state_key): (Uuid, Uuid, String) = (row.get(0), row.get(1), row.get(2));
            let dir = Path::new(&work_dir).join(format!("{id}.1"));
            fs::create_dir(&dir).expect("a directory");
            let claim = json!({"deployment_id": id, "attempt": 1, "claim_token": claim_token, "phase": "APPROVAL", "state_key": state_key, "waits": true});
            fs::write(dir.join("claim.json"), claim.to_string()).expect("a claim");
        }
    }

    /// How many plans of a cluster wait for approval.
    pub async fn plans_waiting(&self, cluster: &Cluster) -> usize {
        let query = "select count(*) from public.deployments where cluster_id = $1 and status = 'PROCESSING' and phase = 'APPROVAL'";
        let count: i64 = self.database.query_one(query, &[&cluster.id]).await.expect("a count").get(0);
        usize::try_from(count).expect("a count")
    }
}
