//! Parts of the control plane are unavailable: jobs are found, end, and lose no line.

use serde_json::{Value, json};
use supabase_local::Cut;
use tendril_tests::{Cluster, Deployment, World, within};

fn ticket(world: &World, number: usize) -> Value {
    json!({"template": "ticket", "variables": {"ledger": world.path("ledger"), "ticket": number.to_string()}})
}

/// A run that waits half way: 1000 lines are printed, 1000 are to come once the gate opens.
async fn half_way(world: &World, cluster: &Cluster) -> Deployment {
    let variables = json!({"lines": 2000, "gate": world.path("gate")});
    let deployment = cluster.queue(json!({"template": "count", "variables": variables})).await;
    deployment.says("at the gate").await;
    deployment
}

fn open_the_gate(world: &World) {
    std::fs::write(world.path("gate"), "").expect("the gate opens");
}

/// The run ended well, and its log has every line once.
async fn assert_whole(deployment: &Deployment) {
    let row = deployment.ended().await;
    assert_eq!(row.status, "SUCCESS", "{row:?}");
    let log = deployment.log().await;
    log.assert_complete(&row);
    assert_eq!(log.counted(), (1..=2000).collect::<Vec<u64>>());
}

#[tokio::test]
async fn while_realtime_is_off_jobs_are_claimed_by_polling() {
    let world = World::start().await;
    let Some(stack) = world.project.stack("Realtime is switched off") else { return };
    stack.faults().refuse_realtime(true);
    let cluster = world.cluster().await;
    let _agent = world.agent(&cluster).stand_in().start();
    // The first is found by the list at the start, so the second cannot be.
    assert_eq!(cluster.queue(ticket(&world, 1)).await.ended().await.status, "SUCCESS");
    assert_eq!(cluster.queue(ticket(&world, 2)).await.ended().await.status, "SUCCESS");
}

#[tokio::test]
async fn a_job_that_was_queued_while_the_socket_was_down_is_claimed() {
    let world = World::start().await;
    let Some(stack) = world.project.stack("the socket is cut") else { return };
    let cluster = world.cluster().await;
    let _agent = world.agent(&cluster).stand_in().start();
    assert_eq!(cluster.queue(ticket(&world, 1)).await.ended().await.status, "SUCCESS");

    stack.faults().refuse_realtime(true);
    stack.faults().cut_sockets(Cut::Abrupt);
    let missed = cluster.queue(ticket(&world, 2)).await;
    stack.faults().refuse_realtime(false);
    assert_eq!(missed.ended().await.status, "SUCCESS");
}

#[tokio::test]
async fn when_the_socket_is_cut_in_mid_run_no_line_is_missing_or_doubled() {
    let world = World::start().await;
    let Some(stack) = world.project.stack("the socket is cut") else { return };
    let cluster = world.cluster().await;
    let _agent = world.agent(&cluster).start();
    let deployment = half_way(&world, &cluster).await;
    stack.faults().cut_sockets(Cut::Abrupt);
    open_the_gate(&world);
    stack.faults().cut_sockets(Cut::Close(1012));
    assert_whole(&deployment).await;
}

#[tokio::test]
async fn when_rest_is_away_in_mid_run_the_lines_wait_and_none_is_missing_or_doubled() {
    let world = World::start().await;
    let Some(stack) = world.project.stack("REST is switched off") else { return };
    let cluster = world.cluster().await;
    let agent = world.agent(&cluster);
    let mut verbose = agent.clone();
    verbose.cli.log_level = Some("tendril_agent=debug,info".to_owned());
    let agent = verbose.start();
    let deployment = half_way(&world, &cluster).await;

    stack.faults().refuse_rest(true);
    open_the_gate(&world);
    agent.says("log lines wait on disk").await;
    assert_eq!(deployment.row().await.status, "PROCESSING");
    stack.faults().refuse_rest(false);
    assert_whole(&deployment).await;
}

#[tokio::test]
async fn an_agent_that_finds_no_control_plane_waits_for_it() {
    let world = World::start().await;
    let Some(stack) = world.project.stack("REST is switched off") else { return };
    stack.faults().refuse_rest(true);
    let cluster = world.cluster().await;
    let agent = world.agent(&cluster).stand_in().start();
    agent.says("the control plane does not answer yet").await;
    stack.faults().refuse_rest(false);
    within("the agent gets online", cluster.online()).await;
}

#[tokio::test]
async fn an_agent_that_was_killed_in_mid_run_takes_its_apply_over_when_it_comes_back() {
    let world = World::start().await;
    let cluster = world.cluster().await;
    let setup = world.agent(&cluster);
    let agent = setup.start();
    let deployment = half_way(&world, &cluster).await;
    agent.signal(rustix::process::Signal::KILL);
    drop(agent);
    let _again = setup.start();
    open_the_gate(&world);
    assert_whole(&deployment).await;
}
