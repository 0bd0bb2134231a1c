//! Plans that wait for approval: between two pods, in a Secret or on a volume.

use serde_json::{Value, json};
use tendril_tests::{
    Deployment, Pods,
    kubernetes::{AGENT_TOKEN, NAMESPACE},
    until,
};

use crate::http::client;

fn plan(more: &Value) -> Value {
    let mut config = json!({"template": "count", "stack": "a", "approval": true, "variables": {"lines": 3}});
    for (name, value) in more.as_object().into_iter().flatten() {
        config[name] = value.clone();
    }
    config
}

/// Waits until a plan is shown and its pod has ended; answers the plan's digest.
async fn waits(pods: &Pods, job: &Deployment) -> String {
    let digest = job.plan().await;
    pods.pod(&Pods::job_name(job, 1), "has ended", |pod| {
        pod["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 10
    })
    .await;
    digest
}

/// The Job of the part before the approval goes with its plan.
async fn is_tidy(pods: &Pods, job: &Deployment) {
    let first = Pods::job_name(job, 1);
    until("the plan and its Job are removed", async || {
        let secrets = pods.api.secrets();
        let plans = secrets
            .iter()
            .filter(|secret| secret["metadata"]["name"].as_str().is_some_and(|name| name.ends_with("-plan")));
        if plans.count() == 0 && pods.job(&first).is_none() {
            Ok(())
        } else {
            Err("they are there".to_owned())
        }
    })
    .await;
}

#[tokio::test]
async fn runs_have_no_rights_and_what_keeps_a_plan_ends_with_its_pod() {
    let pods = Pods::start().await;
    let _agent = pods.agent();
    let job = pods.queue(plan(&json!({}))).await;
    let digest = waits(&pods, &job).await;
    let pod = pods.api.pod_of(&Pods::job_name(&job, 1)).expect("its pod");
    assert_eq!(pod["spec"]["automountServiceAccountToken"], false, "the account of the run has no token");
    let access = std::fs::read_to_string(pods.api.root_of(&pod).join("var/run/tendril/plan-access.json"));
    let access: Value = serde_json::from_str(&access.expect("what it was given")).expect("JSON");
    let token = access["token"].as_str().expect("a token").to_owned();
    let asked = pods.api.asked();
    let by_run: Vec<_> = asked.iter().filter(|asked| asked.user.ends_with(":tendril-plans")).collect();
    assert_eq!(by_run.len(), 1, "it creates one Secret: {by_run:?}");
    let ask = async |method: &str, path: &str| {
        let url = format!("{}/api/v1/namespaces/{NAMESPACE}/{path}", pods.api.url());
        let request = client().request(method.parse().expect("a method"), url).bearer_auth(&token);
        request.json(&json!({})).send().await.expect("an answer").status().as_u16()
    };
    for (method, path) in
        [("GET", "secrets"), ("GET", "secrets/x"), ("DELETE", "secrets/x"), ("GET", "pods"), ("POST", "pods")]
    {
        assert_eq!(ask(method, path).await, 403, "{method} {path}");
    }
    job.approve(&digest).await;
    assert_eq!(job.ended().await.status, "SUCCESS");
    is_tidy(&pods, &job).await;
    // Its pod is gone with its Job, and the token with the pod.
    until("the token is not accepted any more", async || {
        let status = ask("POST", "secrets").await;
        if status == 401 { Ok(()) } else { Err(status.to_string()) }
    })
    .await;
}

#[tokio::test]
async fn a_plan_that_no_secret_takes_fails_with_what_to_do() {
    let mut pods = Pods::start().await;
    // Bytes that no compression makes smaller, beside the configuration.
    // What is below /tmp would be the pod's own.
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let templates = dir.path().join("templates");
    let template = templates.join("count");
    std::fs::create_dir_all(&template).expect("a folder");
    for file in std::fs::read_dir(tendril_tests::fixtures("templates/count")).expect("the template") {
        let file = file.expect("a file");
        std::fs::copy(file.path(), template.join(file.file_name())).expect("a copy");
    }
    let noise: Vec<u8> =
        (0..1_200_000_u64).map(|n| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect();
    std::fs::write(template.join("noise.bin"), noise).expect("a large file");
    let place = templates.display().to_string();
    for (name, value) in &mut pods.env {
        if *name == "TENDRIL_TEMPLATES_DIR" {
            value.clone_from(&place);
        }
    }
    let _agent = pods.agent();
    let job = pods.queue(plan(&json!({}))).await;
    let row = job.ended().await;
    assert_eq!((row.status.as_str(), row.attempt), ("FAILED", 1), "{row:?}");
    let message = row.error_message.expect("a sentence");
    assert!(
        message.contains("a Secret takes 1024 KiB") && message.contains("--plan-volume-claim"),
        "{message}"
    );
    assert_eq!(
        pods.queue(json!({"template": "count", "stack": "a", "variables": {"lines": 2}}))
            .await
            .ended()
            .await
            .status,
        "SUCCESS"
    );
}

#[tokio::test]
async fn a_plan_may_not_be_kept_without_the_right_to_it() {
    let pods = Pods::start().await;
    pods.api.deny(AGENT_TOKEN, ("", "serviceaccounts/token:tendril-plans", "create"));
    let mut doctor = pods.setup().doctor();
    doctor.ended().await;
    assert!(
        doctor.output().contains("lacks create serviceaccounts/token for tendril-plans"),
        "{}",
        doctor.output()
    );
    let _agent = pods.agent();
    let job = pods.queue(plan(&json!({}))).await;
    let row = job.ended().await;
    assert_eq!(row.status, "FAILED", "{row:?}");
    let message = row.error_message.expect("a sentence");
    assert!(message.contains("cannot create resource \"serviceaccounts/token\""), "{message}");
    // What needs none is run.
    let plain = pods.queue(json!({"template": "count", "stack": "b", "variables": {"lines": 2}})).await;
    assert_eq!(plain.ended().await.status, "SUCCESS");
}

#[tokio::test]
async fn a_plan_is_kept_while_the_api_server_is_away_and_back() {
    let pods = Pods::start().await;
    let agent = pods.agent();
    pods.api.hold("POST", "secrets");
    let job = pods.queue(plan(&json!({}))).await;
    pods.pod(&Pods::job_name(&job, 1), "is there", |_| true).await;
    pods.api.release();
    pods.runs(&Pods::job_name(&job, 1)).await;
    pods.api.go_away();
    job.becomes("shows its plan", |row| row.phase.as_deref() == Some("APPROVAL")).await;
    agent.says("the Kubernetes API does not answer").await;
    let pod = pods.api.pod_of(&Pods::job_name(&job, 1)).expect("its pod");
    until("its run waits with its plan", async || {
        let log = pods.api.log_of(&pod);
        if log.contains("the plan is not kept yet") { Ok(()) } else { Err(log) }
    })
    .await;
    pods.api.come_back().await;
    let digest = waits(&pods, &job).await;
    job.approve(&digest).await;
    let row = job.ended().await;
    assert_eq!((row.status.as_str(), row.attempt), ("SUCCESS", 1), "{row:?}");
    is_tidy(&pods, &job).await;
}

#[tokio::test]
async fn a_plan_that_is_cancelled_while_it_waits_is_over() {
    let pods = Pods::start().await;
    let _agent = pods.agent();
    let job = pods.queue(plan(&json!({}))).await;
    waits(&pods, &job).await;
    job.cancel().await;
    let row = job.ended().await;
    assert_eq!((row.status.as_str(), row.attempt), ("CANCELLED", 1), "{row:?}");
    is_tidy(&pods, &job).await;
}

#[tokio::test]
async fn a_plan_that_nobody_approves_in_time_fails_and_changes_nothing() {
    let pods = Pods::start().await;
    let _agent = pods.agent();
    let job = pods.queue(plan(&json!({"approval_expires": 20}))).await;
    waits(&pods, &job).await;
    let row = job.ended().await;
    assert_eq!(
        (row.status.as_str(), row.error_code.as_deref(), row.attempt),
        ("FAILED", Some("APPROVAL_EXPIRED"), 1),
        "{row:?}"
    );
    is_tidy(&pods, &job).await;
}

/// The plan in the Secret is another one than the one that was approved.
#[tokio::test]
async fn a_plan_that_was_exchanged_is_not_applied() {
    let pods = Pods::start().await;
    let _agent = pods.agent();
    let job = pods.queue(plan(&json!({}))).await;
    let digest = waits(&pods, &job).await;
    assert!(pods.api.edit_plan(|bytes| {
        // The saved plan is an archive: a byte of its first file.
        let archive = bytes.windows(4).position(|four| four == b"PK\x03\x04").expect("a saved plan");
        bytes[archive + 100] ^= 1;
    }));
    job.approve(&digest).await;
    let row = job.ended().await;
    assert_eq!((row.status.as_str(), row.attempt), ("FAILED", 1), "{row:?}");
    assert!(row.outputs.is_none(), "nothing was applied: {row:?}");
}
