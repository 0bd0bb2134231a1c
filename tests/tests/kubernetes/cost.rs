//! What the dispatcher costs: from the claim to the Job, memory, requests while nothing happens.

use std::{
    fs,
    time::{Duration, UNIX_EPOCH},
};

use serde_json::{Value, json};
use tendril_tests::{fixtures, kubernetes::NAMESPACE, until};
use tokio::time::sleep;

use crate::{http::client, pods::Pods};

/// Jobs that are watched.
const MANY: usize = 500;
const MEBIBYTE: u64 = 1024;

/// KiB.
fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("its status");
    let line = status.lines().find(|line| line.starts_with("VmRSS")).expect("its memory");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number")
}

#[tokio::test]
async fn from_the_claim_to_the_job_it_is_a_moment() {
    let mut pods = Pods::start().await;
    pods.env.push(("TENDRIL_TERRAFORM", fixtures("terraform-stand-in").display().to_string()));
    let _agent = pods.agent();
    pods.cluster.online().await;
    let mut took = Vec::new();
    for n in 0..15 {
        let job = pods
            .queue(json!({"template": "count", "stack": format!("s{n}"), "variables": {"lines": 1}}))
            .await;
        assert_eq!(job.ended().await.status, "SUCCESS");
        let query = "select extract(epoch from claimed_at)::float8 from public.deployments where id = $1";
        let claimed: f64 = pods.world.database.query_one(query, &[&job.id]).await.expect("the row").get(0);
        let name = Pods::job_name(&job, 1);
        let posts = pods
            .api
            .asked()
            .into_iter()
            .filter(|asked| asked.method == "POST" && asked.path.contains("/jobs"));
        let at = posts.last().expect("it was created").at.duration_since(UNIX_EPOCH).expect("a time");
        assert!(pods.job(&name).is_some());
        took.push((at.as_secs_f64() - claimed) * 1000.0);
    }
    took.sort_by(f64::total_cmp);
    let half = took[took.len() / 2];
    println!("claim -> Job: p50 {half:.0} ms, slowest {:.0} ms", took[took.len() - 1]);
    assert!(half <= 50.0, "{took:?}");
}

#[tokio::test]
async fn many_jobs_cost_little_memory_and_few_requests() {
    let mut pods = Pods::start().await;
    pods.env.push(("TENDRIL_TERRAFORM", fixtures("terraform-stand-in").display().to_string()));
    let first = pods.agent();
    let run = pods.queue(json!({"template": "count", "stack": "a", "variables": {"lines": 1}})).await;
    assert_eq!(run.ended().await.status, "SUCCESS");
    drop(first);
    // Jobs as this agent makes them, each with a pod, and without anybody who runs them.
    let made = pods.job(&Pods::job_name(&run, 1)).expect("its Job");
    let pod = pods.api.pod_of(&Pods::job_name(&run, 1)).expect("its pod");
    pods.api.set_controller_down(true);
    pods.api.add_admin("admin");
    let client = client();
    for n in 0..MANY {
        let id = format!("00000000-0000-4000-8000-{n:012}");
        let copy = |object: &Value| {
            let text = object.to_string().replace(&run.id.to_string(), &id);
            let mut copy: Value = serde_json::from_str(&text).expect("JSON");
            copy["metadata"]["uid"] = Value::Null;
            copy["metadata"]["ownerReferences"] = Value::Null;
            copy
        };
        for (path, object) in [("apis/batch/v1", copy(&made)), ("api/v1", copy(&pod))] {
            let plural = if path == "api/v1" { "pods" } else { "jobs" };
            let url = format!("{}/{path}/namespaces/{NAMESPACE}/{plural}", pods.api.url());
            let answer = client.post(url).bearer_auth("admin").json(&object).send().await.expect("an answer");
            assert_eq!(answer.status(), 201, "{}", answer.text().await.unwrap_or_default());
        }
    }
    assert!(pods.api.jobs().len() > MANY);
    let agent = pods.agent();
    pods.cluster.online().await;
    until("both watches are open", async || {
        let asked = pods.api.asked();
        let watches = asked.iter().filter(|asked| asked.path.contains("watch=true")).count();
        if watches >= 4 { Ok(()) } else { Err(format!("{watches}")) }
    })
    .await;
    let before = pods.api.asked().len();
    sleep(Duration::from_secs(60)).await;
    let asked = pods.api.asked();
    let idle = asked.len() - before;
    let memory = resident(agent.pid());
    println!("{MANY} Jobs and their pods: {} MiB, {idle} requests in an idle minute", memory / MEBIBYTE);
    assert!(idle <= 4, "{:?}", &asked[before..]);
    assert!(memory <= 25 * MEBIBYTE, "{memory} KiB");
}
