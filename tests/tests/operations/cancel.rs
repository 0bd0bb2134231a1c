//! A user cancels: in every phase, twice, and soon.

use std::time::{Duration, Instant};

use serde_json::json;
use supabase_local::{Cut, RequestFault, Target};
use tendril_tests::{Deployment, Row, World, until};

/// A cancel is seen by Realtime, not by the next heartbeat.
const SOON: Duration = Duration::from_secs(3);

pub(crate) async fn cancel(job: &Deployment) {
    let cancel = json!({"cancel_requested_at": "2026-01-01T00:00:00Z"});
    job.as_user
        .from("deployments")
        .update(&cancel)
        .eq("id", job.id)
        .execute()
        .await
        .expect("it is requested");
}

/// Cancels twice; answers the final row and how long it took.
async fn cancel_twice(job: &Deployment) -> (Row, Duration) {
    let requested = Instant::now();
    cancel(job).await;
    cancel(job).await;
    (job.ended().await, requested.elapsed())
}

#[tokio::test]
async fn a_job_that_waits_is_cancelled_at_once_and_never_claimed() {
    let world = World::start().await;
    let cluster = world.cluster().await;
    let job = cluster.queue(json!({"template": "count", "variables": {"lines": 2}})).await;
    cancel_twice(&job).await;
    let _agent = world.agent(&cluster).stand_in().start();
    cluster.online().await;
    let variables = json!({"ledger": world.path("ledger"), "ticket": "1"});
    cluster.queue(json!({"template": "ticket", "variables": variables})).await.ended().await;
    let row = job.row().await;
    assert_eq!((row.status.as_str(), row.attempt), ("CANCELLED", 0), "{row:?}");
}

#[tokio::test]
async fn a_cancel_in_each_phase_is_seen_soon_and_ends_cancelled() {
    let world = World::start().await;
    let cluster = world.cluster().await;
    for phase in ["init", "plan", "apply", "output"] {
        let gate = world.path(&format!("{phase}-began"));
        let agent = world
            .agent(&cluster)
            .terraform(&tendril_tests::fixtures("terraform-that-lingers"))
            .env("AWS_LINGERS_IN", phase)
            .env("AWS_GATE", gate.to_str().expect("a path"))
            .start();
        cluster.online().await;
        let job = cluster
            .queue(
                json!({"template": "ticket", "variables": {"ledger": world.path("ledger"), "ticket": "1"}}),
            )
            .await;
        until(&format!("{phase} begins"), async || {
            if gate.exists() { Ok(()) } else { Err(format!("{:?}", job.row().await)) }
        })
        .await;
        let (row, took) = cancel_twice(&job).await;
        assert_eq!(
            (row.status.as_str(), row.error_code.as_deref()),
            ("CANCELLED", Some("CANCELLED")),
            "{phase}: {row:?}"
        );
        let message = row.error_message.clone().expect("a message");
        // What follows the apply reports that there was one.
        let applied = if phase == "output" { " The apply was complete before that." } else { "" };
        assert_eq!(
            message,
            format!("Cancelled during {phase}: it ended after one interrupt (SIGINT).{applied}")
        );
        assert!(took < SOON, "{phase}: {took:?}");
        job.log().await.assert_complete(&row);
        drop(agent);
    }
}

#[tokio::test]
async fn without_realtime_a_cancel_is_seen_with_the_next_heartbeat() {
    let world = World::start().await;
    let Some(stack) = world.project.stack("Realtime is switched off") else { return };
    let cluster = world.cluster().await;
    let gate = world.path("began");
    let mut setup = world.agent(&cluster).terraform(&tendril_tests::fixtures("terraform-that-lingers"));
    setup.cli.heartbeat = Some("2s".to_owned());
    let _agent = setup.env("AWS_LINGERS_IN", "apply").env("AWS_GATE", gate.to_str().expect("a path")).start();
    cluster.online().await;
    let variables = json!({"ledger": world.path("ledger"), "ticket": "1"});
    let job = cluster.queue(json!({"template": "ticket", "variables": variables})).await;
    until("apply begins", async || if gate.exists() { Ok(()) } else { Err("not yet".to_owned()) }).await;
    stack.faults().refuse_realtime(true);
    stack.faults().cut_sockets(Cut::Abrupt);
    let (row, took) = cancel_twice(&job).await;
    assert_eq!(row.status, "CANCELLED", "{row:?}");
    // The longest pause between two heartbeats, and what the end takes.
    assert!(took < Duration::from_millis(2400) + SOON, "{took:?}");
    job.log().await.assert_complete(&row);
}

#[tokio::test]
async fn a_cancel_that_overtakes_the_answer_to_the_claim_is_not_forgotten() {
    let world = World::start().await;
    let Some(stack) = world.project.stack("the answer to a claim is late") else { return };
    let cluster = world.cluster().await;
    let _agent = world.agent(&cluster).stand_in().start();
    cluster.online().await;
    let ticket = |number: &str| json!({"template": "ticket", "variables": {"ledger": world.path("ledger"), "ticket": number}});
    // Rows flow before the next one comes.
    assert_eq!(cluster.queue(ticket("1")).await.ended().await.status, "SUCCESS");
    let claims = Target::all().method("PATCH").path("/rest/v1/deployments").times(1);
    let late = stack.faults().on_requests(RequestFault::Delay(Duration::from_secs(2)), claims);
    let job = cluster.queue(ticket("2")).await;
    job.becomes("is claimed", |row| row.status == "PROCESSING").await;
    cancel(&job).await;
    let row = job.ended().await;
    assert_eq!(late.struck(), 1);
    assert_eq!(
        (row.status.as_str(), row.error_message.as_deref()),
        ("CANCELLED", Some("Cancelled before init began.")),
        "{row:?}"
    );
    job.log().await.assert_complete(&row);
}

#[tokio::test]
async fn a_cancel_while_another_one_holds_the_states_lock_is_seen_soon() {
    let world = World::start().await;
    let cluster = world.cluster().await;
    let _agent = world
        .agent(&cluster)
        .env("TENDRIL_STATE_BACKEND", "pg")
        .env("PG_CONN_STR", format!("{}?sslmode=disable", world.project.database_url))
        .start();
    let snapshot = |action: &str| json!({"template": "count", "stack": "prod", "action": action, "variables": {"lines": 2}});
    assert_eq!(cluster.queue(snapshot("apply")).await.ended().await.status, "SUCCESS");
    let schema =
        "select schema_name from information_schema.schemata where schema_name like 'tendril\\_count%'";
    let schema: String = world.database.query_one(schema, &[]).await.expect("one schema").get(0);
    let lock = format!("select pg_advisory_lock(id) from {schema}.states where name = 'default'");
    let other = world.project.database().await;
    other.simple_query(&lock).await.expect("the lock");
    let job = cluster.queue(snapshot("destroy")).await;
    job.becomes("waits in PLAN", |row| row.phase.as_deref() == Some("PLAN")).await;
    job.says("terraform plan").await;
    let (row, took) = cancel_twice(&job).await;
    assert_eq!(row.status, "CANCELLED", "{row:?}");
    assert!(took < 2 * SOON, "{took:?}");
    job.log().await.assert_complete(&row);
}

#[tokio::test]
async fn a_cancel_after_the_end_changes_nothing() {
    let world = World::start().await;
    let cluster = world.cluster().await;
    let _agent = world.agent(&cluster).stand_in().start();
    let variables = json!({"ledger": world.path("ledger"), "ticket": "1"});
    let job = cluster.queue(json!({"template": "ticket", "variables": variables})).await;
    let before = job.ended().await;
    assert_eq!(before.status, "SUCCESS", "{before:?}");
    cancel(&job).await;
    assert_eq!(job.row().await.status, "SUCCESS");
}

#[tokio::test]
async fn a_plan_that_waits_is_approved_or_cancelled_by_its_user() {
    let world = World::start().await;
    let cluster = world.cluster().await;
    let _agent = world.agent(&cluster).concurrency(1).start();
    let snapshot = |stack: &str| json!({"template": "count", "stack": stack, "approval": true, "variables": {"lines": 2}});
    let jobs = cluster.queue_all([snapshot("one"), snapshot("two")]).await;
    // Both rest although only one job may run at a time: who waits has no place.
    let (one, _) = (jobs[0].plan().await, jobs[1].plan().await);
    let approve = async |job: &Deployment, plan: &str| {
        let approval = json!({"approved_plan": plan});
        job.as_user.from("deployments").update(&approval).eq("id", job.id).execute().await
    };
    let refused = approve(&jobs[1], &one).await.expect_err("another job's plan");
    assert_eq!(refused.postgrest().map(|api| api.code.as_str()), Some("TD005"), "{refused}");
    let requested = Instant::now();
    approve(&jobs[0], &one).await.expect("it is approved");
    jobs[0].becomes("goes on", |row| row.phase.as_deref() != Some("APPROVAL")).await;
    assert!(requested.elapsed() < SOON, "{:?}", requested.elapsed());
    assert_eq!(jobs[0].ended().await.status, "SUCCESS");
    let (row, took) = cancel_twice(&jobs[1]).await;
    assert_eq!((row.status.as_str(), took < SOON), ("CANCELLED", true), "{row:?} after {took:?}");
    assert_eq!(row.error_message.as_deref(), Some("Cancelled before apply began."));
}

#[tokio::test]
async fn an_approval_survives_the_kill_of_its_agent() {
    let world = World::start().await;
    let cluster = world.cluster().await;
    let setup = world.agent(&cluster);
    let mut agent = setup.start();
    let job = cluster
        .queue(json!({"template": "count", "stack": "s", "approval": true, "variables": {"lines": 2}}))
        .await;
    job.becomes("rests in APPROVAL", |row| row.phase.as_deref() == Some("APPROVAL")).await;
    agent.signal(rustix::process::Signal::KILL);
    agent.ended().await;
    let approve = "update public.deployments set approved_plan = plan_sha256 where id = $1";
    world.database.execute(approve, &[&job.id]).await.expect("it is approved meanwhile");
    let _next = setup.start();
    let row = job.ended().await;
    assert_eq!((row.status.as_str(), row.attempt), ("SUCCESS", 1), "{row:?}");
    let log = job.log().await;
    assert_eq!(log.text().matches("terraform plan").count(), 1, "{}", log.text());
    log.assert_complete(&row);
}
