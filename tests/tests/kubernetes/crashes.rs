//! Dispatchers that die: wherever that is, no run is started twice, and none is forgotten.

use std::fs;

use rustix::process::Signal;
use serde_json::{Value, json};
use tendril_tests::{
    Deployment, Pods,
    crash::{expire_lease, prepare},
    kubernetes::{AGENT_TOKEN, Fate},
    until_within,
};

/// How long a Lease lasts here; who waits for it looks four times in that time.
const LEASE: (&str, &str) = ("TENDRIL_LEASE_DURATION", "15s");
const LEASE_PASSES_ON: u64 = 60;

fn count(stack: &str) -> Value {
    json!({"template": "count", "stack": stack, "variables": {"lines": 2}})
}

/// Jobs of a deployment.
fn jobs_of(pods: &Pods, job: &Deployment) -> Vec<String> {
    let id = job.id.to_string();
    let jobs =
        pods.api.jobs().into_iter().filter(|job| job["metadata"]["labels"]["tendril.dev/deployment"] == *id);
    jobs.map(|job| job["metadata"]["name"].as_str().unwrap_or_default().to_owned()).collect()
}

/// Which attempt a run ends in whose dispatcher died there: only a claim without a Job is run again.
#[tokio::test]
async fn a_dispatcher_that_dies_at_any_place_costs_a_run_nothing() {
    prepare();
    let pods = Pods::start().await;
    for (place, attempt) in [
        ("claim.answered", 2),
        ("claim.won", 2),
        ("run.job_made", 1),
        ("run.secret_made", 1),
        ("run.ended", 1),
    ] {
        let mut doomed = pods.setup().start_to_die_at(place, 1);
        let job = pods.queue(count(place)).await;
        assert_eq!(doomed.ended().await.code(), None, "{place}: {}", doomed.output());
        if attempt == 2 {
            assert!(jobs_of(&pods, &job).is_empty(), "{place}: nothing was started");
            expire_lease(&pods.world, &job).await;
        }
        let next = pods.agent();
        let row = job.ended().await;
        assert_eq!((row.status.as_str(), row.attempt), ("SUCCESS", attempt), "{place}: {row:?}");
        assert_eq!(jobs_of(&pods, &job), [Pods::job_name(&job, attempt)], "{place}: it was started once");
        // Nobody waits for it any more: its stack is free.
        let again = pods.queue(count(place)).await;
        assert_eq!(again.ended().await.status, "SUCCESS", "{place}");
        drop(next);
    }
}

#[tokio::test]
async fn a_dispatcher_that_dies_while_it_writes_that_a_run_died_costs_nothing() {
    prepare();
    let pods = Pods::start().await;
    for place in ["run.ended", "run.concluded"] {
        let mut doomed = pods.setup().start_to_die_at(place, 1);
        let (job, _gate) = pods.at_the_gate(place).await;
        assert!(pods.api.fate(&Pods::job_name(&job, 1), Fate::OomKilled));
        assert_eq!(doomed.ended().await.code(), None, "{place}: {}", doomed.output());
        let next = pods.agent();
        let row = job.ended().await;
        assert_eq!((row.status.as_str(), row.attempt), ("FAILED", 1), "{place}: {row:?}");
        let message = row.error_message.expect("a sentence");
        assert!(message.contains("more memory than its limit"), "{place}: {message}");
        drop(next);
    }
}

#[tokio::test]
async fn a_dispatcher_that_dies_with_the_lease_is_followed_by_the_one_that_waits() {
    prepare();
    let mut pods = Pods::start().await;
    pods.agent_env = vec![("TENDRIL_LEASE", "tendril".to_owned()), (LEASE.0, LEASE.1.to_owned())];
    let mut doomed = pods.setup().name("first").start_to_die_at("lease.won", 1);
    assert_eq!(doomed.ended().await.code(), None, "{}", doomed.output());
    let second = pods.setup().name("second").start();
    second.says("another dispatcher leads").await;
    until_within(LEASE_PASSES_ON, "the second one leads", async || {
        if second.output().contains("this dispatcher leads") { Ok(()) } else { Err(second.output()) }
    })
    .await;
    let row = pods.queue(count("a")).await.ended().await;
    assert_eq!((row.status.as_str(), row.claimed_by.as_deref()), ("SUCCESS", Some("second")));
}

#[tokio::test]
async fn of_two_dispatchers_the_one_at_work_is_killed_and_its_run_counts_for_the_other() {
    let mut pods = Pods::start().await;
    pods.agent_env = vec![("TENDRIL_LEASE", "tendril".to_owned()), (LEASE.0, LEASE.1.to_owned())];
    let mut first = pods.setup().name("first").start();
    first.says("this dispatcher leads").await;
    let second = pods.setup().name("second").start();
    second.says("another dispatcher leads").await;
    let (job, gate) = pods.at_the_gate("a").await;
    first.signal(Signal::KILL);
    first.ended().await;
    until_within(LEASE_PASSES_ON, "the second one takes the run over", async || {
        if second.output().contains("is taken over") { Ok(()) } else { Err(second.output()) }
    })
    .await;
    fs::write(gate, "").expect("the gate opens");
    let row = job.ended().await;
    assert_eq!((row.status.as_str(), row.attempt, row.claimed_by.as_deref()), ("SUCCESS", 1, Some("first")));
    job.log().await.assert_complete(&row);
    assert_eq!(jobs_of(&pods, &job).len(), 1, "nothing was started twice");
    // The third one was queued while nobody led, and belongs to the same stack.
    let next = pods.queue(count("a")).await.ended().await;
    assert_eq!((next.status.as_str(), next.claimed_by.as_deref()), ("SUCCESS", Some("second")));
}

#[tokio::test]
async fn a_dispatcher_that_is_stopped_before_it_has_found_its_runs_gives_the_lease_back() {
    let mut pods = Pods::start().await;
    pods.agent_env = vec![("TENDRIL_LEASE", "tendril".to_owned()), (LEASE.0, LEASE.1.to_owned())];
    pods.api.deny(AGENT_TOKEN, ("batch", "jobs", "list"));
    let mut first = pods.setup().name("first").start();
    first.says("cannot list resource").await;
    let holder = || pods.api.lease("tendril").map(|lease| lease["spec"]["holderIdentity"].clone());
    assert_eq!(holder(), Some(json!("first")));
    first.signal(Signal::TERM);
    assert_eq!(first.ended().await.code(), Some(0), "{}", first.output());
    assert_eq!(holder(), Some(json!("")), "the next one need not wait for its end");
}
