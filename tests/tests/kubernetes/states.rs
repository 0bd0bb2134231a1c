//! States that their backend refuses at the end of an apply: none is lost with the pod that has it.

use rustix::process::Signal;
use serde_json::{Value, json};
use tendril_tests::{Deployment, Pods, StateServer, until};

use crate::locks::with_states;

const STACK: &str = "count.a";

fn count(lines: u32) -> Value {
    json!({"template": "count", "stack": "a", "variables": {"lines": lines}})
}

/// Applies while the backend takes nothing.
async fn refused(pods: &Pods, states: &StateServer) -> Deployment {
    states.refuse(true);
    let job = pods.queue(count(3)).await;
    let row = job.ended().await;
    assert_eq!(
        (row.status.as_str(), row.error_code.as_deref()),
        ("FAILED", Some("STATE_NOT_STORED")),
        "{row:?}"
    );
    let message = row.error_message.as_deref().unwrap_or_default();
    assert!(message.contains("The run's pod has it, and ends once the state is kept"), "{message}");
    assert_eq!(held(pods).await.as_deref(), row.claimed_by.as_deref());
    job
}

/// Who has the state of the stack.
async fn held(pods: &Pods) -> Option<String> {
    let query = "select state_held_by from public.stacks where cluster_id = $1 and state_key = $2";
    pods.world.database.query_one(query, &[&pods.cluster.id, &STACK]).await.expect("the stack").get(0)
}

/// Waits until the pod of a run has ended with this code.
async fn ends_with(pods: &Pods, job: &Deployment, code: u8) {
    pods.pod(&Pods::job_name(job, 1), "has ended", |pod| {
        pod["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"] == code
    })
    .await;
}

/// Nothing of a kept state is left, and anybody may claim the stack.
async fn is_tidy(pods: &Pods) {
    until("the stack is free, and nothing is kept", async || {
        let kept =
            |text: &str| text.ends_with("-state") || text.contains("-push") || text.contains("-state-");
        let name = |object: &Value| object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let mut left: Vec<String> = pods.api.jobs().iter().map(|job| name(job)).collect();
        left.extend(pods.api.secrets().iter().map(|secret| name(secret)));
        left.retain(|name| kept(name));
        match held(pods).await {
            None if left.is_empty() => Ok(()),
            held => Err(format!("{held:?}, {left:?}")),
        }
    })
    .await;
}

#[tokio::test]
async fn a_state_that_its_backend_refuses_outlives_its_pod_and_is_stored_before_the_next_plan() {
    let states = StateServer::start().await;
    let pods = with_states(&states).await;
    let _agent = pods.agent();
    let job = refused(&pods, &states).await;
    ends_with(&pods, &job, 12).await;
    assert_eq!(states.state(STACK), None, "it is in the cluster alone");
    // Nothing is planned while it cannot be stored.
    let blocked = pods.queue(count(3)).await.ended().await;
    assert_eq!(blocked.error_code.as_deref(), Some("STATE_NOT_STORED"), "{blocked:?}");
    let message = blocked.error_message.unwrap_or_default();
    assert!(message.contains("is not in its backend yet, and cannot be stored now"), "{message}");
    states.refuse(false);
    let next = pods.queue(count(3)).await.ended().await;
    assert_eq!(next.status, "SUCCESS", "{next:?}");
    assert_eq!(next.plan_summary.expect("counts")["add"], 0, "what was made is known");
    is_tidy(&pods).await;
}

#[tokio::test]
async fn a_kept_state_is_stored_by_the_next_dispatcher_without_a_run() {
    let states = StateServer::start().await;
    let pods = with_states(&states).await;
    let mut first = pods.setup().name("first").start();
    let job = refused(&pods, &states).await;
    ends_with(&pods, &job, 12).await;
    first.signal(Signal::KILL);
    first.ended().await;
    states.refuse(false);
    // Its name is another one, as that of every pod: it could not claim the stack.
    let _second = pods.setup().name("second").start();
    is_tidy(&pods).await;
    assert!(
        states.state(STACK).is_some_and(|state| !state["resources"].as_array().expect("a list").is_empty())
    );
    let next = pods.queue(count(3)).await.ended().await;
    assert_eq!((next.status.as_str(), next.claimed_by.as_deref()), ("SUCCESS", Some("second")));
    assert_eq!(next.plan_summary.expect("counts")["add"], 0);
}

#[tokio::test]
async fn a_kept_state_that_the_owner_discards_is_not_stored() {
    let states = StateServer::start().await;
    let pods = with_states(&states).await;
    let _agent = pods.agent();
    let job = refused(&pods, &states).await;
    ends_with(&pods, &job, 12).await;
    let discard = json!({"cluster_id": pods.cluster.id, "state_key": STACK, "confirm": STACK});
    job.as_user.rpc("discard_held_state", &discard).execute().await.expect("it is discarded");
    is_tidy(&pods).await;
    states.refuse(false);
    let next = pods.queue(count(3)).await.ended().await;
    assert_eq!(next.status, "SUCCESS", "{next:?}");
    assert_eq!(next.plan_summary.expect("counts")["add"], 1, "nothing is known of what was discarded");
}

#[tokio::test]
async fn a_pod_whose_state_nothing_takes_stays_until_its_backend_does() {
    let states = StateServer::start().await;
    let pods = with_states(&states).await;
    let _agent = pods.agent();
    let (job, gate) = pods.at_the_gate("a").await;
    states.refuse(true);
    pods.api.go_away();
    std::fs::write(gate, "").expect("the gate opens");
    let row = job.ended().await;
    assert_eq!(row.error_code.as_deref(), Some("STATE_NOT_STORED"), "{row:?}");
    let pod = pods.api.pod_of(&Pods::job_name(&job, 1)).expect("its pod");
    until("the pod says where the state is", async || {
        let log = pods.api.log_of(&pod);
        if log.contains("Do not delete the pod") { Ok(()) } else { Err(log) }
    })
    .await;
    states.refuse(false);
    ends_with(&pods, &job, 13).await;
    assert!(states.state(STACK).is_some());
    pods.api.come_back().await;
    is_tidy(&pods).await;
}

#[tokio::test]
async fn a_state_is_kept_on_the_volume_for_plans_where_there_is_one() {
    let states = StateServer::start().await;
    let mut pods = with_states(&states).await;
    pods.agent_env.push(("TENDRIL_PLAN_VOLUME_CLAIM", "plans".to_owned()));
    let _agent = pods.agent();
    let job = refused(&pods, &states).await;
    ends_with(&pods, &job, 12).await;
    let secrets = pods.api.secrets();
    assert!(secrets.iter().all(|secret| secret["data"]["part-0"].is_null()), "no Secret has it");
    states.refuse(false);
    let next = pods.queue(count(3)).await.ended().await;
    assert_eq!(next.status, "SUCCESS", "{next:?}");
    assert_eq!(next.plan_summary.expect("counts")["add"], 0);
    is_tidy(&pods).await;
}

#[tokio::test]
async fn a_state_that_is_lost_with_its_pod_is_named_and_nothing_is_planned() {
    let states = StateServer::start().await;
    let pods = with_states(&states).await;
    let agent = pods.agent();
    // Nobody gives the run the right to keep it.
    pods.api.hold("POST", "serviceaccounts");
    let job = refused(&pods, &states).await;
    until("the dispatcher has seen it", async || {
        if pods.api.jobs().len() == 2 { Ok(()) } else { Err("it has not".to_owned()) }
    })
    .await;
    assert!(pods.api.fate(&Pods::job_name(&job, 1), tendril_tests::kubernetes::Fate::Killed));
    pods.api.release();
    states.refuse(false);
    agent.says("it is lost").await;
    let next = pods.queue(count(3)).await.ended().await;
    assert_eq!(next.error_code.as_deref(), Some("STATE_NOT_STORED"), "{next:?}");
    let message = next.error_message.unwrap_or_default();
    assert!(message.contains("nothing in the cluster keeps it"), "{message}");
    let discard = json!({"cluster_id": pods.cluster.id, "state_key": STACK, "confirm": STACK});
    job.as_user.rpc("discard_held_state", &discard).execute().await.expect("it is discarded");
    assert_eq!(pods.queue(count(3)).await.ended().await.status, "SUCCESS");
}
