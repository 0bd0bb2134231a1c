//! Plans that wait for approval: through absences of their agent, and in line for a place.

use std::fs;

use rustix::process::Signal;
use serde_json::json;
use tendril_tests::{Story, World};

#[tokio::test]
async fn an_approval_outlives_its_lease_while_its_agent_is_away() {
    let world = World::start().await;
    let cluster = world.cluster().await;
    let setup = world.agent(&cluster);
    let mut agent = setup.start();
    let job = cluster
        .queue(json!({"template": "count", "stack": "a", "approval": true, "variables": {"lines": 2}}))
        .await;
    let plan = job.plan().await;
    agent.signal(Signal::TERM);
    assert_eq!(agent.ended().await.code(), Some(0));
    // The pod was away for longer than the lease, and no other agent ran meanwhile.
    let lapse =
        "update tendril.leases set last_heartbeat_at = now() - interval '1 hour' where deployment_id = $1";
    world.database.execute(lapse, &[&job.id]).await.expect("the lease lapses");

    let _agent = setup.start();
    cluster.online().await;
    job.approve(&plan).await;
    let row = job.ended().await;
    assert_eq!((row.status.as_str(), row.attempt), ("SUCCESS", 1), "{row:?}");
    job.log().await.assert_complete(&row);
}

#[tokio::test]
async fn plans_that_are_approved_together_are_applied_within_the_concurrency() {
    let world = World::start().await;
    let cluster = world.cluster().await;
    let _agent = world.agent(&cluster).concurrency(1).start();
    let gates = ["a", "b"].map(|stack| (stack, world.path(stack)));
    let orders = gates.clone().map(|(stack, gate)| {
        json!({"template": "count", "stack": stack, "approval": true, "variables": {"lines": 2, "gate": gate}})
    });
    let jobs = cluster.queue_all(orders).await;
    let plans = [jobs[0].plan().await, jobs[1].plan().await];
    jobs[0].approve(&plans[0]).await;
    jobs[0].says("at the gate").await;
    jobs[1].approve(&plans[1]).await;
    // A third job shows that the agent has read its queue since: it is not started either.
    let third = cluster.queue(json!({"template": "count", "variables": {"lines": 2}})).await;
    fs::write(&gates[0].1, "").expect("the first gate opens");
    assert_eq!(jobs[0].ended().await.status, "SUCCESS");
    let log = jobs[1].says("at the gate").await.text();
    assert!(log.contains("The plan is approved."), "{log}");
    assert_eq!(third.row().await.status, "QUEUED", "whoever was approved goes first");
    let started = "select (select finished_at from public.deployments where id = $1) <= min(ts) from public.deployment_logs where deployment_id = $2 and log_chunk like '%at the gate%'";
    let in_turn: bool =
        world.database.query_one(started, &[&jobs[0].id, &jobs[1].id]).await.expect("times").get(0);
    assert!(in_turn, "two were applied at once");
    fs::write(&gates[1].1, "").expect("the second gate opens");
    assert_eq!(jobs[1].ended().await.status, "SUCCESS");
    assert_eq!(third.ended().await.status, "SUCCESS");
}

#[tokio::test]
async fn a_plan_that_nobody_approves_ends_when_its_time_is_over_and_frees_its_stack() {
    let world = World::start().await;
    let cluster = world.cluster().await;
    let _agent = world.agent(&cluster).concurrency(1).start();
    let order = json!({"template": "count", "stack": "a", "approval": true, "approval_expires": 2, "variables": {"lines": 2}});
    let late = cluster.queue(order).await;
    let next = cluster.queue(json!({"template": "count", "stack": "a", "variables": {"lines": 3}})).await;
    let row = late.ended().await;
    assert_eq!(
        (row.status.as_str(), row.error_code.as_deref(), row.attempt),
        ("FAILED", Some("APPROVAL_EXPIRED"), 1),
        "{row:?}"
    );
    assert!(row.error_message.as_deref().is_some_and(|text| text.contains("within 2 seconds")), "{row:?}");
    late.log().await.assert_complete(&row);
    // Its agent ended it, not the reaper, which waits for 90 s longer.
    let late_by = "select extract(epoch from finished_at - approval_expires_at)::float8 from public.deployments where id = $1";
    let late_by: f64 = world.database.query_one(late_by, &[&late.id]).await.expect("the row").get(0);
    assert!((0.0..15.0).contains(&late_by), "{late_by}");
    assert_eq!(next.ended().await.status, "SUCCESS");
}

/// A person may take days. However many plans wait, the agent receives the decision on each, runs other jobs, and is live.
#[tokio::test]
async fn many_plans_that_wait_hold_up_nothing() {
    let world = World::start().await;
    let cluster = world.cluster().await;
    let _agent = world.agent(&cluster).narrator().concurrency(1).start();
    let story = Story { planned: 1, lines: 2, ..Story::default() };
    let orders = (0..20).map(|n| {
        let mut order = story.config();
        order["stack"] = json!(format!("s{n}"));
        order["approval"] = json!(true);
        order
    });
    let jobs = cluster.queue_all(orders).await;
    let mut plans = Vec::new();
    for job in &jobs {
        plans.push(job.plan().await);
    }
    jobs[19].approve(&plans[19]).await;
    let row = jobs[19].ended().await;
    assert_eq!(row.status, "SUCCESS", "{row:?}");
    let ask = "update public.deployments set cancel_requested_at = now() where id = $1";
    world.database.execute(ask, &[&jobs[18].id]).await.expect("a cancel");
    let row = jobs[18].ended().await;
    assert_eq!(row.status, "CANCELLED", "{row:?}");
    // It has room for others, and their logs arrive while they run.
    let other = cluster.queue(story.config()).await;
    let row = other.ended().await;
    assert_eq!(row.status, "SUCCESS", "{row:?}");
    other.log().await.assert_complete(&row);
}
