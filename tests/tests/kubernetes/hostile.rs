//! People and programs of the cluster that do what nobody expects: the row says what is true all the same.

use std::fs;

use serde_json::{Value, json};
use tendril_tests::{
    Pods,
    kubernetes::{ApiServer, NAMESPACE},
    until,
};

use crate::http::client;

fn count(stack: &str) -> Value {
    json!({"template": "count", "stack": stack, "variables": {"lines": 2}})
}

pub(crate) async fn delete(api: &ApiServer, path: &str, options: &Value) {
    api.add_admin("stranger");
    let url = format!("{}{path}", api.url());
    let answer = client().delete(url).bearer_auth("stranger").json(options).send().await.expect("an answer");
    assert!(answer.status().is_success(), "{}", answer.text().await.unwrap_or_default());
}

#[tokio::test]
async fn names_of_stacks_are_no_names_of_objects() {
    let mut pods = Pods::start().await;
    pods.api.add_service_account("runs-long");
    let longest = "X".repeat(63);
    pods.rules = json!([
        {"stacks": [longest], "serviceAccount": "runs-long"},
        {"stacks": ["*"], "serviceAccount": "tendril-run"},
    ]);
    let _agent = pods.agent();
    for name in [longest.as_str(), "0_-.", "a.b", "A.B", "null", "tendril-run"] {
        let job = pods.queue(count(name)).await;
        let row = job.ended().await;
        assert_eq!((row.status.as_str(), row.attempt), ("SUCCESS", 1), "{name}: {row:?}");
        let made = pods.job(&Pods::job_name(&job, 1)).expect("its Job");
        assert_eq!(made["metadata"]["annotations"]["tendril.dev/stack"], format!("count.{name}"));
        let account = if name == longest { "runs-long" } else { "tendril-run" };
        assert_eq!(made["spec"]["template"]["spec"]["serviceAccountName"], account, "{name}");
    }
}

#[tokio::test]
async fn a_job_whose_labels_are_changed_by_hand_ends_as_ever() {
    let pods = Pods::start().await;
    let _agent = pods.agent();
    let (job, gate) = pods.at_the_gate("a").await;
    let name = Pods::job_name(&job, 1);
    assert!(pods.api.edit_job(&name, |job| {
        job["metadata"]["labels"] = json!({"somebody": "else"});
        job["metadata"]["annotations"] = Value::Null;
    }));
    fs::write(gate, "").expect("the gate opens");
    let row = job.ended().await;
    assert_eq!((row.status.as_str(), row.attempt), ("SUCCESS", 1), "{row:?}");
    // Its dispatcher has noticed too: the stack is free, and what was in its way is not run again.
    let next = pods.queue(count("a")).await.ended().await;
    assert_eq!(next.status, "SUCCESS", "{next:?}");
}

#[tokio::test]
async fn a_job_whose_labels_name_another_deployment_is_not_taken_for_it() {
    let pods = Pods::start().await;
    let agent = pods.agent();
    let other = pods.queue(count("b")).await;
    assert_eq!(other.ended().await.status, "SUCCESS");
    let (job, gate) = pods.at_the_gate("a").await;
    drop(agent);
    // The Job of the one says that it is the other's, which is over.
    let id = other.id.to_string();
    assert!(pods.api.edit_job(&Pods::job_name(&job, 1), |job| {
        job["metadata"]["labels"]["tendril.dev/deployment"] = id.clone().into();
    }));
    let _next = pods.agent();
    pods.cluster.online().await;
    fs::write(gate, "").expect("the gate opens");
    let row = job.ended().await;
    assert_eq!((row.status.as_str(), row.attempt), ("SUCCESS", 1), "{row:?}");
    job.log().await.assert_complete(&row);
    let untouched = other.row().await;
    assert_eq!((untouched.status.as_str(), untouched.attempt, untouched.error_message), ("SUCCESS", 1, None));
}

#[tokio::test]
async fn a_job_that_a_stranger_deletes_is_interrupted_in_good_order() {
    let pods = Pods::start().await;
    let _agent = pods.agent();
    let (job, _gate) = pods.at_the_gate("a").await;
    let path = format!("/apis/batch/v1/namespaces/{NAMESPACE}/jobs/{}", Pods::job_name(&job, 1));
    delete(&pods.api, &path, &json!({"propagationPolicy": "Background"})).await;
    // Its executor has its grace: the state is stored, and it ends the row itself. The dispatcher adds why it was asked to stop.
    job.ended().await;
    let row = pods.says(&job, "The run's Job was deleted by somebody else than the agent").await;
    assert_eq!(
        (row.status.as_str(), row.error_code.as_deref()),
        ("FAILED", Some("AGENT_STOPPED")),
        "{row:?}"
    );
    job.log().await.assert_complete(&row);
    assert_eq!(pods.queue(count("a")).await.ended().await.status, "SUCCESS");
}

#[tokio::test]
async fn a_job_that_a_stranger_deletes_without_its_pod_goes_on_to_its_end() {
    let pods = Pods::start().await;
    let agent = pods.agent();
    let (job, gate) = pods.at_the_gate("a").await;
    let path = format!("/apis/batch/v1/namespaces/{NAMESPACE}/jobs/{}", Pods::job_name(&job, 1));
    delete(&pods.api, &path, &json!({"propagationPolicy": "Orphan"})).await;
    agent.says("deleted by somebody else").await;
    fs::write(gate, "").expect("the gate opens");
    let row = job.ended().await;
    job.log().await.assert_complete(&row);
    assert_eq!((row.status.as_str(), row.attempt, row.error_message), ("SUCCESS", 1, None));
}

#[tokio::test]
async fn a_secret_that_never_comes_is_named() {
    let mut pods = Pods::start().await;
    pods.agent_env = vec![("TENDRIL_POD_START_DEADLINE", "20s".to_owned())];
    pods.api.hold("POST", "secrets");
    let _agent = pods.agent();
    let job = pods.queue(count("a")).await;
    let name = Pods::job_name(&job, 1);
    pods.says(&job, &format!("The run's container is not created yet: MountVolume.SetUp failed for volume \"tendril-attempt\" : secret \"{name}-")).await;
    let row = job.ended().await;
    assert_eq!(row.status, "FAILED", "{row:?}");
    let message = row.error_message.expect("a sentence");
    assert!(
        message.contains("did not start within 20s") && message.contains("MountVolume.SetUp"),
        "{message}"
    );
}

#[tokio::test]
async fn a_job_that_somebody_made_before_is_refused_and_not_run() {
    let pods = Pods::start().await;
    let first = pods.agent();
    let job = pods.queue(count("a")).await;
    assert_eq!(job.ended().await.status, "SUCCESS");
    drop(first);
    // What the next deployment's Job will be called, with a claim that is not its own.
    let made = pods.job(&Pods::job_name(&job, 1)).expect("its Job");
    let next = pods.queue(count("a")).await;
    pods.api.set_controller_down(true);
    pods.api.add_admin("stranger");
    let mut forged: Value =
        serde_json::from_str(&made.to_string().replace(&job.id.to_string(), &next.id.to_string()))
            .expect("JSON");
    forged["metadata"]["uid"] = Value::Null;
    forged["status"] = Value::Null;
    let url = format!("{}/apis/batch/v1/namespaces/{NAMESPACE}/jobs", pods.api.url());
    let answer = client().post(url).bearer_auth("stranger").json(&forged).send().await.expect("an answer");
    assert_eq!(answer.status(), 201, "{}", answer.text().await.unwrap_or_default());
    let _agent = pods.agent();
    let row = next.ended().await;
    assert_eq!(row.status, "FAILED", "{row:?}");
    let message = row.error_message.expect("a sentence");
    assert!(message.contains("is there already, and of another claim"), "{message}");
    assert_eq!(pods.api.secrets().len(), 1, "it is given nothing");
}

#[tokio::test]
async fn a_pod_that_claims_to_wait_for_approval_is_not_believed() {
    let pods = Pods::start().await;
    // Whatever it is given, this image ends as an executor does whose plan waits.
    pods.api.add_image(tendril_tests::pods::IMAGE, &["/bin/sh", "-c", "exit 10"]);
    let _agent = pods.agent();
    let job = pods.queue(count("a")).await;
    pods.says(&job, "none is shown").await;
    // Nobody extends its claim: it is queued again, once.
    tendril_tests::crash::expire_lease(&pods.world, &job).await;
    let row = job.ended().await;
    assert_eq!((row.status.as_str(), row.attempt), ("FAILED", 2), "{row:?}");
}

/// Two dispatchers without a Lease, as after a mistake: the database decides who has which run.
#[tokio::test]
async fn two_dispatchers_at_once_run_nothing_twice() {
    let mut pods = Pods::start().await;
    pods.stand_in();
    let first = pods.setup().name("first").start();
    let second = pods.setup().name("second").start();
    let configs: Vec<_> = (0..20).map(|n| pods.ticket(&format!("s{n}"))).collect();
    let jobs = pods.cluster.queue_all(configs).await;
    let mut by = std::collections::BTreeSet::new();
    for job in &jobs {
        let row = job.ended().await;
        assert_eq!((row.status.as_str(), row.attempt), ("SUCCESS", 1), "{row:?}");
        by.extend(row.claimed_by);
    }
    assert_eq!(pods.api.jobs().len(), jobs.len(), "one Job for each");
    assert_eq!(pods.api.pods().len(), jobs.len(), "and one pod");
    assert!(!by.is_empty() && !first.output().contains("panicked") && !second.output().contains("panicked"));
}

/// A second pod of the same Job, as Kubernetes may start one after a failure of its own: it does nothing.
#[tokio::test]
async fn a_second_pod_of_a_run_does_nothing() {
    let pods = Pods::start().await;
    let _agent = pods.agent();
    let (job, gate) = pods.at_the_gate("a").await;
    let name = Pods::job_name(&job, 1);
    let twin = pods.api.start_twin(&name).expect("a second pod");
    until("the second pod says why it does nothing", async || {
        let pod = pods.api.pods().into_iter().find(|pod| pod["metadata"]["name"] == twin.as_str());
        let log = pod.map(|pod| pods.api.log_of(&pod)).unwrap_or_default();
        if log.contains("belongs to another pod of its Job") { Ok(()) } else { Err(log) }
    })
    .await;
    fs::write(gate, "").expect("the gate opens");
    let row = job.ended().await;
    assert_eq!((row.status.as_str(), row.attempt), ("SUCCESS", 1), "{row:?}");
    let log = job.log().await;
    log.assert_complete(&row);
    assert_eq!(log.counted(), [1, 2, 3, 4]);
}

/// The times in a Lease and in the objects are the cluster's: a clock that is wrong by hours changes nothing.
#[tokio::test]
async fn clocks_that_differ_change_nothing() {
    let mut pods = Pods::start().await;
    pods.agent_env =
        vec![("TENDRIL_LEASE", "tendril".to_owned()), ("TENDRIL_LEASE_DURATION", "15s".to_owned())];
    // Of a dispatcher whose clock is far ahead, and which is alive.
    pods.api.put_lease("tendril", "ahead", "2099-01-01T00:00:00.000000Z", 15);
    let waits = pods.setup().name("waits").start();
    waits.says("another dispatcher leads").await;
    // Nobody renews it: it ends 15 seconds after it was seen first, whatever its times say.
    tendril_tests::until_within(60, "the Lease passes on", async || {
        if waits.output().contains("this dispatcher leads") { Ok(()) } else { Err(waits.output()) }
    })
    .await;
    let (job, gate) = pods.at_the_gate("a").await;
    let pod = pods.api.pod_of(&Pods::job_name(&job, 1)).expect("its pod");
    assert!(
        pods.api.edit_pod(&pod, |pod| pod["metadata"]["creationTimestamp"] = "2001-01-01T00:00:00Z".into())
    );
    assert!(pods.api.edit_job(&Pods::job_name(&job, 1), |job| {
        job["status"]["startTime"] = "2001-01-01T00:00:00Z".into();
    }));
    fs::write(gate, "").expect("the gate opens");
    let row = job.ended().await;
    assert_eq!((row.status.as_str(), row.attempt), ("SUCCESS", 1), "{row:?}");
}
