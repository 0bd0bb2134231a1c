//! Tokens that live for seconds: replaced in their file under a running job, and refused for ever.

use std::{fs, path::Path, time::Duration};

use serde_json::json;
use tendril_tests::{Cluster, World, until};

use crate::probe::{comes_to_its_report, counted, free_address, get, metric};

/// How long a token is valid here; 15 minutes in production.
const LIFE: Duration = Duration::from_secs(12);
/// How often the file is replaced, as a sidecar does.
const ROUND: Duration = Duration::from_secs(4);

fn replace(file: &Path, cluster: &Cluster) {
    let new = file.with_extension("new");
    fs::write(&new, cluster.machine_token_for(LIFE)).expect("a new token");
    fs::rename(&new, file).expect("it is replaced in one step");
}

#[tokio::test]
async fn a_run_outlives_its_tokens_without_a_failed_request_or_a_new_join() {
    let world = World::start().await;
    let cluster = world.cluster().await;
    let (file, addr) = (world.path("token"), free_address());
    replace(&file, &cluster);
    let agent = world
        .agent(&cluster)
        .token_file(&file)
        .env("TENDRIL_HEALTH_ADDR", addr.to_string())
        .env("TENDRIL_HEARTBEAT", "2s")
        .start();
    let variables = json!({"lines": 4, "gate": world.path("gate")});
    let job = cluster.queue(json!({"template": "count", "variables": variables})).await;
    job.says("at the gate").await;
    let connections = metric(addr, "tendril_realtime_connections_total");
    let resyncs = counted(addr, "tendril_realtime_resyncs_total");
    // Three validities of a token go by.
    for _ in 0..9 {
        tokio::time::sleep(ROUND).await;
        replace(&file, &cluster);
    }
    fs::write(world.path("gate"), "").expect("the gate opens");
    let row = job.ended().await;
    assert_eq!(row.status, "SUCCESS", "{row:?}");
    job.log().await.assert_complete(&row);
    for result in ["failed", "refused"] {
        let count = metric(addr, &format!("tendril_agent_heartbeats_total{{result=\"{result}\"}}"));
        assert!(count < 0.5, "{count} heartbeats {result}: {}", agent.output());
    }
    let renewals = metric(addr, "tendril_agent_token_changes_total");
    assert!(renewals > 3.0, "{renewals}");
    // The server subscribes again for each token, in the same channel over the same connection; nothing else happens.
    let connections_now = metric(addr, "tendril_realtime_connections_total");
    assert!((connections_now - connections).abs() < 0.5, "it connected again: {}", agent.output());
    let gaps = counted(addr, "tendril_realtime_resyncs_total") - resyncs;
    assert!(gaps <= renewals, "{gaps} gaps for {renewals} tokens: {}", agent.output());
    assert!(!agent.output().contains("WARN") && !agent.output().contains("ERROR"), "{}", agent.output());
}

#[tokio::test]
async fn an_agent_that_is_refused_for_ever_is_not_ready_and_its_job_goes_on_to_the_disk() {
    let world = World::start().await;
    let cluster = world.cluster().await;
    let (file, addr) = (world.path("token"), free_address());
    fs::write(&file, cluster.machine_token()).expect("the token file");
    let agent = world
        .agent(&cluster)
        .token_file(&file)
        .env("TENDRIL_HEALTH_ADDR", addr.to_string())
        .env("TENDRIL_HEARTBEAT", "1s")
        .start();
    let variables = json!({"lines": 400, "gate": world.path("gate")});
    let job = cluster.queue(json!({"template": "count", "variables": variables})).await;
    job.says("at the gate").await;
    // Signed by a key that is not the project's: 401.
    let stranger = supabase_local::JwtSecret::new("another secret with at least thirty-two characters");
    let hour = Duration::from_secs(3600);
    fs::write(&file, stranger.machine_token(&cluster.id.to_string(), hour)).expect("a bad token");
    until("it is not ready", async || match get(addr, "/readyz") {
        Some((503, why)) if why.contains("heartbeat failed") => Ok(()),
        seen => Err(format!("{seen:?}")),
    })
    .await;
    assert!(metric(addr, r#"tendril_agent_heartbeats_total{result="refused"}"#) > 0.5, "{}", agent.output());
    fs::write(world.path("gate"), "").expect("the gate opens");
    comes_to_its_report(addr).await;
    assert_eq!(job.row().await.status, "PROCESSING", "the row is as it was");
    assert!(agent.output().contains("does not accept the machine token"), "{}", agent.output());
    fs::write(&file, cluster.machine_token()).expect("a good token");
    let row = job.ended().await;
    assert_eq!(row.status, "SUCCESS", "{row:?}");
    let log = job.log().await;
    assert_eq!(log.counted(), (1..=400).collect::<Vec<u64>>());
    log.assert_complete(&row);
}
