//! What the dispatcher counts of runs, also of those whose end it did not see.

use std::net::SocketAddr;

use rustix::process::Signal;
use serde_json::{Value, json};
use tendril_tests::{Deployment, Pods, Program, StateServer, kubernetes::Fate, until};

use crate::locks::with_states;

fn count(stack: &str) -> Value {
    json!({"template": "count", "stack": stack, "variables": {"lines": 2}})
}

/// A dispatcher with a Lease, and where its metrics are.
fn dispatcher(pods: &Pods) -> (Program, SocketAddr) {
    let addr = std::net::TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port");
    let setup = pods.setup().env("TENDRIL_LEASE", "tendril".to_owned());
    (setup.env("TENDRIL_HEALTH_ADDR", addr.to_string()).start(), addr)
}

/// One that has taken over what there is.
async fn at_work(pods: &Pods) -> (Program, SocketAddr) {
    let (agent, addr) = dispatcher(pods);
    agent.says("the cluster is online").await;
    (agent, addr)
}

async fn stop(mut agent: Program) {
    agent.signal(Signal::TERM);
    assert_eq!(agent.ended().await.code(), Some(0), "{}", agent.output());
}

/// Waits until the metrics have these lines.
async fn show(addr: SocketAddr, lines: &[&str]) {
    until("the metrics have what is expected", async || {
        let answer = crate::http::client().get(format!("http://{addr}/metrics")).send().await;
        let text =
            answer.map_err(|error| error.to_string())?.text().await.map_err(|error| error.to_string())?;
        let lacks = lines.iter().find(|line| !text.lines().any(|there| there == **line));
        lacks.map_or(Ok(()), |line| {
            let alike: Vec<&str> =
                text.lines().filter(|there| there.split('{').next() == line.split('{').next()).collect();
            Err(format!("{line} is not in {alike:#?}"))
        })
    })
    .await;
}

async fn has_terminated(pods: &Pods, job: &Deployment) {
    pods.pod(&Pods::job_name(job, 1), "has ended", |pod| {
        pod["status"]["containerStatuses"][0]["state"]["terminated"].is_object()
    })
    .await;
}

#[tokio::test]
async fn runs_that_die_are_counted_by_cause() {
    let states = StateServer::start().await;
    let pods = with_states(&states).await;
    let (_agent, addr) = at_work(&pods).await;
    let mut dying = Vec::new();
    for (fate, cause) in [
        (Fate::OomKilled, "memory"),
        (Fate::Killed, "killed"),
        (Fate::Evicted, "disk"),
        (Fate::EvictedByApi, "eviction"),
        (Fate::Deleted, "deleted"),
    ] {
        let (job, _gate) = pods.at_the_gate(cause).await;
        assert!(pods.api.fate(&Pods::job_name(&job, 1), fate));
        dying.push((job, cause));
    }
    for (job, cause) in dying {
        assert_eq!(job.ended().await.status, "FAILED", "{cause}");
        show(addr, &[&format!("tendril_agent_run_deaths_total{{cause=\"{cause}\"}} 1")]).await;
    }
    show(addr, &["tendril_agent_jobs_ended_total{status=\"FAILED\"} 5"]).await;
}

#[tokio::test]
async fn what_ended_without_a_dispatcher_is_counted_and_named_once_by_the_next() {
    let states = StateServer::start().await;
    let pods = with_states(&states).await;
    let (first, _) = at_work(&pods).await;
    let (well, gate) = pods.queue_gated("well").await;
    let (evicted, _gate) = pods.queue_gated("evicted").await;
    let (killed, _gate) = pods.queue_gated("killed").await;
    for job in [&well, &evicted, &killed] {
        job.says("at the gate").await;
    }
    stop(first).await;
    std::fs::write(gate, "").expect("the gate opens");
    assert!(pods.api.fate(&Pods::job_name(&evicted, 1), Fate::EvictedByApi));
    assert!(pods.api.fate(&Pods::job_name(&killed, 1), Fate::Killed));
    assert_eq!(well.ended().await.status, "SUCCESS");
    let row = evicted.ended().await;
    assert!(row.error_message.as_deref().is_some_and(|how| !how.contains("no agent watched")), "{row:?}");
    has_terminated(&pods, &well).await;
    let (second, addr) = at_work(&pods).await;
    // Its pod is gone, and with it who ended it.
    let said = "The run's pod was deleted while no agent watched it";
    let row = pods.says(&evicted, said).await;
    assert_eq!(row.error_message.as_deref().unwrap_or_default().matches(said).count(), 1, "{row:?}");
    let row = killed.ended().await;
    assert!(row.error_message.as_deref().is_some_and(|how| how.contains("SIGKILL")), "{row:?}");
    // The one that was killed: what the other had counted went with its pod.
    let ended = "tendril_agent_jobs_ended_total{status=\"FAILED\"} 1";
    show(
        addr,
        &[
            "tendril_agent_jobs_ended_total{status=\"SUCCESS\"} 1",
            "tendril_agent_run_deaths_total{cause=\"unknown\"} 1",
            "tendril_agent_run_deaths_total{cause=\"killed\"} 1",
            ended,
        ],
    )
    .await;
    stop(second).await;
    // What one has counted the next does not count again.
    let (_third, addr) = at_work(&pods).await;
    assert_eq!(pods.queue(count("next")).await.ended().await.status, "SUCCESS");
    show(
        addr,
        &[
            "tendril_agent_jobs_ended_total{status=\"SUCCESS\"} 1",
            "tendril_agent_run_deaths_total{cause=\"unknown\"} 0",
            "tendril_agent_run_deaths_total{cause=\"killed\"} 0",
            "tendril_agent_jobs_ended_total{status=\"FAILED\"} 0",
        ],
    )
    .await;
}

#[tokio::test]
async fn a_plan_that_waits_is_counted_once_over_restarts() {
    let pods = Pods::start().await;
    let (first, addr) = at_work(&pods).await;
    let mut plan = count("a");
    plan["approval"] = true.into();
    let job = pods.queue(plan).await;
    job.plan().await;
    let planned = "tendril_agent_step_seconds_count{step=\"plan\"} 1";
    show(addr, &[planned]).await;
    stop(first).await;
    let (_second, addr) = at_work(&pods).await;
    job.approve(&job.plan().await).await;
    assert_eq!(job.ended().await.status, "SUCCESS");
    show(addr, &["tendril_agent_step_seconds_count{step=\"apply\"} 1"]).await;
    let text = crate::http::client().get(format!("http://{addr}/metrics")).send().await.expect("an answer");
    let text = text.text().await.expect("metrics");
    assert!(!text.contains("step_seconds_count{step=\"plan\"}"), "{text}");
}

/// The Job is gone, its pod has its grace yet, and the dispatcher that saw that is gone too.
#[tokio::test]
async fn a_run_whose_job_was_deleted_without_a_dispatcher_is_named_by_the_next() {
    let pods = Pods::start().await;
    let (first, _) = at_work(&pods).await;
    let (job, _gate) = pods.at_the_gate("a").await;
    stop(first).await;
    pods.api.expire_job(&Pods::job_name(&job, 1));
    let (_second, _) = at_work(&pods).await;
    job.ended().await;
    let row = pods.says(&job, "The run's Job was deleted by somebody else than the agent").await;
    assert_eq!(
        (row.status.as_str(), row.error_code.as_deref()),
        ("FAILED", Some("AGENT_STOPPED")),
        "{row:?}"
    );
}
