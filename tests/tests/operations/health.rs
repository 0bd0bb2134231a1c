//! The health server of a running agent.

use rustix::process::Signal;
use serde_json::{Value, json};
use tendril_tests::{World, until};

use crate::probe::{free_address, get, metric};

#[tokio::test]
async fn an_agent_that_is_stopped_fails_its_liveness_and_one_without_control_plane_does_not() {
    let world = World::start().await;
    let cluster = world.cluster().await;
    let addr = free_address();
    let agent = world.agent(&cluster).env("TENDRIL_HEALTH_ADDR", addr.to_string()).start();
    let answers = async |path: &str, wanted: Option<u16>| {
        until(&format!("{path} answers {wanted:?}"), async || {
            let seen = get(addr, path).map(|(status, _)| status);
            if seen == wanted { Ok(()) } else { Err(format!("{seen:?}")) }
        })
        .await;
    };
    answers("/readyz", Some(200)).await;
    answers("/healthz", Some(200)).await;
    agent.signal(Signal::STOP);
    answers("/healthz", None).await;
    agent.signal(Signal::CONT);
    answers("/healthz", Some(200)).await;

    let revoke = "update public.clusters set revoked_at = now() where id = $1";
    world.database.execute(revoke, &[&cluster.id]).await.expect("it is revoked");
    answers("/readyz", Some(503)).await;
    assert_eq!(get(addr, "/healthz").expect("an answer").0, 200);
    assert!(get(addr, "/readyz").expect("an answer").1.contains("was revoked"));
    assert!(metric(addr, r#"tendril_agent_heartbeats_total{result="refused"}"#) >= 1.0);
    assert!(metric(addr, "tendril_agent_ready") < 0.5);
}

#[tokio::test]
async fn status_and_metrics_follow_a_job() {
    let world = World::start().await;
    let cluster = world.cluster().await;
    let addr = free_address();
    let _agent = world.agent(&cluster).env("TENDRIL_HEALTH_ADDR", addr.to_string()).start();
    let variables = json!({"lines": 4, "gate": world.path("gate")});
    let job = cluster.queue(json!({"template": "count", "stack": "s", "variables": variables})).await;
    job.says("at the gate").await;
    let status: Value = serde_json::from_str(&get(addr, "/status").expect("an answer").1).expect("JSON");
    let shown = &status["jobs"][0];
    assert_eq!((&shown["deployment_id"], &shown["phase"]), (&json!(job.id), &json!("APPLY")), "{status}");
    assert_eq!((&shown["state"], &status["ready"]), (&json!("count.s"), &json!(true)), "{status}");
    assert!((metric(addr, "tendril_agent_jobs_running") - 1.0).abs() < 0.1);
    std::fs::write(world.path("gate"), "").expect("the gate opens");
    assert_eq!(job.ended().await.status, "SUCCESS");
    until("the job is counted", async || {
        let ended = metric(addr, r#"tendril_agent_jobs_ended_total{status="SUCCESS"}"#);
        if ended > 0.5 { Ok(()) } else { Err(ended.to_string()) }
    })
    .await;
    // Its executor has counted it, and this process has added it once.
    assert!((metric(addr, r#"tendril_agent_jobs_ended_total{status="SUCCESS"}"#) - 1.0).abs() < 0.1);
    assert!((metric(addr, "tendril_agent_jobs_claimed_total") - 1.0).abs() < 0.1);
    assert!(metric(addr, r#"tendril_agent_step_seconds_count{step="apply"}"#) > 0.5);
    assert!(metric(addr, "tendril_agent_log_chunks_stored_total") > 0.5);
}
