//! The watch events of a whole run: the same steps as in the recordings, with real processes in the pods.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tendril_tests::kubernetes::{AGENT_TOKEN, ApiServer, Fate, NAMESPACE};
use tokio::time::sleep;

use crate::{http::client, recording::cases};

/// Steps of a Job or pod that a watcher can distinguish, without what only differs in its timing.
fn steps<'a>(events: impl Iterator<Item = &'a Value>, kind: &str) -> Vec<String> {
    let mut steps: Vec<String> = Vec::new();
    for event in events.filter(|event| event["object"]["kind"] == kind) {
        let (change, object) = (event["type"].as_str().unwrap_or_default(), &event["object"]);
        let leaves = if object["metadata"]["deletionTimestamp"].is_string() { " leaves" } else { "" };
        let status = &object["status"];
        let deleted = if change == "DELETED" { "DELETED " } else { "" };
        let step = if kind == "Job" {
            let conditions: Vec<String> = status["conditions"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|condition| format!("{}({})", text(&condition["type"]), text(&condition["reason"])))
                .collect();
            format!("{deleted}{}{leaves}", conditions.join(" "))
        } else {
            let state = &status["containerStatuses"][0]["state"];
            let state = match state.as_object().and_then(|state| state.iter().next()) {
                Some((name, state)) => {
                    let code = state["exitCode"].as_i64().map_or_else(String::new, |code| format!(" {code}"));
                    format!("{name} {}{code}", text(&state["reason"]))
                }
                None => String::new(),
            };
            format!("{deleted}{} {state}{leaves}", text(&status["phase"]))
        };
        if steps.last() != Some(&step) {
            steps.push(step);
        }
    }
    steps
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Posts the Job of a recorded case, does `act` once its container runs, and answers what both watches said.
async fn play(case: &str, act: impl Fn(&ApiServer, &str)) -> (Vec<Value>, Vec<Value>) {
    let recorded = cases().into_iter().find(|there| there.number == case).expect("a case");
    let post = recorded.exchanges.iter().find(|exchange| exchange.method == "POST").expect("a POST");
    let job: Value = serde_json::from_str(&post.request).expect("a Job");
    let name = text(&job["metadata"]["name"]).to_owned();
    let server = ApiServer::start().await;
    server.add_image("localhost/busybox:1", &["/bin/sh"]);
    let client = client();
    let batch = format!("{}/apis/batch/v1/namespaces/{NAMESPACE}/jobs", server.url());
    let posted = client.post(&batch).bearer_auth(AGENT_TOKEN).json(&job).send().await.expect("an answer");
    assert_eq!(posted.status(), 201, "{case}");
    let begun = Instant::now();
    let mut acted = false;
    let ended = |job: &Value| {
        let conditions = job["status"]["conditions"].as_array();
        conditions
            .is_some_and(|all| all.iter().any(|one| one["type"] == "Complete" || one["type"] == "Failed"))
    };
    loop {
        assert!(
            begun.elapsed() < Duration::from_secs(40),
            "{case} ends: {:#?} {:#?}",
            server.jobs(),
            server.pods()
        );
        let is_running = server.pod_of(&name).is_some_and(|pod| pod["status"]["phase"] == "Running");
        if is_running && !acted {
            // The program has installed its handler by then.
            let pod = server.pod_of(&name).expect("a pod");
            if !server.log_of(&pod).is_empty() {
                act(&server, &name);
                acted = true;
            }
        }
        let job = server.jobs().into_iter().find(|job| job["metadata"]["name"] == name.as_str());
        if job.is_none_or(|job| ended(&job)) {
            break;
        }
        sleep(Duration::from_millis(20)).await;
    }
    let mut watched = Vec::new();
    let pods = format!("{}/api/v1/namespaces/{NAMESPACE}/pods", server.url());
    for url in [batch, pods] {
        let url = format!("{url}?watch=1&resourceVersion=100&timeoutSeconds=1");
        let answer = client.get(url).bearer_auth(AGENT_TOKEN).send().await.expect("a watch");
        let lines = answer.text().await.expect("its lines");
        watched.push(lines.lines().map(|line| serde_json::from_str(line).expect("an event")).collect());
    }
    let pods = watched.pop().expect("pods");
    (watched.pop().expect("jobs"), pods)
}

fn recorded_steps(case: &str, kind: &str) -> Vec<String> {
    let case = cases().into_iter().find(|there| there.number == case).expect("a case");
    let lines: Vec<Value> = case.exchanges.iter().flat_map(|exchange| exchange.lines.clone()).collect();
    steps(lines.iter(), kind)
}

async fn same(case: &str, act: impl Fn(&ApiServer, &str)) {
    let (jobs, pods) = play(case, act).await;
    assert_eq!(steps(jobs.iter(), "Job"), recorded_steps(case, "Job"), "{case}: Jobs");
    assert_eq!(steps(pods.iter(), "Pod"), recorded_steps(case, "Pod"), "{case}: pods");
}

#[tokio::test]
async fn success_has_the_recorded_steps() {
    same("030", |_, _| {}).await;
}

#[tokio::test]
async fn exit_code_1_has_the_recorded_steps() {
    same("031", |_, _| {}).await;
}

#[tokio::test]
async fn a_passed_deadline_has_the_recorded_steps() {
    same("036", |_, _| {}).await;
}

#[tokio::test]
async fn a_deleted_pod_has_the_recorded_steps() {
    same("037", |server, job| assert!(server.fate(job, Fate::Deleted))).await;
}

#[tokio::test]
async fn an_eviction_has_the_recorded_steps() {
    same("038", |server, job| assert!(server.fate(job, Fate::EvictedByApi))).await;
}

#[tokio::test]
async fn a_program_that_ignores_sigterm_is_killed_after_its_grace() {
    let (jobs, pods) = play("045", |server, job| {
        let (url, job) = (server.url(), job.to_owned());
        tokio::spawn(async move {
            let url = format!("{url}/apis/batch/v1/namespaces/{NAMESPACE}/jobs/{job}");
            let options = json!({"propagationPolicy": "Foreground"});
            client().delete(url).bearer_auth(AGENT_TOKEN).json(&options).send().await.expect("an answer");
        });
    })
    .await;
    assert_eq!(steps(pods.iter(), "Pod"), recorded_steps("045", "Pod"), "pods");
    assert_eq!(steps(jobs.iter(), "Job"), recorded_steps("045", "Job"), "Jobs");
}
