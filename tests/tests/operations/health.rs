//! The health server of a running agent.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant, SystemTime},
};

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

/// Directories of states that earlier agents left, each for a deployment without a stack.
fn leave_behind(states: &Path, count: usize) {
    fs::create_dir_all(states).expect("a directory");
    let old = SystemTime::now() - Duration::from_secs(7200);
    for n in 0..count {
        let dir = states.join(format!("0b6c7f6e-0000-4000-8000-{n:012}"));
        fs::create_dir(&dir).expect("a directory");
        fs::File::open(&dir).and_then(|dir| dir.set_modified(old)).expect("an old directory");
    }
}

#[tokio::test]
async fn what_ten_thousand_jobs_left_goes_and_delays_no_probe() {
    let is_full_size = std::env::var("TENDRIL_RACE").is_ok_and(|size| size == "full");
    let (left, jobs) = if is_full_size { (100_000, 500) } else { (10_000, 20) };
    let world = World::start().await;
    let cluster = world.cluster().await;
    let addr = free_address();
    let setup = world
        .agent(&cluster)
        .stand_in()
        .concurrency(8)
        .env("TENDRIL_HEALTH_ADDR", addr.to_string())
        .env("TENDRIL_STATE_BACKEND", "pg")
        .env("PG_CONN_STR", "postgres://nobody@127.0.0.1:1/none");
    let states = setup.cli.state_dir.clone().expect("a directory");
    leave_behind(Path::new(&states), left);
    // One that is kept: its state is not stored.
    let kept = Path::new(&states).join("0b6c7f6e-0000-4000-8000-000000000007");
    fs::write(kept.join("errored-x.1.tfstate"), "{}").expect("a state");
    let _agent = setup.start();
    until("it answers", async || get(addr, "/healthz").map(drop).ok_or_else(String::new)).await;
    let there = || fs::read_dir(&states).expect("the directory").count();
    let mut took = Vec::new();
    let ticket = |n: usize| json!({"template": "ticket", "variables": {"ledger": world.path("ledger"), "ticket": n.to_string()}});
    let deployments = cluster.queue_all((0..jobs).map(ticket)).await;
    until("what was left is gone", async || {
        let asked = Instant::now();
        let (code, text) = get(addr, "/healthz").ok_or("no answer")?;
        took.push(asked.elapsed());
        assert_eq!(code, 200, "{text}");
        if there() == 1 { Ok(()) } else { Err(there().to_string()) }
    })
    .await;
    for deployment in &deployments {
        assert_eq!(deployment.ended().await.status, "SUCCESS");
    }
    assert!(kept.exists() && there() == 1, "the state that is not stored, and nothing of {jobs} jobs");
    took.sort();
    println!(
        "/healthz, {} times: half within {:?}, slowest {:?}",
        took.len(),
        took[took.len() / 2],
        took[took.len() - 1]
    );
    // Other tests share the cores: a single answer proves nothing.
    assert!(took[took.len() * 9 / 10] < Duration::from_millis(100), "{took:?}");
}
