//! The agent's own log as JSON: every line names its cluster and its job.

use std::time::Duration;

use serde_json::{Value, json};
use supabase_local::{RequestFault, Target};
use tendril_tests::World;

/// A field of a line: its own, or one of the spans around it.
fn field<'a>(line: &'a Value, name: &str) -> Option<&'a Value> {
    let mut spans = line["spans"].as_array().into_iter().flatten();
    line.get(name).or_else(|| spans.find_map(|span| span.get(name)))
}

#[tokio::test]
async fn each_line_names_the_cluster_and_each_line_about_a_job_its_deployment_and_attempt() {
    let world = World::start().await;
    let Some(stack) = world.project.stack("requests are refused") else { return };
    let cluster = world.cluster().await;
    let refusal = |path: &str, method: &str| {
        let fault = RequestFault::Status { code: 503, retry_after: Some(Duration::ZERO) };
        stack.faults().on_requests(fault, Target::all().method(method).path(path).after(1).times(8))
    };
    let _logs = refusal("/rest/v1/deployment_logs", "POST");
    let _progress = refusal("/rest/v1/deployments", "PATCH");
    let mut agent = world
        .agent(&cluster)
        .env("TENDRIL_LOG_FORMAT", "json")
        .env("TENDRIL_LOG", "warn,tendril_agent=debug")
        .start();
    let job = cluster.queue(json!({"template": "count", "variables": {"lines": 200}})).await;
    assert_eq!(job.ended().await.status, "SUCCESS");
    agent.signal(rustix::process::Signal::TERM);
    agent.ended().await;
    let output = agent.output();
    let lines: Vec<Value> = output
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect();
    for line in &lines {
        assert_eq!(line["cluster"], json!(cluster.id), "{line}");
    }
    // From the upload, from the progress, from the job itself.
    for part in ["log lines wait on disk", "progress is not stored yet", "claimed"] {
        let fits = |line: &&Value| line["message"].as_str().is_some_and(|message| message.contains(part));
        let about: Vec<_> = lines.iter().filter(fits).collect();
        assert!(!about.is_empty(), "{part}: {output}");
        for line in about {
            assert_eq!(field(line, "deployment"), Some(&json!(job.id)), "{line}");
            assert_eq!(field(line, "attempt"), Some(&json!(1)), "{line}");
        }
    }
}
