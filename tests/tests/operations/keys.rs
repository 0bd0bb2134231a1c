//! Agents that were given the API key of their cluster: it is exchanged by the project's own Edge Function, run by the real Deno.

use std::{
    fs,
    net::SocketAddr,
    path::Path,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use supabase_local::{RequestFault, Target};
use tendril_tests::{AgentSetup, Cluster, Deployment, Program, World, until};

use crate::probe::{comes_to_its_report, counted, free_address, get, metric};

/// The function's setting, and how long an exchanged token is valid here; 15 minutes in production.
const LIFE: (&str, &str) = ("TENDRIL_TOKEN_LIFE", "12");

/// A job that stops half way, at a gate.
async fn at_the_gate(world: &World, cluster: &Cluster) -> Deployment {
    let variables = json!({"lines": 100, "gate": world.path("gate")});
    let job = cluster.queue(json!({"template": "count", "variables": variables})).await;
    job.says("at the gate").await;
    job
}

fn open_the_gate(world: &World) {
    fs::write(world.path("gate"), "").expect("the gate opens");
}

/// The job ends as if nothing had been, with all of its lines.
async fn ends_well(job: &Deployment) {
    let row = job.ended().await;
    assert_eq!(row.status, "SUCCESS", "{row:?}");
    let log = job.log().await;
    assert_eq!(log.counted(), (1..=100).collect::<Vec<u64>>());
    log.assert_complete(&row);
}

fn watched(setup: AgentSetup, addr: SocketAddr) -> AgentSetup {
    setup.env("TENDRIL_HEALTH_ADDR", addr.to_string()).env("TENDRIL_HEARTBEAT", "2s")
}

fn exchanges(addr: SocketAddr, result: &str) -> f64 {
    metric(addr, &format!("tendril_agent_key_exchanges_total{{result=\"{result}\"}}"))
}

async fn exchanged(addr: SocketAddr, result: &str, least: f64) {
    until(&format!("{least} exchanges are {result}"), async || {
        let seen = exchanges(addr, result);
        if seen >= least { Ok(()) } else { Err(seen.to_string()) }
    })
    .await;
}

pub(crate) async fn readiness(addr: SocketAddr, status: u16, part: &str) {
    until(&format!("/readyz answers {status}: {part}"), async || match get(addr, "/readyz") {
        Some((seen, why)) if seen == status && why.contains(part) => Ok(()),
        seen => Err(format!("{seen:?}")),
    })
    .await;
}

fn replace(file: &Path, text: &str) {
    let new = file.with_extension("new");
    fs::write(&new, text).expect("a new key");
    fs::rename(&new, file).expect("it is replaced in one step");
}

/// No heartbeat failed, and the agent had nothing to complain about.
fn assert_undisturbed(addr: SocketAddr, agent: &Program) {
    for result in ["failed", "refused"] {
        let count = metric(addr, &format!("tendril_agent_heartbeats_total{{result=\"{result}\"}}"));
        assert!(count < 0.5, "{count} heartbeats {result}: {}", agent.output());
    }
    let message = agent.output();
    assert!(!message.contains("WARN") && !message.contains("ERROR"), "{message}");
}

/// A key with another digit at one place.
pub(crate) fn changed(key: &str, place: usize) -> String {
    let digit = if &key[place..=place] == "0" { "1" } else { "0" };
    format!("{}{digit}{}", &key[..place], &key[place + 1..])
}

/// Starts the agent, which continues without a token; returns what it logs about the key, without the time.
async fn refused(setup: AgentSetup) -> String {
    let agent = setup.start();
    let message = agent.says("gets no machine token").await;
    message.split_once("ERROR").map_or(message.clone(), |(_, why)| why.to_owned())
}

#[tokio::test]
async fn one_secret_enrols_an_agent_and_is_shown_nowhere() {
    let world = World::start().await;
    let cluster = world.cluster().await;
    let (key, addr) = (cluster.key().await, free_address());
    let mut setup = watched(world.agent(&cluster).token(&key), addr);
    setup.cli.log_level = Some("trace".to_owned());
    if let Some(stack) = world.project.stack("a publishable key is tried") {
        setup.cli.supabase_key = Some(stack.keys().publishable().to_owned());
    }
    let agent = setup.start();
    cluster.online().await;
    open_the_gate(&world);
    let variables = json!({"lines": 100, "gate": world.path("gate")});
    let job = cluster.queue(json!({"template": "count", "variables": variables})).await;
    ends_well(&job).await;
    let status: Value = serde_json::from_str(&get(addr, "/status").expect("an answer").1).expect("JSON");
    assert_eq!((&status["token"]["by"], &status["token"]["problem"]), (&json!("api_key"), &Value::Null));
    let left = metric(addr, "tendril_agent_token_left_seconds");
    assert!((700.0..=900.0).contains(&left), "{left}");
    // Each JWT of an agent begins with this.
    for secret in [key.as_str(), &key["tdl_".len() + 22..], "eyJ"] {
        assert!(!agent.output().contains(secret), "{secret}: {}", agent.output());
        assert!(!status.to_string().contains(secret), "{secret}: {status}");
    }
}

#[tokio::test]
async fn a_run_outlives_its_exchanged_tokens_without_a_failed_request_or_a_new_connection() {
    let world = World::with_function_secret(LIFE.0, LIFE.1).await;
    let cluster = world.cluster().await;
    let addr = free_address();
    let agent = watched(world.agent(&cluster).token(cluster.key().await), addr).start();
    let job = at_the_gate(&world, &cluster).await;
    let connections = metric(addr, "tendril_realtime_connections_total");
    let (resyncs, before) = (counted(addr, "tendril_realtime_resyncs_total"), exchanges(addr, "ok"));
    // Three validities of a token go by.
    exchanged(addr, "ok", before + 5.0).await;
    open_the_gate(&world);
    ends_well(&job).await;
    assert_undisturbed(addr, &agent);
    let now = metric(addr, "tendril_realtime_connections_total");
    assert!((now - connections).abs() < 0.5, "it connected again: {}", agent.output());
    // The server subscribes again for each token, in the same channel over the same connection; nothing else happens.
    let gaps = counted(addr, "tendril_realtime_resyncs_total") - resyncs;
    assert!(gaps <= exchanges(addr, "ok") - before, "{gaps} gaps: {}", agent.output());
}

#[tokio::test]
async fn a_key_is_rotated_under_a_running_job() {
    let world = World::start().await;
    let cluster = world.cluster().await;
    let (file, addr) = (world.path("key"), free_address());
    replace(&file, &cluster.key().await);
    let agent = watched(world.agent(&cluster).token_file(&file), addr).start();
    let job = at_the_gate(&world, &cluster).await;
    let connections = metric(addr, "tendril_realtime_connections_total");
    let next: String = cluster.as_owner("rotate_cluster_key").await;
    replace(&file, &format!("{next}\n"));
    let replaced = Instant::now();
    until("the new key is used", async || {
        let status: Value = cluster.as_owner("cluster_key_status").await;
        if status["next"]["last_used_at"].is_string() { Ok(()) } else { Err(status.to_string()) }
    })
    .await;
    assert!(replaced.elapsed() < Duration::from_secs(10), "{:?}", replaced.elapsed());
    cluster.as_owner::<Value>("promote_cluster_key").await;
    open_the_gate(&world);
    ends_well(&job).await;
    assert_undisturbed(addr, &agent);
    assert!((metric(addr, "tendril_agent_token_changes_total") - 1.0).abs() < 0.1);
    let now = metric(addr, "tendril_realtime_connections_total");
    assert!((now - connections).abs() < 0.5, "it connected again: {}", agent.output());
    assert!(!agent.output().contains("tdl_"), "{}", agent.output());
}

#[tokio::test]
async fn a_wrong_key_and_one_of_no_cluster_are_refused_in_the_same_words() {
    let world = World::start().await;
    let cluster = world.cluster().await;
    let key = cluster.key().await;
    let (wrong, unknown) = (changed(&key, 60), changed(&key, 20));
    let message = (
        refused(world.agent(&cluster).token(wrong)).await,
        refused(world.agent(&cluster).token(unknown)).await,
    );
    assert_eq!(message.0, message.1);
    assert!(message.0.contains("opens no cluster") && message.0.contains("tries again"), "{message:?}");
    let mut agent = world.agent(&cluster).token(&key[..40]).start();
    assert_eq!(agent.ended().await.code(), Some(2));
    assert!(agent.output().contains("40 characters of 69"), "nothing is sent: {}", agent.output());
    assert_eq!(cluster.status().await, "PENDING");
}

#[tokio::test]
async fn a_key_that_is_taken_away_ends_the_claims_and_not_the_running_job() {
    let world = World::with_function_secret(LIFE.0, LIFE.1).await;
    let cluster = world.cluster().await;
    let (file, addr) = (world.path("key"), free_address());
    replace(&file, &cluster.key().await);
    let agent = watched(world.agent(&cluster).token_file(&file), addr).start();
    let job = at_the_gate(&world, &cluster).await;
    cluster.as_owner::<Value>("revoke_cluster_key").await;
    readiness(addr, 503, "opens no cluster").await;
    exchanged(addr, "refused", 1.0).await;
    let late = cluster.queue(json!({"template": "count", "variables": {"lines": 2}})).await;
    // The last token ends.
    readiness(addr, 503, "the last heartbeat failed: no access token").await;
    open_the_gate(&world);
    comes_to_its_report(addr).await;
    assert_eq!(job.row().await.status, "PROCESSING", "the row is as it was");
    assert_eq!(late.row().await.status, "QUEUED", "who is revoked takes no job");
    assert!(agent.output().contains("give the agent the current key"), "{}", agent.output());
    replace(&file, &cluster.key().await);
    ends_well(&job).await;
    assert_eq!(late.ended().await.status, "SUCCESS");
    readiness(addr, 200, "ready").await;
}

#[tokio::test]
async fn the_agent_of_a_cluster_that_is_revoked_is_told_so_and_its_job_runs_to_its_end() {
    let world = World::with_function_secret(LIFE.0, LIFE.1).await;
    let cluster = world.cluster().await;
    let addr = free_address();
    let agent = watched(world.agent(&cluster).token(cluster.key().await), addr).start();
    let _job = at_the_gate(&world, &cluster).await;
    let revoke = "update public.clusters set revoked_at = now() where id = $1";
    world.database.execute(revoke, &[&cluster.id]).await.expect("it is revoked");
    readiness(addr, 503, "was revoked").await;
    agent.says("this cluster was revoked, which is final").await;
    exchanged(addr, "refused", 1.0).await;
    let (_, status) = get(addr, "/status").expect("an answer");
    assert!(status.contains("\"phase\": \"APPLY\""), "it still runs: {status}");
    open_the_gate(&world);
    until("terraform came to its end", async || {
        let (_, status) = get(addr, "/status").expect("an answer");
        if status.contains("\"phase\": \"APPLY\"") { Err(status) } else { Ok(()) }
    })
    .await;
}

#[tokio::test]
async fn a_function_that_fails_for_a_while_is_asked_again_and_one_that_names_a_time_not_before_it() {
    let world = World::with_function_secret(LIFE.0, LIFE.1).await;
    let stack = world.project.stack("faults").expect("a local stack");
    let (cluster, addr) = (world.cluster().await, free_address());
    let wait = Duration::from_secs(6);
    let exchange = || Target::all().path("/functions/v1/agent-token");
    let limit = RequestFault::Status { code: 429, retry_after: Some(wait) };
    let limited = stack.faults().on_requests(limit, exchange().times(1));
    let agent = watched(world.agent(&cluster).token(cluster.key().await), addr).start();
    agent.says("exchanged too often").await;
    let reported = Instant::now();
    cluster.online().await;
    // The line was printed, and read, somewhat after the agent knew it.
    assert!(reported.elapsed() + Duration::from_secs(1) > wait, "{:?}", reported.elapsed());
    assert_eq!(limited.struck(), 1);

    let job = at_the_gate(&world, &cluster).await;
    let before = exchanges(addr, "failed");
    let outage = RequestFault::Status { code: 503, retry_after: None };
    let down = stack.faults().on_requests(outage, exchange());
    exchanged(addr, "failed", before + 3.0).await;
    assert!(agent.output().contains("the agent tries again"), "{}", agent.output());
    down.lift();
    let ok = exchanges(addr, "ok");
    exchanged(addr, "ok", ok + 1.0).await;
    readiness(addr, 200, "ready").await;
    open_the_gate(&world);
    ends_well(&job).await;
    assert!(exchanges(addr, "refused") < 0.5, "an outage is no refusal: {}", agent.output());
}
