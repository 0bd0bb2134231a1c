//! Locks on states that a dead pod left.

use serde_json::{Value, json};
use tendril_tests::{Pods, StateServer, kubernetes::Fate};

/// With states on a server whose locks stay.
pub(crate) async fn with_states(states: &StateServer) -> Pods {
    let mut pods = Pods::start().await;
    let config = states.config();
    for (name, value) in &mut pods.env {
        if *name == "TENDRIL_STATE_BACKEND" {
            "http".clone_into(value);
        }
    }
    pods.env.push(("TENDRIL_STATE_CONFIG", config.clone()));
    pods.env.push(("TENDRIL_LOCK_TIMEOUT", "1s".to_owned()));
    pods.agent_env = vec![("TENDRIL_STATE_BACKEND", "http".to_owned()), ("TENDRIL_STATE_CONFIG", config)];
    pods
}

fn count() -> Value {
    json!({"template": "count", "stack": "a", "variables": {"lines": 2}})
}

#[tokio::test]
async fn a_lock_that_a_killed_pod_left_is_removed_by_the_next_run_of_its_stack() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: a lock of a killed pod: only root can give a process its pod's host name");
        return;
    }
    let states = StateServer::start().await;
    let pods = with_states(&states).await;
    let agent = pods.agent();
    let (job, _gate) = pods.at_the_gate("a").await;
    let pod = pods.api.pod_of(&Pods::job_name(&job, 1)).expect("its pod");
    let pod = pod["metadata"]["name"].as_str().expect("a name").to_owned();
    assert!(pods.api.fate(&Pods::job_name(&job, 1), Fate::Killed));
    let row = job.ended().await;
    assert_eq!(row.error_code.as_deref(), Some("AGENT_LOST"), "{row:?}");
    let lock = states.lock("count.a").expect("terraform left its lock");
    assert!(lock["Who"].as_str().is_some_and(|who| who.ends_with(&format!("@{pod}"))), "{lock}");
    // Another dispatcher than the one that saw it die.
    drop(agent);
    let _next = pods.agent();
    let next = pods.queue(count()).await;
    let row = next.ended().await;
    assert_eq!(row.status, "SUCCESS", "{row:?}");
    assert!(
        next.log().await.text().contains("still locked by a dead attempt"),
        "{}",
        next.log().await.text()
    );
    assert_eq!(states.lock("count.a"), None);
}

#[tokio::test]
async fn a_lock_of_a_pod_that_nobody_knows_is_left_and_its_run_is_named() {
    let states = StateServer::start().await;
    let pods = with_states(&states).await;
    let _agent = pods.agent();
    let who = "tendril@tendril-0b6c7f6e-0000-4000-8000-000000000001-2-x7k2p";
    let lock = json!({"ID": "abc-1", "Operation": "OperationTypeApply", "Info": "", "Who": who, "Version": "1.11.4",
        "Created": "2026-01-02T03:04:05.678901234Z", "Path": ""});
    states.set_lock("count.a", lock.clone());
    let row = pods.queue(count()).await.ended().await;
    assert_eq!(row.error_code.as_deref(), Some("STATE_LOCKED"), "{row:?}");
    let message = row.error_message.expect("a sentence");
    for part in
        ["attempt 2 of deployment 0b6c7f6e-0000-4000-8000-000000000001", "terraform force-unlock abc-1"]
    {
        assert!(message.contains(part), "{message}");
    }
    assert_eq!(states.lock("count.a"), Some(lock));
}
