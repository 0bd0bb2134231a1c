//! SIGTERM: the agent says good-bye.

use rustix::process::Signal;
use serde_json::json;
use tendril_tests::World;

#[tokio::test]
async fn sigterm_sets_the_cluster_offline_and_ends_with_0() {
    let world = World::start().await;
    let cluster = world.cluster().await;
    let mut agent = world.agent(&cluster).start();
    cluster.online().await;
    agent.signal(Signal::TERM);
    let status = agent.ended().await;
    assert_eq!(status.code(), Some(0), "{}", agent.output());
    assert_eq!(cluster.status().await, "OFFLINE");
}

#[tokio::test]
async fn after_sigterm_a_running_job_ends_and_no_new_one_is_claimed() {
    let world = World::start().await;
    let cluster = world.cluster().await;
    let mut agent = world.agent(&cluster).start();
    let variables = json!({"lines": 4, "gate": world.path("gate")});
    let running = cluster.queue(json!({"template": "count", "variables": variables})).await;
    running.says("at the gate").await;

    agent.signal(Signal::TERM);
    agent.says("asked to stop").await;
    let late = cluster.queue(json!({"template": "count", "variables": {"lines": 2}})).await;
    std::fs::write(world.path("gate"), "").expect("the gate opens");
    assert_eq!(agent.ended().await.code(), Some(0));

    let row = running.row().await;
    assert_eq!(row.status, "SUCCESS", "its end is stored before the agent's: {row:?}");
    running.log().await.assert_complete(&row);
    assert_eq!(late.row().await.status, "QUEUED");
    assert_eq!(cluster.status().await, "OFFLINE");
}

#[tokio::test]
async fn a_second_sigterm_interrupts_the_running_job_and_says_so() {
    let world = World::start().await;
    let cluster = world.cluster().await;
    let mut agent = world.agent(&cluster).start();
    let variables = json!({"lines": 4, "gate": world.path("gate")});
    let running = cluster.queue(json!({"template": "count", "variables": variables})).await;
    running.says("at the gate").await;

    agent.signal(Signal::TERM);
    agent.says("asked to stop").await;
    agent.signal(Signal::TERM);
    assert_eq!(agent.ended().await.code(), Some(0));
    let row = running.row().await;
    assert_eq!(row.status, "FAILED", "{row:?}");
    let message = row.error_message.clone().expect("a message");
    assert!(message.contains("shut down during apply"), "{message}");
    running.log().await.assert_complete(&row);
}

#[tokio::test]
async fn a_second_agent_is_kept_out_of_the_work_directory() {
    let world = World::start().await;
    let cluster = world.cluster().await;
    let setup = world.agent(&cluster);
    let _first = setup.start();
    cluster.online().await;
    let mut second = setup.start();
    assert_eq!(second.ended().await.code(), Some(1));
    assert!(second.output().contains("give each agent its own --work-dir"), "{}", second.output());
}
