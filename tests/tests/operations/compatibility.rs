//! An agent beside a database of the contract before its own, and of the one after it.

use std::{fs, path::Path};

use serde_json::{Value, json};
use tendril_realtime::Rest;
use tendril_tests::{AgentSetup, World, fixtures, repository, until};
use uuid::Uuid;

use crate::{
    cancel::cancel,
    probe::{free_address, get},
};

/// Puts the migrations of a directory into another one.
fn migrations(from: &Path, dir: &Path) {
    for entry in fs::read_dir(from).expect("the migrations") {
        let file = entry.expect("a migration").path();
        fs::copy(&file, dir.join(file.file_name().expect("a name"))).expect("a copy");
    }
}

/// What the doctor prints about the database.
async fn examined(setup: &AgentSetup) -> String {
    let mut doctor = setup.doctor();
    let ended = doctor.ended().await;
    assert_eq!(ended.code(), Some(0), "{}", doctor.output());
    let message = doctor.output();
    message.lines().find(|line| line.contains("database schema")).expect("a finding").to_owned()
}

/// `contract` of `/status`, once it is known.
async fn contract(addr: std::net::SocketAddr) -> Value {
    until("the contract is shown", async || {
        let status = get(addr, "/status").map(|(_, body)| body).unwrap_or_default();
        let status: Value = serde_json::from_str(&status).unwrap_or_default();
        let shown = &status["contract"];
        if shown["database"].is_null() { Err(status.to_string()) } else { Ok(shown.clone()) }
    })
    .await
}

#[tokio::test]
async fn an_agent_is_built_for_the_contract_of_the_migrations_beside_it() {
    let world = World::start().await;
    let cluster = world.cluster().await;
    let addr = free_address();
    let setup = world.agent(&cluster).env("TENDRIL_HEALTH_ADDR", addr.to_string());
    let _agent = setup.start();
    let shown = contract(addr).await;
    assert_eq!((&shown["agent"], &shown["note"]), (&shown["database"], &Value::Null), "{shown}");
}

#[tokio::test]
async fn with_a_database_of_the_contract_before_jobs_run_are_cancelled_and_wait_for_approval() {
    let world = World::with_migrations(&fixtures("contract-2")).await;
    let cluster = world.cluster().await;
    let addr = free_address();
    let setup = world.agent(&cluster);
    let message = examined(&setup).await;
    assert!(
        message.starts_with("ok ") && message.contains("Apply the newest supabase/migrations"),
        "{message}"
    );

    let agent = setup.env("TENDRIL_HEALTH_ADDR", addr.to_string()).start();
    let job = cluster.queue(json!({"template": "count", "stack": "s", "variables": {"lines": 3}})).await;
    let row = job.ended().await;
    assert_eq!(row.status, "SUCCESS", "{row:?}");
    assert_eq!(row.plan_summary.as_ref().and_then(|plan| plan["add"].as_u64()), Some(1), "{row:?}");
    job.log().await.assert_complete(&row);
    let shown = contract(addr).await;
    assert_eq!(shown["database"], 2, "{shown}");
    assert!(
        shown["note"].as_str().is_some_and(|note| note.contains("all works but what came since")),
        "{shown}"
    );
    agent.says("the database holds contract 2").await;

    let waits = cluster
        .queue(json!({"template": "count", "stack": "w", "approval": true, "variables": {"lines": 2}}))
        .await;
    waits.becomes("rests in APPROVAL", |row| row.phase.as_deref() == Some("APPROVAL")).await;
    cancel(&waits).await;
    assert_eq!(waits.ended().await.status, "CANCELLED");
}

#[tokio::test]
async fn with_a_database_of_a_later_contract_jobs_run_and_rows_of_an_unknown_status_are_left_alone() {
    let dir = tempfile::tempdir().expect("a directory");
    migrations(&repository("supabase/migrations"), dir.path());
    let next = "29991231000000_next_contract.sql";
    fs::copy(fixtures("migrations").join(next), dir.path().join(next)).expect("a copy");
    let world = World::with_migrations(dir.path()).await;
    let cluster = world.cluster().await;
    let add = "insert into public.deployments (cluster_id, config_snapshot, status, priority) values ($1, $2, 'PAUSED', 9) returning id";
    let paused = async || {
        let snapshot = json!({"template": "count", "stack": "paused", "variables": {"lines": 2}});
        let row = world.database.query_one(add, &[&cluster.id, &snapshot]).await.expect("a row");
        row.get::<_, uuid::Uuid>(0)
    };
    // One that was there before the agent, and one that it receives live.
    let before = paused().await;
    let addr = free_address();
    let setup = world.agent(&cluster).env("TENDRIL_HEARTBEAT", "1s");
    let message = examined(&setup).await;
    assert!(
        message.starts_with("ok ") && message.contains("Upgrade the agent when it suits you"),
        "{message}"
    );
    let agent = setup.env("TENDRIL_HEALTH_ADDR", addr.to_string()).start();
    assert_eq!(contract(addr).await["database"], 4);
    let live = paused().await;

    // The job runs through several heartbeats that call its status and its phase by names unknown to the agent.
    let variables = json!({"lines": 3, "gate": world.path("gate")});
    let job = cluster.queue(json!({"template": "count", "stack": "s", "variables": variables})).await;
    job.says("at the gate").await;
    let seen = "select last_seen_at::text from public.cluster_status where id = $1";
    let last_contact = async || {
        world.database.query_one(seen, &[&cluster.id]).await.expect("the cluster").get::<_, String>(0)
    };
    for _ in 0..2 {
        let last = last_contact().await;
        until("the agent sends heartbeats again", async || {
            let now = last_contact().await;
            if now == last { Err(now) } else { Ok(()) }
        })
        .await;
    }
    fs::write(world.path("gate"), "").expect("the gate opens");
    let row = job.ended().await;
    assert_eq!((row.status.as_str(), row.attempt), ("SUCCESS", 1), "{row:?}\n{}", agent.output());
    job.log().await.assert_complete(&row);

    let gate = world.path("closed");
    let variables = json!({"lines": 3, "gate": gate});
    let cancelled = cluster.queue(json!({"template": "count", "stack": "c", "variables": variables})).await;
    cancelled.says("at the gate").await;
    cancel(&cancelled).await;
    assert_eq!(cancelled.ended().await.status, "CANCELLED");

    let left =
        "select count(*) from public.deployments where id = any($1) and status = 'PAUSED' and attempt = 0";
    let left: i64 = world.database.query_one(left, &[&vec![before, live]]).await.expect("the rows").get(0);
    assert_eq!(left, 2, "{}", agent.output());
    assert!(!agent.output().contains("cannot be read"), "{}", agent.output());
}

/// An agent of contract 2, as its requests were: it names no backend, reads `config_snapshot` and no `state_key`, and has no order.
struct ContractTwo {
    rest: Rest,
    cluster_id: Uuid,
}

impl ContractTwo {
    async fn beat(&self, claims: &[Uuid]) -> Value {
        let arguments = json!({"version": "0.1.0", "claim_tokens": claims, "agent": "two"});
        self.rest.rpc("agent_heartbeat", &arguments).idempotent(true).value().await.expect("a heartbeat")
    }

    /// The rows of its list, in its order.
    async fn list(&self) -> Vec<Value> {
        let columns =
            "id,status,created_at,attempt,claim_token,cancel_requested_at,approved_plan,config_snapshot";
        let rows = self.rest.from("deployments").select(columns).eq("cluster_id", self.cluster_id);
        let rows = rows.in_list("status", ["QUEUED", "PROCESSING"]).order("created_at").order("id");
        rows.rows().await.expect("the queue")
    }

    async fn claim(&self, id: Uuid, claim_token: Uuid) -> Result<Vec<Value>, tendril_realtime::Error> {
        let body = json!({"status": "PROCESSING", "claim_token": claim_token, "claimed_by": "two"});
        let claim = self.rest.from("deployments").update(&body).eq("id", id).eq("status", "QUEUED");
        claim.select("status,claim_token,attempt,config_snapshot").rows().await
    }

    /// A write with the claim; the row's status and phase after it.
    async fn write(&self, id: Uuid, claim_token: Uuid, fields: Value) -> (Value, Value) {
        let mut body = fields;
        body["claim_token"] = json!(claim_token);
        let write = self.rest.from("deployments").update(&body).eq("id", id).select("status,phase");
        let rows: Vec<Value> = write.idempotent(true).rows().await.expect("it is stored");
        assert_eq!(rows.len(), 1, "{body}");
        (rows[0]["status"].clone(), rows[0]["phase"].clone())
    }
}

#[tokio::test]
async fn an_agent_of_the_contract_before_works_with_this_database_and_keeps_the_order_of_stacks() {
    let world = World::start().await;
    let cluster = world.cluster().await;
    let agent = ContractTwo { rest: cluster.as_agent().rest().clone(), cluster_id: cluster.id };
    let answer = agent.beat(&[]).await;
    assert_eq!(answer["claims"], json!([]));
    assert!(answer["reaped"].is_u64() && answer["contract"] == 3, "{answer}");
    assert_eq!(cluster.status().await, "ONLINE");
    let granted: Value =
        agent.rest.rpc("agent_wants_broadcasts", &json!({})).value().await.expect("broadcasts");
    assert_eq!(granted["topic"], format!("cluster:{}", cluster.id));

    let order = json!({"template": "count", "stack": "s", "approval": true, "variables": {"lines": 2}});
    let jobs = [cluster.queue(order.clone()).await, cluster.queue(order).await];
    let listed = agent.list().await;
    assert_eq!((listed.len(), &listed[0]["id"]), (2, &json!(jobs[0].id)), "{listed:?}");

    // It claims any row, as it did; the database has it begin with the oldest.
    let (first, second) = (Uuid::new_v4(), Uuid::new_v4());
    assert_eq!(agent.claim(jobs[1].id, second).await.expect_err("out of turn").code(), "TD006");
    let won = agent.claim(jobs[0].id, first).await.expect("a claim");
    assert_eq!((&won[0]["status"], &won[0]["attempt"]), (&json!("PROCESSING"), &json!(1)), "{won:?}");
    assert_eq!(agent.claim(jobs[0].id, second).await.expect("a lost race"), [] as [Value; 0]);
    let claim = agent.beat(&[first]).await["claims"][0].clone();
    assert_eq!((&claim["mine"], &claim["cancel_requested"]), (&json!(true), &json!(false)), "{claim}");

    let processing = |phase: &str| (json!("PROCESSING"), json!(phase));
    assert_eq!(agent.write(jobs[0].id, first, json!({"phase": "INIT"})).await, processing("INIT"));
    let chunk = json!([{"deployment_id": jobs[0].id, "attempt": 1, "seq": 1, "stream": "stdout", "log_chunk": "x\n", "ts": "2026-01-01T00:00:00Z"}]);
    for _ in 0..2 {
        let insert = agent.rest.from("deployment_logs").insert(&chunk);
        let insert = insert.on_conflict(["deployment_id", "attempt", "seq"]).ignore_duplicates();
        insert.execute().await.expect("a chunk");
    }
    let plan = "a".repeat(64);
    let shown = json!({"phase": "APPROVAL", "plan_sha256": plan, "plan_summary": {"add": 1, "change": 0, "remove": 0}});
    assert_eq!(agent.write(jobs[0].id, first, shown).await, processing("APPROVAL"));
    let approve = json!({"approved_plan": plan});
    jobs[0]
        .as_user
        .from("deployments")
        .update(&approve)
        .eq("id", jobs[0].id)
        .execute()
        .await
        .expect("approved");
    assert_eq!(agent.list().await[0]["approved_plan"], plan);
    assert_eq!(agent.write(jobs[0].id, first, json!({"phase": "APPLY"})).await, processing("APPLY"));
    let end = json!({"status": "SUCCESS", "error_code": null, "error_message": null, "outputs": {"counted": 2}, "log_count": 1});
    assert_eq!(agent.write(jobs[0].id, first, end).await.0, "SUCCESS");
    assert_eq!(agent.beat(&[first]).await["claims"][0]["mine"], false);

    assert_eq!(agent.claim(jobs[1].id, second).await.expect("its turn").len(), 1);
    let stopped = json!({"status": "FAILED", "error_code": "AGENT_STOPPED", "error_message": "stopped", "log_count": 0});
    agent.write(jobs[1].id, second, stopped).await;
    let offline = agent.rest.rpc("agent_offline", &json!({"agent": "two"}));
    offline.execute().await.expect("a good-bye");
    assert_eq!(cluster.status().await, "OFFLINE");
}
