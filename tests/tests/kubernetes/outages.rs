//! An API server that is slow, refuses, ends its watches or is silent: runs end, and nothing is started twice.

use std::{fs, time::Duration};

use serde_json::{Value, json};
use tendril_tests::{Deployment, Pods, Program};
use tokio::time::sleep;

fn count(stack: &str) -> Value {
    json!({"template": "count", "stack": stack, "variables": {"lines": 2}})
}

/// A run of the stand-in ends well, as one Job.
async fn runs(pods: &Pods, agent: &Program, stack: &str) {
    let job = pods.queue(pods.ticket(stack)).await;
    let row = job.ended().await;
    assert_eq!((row.status.as_str(), row.attempt), ("SUCCESS", 1), "{stack}: {row:?}: {}", agent.output());
    assert!(is_one(pods, &job), "{stack}: it was started once");
}

fn is_one(pods: &Pods, job: &Deployment) -> bool {
    let id = job.id.to_string();
    let of_job = |object: &Value| object["metadata"]["labels"]["tendril.dev/deployment"] == *id;
    pods.api.jobs().iter().filter(|job| of_job(job)).count() == 1
        && pods.api.pods().iter().filter(|pod| of_job(pod)).count() == 1
}

#[tokio::test]
async fn whatever_the_api_server_answers_runs_end_and_none_is_started_twice() {
    let mut pods = Pods::start().await;
    pods.stand_in();
    let agent = pods.agent();
    runs(&pods, &agent, "calm").await;
    pods.api.set_delay(Duration::from_secs(1));
    runs(&pods, &agent, "slow").await;
    pods.api.set_delay(Duration::ZERO);
    for status in [429, 500] {
        pods.api.refuse(status, 1, 3, "");
        runs(&pods, &agent, &format!("refused-{status}")).await;
    }
    pods.api.set_watches(Some(Duration::from_secs(1)), true);
    for n in 0..3 {
        runs(&pods, &agent, &format!("short-{n}")).await;
    }
    pods.api.set_watches(None, false);
    // More than a page, whose second part is too old when it is asked for.
    let known = pods.queue(pods.ticket("known")).await;
    assert_eq!(known.ended().await.status, "SUCCESS");
    pods.api.copy_run(&Pods::job_name(&known, 1), &known.id.to_string(), 150);
    pods.api.refuse(410, 1, 2, "continue=");
    pods.api.forget_versions();
    pods.api.go_away();
    pods.api.come_back().await;
    runs(&pods, &agent, "paged").await;
}

#[tokio::test]
async fn runs_go_on_while_connections_to_the_api_server_are_silent() {
    let pods = Pods::start().await;
    let _agent = pods.agent();
    let (job, gate) = pods.at_the_gate("a").await;
    pods.api.go_silent();
    fs::write(gate, "").expect("the gate opens");
    let row = job.ended().await;
    assert_eq!((row.status.as_str(), row.attempt), ("SUCCESS", 1), "{row:?}");
    job.log().await.assert_complete(&row);
    let next = pods.queue(count("b")).await;
    pods.says(&next, "The Kubernetes API does not answer, so the run waits").await;
    pods.api.come_back().await;
    let row = next.ended().await;
    assert_eq!((row.status.as_str(), row.attempt, row.error_message), ("SUCCESS", 1, None));
    // And the end of the first one is known by now.
    assert_eq!(pods.queue(count("a")).await.ended().await.status, "SUCCESS");
    assert!(is_one(&pods, &job) && is_one(&pods, &next));
}

/// Two minutes without an API server, and connections whose other end is gone without a word: the shorter scenarios in real time.
#[tokio::test]
async fn outages_of_minutes_in_mid_run_cost_nothing() {
    if std::env::var("TENDRIL_RACE").as_deref() != Ok("full") {
        println!("skipped: outages of minutes: TENDRIL_RACE=full runs them; shorter ones are run always");
        return;
    }
    let pods = Pods::start().await;
    let agent = pods.agent();
    let (job, gate) = pods.at_the_gate("a").await;
    pods.api.go_away();
    agent.says("the Kubernetes API does not answer").await;
    sleep(Duration::from_secs(130)).await;
    assert_eq!(job.row().await.status, "PROCESSING", "its lease is extended by the run itself");
    fs::write(gate, "").expect("the gate opens");
    let row = job.ended().await;
    assert_eq!((row.status.as_str(), row.attempt), ("SUCCESS", 1), "{row:?}");
    job.log().await.assert_complete(&row);
    pods.api.come_back().await;
    agent.says("the Kubernetes API answers again").await;
    assert_eq!(pods.queue(count("a")).await.ended().await.status, "SUCCESS");
    let (job, gate) = pods.at_the_gate("b").await;
    pods.api.strand();
    fs::write(gate, "").expect("the gate opens");
    assert_eq!(job.ended().await.status, "SUCCESS");
    // Only a time-out shows that the watches are dead; until then the dispatcher takes the stack for busy.
    let next = pods.queue(count("b")).await;
    tendril_tests::until_within(240, "the dead watches are given up", async || {
        let row = next.row().await;
        if row.status == "SUCCESS" { Ok(()) } else { Err(format!("{row:?}")) }
    })
    .await;
    assert!(is_one(&pods, &job) && is_one(&pods, &next));
}
