//! The final status is as durable as a line: it arrives over errors and restarts, and never before the last chunk.

use rustix::process::Signal;
use supabase_local::{RequestFault, Target};
use tendril_tests::{Story, World, until};

/// A refusal that may pass.
fn unavailable() -> RequestFault {
    RequestFault::Status { code: 503, retry_after: None }
}

#[tokio::test]
async fn the_true_status_arrives_over_errors_and_a_restart_in_between() {
    let world = World::start().await;
    let Some(stack) = world.project.stack("statuses are refused") else { return };
    let cluster = world.cluster().await;
    let story = Story::with_gate(&world, "apply");
    let setup = world.agent(&cluster).narrator();
    let first = setup.start();
    let deployment = cluster.queue(story.config()).await;
    deployment.says("at the gate").await;

    let statuses = Target::all().method("PATCH").path("/rest/v1/deployments");
    let outage = stack.faults().on_requests(unavailable(), statuses);
    story.go_on();
    first.says("the final status is not stored yet").await;
    first.signal(Signal::KILL);
    drop(first);
    let second = setup.start();
    second.says("the final status is not stored yet").await;
    assert_eq!(deployment.row().await.status, "PROCESSING");
    outage.lift();

    let row = deployment.ended().await;
    assert_eq!((row.status.as_str(), row.attempt), ("SUCCESS", 1), "{row:?}");
    let log = deployment.log().await;
    log.assert_complete(&row);
    assert_eq!(log.counted(), (1..=200).collect::<Vec<u64>>());
}

#[tokio::test]
async fn a_lost_answer_to_the_final_status_changes_nothing() {
    let world = World::start().await;
    let Some(stack) = world.project.stack("answers are dropped") else { return };
    let cluster = world.cluster().await;
    let story = Story::with_gate(&world, "apply");
    let _agent = world.agent(&cluster).narrator().start();
    let deployment = cluster.queue(story.config()).await;
    deployment.says("at the gate").await;
    let statuses = Target::all().method("PATCH").path("/rest/v1/deployments");
    let lost = stack.faults().on_requests(RequestFault::DropAfter, statuses.times(6));
    story.go_on();
    let row = deployment.ended().await;
    assert_eq!((row.status.as_str(), row.attempt), ("SUCCESS", 1), "{row:?}");
    until(
        "the answers were lost",
        async || {
            if lost.struck() == 6 { Ok(()) } else { Err(lost.struck().to_string()) }
        },
    )
    .await;
    let later = deployment.row().await;
    assert_eq!(format!("{row:?}"), format!("{later:?}"));
}

#[tokio::test]
async fn success_is_reported_only_after_the_last_chunk_is_stored() {
    let world = World::start().await;
    let Some(stack) = world.project.stack("log rows are refused") else { return };
    let cluster = world.cluster().await;
    let story = Story::with_gate(&world, "apply");
    let mut setup = world.agent(&cluster).narrator();
    setup.cli.log_level = Some("tendril_agent=debug,info".to_owned());
    let agent = setup.start();
    let deployment = cluster.queue(story.config()).await;
    deployment.says("at the gate").await;
    let logs = Target::all().method("POST").path("/rest/v1/deployment_logs");
    let outage = stack.faults().on_requests(unavailable(), logs);
    story.go_on();
    agent.says("log lines wait on disk").await;
    // The run is over as soon as its directory is cleared; its end is written there, and nowhere else yet.
    until("the end is on disk", async || {
        let work = std::path::PathBuf::from(setup.cli.work_dir.clone().expect("a directory"));
        let result = work.join(format!("{}.1/result.json", deployment.id));
        if result.exists() { Ok(()) } else { Err(result.display().to_string()) }
    })
    .await;
    let row = deployment.row().await;
    assert_eq!(row.status, "PROCESSING", "{row:?}");
    outage.lift();
    let row = deployment.ended().await;
    assert_eq!(row.status, "SUCCESS");
    deployment.log().await.assert_complete(&row);
}
