//! Plans that wait for approval: they have no process, and cost next to nothing.

use std::fs;

use serde_json::json;
use tendril_tests::{Story, World, until};

use crate::executors::{approve, kill, shown};

#[tokio::test]
async fn a_plan_waits_without_a_process_and_its_approval_is_kept_through_a_restart() {
    let world = World::start().await;
    let cluster = world.cluster().await;
    let setup = world.agent(&cluster);
    let executors = setup.executors();
    let agent = setup.start();
    let orders = ["a", "b"].map(
        |stack| json!({"template": "count", "stack": stack, "approval": true, "variables": {"lines": 2}}),
    );
    let jobs = cluster.queue_all(orders).await;
    let plans = [shown(&world, &jobs[0]).await, shown(&world, &jobs[1]).await];
    executors.are(0).await;
    approve(&jobs[0], &plans[0]).await;
    let row = jobs[0].ended().await;
    assert_eq!((row.status.as_str(), row.attempt), ("SUCCESS", 1), "{row:?}");
    jobs[0].log().await.assert_complete(&row);
    kill(agent);
    approve(&jobs[1], &plans[1]).await;
    let _again = setup.start();
    let row = jobs[1].ended().await;
    assert_eq!((row.status.as_str(), row.attempt), ("SUCCESS", 1), "{row:?}");
    let log = jobs[1].log().await;
    log.assert_complete(&row);
    assert!(!log.text().contains("restarted"), "nothing was lost: {}", log.text());
}

/// Plans that wait are entries, and nothing else: no process, no thread, no request of their own.
#[tokio::test]
async fn two_thousand_plans_wait_and_cost_next_to_nothing() {
    const PLANS: usize = 2000;
    let world = World::start().await;
    let cluster = world.cluster().await;
    let setup = world.agent(&cluster).narrator();
    let executors = setup.executors();
    let agent = setup.start();
    cluster.online().await;
    let idle = Usage::of(agent.pid());
    kill(agent);

    let config = json!({"template": "story", "approval": true, "variables": {}});
    let jobs = cluster.queue_all(std::iter::repeat_n(config, PLANS)).await;
    let rest = "update public.deployments set status = 'PROCESSING', phase = 'APPROVAL', attempt = 1, claim_token = gen_random_uuid(), claimed_by = 'scenario',
        claimed_at = now(), started_at = now(), plan_sha256 = repeat('a', 64) where cluster_id = $1";
    world
        .database
        .batch_execute("alter table public.deployments disable trigger user")
        .await
        .expect("no triggers");
    let moved = world.database.execute(rest, &[&cluster.id]).await.expect("they wait");
    world
        .database
        .batch_execute("alter table public.deployments enable trigger user")
        .await
        .expect("triggers again");
    assert_eq!(usize::try_from(moved).expect("a count"), jobs.len());
    let leases = "insert into tendril.leases (deployment_id, cluster_id) select id, cluster_id from public.deployments where cluster_id = $1 on conflict do nothing";
    world.database.execute(leases, &[&cluster.id]).await.expect("their leases");
    let work_dir = setup.cli.work_dir.clone().expect("a directory");
    let query = "select id, claim_token, state_key from public.deployments where cluster_id = $1";
    for row in world.database.query(query, &[&cluster.id]).await.expect("rows") {
        let (id, claim_token, state_key): (uuid::Uuid, uuid::Uuid, String) =
            (row.get(0), row.get(1), row.get(2));
        let dir = std::path::Path::new(&work_dir).join(format!("{id}.1"));
        fs::create_dir(&dir).expect("a directory");
        let claim = json!({"deployment_id": id, "attempt": 1, "claim_token": claim_token, "phase": "APPROVAL", "state_key": state_key, "waits": true});
        fs::write(dir.join("claim.json"), claim.to_string()).expect("a claim");
    }

    let agent = setup.start();
    cluster.online().await;
    // A job that comes now is run as ever.
    let next = cluster.queue(Story::default().config()).await;
    assert_eq!(next.ended().await.status, "SUCCESS");
    executors.are(0).await;
    // Those that read the entries at the start end when they have nothing to do.
    let waiting = until("no thread is left of the start", async || {
        let waiting = Usage::of(agent.pid());
        if waiting.threads <= idle.threads + 4 { Ok(waiting) } else { Err(format!("{idle:?} {waiting:?}")) }
    })
    .await;
    // Each is a row that the feed holds and an entry: a few kilobytes, in a build without optimisation. A process would take a thousand times that.
    assert!(waiting.kib <= idle.kib + 20 * PLANS as u64, "{idle:?} {waiting:?}");
    let open = "select count(*) from public.deployments where cluster_id = $1 and status = 'PROCESSING' and phase = 'APPROVAL'";
    let open: i64 = world.database.query_one(open, &[&cluster.id]).await.expect("a count").get(0);
    assert_eq!(usize::try_from(open).expect("a count"), PLANS, "each waits still");
}

/// What a process takes.
#[derive(Debug)]
struct Usage {
    kib: u64,
    threads: u64,
}

impl Usage {
    fn of(pid: u32) -> Self {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("the field");
            line.trim().trim_end_matches(" kB").parse().expect("a number")
        };
        Self { kib: field("VmRSS:"), threads: field("Threads:") }
    }
}
