//! Many agents, one queue.

use std::collections::BTreeSet;

use serde_json::json;
use tendril_tests::{InsideAgent, World, within};

const AGENTS: usize = 10;
const JOBS: usize = 200;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_agents_race_for_200_jobs_and_each_is_claimed_and_run_once() {
    let world = World::start().await;
    let cluster = world.cluster().await;
    let ledger = world.path("ledger");
    let agents: Vec<InsideAgent> = (0..AGENTS)
        .map(|n| world.agent(&cluster).stand_in().name(format!("agent {n}")).start_inside())
        .collect();
    cluster.online().await;

    let config =
        |n: usize| json!({"template": "ticket", "variables": {"ledger": ledger, "ticket": n.to_string()}});
    let deployments = cluster.queue_all((0..JOBS).map(config)).await;
    let (mut winners, mut tokens) = (BTreeSet::new(), BTreeSet::new());
    for deployment in &deployments {
        let row = deployment.ended().await;
        assert_eq!((row.status.as_str(), row.attempt), ("SUCCESS", 1), "{row:?}");
        winners.extend(row.claimed_by);
        tokens.extend(row.claim_token);
    }
    assert_eq!(tokens.len(), JOBS, "each job has a claim of its own");
    assert!(winners.len() > AGENTS / 2, "the work was shared: {winners:?}");

    // What ran is on the ledger: a job that two agents had run would be there twice.
    let ran = std::fs::read_to_string(&ledger).expect("the ledger");
    let mut ran: Vec<usize> = ran.lines().map(|line| line.parse().expect("a ticket")).collect();
    ran.sort_unstable();
    assert_eq!(ran, (0..JOBS).collect::<Vec<_>>());
    for deployment in &deployments {
        deployment.log().await.assert_complete(&deployment.row().await);
    }
    for agent in agents {
        within("an agent stops", agent.stop()).await;
    }
}

#[tokio::test]
async fn two_jobs_of_one_stack_never_run_at_the_same_time() {
    let world = World::start().await;
    let cluster = world.cluster().await;
    let _agent = world.agent(&cluster).concurrency(4).start();
    let config = |gate: &str, stack: &str| json!({"template": "count", "stack": stack, "variables": {"lines": 2, "gate": world.path(gate)}});
    let first = cluster.queue(config("first", "shared")).await;
    first.says("at the gate").await;
    let second = cluster.queue(config("second", "shared")).await;
    let stranger = cluster.queue(config("stranger", "own")).await;

    // The stranger was queued last and is under way: the second could have been, but for the first.
    stranger.says("at the gate").await;
    assert_eq!(second.row().await.status, "QUEUED");
    std::fs::write(world.path("first"), "").expect("the gate opens");
    assert_eq!(first.ended().await.status, "SUCCESS");
    assert_eq!(second.ended().await.status, "SUCCESS");
    assert_eq!(stranger.row().await.status, "PROCESSING");
}
