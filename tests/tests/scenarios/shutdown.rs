//! SIGTERM: the agent reports that it stops.

use rustix::process::Signal;
use serde_json::json;
use tendril_tests::{World, fixtures, until};

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

/// Stops an agent whose apply needs so many seconds to stop in good order, with so many further signals; answers the
/// message.
async fn stopped(needs: u32, further: usize) -> String {
    let world = World::start().await;
    let cluster = world.cluster().await;
    let began = world.path("began");
    let mut agent = world
        .agent(&cluster)
        .terraform(&fixtures("terraform-that-lingers"))
        .env("AWS_LINGERS_IN", "apply")
        .env("AWS_GATE", began.to_str().expect("a path"))
        .env("AWS_NEEDS", needs.to_string())
        .start();
    let variables = json!({"ledger": world.path("ledger"), "ticket": "1"});
    let running = cluster.queue(json!({"template": "ticket", "variables": variables})).await;
    until("apply begins", async || if began.exists() { Ok(()) } else { Err("not yet".to_owned()) }).await;

    agent.signal(Signal::TERM);
    agent.says("asked to stop: no new jobs").await;
    for nth in ["a second time", "a third time"].into_iter().take(further) {
        agent.signal(Signal::TERM);
        agent.says(&format!("asked to stop {nth}")).await;
    }
    assert_eq!(agent.ended().await.code(), Some(0));
    let row = running.row().await;
    assert_eq!(
        (row.status.as_str(), row.error_code.as_deref()),
        ("FAILED", Some("AGENT_STOPPED")),
        "{row:?}"
    );
    running.log().await.assert_complete(&row);
    assert_eq!(cluster.status().await, "OFFLINE");
    row.error_message.expect("a message")
}

#[tokio::test]
async fn a_second_sigterm_interrupts_the_running_job_once_and_lets_it_stop_in_good_order() {
    let message = stopped(20, 1).await;
    assert!(message.contains("shut down during apply: it ended after one interrupt (SIGINT)"), "{message}");
}

#[tokio::test]
async fn a_third_sigterm_cuts_that_short_with_a_second_interrupt_that_is_seen() {
    let message = stopped(600, 2).await;
    assert!(message.contains("during apply: it ended after a second interrupt (SIGINT)"), "{message}");
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
