//! SIGTERM: within its grace the agent ends its jobs, one way or the other, and reports that it stops.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;
use tendril_tests::{World, fixtures, until};

use crate::probe::{free_address, get};

#[tokio::test]
async fn a_drain_takes_nothing_more_and_is_not_ready_at_once() {
    let world = World::start().await;
    let cluster = world.cluster().await;
    let addr = free_address();
    let mut agent = world.agent(&cluster).env("TENDRIL_HEALTH_ADDR", addr.to_string()).start();
    let variables = json!({"lines": 4, "gate": world.path("gate")});
    let running = cluster.queue(json!({"template": "count", "variables": variables})).await;
    running.says("at the gate").await;
    agent.signal(Signal::TERM);
    let requested = Instant::now();
    until("it is not ready", async || match get(addr, "/readyz") {
        Some((503, why)) if why.contains("stopping") => Ok(()),
        seen => Err(format!("{seen:?}")),
    })
    .await;
    assert!(requested.elapsed() < Duration::from_secs(1), "{:?}", requested.elapsed());
    assert_eq!(get(addr, "/healthz").expect("an answer").0, 200, "a drain is no death");
    let late = cluster.queue(json!({"template": "count", "variables": {"lines": 2}})).await;
    std::fs::write(world.path("gate"), "").expect("the gate opens");
    assert_eq!(agent.ended().await.code(), Some(0));
    let row = running.row().await;
    assert_eq!(row.status, "SUCCESS", "{row:?}");
    running.log().await.assert_complete(&row);
    assert_eq!((late.row().await.status.as_str(), cluster.status().await.as_str()), ("QUEUED", "OFFLINE"));
}

#[tokio::test]
async fn what_is_queued_a_tenth_of_a_second_after_the_signal_stays_queued() {
    let world = World::start().await;
    let cluster = world.cluster().await;
    let mut agent = world.agent(&cluster).concurrency(16).start();
    let variables = json!({"lines": 4, "gate": world.path("gate")});
    let running = cluster.queue(json!({"template": "count", "variables": variables})).await;
    running.says("at the gate").await;
    agent.signal(Signal::TERM);
    tokio::time::sleep(Duration::from_millis(100)).await;
    let mut late = Vec::new();
    for number in 0..10 {
        let job = json!({"template": "count", "stack": format!("s{number}"), "variables": {"lines": 2}});
        late.push(cluster.queue(job).await);
    }
    std::fs::write(world.path("gate"), "").expect("the gate opens");
    assert_eq!(agent.ended().await.code(), Some(0));
    assert_eq!(running.row().await.status, "SUCCESS");
    for job in late {
        let row = job.row().await;
        assert_eq!((row.status.as_str(), row.attempt), ("QUEUED", 0), "{row:?}");
    }
}

#[tokio::test]
async fn a_job_that_does_not_fit_is_interrupted_and_its_end_stored_within_the_grace() {
    let world = World::start().await;
    let cluster = world.cluster().await;
    let (grace, gate) = (Duration::from_secs(12), world.path("began"));
    let mut agent = world
        .agent(&cluster)
        .terraform(&fixtures("terraform-that-lingers"))
        .env("AWS_LINGERS_IN", "apply")
        .env("AWS_GATE", gate.to_str().expect("a path"))
        .env("TENDRIL_SHUTDOWN_GRACE", format!("{}s", grace.as_secs()))
        .start();
    let variables = json!({"ledger": world.path("ledger"), "ticket": "1"});
    let job = cluster.queue(json!({"template": "ticket", "variables": variables})).await;
    until("apply begins", async || if gate.exists() { Ok(()) } else { Err("not yet".to_owned()) }).await;
    agent.signal(Signal::TERM);
    let requested = Instant::now();
    assert_eq!(agent.ended().await.code(), Some(0));
    let took = requested.elapsed();
    // Two thirds of what the end does not need are the job's.
    assert!(took > grace / 4 && took < grace, "{took:?}");
    let row = job.row().await;
    assert_eq!(
        (row.status.as_str(), row.error_code.as_deref()),
        ("FAILED", Some("AGENT_STOPPED")),
        "{row:?}"
    );
    let message = row.error_message.clone().expect("a message");
    assert!(message.contains("during apply: it ended after one interrupt (SIGINT)"), "{message}");
    job.log().await.assert_complete(&row);
    assert_eq!(cluster.status().await, "OFFLINE");
}
