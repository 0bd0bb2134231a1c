//! A busy server sends `Retry-After`, and the agent waits for that long.

use std::time::Duration;

use serde_json::json;
use supabase_local::{Injection, RequestFault, Target};
use tendril_tests::{Story, Wiretap, World, until};
use tokio::time::Instant;

/// What the server demands.
const RETRY_AFTER: Duration = Duration::from_secs(3);
/// A second, and what a busy machine takes.
const LATE: Duration = Duration::from_millis(1500);

#[tokio::test]
async fn beats_claims_and_log_lines_come_again_when_a_busy_server_wished_it() {
    let world = World::start().await;
    let Some(stack) = world.project.stack("requests are answered 429") else { return };
    let cluster = world.cluster().await;
    let wiretap = Wiretap::before(&world.project.url).await;
    // One process, so that the pauses between all its requests are seen.
    let mut setup = world.agent(&cluster).narrator().in_process().concurrency(2).url(&wiretap.url);
    setup.cli.heartbeat = Some("1s".to_owned());
    let _agent = setup.start();
    let story = Story::with_gate(&world, "apply");
    let running = cluster.queue(story.config()).await;
    running.says("at the gate").await;

    let fault = RequestFault::Status { code: 429, retry_after: Some(RETRY_AFTER) };
    // What is read is spared: it is by reading that the agent learns of the other job.
    let busy = ["POST", "PATCH"].map(|method| {
        let writes = Target::all().method(method).path("/rest/v1/").role("tendril_agent");
        stack.faults().on_requests(fault.clone(), writes)
    });
    let begun = Instant::now();
    let mut config = story.config();
    config["stack"] = json!("other");
    let other = cluster.queue(config).await;
    story.go_on();
    let claim = other.id.to_string();
    let kinds = [("POST", "/rpc/agent_heartbeat"), ("PATCH", &claim), ("POST", "/deployment_logs")];
    let times = |(method, part): (&str, &str)| -> Vec<Instant> {
        wiretap.requests(method, part).into_iter().filter(|at| *at > begun).collect()
    };
    // More than one request repeats by itself: the agent's own pauses must respect it too.
    until("each came five times", async || {
        let counts = kinds.map(|kind| times(kind).len());
        if counts.iter().all(|count| *count >= 5) { Ok(()) } else { Err(format!("{counts:?}")) }
    })
    .await;
    let all = kinds.map(|kind| (kind, times(kind)));
    busy.into_iter().for_each(Injection::lift);
    for (kind, times) in all {
        let gaps: Vec<_> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(
            gaps.iter().all(|gap| *gap >= RETRY_AFTER && *gap < RETRY_AFTER + LATE),
            "{kind:?}: {gaps:?}"
        );
    }
    for job in [running, other] {
        let row = job.ended().await;
        assert_eq!(row.status, "SUCCESS", "{row:?}");
        job.log().await.assert_complete(&row);
    }
}
