//! Plans that wait for approval: they have no process, and cost next to nothing.

use std::{fs, os::unix::fs::MetadataExt as _};

use serde_json::json;
use tendril_tests::{Story, Usage, World, until};

use crate::executors::kill;

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
    let plans = [jobs[0].plan().await, jobs[1].plan().await];
    executors.are(0).await;
    let work_dir = setup.cli.work_dir.clone().expect("a work directory");
    for job in &jobs {
        for stream in ["stdout", "stderr"] {
            let file = fs::metadata(format!("{work_dir}/{}.1/journal/{stream}", job.id));
            let kib = file.map_or(0, |file| file.blocks() / 2);
            assert!(kib <= 64, "a plan that waits keeps {kib} KiB for {stream}");
        }
    }
    jobs[0].approve(&plans[0]).await;
    let row = jobs[0].ended().await;
    assert_eq!((row.status.as_str(), row.attempt), ("SUCCESS", 1), "{row:?}");
    jobs[0].log().await.assert_complete(&row);
    kill(agent);
    jobs[1].approve(&plans[1]).await;
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

    world.plans_that_wait(&cluster, &setup, PLANS).await;
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
    assert!(waiting.kib <= idle.kib + 15 * PLANS as u64, "{idle:?} {waiting:?}");
    assert_eq!(world.plans_waiting(&cluster).await, PLANS, "each waits still");
}
