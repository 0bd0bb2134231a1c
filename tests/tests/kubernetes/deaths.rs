//! What keeps a run from starting, and what ends it: each in a sentence in its row.

use std::fs;

use serde_json::json;
use tendril_tests::{
    Pods,
    kubernetes::{AGENT_TOKEN, Fate},
    until, until_none_are_left,
};

#[tokio::test]
async fn out_of_memory_says_the_limit() {
    let mut pods = Pods::start().await;
    pods.rules = json!([{"stacks": ["*"], "serviceAccount": "tendril-run", "resources": {"limits": {"memory": "768Mi"}}}]);
    let _agent = pods.agent();
    let (job, _gate) = pods.at_the_gate("a").await;
    assert!(pods.api.fate(&Pods::job_name(&job, 1), Fate::OomKilled));
    let row = job.ended().await;
    assert_eq!(row.status, "FAILED", "{row:?}");
    let message = row.error_message.expect("a sentence");
    assert!(
        message.contains("more memory than its limit, 768Mi") && message.contains("during the apply"),
        "{message}"
    );
}

#[tokio::test]
async fn an_eviction_for_disk_says_so() {
    let pods = Pods::start().await;
    let _agent = pods.agent();
    let (job, _gate) = pods.at_the_gate("a").await;
    assert!(pods.api.fate(&Pods::job_name(&job, 1), Fate::Evicted));
    let row = job.ended().await;
    assert_eq!((row.status.as_str(), row.error_code.as_deref()), ("FAILED", Some("DISK_FULL")), "{row:?}");
    let message = row.error_message.expect("a sentence");
    assert!(message.contains("ephemeral local storage usage exceeds the total limit"), "{message}");
}

#[tokio::test]
async fn an_evicted_apply_stores_its_state_within_its_grace() {
    let pods = Pods::start().await;
    let _agent = pods.agent();
    let (job, _gate) = pods.at_the_gate("a").await;
    assert!(pods.api.fate(&Pods::job_name(&job, 1), Fate::EvictedByApi));
    // It was asked to stop, interrupted its apply, and wrote so itself; why, its dispatcher knows.
    let row =
        pods.says(&job, "The run's pod was evicted through the API, as the drain of a node does it.").await;
    assert_eq!(
        (row.status.as_str(), row.error_code.as_deref()),
        ("FAILED", Some("AGENT_STOPPED")),
        "{row:?}"
    );
    assert!(
        row.error_message.as_deref().is_some_and(|how| how.contains("It was stopped during apply")),
        "{row:?}"
    );
    job.log().await.assert_complete(&row);
}

#[tokio::test]
async fn an_image_that_cannot_be_pulled_is_said_while_it_waits_and_then_fails() {
    let mut pods = Pods::start().await;
    pods.agent_env = vec![
        ("TENDRIL_RUN_IMAGE", "registry.invalid/none:1".to_owned()),
        ("TENDRIL_POD_START_DEADLINE", "12s".to_owned()),
    ];
    let _agent = pods.agent();
    let job = pods.queue(json!({"template": "count", "stack": "a", "variables": {"lines": 2}})).await;
    let row = pods.says(&job, "The image registry.invalid/none:1 cannot be pulled").await;
    assert_eq!(row.status, "PROCESSING");
    let row = job.ended().await;
    assert_eq!(row.status, "FAILED", "{row:?}");
    let message = row.error_message.expect("a sentence");
    assert!(
        message.contains("did not start within 12s") && message.contains("cannot be pulled"),
        "{message}"
    );
    until("its Job is removed", async || {
        if pods.api.jobs().is_empty() { Ok(()) } else { Err(format!("{:?}", pods.api.jobs())) }
    })
    .await;
}

#[tokio::test]
async fn a_run_that_no_node_can_take_says_which_resource_and_can_be_cancelled() {
    let mut pods = Pods::start().await;
    pods.rules = json!([{"stacks": ["*"], "serviceAccount": "tendril-run", "resources": {"requests": {"memory": "500Gi"}, "limits": {"memory": "500Gi"}}}]);
    let _agent = pods.agent();
    let job = pods.queue(json!({"template": "count", "stack": "a", "variables": {"lines": 2}})).await;
    pods.says(&job, "which requests memory 500Gi: 1 Insufficient memory").await;
    job.cancel().await;
    let row = job.ended().await;
    assert_eq!((row.status.as_str(), row.attempt), ("CANCELLED", 1), "{row:?}");
    until("its Job is removed", async || {
        if pods.api.jobs().is_empty() { Ok(()) } else { Err("it is there".to_owned()) }
    })
    .await;
}

#[tokio::test]
async fn a_missing_service_account_is_said() {
    let mut pods = Pods::start().await;
    pods.rules = json!([{"stacks": ["*"], "serviceAccount": "nobody"}]);
    let _agent = pods.agent();
    let job = pods.queue(json!({"template": "count", "stack": "a", "variables": {"lines": 2}})).await;
    pods.says(&job, "serviceaccount \"nobody\" not found").await;
    // Made later, the run goes on by itself.
    pods.api.add_service_account("nobody");
    let row = job.ended().await;
    assert_eq!((row.status.as_str(), row.attempt, row.error_message), ("SUCCESS", 1, None));
}

#[tokio::test]
async fn a_policy_of_the_cluster_is_said() {
    let pods = Pods::start().await;
    pods.api.set_policy(Some(("no-latest", "images must come from registry.example.com")));
    let _agent = pods.agent();
    let job = pods.queue(json!({"template": "count", "stack": "a", "variables": {"lines": 2}})).await;
    let row = job.ended().await;
    assert_eq!(row.status, "FAILED");
    assert!(row.error_message.expect("a sentence").contains("images must come from registry.example.com"));
}

#[tokio::test]
async fn a_webhook_that_is_away_is_waited_for() {
    let pods = Pods::start().await;
    pods.api.set_webhook_down(Some("failed calling webhook \"policy.example.com\": connection refused"));
    let _agent = pods.agent();
    let job = pods.queue(json!({"template": "count", "stack": "a", "variables": {"lines": 2}})).await;
    pods.says(&job, "admission webhook does not answer").await;
    pods.api.set_webhook_down(None);
    let row = job.ended().await;
    assert_eq!((row.status.as_str(), row.attempt, row.error_message), ("SUCCESS", 1, None));
}

#[tokio::test]
async fn a_pod_that_is_killed_before_the_apply_is_queued_again() {
    let pods = Pods::start().await;
    let _agent = pods.agent();
    let job = pods.queue(json!({"template": "count", "stack": "a", "variables": {"lines": 2}})).await;
    let name = Pods::job_name(&job, 1);
    pods.runs(&name).await;
    // Nothing of it can say anything more.
    assert!(pods.api.fate(&name, Fate::Killed));
    let row = job.becomes("is queued again", |row| row.attempt == 2 || row.status == "QUEUED").await;
    assert_ne!(row.status, "FAILED", "{row:?}");
    let row = job.ended().await;
    assert_eq!((row.status.as_str(), row.attempt), ("SUCCESS", 2), "{row:?}");
}

#[tokio::test]
async fn a_node_that_is_gone_does_not_end_its_run() {
    let pods = Pods::start().await;
    let _agent = pods.agent();
    let (job, gate) = pods.at_the_gate("a").await;
    assert!(pods.api.fate(&Pods::job_name(&job, 1), Fate::NodeGone));
    fs::write(gate, "").expect("the gate opens");
    // It runs on where nobody sees it, and its result counts.
    let row = job.ended().await;
    assert_eq!((row.status.as_str(), row.attempt), ("SUCCESS", 1), "{row:?}");
    assert!(pods.api.fate(&Pods::job_name(&job, 1), Fate::NodeBack));
}

#[tokio::test]
async fn runs_go_on_while_the_api_server_is_away_and_when_their_watch_is_too_old() {
    let pods = Pods::start().await;
    let agent = pods.agent();
    let (job, gate) = pods.at_the_gate("a").await;
    pods.api.go_away();
    agent.says("the Kubernetes API does not answer").await;
    fs::write(gate, "").expect("the gate opens");
    let row = job.ended().await;
    assert_eq!(row.status, "SUCCESS", "{row:?}");
    job.log().await.assert_complete(&row);
    // Queued while it is away: claimed, and started when it is back.
    let next = pods.queue(json!({"template": "count", "stack": "b", "variables": {"lines": 2}})).await;
    pods.api.forget_versions();
    pods.api.come_back().await;
    agent.says("the Kubernetes API answers again").await;
    let row = next.ended().await;
    assert_eq!(row.status, "SUCCESS", "{row:?}");
    // And what ended meanwhile was noticed: its stack is free.
    let again = pods.queue(json!({"template": "count", "stack": "a", "variables": {"lines": 2}})).await;
    assert_eq!(again.ended().await.status, "SUCCESS");
}

#[tokio::test]
async fn each_right_that_is_missing_is_named() {
    let pods = Pods::start().await;
    pods.api.deny(AGENT_TOKEN, ("", "secrets", "create"));
    let agent = pods.agent();
    let job = pods.queue(json!({"template": "count", "stack": "a", "variables": {"lines": 2}})).await;
    let row = job.ended().await;
    assert_eq!(row.status, "FAILED");
    let message = row.error_message.expect("a sentence");
    assert!(message.contains("cannot create resource \"secrets\""), "{message}");
    until("its Job is removed, which would wait for ever", async || {
        if pods.api.jobs().is_empty() { Ok(()) } else { Err("it is there".to_owned()) }
    })
    .await;
    pods.api.allow(AGENT_TOKEN, ("", "secrets", "create"));
    pods.api.deny(AGENT_TOKEN, ("batch", "jobs", "create"));
    let job = pods.queue(json!({"template": "count", "stack": "a", "variables": {"lines": 2}})).await;
    let row = job.ended().await;
    let message = row.error_message.expect("a sentence");
    assert!(message.contains("cannot create resource \"jobs\""), "{message}");
    drop(agent);
    pods.api.allow(AGENT_TOKEN, ("batch", "jobs", "create"));
    for right in
        [("batch", "jobs", "list"), ("batch", "jobs", "watch"), ("", "pods", "list"), ("", "pods", "watch")]
    {
        pods.api.deny(AGENT_TOKEN, right);
        let agent = pods.agent();
        agent.says(&format!("cannot {} resource \"{}\"", right.2, right.1)).await;
        drop(agent);
        pods.api.allow(AGENT_TOKEN, right);
    }
}

#[tokio::test]
async fn a_run_that_passes_its_deadline_says_so() {
    let pods = Pods::start().await;
    let _agent = pods.agent();
    let (job, _gate) = pods.at_the_gate("a").await;
    assert!(
        pods.api.edit_job(&Pods::job_name(&job, 1), |job| job["spec"]["activeDeadlineSeconds"] = 1.into())
    );
    // It is asked to stop, has its grace, and says so itself; its Job says why.
    let row = pods.says(&job, "The run passed the deadline of 1 s of its Job").await;
    assert_eq!((row.status.as_str(), row.error_code.as_deref()), ("FAILED", Some("TIMED_OUT")), "{row:?}");
    job.log().await.assert_complete(&row);
}

#[tokio::test]
async fn a_pod_that_is_killed_in_the_apply_is_lost_and_its_stack_can_be_planned_again() {
    let pods = Pods::start().await;
    let _agent = pods.agent();
    let (job, _gate) = pods.at_the_gate("a").await;
    assert!(pods.api.fate(&Pods::job_name(&job, 1), Fate::Killed));
    let row = job.ended().await;
    assert_eq!(
        (row.status.as_str(), row.error_code.as_deref(), row.attempt),
        ("FAILED", Some("AGENT_LOST"), 1),
        "{row:?}"
    );
    let message = row.error_message.expect("a sentence");
    assert!(message.contains("SIGKILL") && message.contains("during the apply"), "{message}");
    // What the state says: the resource was not stored, so the next run creates it.
    let next =
        pods.queue(json!({"template": "count", "stack": "a", "variables": {"lines": 2}})).await.ended().await;
    assert_eq!(next.status, "SUCCESS", "{next:?}");
    assert_eq!(next.plan_summary.expect("counts")["add"], 1);
}

#[tokio::test]
async fn a_run_that_dies_with_its_node_in_the_apply_is_unknown_and_then_lost() {
    let pods = Pods::start().await;
    let agent = pods.agent();
    let (job, _gate) = pods.at_the_gate("a").await;
    let name = Pods::job_name(&job, 1);
    assert!(pods.api.fate(&name, Fate::NodeGone));
    agent.says("the node of a run does not answer").await;
    assert!(pods.api.fate(&name, Fate::Killed));
    // A minute without a heartbeat, and nobody knows whether it runs on.
    pods.fall_silent(&job).await;
    pods.says(&job, "The node localhost does not answer").await;
    assert_eq!(job.row().await.status, "PROCESSING");
    pods.silent_for(&job, 60).await;
    let row = job.ended().await;
    assert_eq!(
        (row.status.as_str(), row.error_code.as_deref(), row.attempt),
        ("FAILED", Some("AGENT_LOST"), 1),
        "{row:?}"
    );
    let message = row.error_message.expect("a sentence");
    assert_eq!(message.matches("The node localhost does not answer").count(), 1, "{message}");
    let next =
        pods.queue(json!({"template": "count", "stack": "a", "variables": {"lines": 2}})).await.ended().await;
    assert_eq!(next.status, "SUCCESS", "{next:?}");
}

#[tokio::test]
async fn a_quota_of_pods_is_said_while_it_is_used_up() {
    let pods = Pods::start().await;
    pods.api.set_quota(None, Some(1));
    let _agent = pods.agent();
    let (first, gate) = pods.at_the_gate("a").await;
    let second = pods.queue(json!({"template": "count", "stack": "b", "variables": {"lines": 2}})).await;
    pods.says(&second, "The namespace's quota is used up, so the run waits: exceeded quota: pods").await;
    fs::write(gate, "").expect("the gate opens");
    assert_eq!(first.ended().await.status, "SUCCESS");
    let row = second.ended().await;
    assert_eq!((row.status.as_str(), row.attempt, row.error_message), ("SUCCESS", 1, None));
}

#[tokio::test]
async fn a_run_that_is_claimed_while_the_api_server_is_away_waits_for_it() {
    let pods = Pods::start().await;
    let _agent = pods.agent();
    pods.cluster.online().await;
    pods.api.go_away();
    let job = pods.queue(json!({"template": "count", "stack": "a", "variables": {"lines": 2}})).await;
    pods.says(&job, "The Kubernetes API does not answer, so the run waits").await;
    let cancelled = pods.queue(json!({"template": "count", "stack": "b", "variables": {"lines": 2}})).await;
    pods.says(&cancelled, "The Kubernetes API does not answer, so the run waits").await;
    cancelled.cancel().await;
    assert_eq!(cancelled.ended().await.status, "CANCELLED");
    pods.api.come_back().await;
    let row = job.ended().await;
    assert_eq!((row.status.as_str(), row.attempt, row.error_message), ("SUCCESS", 1, None));
    assert_eq!(pods.api.jobs().len(), 1, "what was cancelled was not started");
}

#[tokio::test]
async fn many_queued_runs_share_a_quota() {
    const RUNS: usize = 200;
    const QUOTA: usize = 10;
    let mut pods = Pods::start().await;
    pods.api.set_quota(Some(QUOTA), None);
    // Terraform is not what this is about.
    pods.stand_in();
    let _agent = pods.agent();
    let configs: Vec<_> = (0..RUNS).map(|n| pods.ticket(&format!("s{n}"))).collect();
    let jobs = pods.cluster.queue_all(configs).await;
    let begun = std::time::Instant::now();
    until_none_are_left("runs end", async || {
        assert!(pods.api.jobs().len() <= QUOTA);
        let query = "select count(*) from public.deployments where cluster_id = $1 and status in ('QUEUED', 'PROCESSING')";
        let left: i64 = pods.world.database.query_one(query, &[&pods.cluster.id]).await.expect("a count").get(0);
        if left == 0 { Ok(()) } else { Err(left) }
    })
    .await;
    println!("{RUNS} runs, {QUOTA} at a time: {:.0} s", begun.elapsed().as_secs_f64());
    for job in &jobs {
        let row = job.row().await;
        assert_eq!((row.status.as_str(), row.attempt), ("SUCCESS", 1), "{row:?}");
    }
}
