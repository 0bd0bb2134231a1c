//! Runs as pods, with real Terraform in them: what goes well.

use std::fs;

use rustix::process::Signal;
use serde_json::json;
use tendril_tests::{Pods, kubernetes::AGENT_TOKEN, terraform_that_begins_together, until};

#[tokio::test]
async fn a_run_is_a_pod_with_the_account_of_its_stack_and_succeeds() {
    let mut pods = Pods::start().await;
    pods.api.add_service_account("runs-prod");
    pods.rules = json!([
        {"stacks": ["prod-*"], "serviceAccount": "runs-prod", "resources": {"limits": {"memory": "1Gi"}}, "nodeSelector": {"tendril.dev/pool": "runs"}},
        {"stacks": ["dev"], "serviceAccount": "tendril-run"},
    ]);
    let _agent = pods.agent();
    let prod = pods.queue(json!({"template": "count", "stack": "prod-eu", "variables": {"lines": 3}})).await;
    let other = pods.queue(json!({"template": "count", "stack": "else", "variables": {"lines": 2}})).await;
    // Beside the first one, in a database that has no tables of Terraform yet.
    let dev = pods.queue(json!({"template": "count", "stack": "dev", "variables": {"lines": 2}})).await;
    let row = prod.ended().await;
    assert_eq!((row.status.as_str(), row.attempt), ("SUCCESS", 1), "{row:?}");
    assert_eq!(row.outputs.as_ref().expect("outputs")["counted"], json!(3));
    prod.log().await.assert_complete(&row);
    assert_eq!(dev.ended().await.status, "SUCCESS");
    let refused = other.ended().await;
    assert_eq!(refused.status, "FAILED", "{refused:?}");
    let message = refused.error_message.expect("a sentence");
    assert!(
        message.contains("No rule of this agent's --service-account-map is for the stack \"else\""),
        "{message}"
    );
    assert!(pods.job(&Pods::job_name(&other, 1)).is_none(), "nothing was started for it");

    let job = pods.job(&Pods::job_name(&prod, 1)).expect("its Job is kept");
    let spec = &job["spec"]["template"]["spec"];
    assert_eq!(spec["serviceAccountName"], "runs-prod");
    assert_eq!(spec["nodeSelector"]["tendril.dev/pool"], "runs");
    assert_eq!(spec["containers"][0]["resources"]["limits"]["memory"], "1Gi");
    assert_eq!(job["metadata"]["annotations"]["tendril.dev/stack"], "count.prod-eu");
    let claim = row.claim_token.expect("its claim").to_string();
    assert!(!job.to_string().contains(&claim), "the claim is in the Secret, and nowhere else");
    let account =
        &pods.job(&Pods::job_name(&dev, 1)).expect("a Job")["spec"]["template"]["spec"]["serviceAccountName"];
    assert_eq!(account, "tendril-run");
    // What it said is in its pod too.
    let of_prod = pods.api.pod_of(&Pods::job_name(&prod, 1)).expect("its pod is kept");
    assert_eq!(of_prod["status"]["phase"], "Succeeded");
    let secrets = pods.api.secrets();
    let secret = secrets
        .iter()
        .find(|secret| secret["metadata"]["ownerReferences"][0]["uid"] == job["metadata"]["uid"])
        .expect("its Secret");
    let mounted = &spec["volumes"]
        .as_array()
        .expect("volumes")
        .iter()
        .find(|volume| volume["name"] == "tendril-attempt");
    assert_eq!(mounted.expect("its volume")["secret"]["secretName"], secret["metadata"]["name"]);
}

#[tokio::test]
async fn a_cancel_reaches_a_run_through_the_control_plane() {
    let pods = Pods::start().await;
    let _agent = pods.agent();
    let (job, _gate) = pods.at_the_gate("a").await;
    job.cancel().await;
    let row = job.ended().await;
    assert_eq!(row.status, "CANCELLED", "{row:?}");
    assert!(row.error_message.as_deref().is_some_and(|how| how.contains("during apply")), "{row:?}");
    let deletes = pods.api.asked().iter().filter(|asked| asked.method == "DELETE").count();
    assert_eq!(deletes, 0, "it stopped by itself");
}

#[tokio::test]
async fn a_new_dispatcher_takes_over_the_runs_of_the_one_before() {
    let pods = Pods::start().await;
    let mut first = pods.agent();
    let (job, gate) = pods.at_the_gate("a").await;
    first.signal(Signal::KILL);
    first.ended().await;
    let _second = pods.setup().name("the second").start();
    pods.cluster.online().await;
    fs::write(gate, "").expect("the gate opens");
    let row = job.ended().await;
    assert_eq!((row.status.as_str(), row.attempt), ("SUCCESS", 1), "{row:?}");
    job.log().await.assert_complete(&row);
    assert_eq!(pods.api.jobs().len(), 1, "nothing was started twice");
}

#[tokio::test]
async fn a_dispatcher_that_is_rolled_leaves_its_runs_alone() {
    let pods = Pods::start().await;
    let mut first = pods.agent();
    let (job, gate) = pods.at_the_gate("a").await;
    first.signal(Signal::TERM);
    assert_eq!(first.ended().await.code(), Some(0), "it does not wait for its runs");
    fs::write(gate, "").expect("the gate opens");
    let row = job.ended().await;
    assert_eq!((row.status.as_str(), row.attempt), ("SUCCESS", 1), "{row:?}");
}

#[tokio::test]
async fn a_dispatcher_that_dies_between_job_and_secret_costs_nothing() {
    let pods = Pods::start().await;
    pods.api.hold("POST", "secrets");
    let mut first = pods.agent();
    let job = pods.queue(json!({"template": "count", "stack": "a", "variables": {"lines": 2}})).await;
    let name = Pods::job_name(&job, 1);
    pods.pod(&name, "is there", |_| true).await;
    first.signal(Signal::KILL);
    first.ended().await;
    assert!(pods.api.secrets().is_empty(), "it died before it had made the Secret");
    pods.api.release();
    let _second = pods.agent();
    let row = job.ended().await;
    assert_eq!((row.status.as_str(), row.attempt), ("SUCCESS", 1), "{row:?}");
    assert_eq!(pods.api.jobs().len(), 1);
}

#[tokio::test]
async fn an_answer_that_is_lost_starts_nothing_twice() {
    let pods = Pods::start().await;
    pods.api.lose_answers("POST", "jobs", 1);
    pods.api.lose_answers("POST", "secrets", 1);
    let _agent = pods.agent();
    let job = pods.queue(json!({"template": "count", "stack": "a", "variables": {"lines": 2}})).await;
    let row = job.ended().await;
    assert_eq!((row.status.as_str(), row.attempt), ("SUCCESS", 1), "{row:?}");
    assert_eq!(pods.api.jobs().len(), 1);
    let posts = pods
        .api
        .asked()
        .iter()
        .filter(|asked| asked.method == "POST" && asked.path.contains("/jobs"))
        .count();
    assert!(posts > 1, "the first answer was lost");
}

#[tokio::test]
async fn a_plan_waits_for_approval_without_a_pod_and_goes_on_in_another() {
    let pods = Pods::start().await;
    let mut agent = pods.agent();
    let job = pods
        .queue(json!({"template": "count", "stack": "a", "approval": true, "variables": {"lines": 3}}))
        .await;
    job.becomes("shows its plan", |row| row.phase.as_deref() == Some("APPROVAL")).await;
    let name = Pods::job_name(&job, 1);
    let pod = pods
        .pod(&name, "has ended", |pod| {
            pod["status"]["containerStatuses"][0]["state"]["terminated"].is_object()
        })
        .await;
    assert_eq!(pod["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"], 10);
    let is_plan = |secret: &serde_json::Value| {
        let secret = secret["metadata"]["name"].as_str().unwrap_or_default();
        secret.starts_with(&name) && secret.ends_with("-plan")
    };
    let has_plan = || pods.api.secrets().iter().any(|secret| is_plan(secret));
    assert!(has_plan(), "the plan is kept");
    // A new dispatcher knows of it too.
    agent.signal(Signal::TERM);
    agent.ended().await;
    let _next = pods.agent();
    pods.cluster.online().await;
    job.approve(&job.plan().await).await;
    let row = job.ended().await;
    assert_eq!((row.status.as_str(), row.attempt), ("SUCCESS", 1), "{row:?}");
    job.log().await.assert_complete(&row);
    assert_eq!(
        pods.api
            .jobs()
            .iter()
            .filter(|there| there["metadata"]["name"] == format!("{name}-go").as_str())
            .count(),
        1
    );
    until("the plan and its Job are removed", async || {
        if has_plan() || pods.job(&name).is_some() { Err("they are there".to_owned()) } else { Ok(()) }
    })
    .await;
}

#[tokio::test]
async fn of_two_dispatchers_one_leads_and_the_other_takes_over() {
    let mut pods = Pods::start().await;
    pods.agent_env = vec![("TENDRIL_LEASE", "tendril".to_owned())];
    let mut first = pods.setup().name("first").start();
    first.says("this dispatcher leads").await;
    let second = pods.setup().name("second").start();
    second.says("another dispatcher leads").await;
    let (job, gate) = pods.at_the_gate("a").await;
    assert_eq!(job.row().await.claimed_by.as_deref(), Some("first"));
    // A Lease that is given back is free at once.
    first.signal(Signal::TERM);
    assert_eq!(first.ended().await.code(), Some(0));
    second.says("this dispatcher leads").await;
    fs::write(gate, "").expect("the gate opens");
    assert_eq!(job.ended().await.status, "SUCCESS");
    let next = pods.queue(json!({"template": "count", "stack": "b", "variables": {"lines": 2}})).await;
    let row = next.ended().await;
    assert_eq!((row.status.as_str(), row.claimed_by.as_deref()), ("SUCCESS", Some("second")));
}

#[tokio::test]
async fn doctor_names_each_right_that_is_missing() {
    let pods = Pods::start().await;
    let mut well = pods.setup().doctor();
    let code = well.ended().await.code();
    assert_eq!(code, Some(0), "{}", well.output());
    for said in [
        "ok    kubernetes: Kubernetes v1.36.2, namespace tendril",
        "ok    kubernetes rights",
        "ok    run's pod: image localhost/tendril-agent:test, service accounts tendril-run",
        "ok    state backend: not tried here: runs reach it",
    ] {
        assert!(well.output().contains(said), "{said}: {}", well.output());
    }
    // As the chart's Role has it: of one Lease only.
    for verb in ["get", "update"] {
        pods.api.deny(AGENT_TOKEN, ("coordination.k8s.io", "leases", verb));
        pods.api.allow(AGENT_TOKEN, ("coordination.k8s.io", "leases:mine", verb));
    }
    for (lease, expected) in
        [("mine", "ok    kubernetes rights"), ("other", "lacks get leases (coordination.k8s.io), update")]
    {
        let mut doctor = pods.setup().env("TENDRIL_LEASE", lease.to_owned()).doctor();
        doctor.ended().await;
        assert!(doctor.output().contains(expected), "{lease}: {}", doctor.output());
    }
    pods.api.deny(AGENT_TOKEN, ("batch", "jobs", "watch"));
    pods.api.deny(AGENT_TOKEN, ("", "events", "list"));
    pods.api.set_policy(Some(("no-latest", "images must come from registry.example.com")));
    let mut wrong = pods.setup().doctor();
    assert_eq!(wrong.ended().await.code(), Some(2));
    let said = wrong.output();
    assert!(said.contains("lacks watch jobs (batch), list events: add it"), "{said}");
    assert!(said.contains("images must come from registry.example.com"), "{said}");
    pods.api.set_policy(None);
    pods.api.set_quota(Some(0), None);
    let mut full = pods.setup().doctor();
    full.ended().await;
    assert!(full.output().contains("exceeded quota"), "{}", full.output());
    pods.api.revoke(AGENT_TOKEN);
    let mut revoked = pods.setup().doctor();
    revoked.ended().await;
    assert!(revoked.output().contains("does not accept the credentials (401)"), "{}", revoked.output());
}

#[tokio::test]
async fn six_first_runs_in_one_moment_share_an_empty_state_database() {
    let mut pods = Pods::start().await;
    // Not in /tmp: each pod has its own.
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let terraform = terraform_that_begins_together(dir.path(), 6);
    pods.env.push(("TENDRIL_TERRAFORM", terraform.display().to_string()));
    let _agent = pods.agent();
    let config = |n| json!({"template": "count", "stack": format!("s{n}"), "variables": {"lines": 2}});
    for job in pods.cluster.queue_all((0..6).map(config)).await {
        let row = job.ended().await;
        assert_eq!(row.status, "SUCCESS", "{row:?}");
    }
}

/// A JWT cannot be exchanged: a run gets it as it is, from wherever the agent has it.
#[tokio::test]
async fn a_machine_token_in_a_file_reaches_the_run() {
    let pods = Pods::start().await;
    let file = pods.world.path("token");
    fs::write(&file, format!("{}\n", pods.cluster.machine_token())).expect("a file");
    let agent = pods.setup().token_file(&file).start();
    let job = pods.queue(json!({"template": "count", "stack": "a", "variables": {"lines": 2}})).await;
    let row = job.ended().await;
    assert_eq!((row.status.as_str(), row.attempt), ("SUCCESS", 1), "{row:?}");
    agent.says("each run gets that token").await;
    let mut doctor = pods.setup().token_file(&file).doctor();
    doctor.ended().await;
    assert!(
        doctor.output().contains("run's token: the agent has a machine token (a JWT) and no API key"),
        "{}",
        doctor.output()
    );
}

/// Nothing scrapes a run: what it counted is in the status of its pod.
#[tokio::test]
async fn what_a_run_counts_is_in_the_metrics_of_the_dispatcher() {
    let pods = Pods::start().await;
    let addr = std::net::TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port");
    let _agent = pods.setup().env("TENDRIL_HEALTH_ADDR", addr.to_string()).start();
    let job = pods.queue(json!({"template": "count", "stack": "a", "variables": {"lines": 2}})).await;
    assert_eq!(job.ended().await.status, "SUCCESS");
    let counted = [
        "tendril_agent_jobs_ended_total{status=\"SUCCESS\"} 1",
        "tendril_agent_step_seconds_count{step=\"apply\"} 1",
    ];
    tendril_tests::until("the dispatcher has added it", async || {
        let answer =
            crate::http::client().get(format!("http://{addr}/metrics")).send().await.expect("an answer");
        let text = answer.text().await.expect("metrics");
        let lacks = counted.iter().find(|line| !text.lines().any(|there| there == **line));
        lacks.map_or(Ok(()), |line| Err(format!("{line} is not in\n{text}")))
    })
    .await;
    let pod = pods.api.pod_of(&Pods::job_name(&job, 1)).expect("its pod");
    let message = pod["status"]["containerStatuses"][0]["state"]["terminated"]["message"].to_string();
    assert!(message.contains("tendril_agent_steps") || message.contains("step_seconds"), "{message}");
}
