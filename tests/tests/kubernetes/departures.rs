//! Objects of runs that go while nobody expects it, or stay: each row says what is true, once.

use std::fs;

use rustix::process::Signal;
use serde_json::{Value, json};
use tendril_tests::{
    Deployment, Pods, StateServer,
    crash::expire_lease,
    kubernetes::{Fate, NAMESPACE},
    until,
};

use crate::{hostile::delete, locks::with_states};

fn count(stack: &str) -> Value {
    json!({"template": "count", "stack": stack, "variables": {"lines": 2}})
}

fn path_of(job: &Deployment) -> String {
    format!("/apis/batch/v1/namespaces/{NAMESPACE}/jobs/{}", Pods::job_name(job, 1))
}

/// An operator's, which nobody takes away.
fn hold(object: &mut Value) {
    let mut finalizers = object["metadata"]["finalizers"].as_array().cloned().unwrap_or_default();
    finalizers.push("example.com/hold".into());
    object["metadata"]["finalizers"] = finalizers.into();
}

/// How often the row of a run says it.
fn times(row: &tendril_tests::Row, said: &str) -> usize {
    row.error_message.as_deref().unwrap_or_default().matches(said).count()
}

#[tokio::test]
async fn a_namespace_that_is_deleted_in_mid_run_is_named() {
    let pods = Pods::start().await;
    let _agent = pods.agent();
    let (job, _gate) = pods.at_the_gate("a").await;
    pods.api.delete_namespace();
    job.ended().await;
    let row = pods.says(&job, "The namespace tendril is being deleted, and everything in it").await;
    assert_eq!(
        (row.status.as_str(), row.error_code.as_deref(), row.attempt),
        ("FAILED", Some("AGENT_STOPPED"), 1),
        "{row:?}"
    );
    assert_eq!(times(&row, "It was stopped during apply"), 1, "{row:?}");
    job.log().await.assert_complete(&row);
    // What is queued then is not started, and says why.
    let next = pods.queue(count("b")).await.ended().await;
    let message = next.error_message.expect("a sentence");
    assert!(
        message.contains("it is being terminated") || message.contains("namespaces \"tendril\" not found"),
        "{message}"
    );
}

#[tokio::test]
async fn a_deleted_job_that_a_finalizer_keeps_ends_its_run_and_frees_its_stack() {
    let pods = Pods::start().await;
    let _agent = pods.agent();
    for is_killed in [false, true] {
        let (job, _gate) = pods.at_the_gate(if is_killed { "killed" } else { "asked" }).await;
        let name = Pods::job_name(&job, 1);
        assert!(pods.api.edit_job(&name, hold));
        delete(&pods.api, &path_of(&job), &json!({"propagationPolicy": "Foreground"})).await;
        if is_killed {
            assert!(pods.api.fate(&name, Fate::Killed));
        }
        job.ended().await;
        let row = pods.says(&job, "The run's Job was deleted by somebody else than the agent").await;
        let code = if is_killed { "AGENT_LOST" } else { "AGENT_STOPPED" };
        assert_eq!((row.status.as_str(), row.error_code.as_deref()), ("FAILED", Some(code)), "{row:?}");
        assert_eq!(times(&row, "deleted by somebody else"), 1, "{row:?}");
        let kept = pods.job(&name).expect("it stays");
        assert!(kept["metadata"]["deletionTimestamp"].is_string(), "{kept}");
    }
    for stack in ["asked", "killed"] {
        assert_eq!(pods.queue(count(stack)).await.ended().await.status, "SUCCESS", "{stack}");
    }
}

#[tokio::test]
async fn a_deleted_pod_that_a_finalizer_keeps_ends_its_run_and_frees_its_stack() {
    let pods = Pods::start().await;
    let _agent = pods.agent();
    let (job, _gate) = pods.at_the_gate("a").await;
    let name = Pods::job_name(&job, 1);
    assert!(pods.api.edit_pod(&pods.api.pod_of(&name).expect("its pod"), hold));
    assert!(pods.api.fate(&name, Fate::Deleted));
    job.ended().await;
    let row = pods.says(&job, "The run's pod was deleted by somebody else than the agent").await;
    assert_eq!(
        (row.status.as_str(), row.error_code.as_deref()),
        ("FAILED", Some("AGENT_STOPPED")),
        "{row:?}"
    );
    assert_eq!(times(&row, "deleted by somebody else"), 1, "{row:?}");
    assert!(pods.api.pod_of(&name).is_some(), "it stays");
    assert_eq!(pods.queue(count("a")).await.ended().await.status, "SUCCESS");
}

#[tokio::test]
async fn a_job_that_was_removed_before_its_end_was_seen_changes_no_row() {
    let states = StateServer::start().await;
    let pods = with_states(&states).await;
    let agent = pods.agent();
    let (well, gate) = pods.queue_gated("well").await;
    let (stopped, _gate) = pods.queue_gated("stopped").await;
    let (killed, _gate) = pods.queue_gated("killed").await;
    for job in [&well, &stopped, &killed] {
        job.says("at the gate").await;
    }
    pods.api.go_away();
    agent.says("the Kubernetes API does not answer").await;
    fs::write(gate, "").expect("the gate opens");
    assert!(pods.api.fate(&Pods::job_name(&stopped, 1), Fate::EvictedByApi));
    assert!(pods.api.fate(&Pods::job_name(&killed, 1), Fate::Killed));
    assert_eq!(well.ended().await.status, "SUCCESS");
    assert_eq!(stopped.ended().await.error_code.as_deref(), Some("AGENT_STOPPED"));
    for job in [&well, &stopped, &killed] {
        pods.api.expire_job(&Pods::job_name(job, 1));
    }
    until("they are gone", async || {
        if pods.api.pods().is_empty() { Ok(()) } else { Err(format!("{:?}", pods.api.pods())) }
    })
    .await;
    pods.api.forget_versions();
    pods.api.come_back().await;
    agent.says("the Kubernetes API answers again").await;
    let unseen = "The run's Job went while the Kubernetes API did not answer";
    let row = pods.says(&stopped, unseen).await;
    assert_eq!(
        (row.error_code.as_deref(), times(&row, "somebody else")),
        (Some("AGENT_STOPPED"), 0),
        "{row:?}"
    );
    // Nobody knows whether this one runs on.
    pods.says(&killed, unseen).await;
    pods.fall_silent(&killed).await;
    pods.says(&killed, unseen).await;
    pods.silent_for(&killed, 60).await;
    let row = killed.ended().await;
    assert_eq!((row.error_code.as_deref(), times(&row, unseen)), (Some("AGENT_LOST"), 1), "{row:?}");
    let row = well.row().await;
    assert_eq!((row.status.as_str(), row.attempt, row.error_message), ("SUCCESS", 1, None));
    for stack in ["well", "stopped"] {
        assert_eq!(pods.queue(count(stack)).await.ended().await.status, "SUCCESS", "{stack}");
    }
}

#[tokio::test]
async fn a_dispatcher_that_was_halted_beyond_its_lease_stops_and_runs_nothing_twice() {
    let states = StateServer::start().await;
    let mut pods = with_states(&states).await;
    pods.agent_env.push(("TENDRIL_LEASE", "tendril".to_owned()));
    pods.agent_env.push(("TENDRIL_LEASE_DURATION", "15s".to_owned()));
    let mut first = pods.setup().name("first").start();
    first.says("this dispatcher leads").await;
    let second = pods.setup().name("second").start();
    second.says("another dispatcher leads").await;
    let (job, gate) = pods.at_the_gate("a").await;
    first.signal(Signal::STOP);
    second.says("this dispatcher leads").await;
    second.says("is taken over").await;
    let during = pods.queue(count("b")).await;
    let row = during.ended().await;
    assert_eq!((row.status.as_str(), row.claimed_by.as_deref()), ("SUCCESS", Some("second")), "{row:?}");
    first.signal(Signal::CONT);
    let end = first.ended().await;
    assert_ne!(end.code(), Some(0), "it does not work on: {}", first.output());
    fs::write(gate, "").expect("the gate opens");
    let row = job.ended().await;
    assert_eq!(
        (row.status.as_str(), row.attempt, row.error_message.as_deref()),
        ("SUCCESS", 1, None),
        "{row:?}"
    );
    job.log().await.assert_complete(&row);
    let row = pods.queue(count("a")).await.ended().await;
    assert_eq!((row.status.as_str(), row.claimed_by.as_deref()), ("SUCCESS", Some("second")), "{row:?}");
    assert_eq!(pods.api.jobs().len(), 3, "one Job for each");
}

#[tokio::test]
async fn a_secret_that_is_removed_before_the_pod_starts_is_named() {
    let mut pods = Pods::start().await;
    pods.agent_env = vec![
        ("TENDRIL_RUN_IMAGE", "localhost/later:1".to_owned()),
        ("TENDRIL_POD_START_DEADLINE", "40s".to_owned()),
    ];
    let _agent = pods.agent();
    let job = pods.queue(count("a")).await;
    let name = Pods::job_name(&job, 1);
    pods.says(&job, "The image localhost/later:1 cannot be pulled").await;
    until("its Secret is removed", async || {
        if pods.api.remove_secrets_of(&name) == 1 { Ok(()) } else { Err(format!("{:?}", pods.api.secrets())) }
    })
    .await;
    pods.api.add_image("localhost/later:1", &["/bin/true"]);
    let missing = format!("MountVolume.SetUp failed for volume \"tendril-attempt\" : secret \"{name}-");
    pods.says(&job, &missing).await;
    let row = job.ended().await;
    assert_eq!((row.status.as_str(), row.attempt, times(&row, &missing)), ("FAILED", 1, 1), "{row:?}");
    assert_eq!(times(&row, "did not start within 40s"), 1, "{row:?}");
}

#[tokio::test]
async fn a_pod_that_is_evicted_before_it_starts_is_named_and_run_again() {
    let mut pods = Pods::start().await;
    pods.agent_env = vec![("TENDRIL_RUN_IMAGE", "localhost/later:1".to_owned())];
    let _agent = pods.agent();
    let job = pods.queue(count("a")).await;
    pods.says(&job, "The image localhost/later:1 cannot be pulled").await;
    assert!(pods.api.fate(&Pods::job_name(&job, 1), Fate::EvictedByApi));
    let said = "The run's pod was evicted through the API, as the drain of a node does it.";
    let row = pods.says(&job, said).await;
    assert_eq!((row.status.as_str(), times(&row, said)), ("PROCESSING", 1), "{row:?}");
    let agent = tendril_tests::program::agent();
    pods.api.add_image("localhost/later:1", &[agent.to_str().expect("a path")]);
    // Nobody holds its claim: it is queued again.
    expire_lease(&pods.world, &job).await;
    let row = job.ended().await;
    assert_eq!(
        (row.status.as_str(), row.attempt, row.error_message.as_deref()),
        ("SUCCESS", 2, None),
        "{row:?}"
    );
}

#[tokio::test]
async fn a_node_that_answers_again_has_not_ended_its_run() {
    let pods = Pods::start().await;
    let agent = pods.agent();
    let (job, gate) = pods.at_the_gate("a").await;
    let name = Pods::job_name(&job, 1);
    assert!(pods.api.fate(&name, Fate::NodeSilent));
    agent.says("the node of a run does not answer").await;
    assert!(pods.api.fate(&name, Fate::NodeBack));
    agent.says("the node of a run answers again").await;
    let row = job.row().await;
    assert_eq!((row.status.as_str(), row.error_message.as_deref()), ("PROCESSING", None), "{row:?}");
    fs::write(gate, "").expect("the gate opens");
    let row = job.ended().await;
    assert_eq!(
        (row.status.as_str(), row.attempt, row.error_message.as_deref()),
        ("SUCCESS", 1, None),
        "{row:?}"
    );
    job.log().await.assert_complete(&row);
}

#[tokio::test]
async fn a_pod_that_was_given_up_with_its_node_is_stopped_when_the_node_is_back() {
    let pods = Pods::start().await;
    let agent = pods.agent();
    let (job, _gate) = pods.at_the_gate("a").await;
    let name = Pods::job_name(&job, 1);
    assert!(pods.api.fate(&name, Fate::NodeGone));
    agent.says("the node of a run does not answer").await;
    assert!(pods.api.fate(&name, Fate::NodeBack));
    job.ended().await;
    let said = "The node localhost does not answer, and the run's pod was given up with it.";
    let row = pods.says(&job, said).await;
    assert_eq!(
        (row.status.as_str(), row.error_code.as_deref(), times(&row, said)),
        ("FAILED", Some("AGENT_STOPPED"), 1),
        "{row:?}"
    );
    job.log().await.assert_complete(&row);
    assert_eq!(pods.queue(count("a")).await.ended().await.status, "SUCCESS");
}

#[tokio::test]
async fn a_run_whose_pod_was_removed_with_its_node_counts_when_it_ends_there() {
    let pods = Pods::start().await;
    let agent = pods.agent();
    let (job, gate) = pods.at_the_gate("a").await;
    let name = Pods::job_name(&job, 1);
    let pod = pods.api.pod_of(&name).expect("its pod");
    assert!(pods.api.fate(&name, Fate::NodeGone));
    agent.says("the node of a run does not answer").await;
    pods.api.collect_pod(&pod);
    let said = "The node localhost does not answer, and the run's pod was given up with it.";
    let row = pods.says(&job, said).await;
    assert_eq!((row.status.as_str(), times(&row, said)), ("PROCESSING", 1), "{row:?}");
    fs::write(gate, "").expect("the gate opens");
    let row = job.ended().await;
    assert_eq!(
        (row.status.as_str(), row.attempt, row.error_message.as_deref()),
        ("SUCCESS", 1, None),
        "{row:?}"
    );
    job.log().await.assert_complete(&row);
    assert_eq!(pods.queue(count("a")).await.ended().await.status, "SUCCESS");
}
