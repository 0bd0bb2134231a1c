//! An agent whose runs are pods, on the stand-in for a Kubernetes API server: from the claim to the Job, memory, requests while idle.
//!
//! `make bench`, or `cargo bench -p tendril-tests --bench pods`; `-- --check` fails where a bound is missed.
#![allow(clippy::expect_used, reason = "a measurement that cannot be made ends the program")]

use std::process::ExitCode;

use tendril_tests::{Bound, Measurements, Pods};

/// Runs whose way from claim to Job is timed, one after the other.
const RUNS: usize = 60;
/// Jobs that an idle agent watches.
const JOBS: usize = 500;

#[tokio::main]
async fn main() -> ExitCode {
    let Some(mut measurements) = Measurements::from_args() else { return ExitCode::SUCCESS };
    let table = &mut measurements;
    let mut pods = Pods::start().await;
    pods.stand_in();
    let agent = pods.agent();
    pods.cluster.online().await;
    let mut took = Vec::new();
    for n in 0..RUNS {
        let job = pods.queue(pods.ticket(&format!("s{n}"))).await;
        assert_eq!(job.ended().await.status, "SUCCESS");
        took.push(pods.claim_to_job(&job).await);
    }
    drop(agent);
    took.sort_by(f64::total_cmp);
    let at = |percent: usize| took[(took.len() * percent / 100).min(took.len() - 1)];
    let what = format!("claim -> Job asked for, {RUNS} runs: p50");
    table.row(&what, at(50), 1, "ms", Bound::AtMost(50.0), "");
    table.row("  p95", at(95), 1, "ms", Bound::None, "");

    let mut pods = Pods::start().await;
    pods.agent_env = vec![("TENDRIL_LEASE", "tendril".to_owned())];
    let idle = pods.watch_many(JOBS).await;
    let what = format!("idle agent that watches {JOBS} Jobs: resident memory");
    table.row(&what, idle.mebibytes, 1, "MiB", Bound::AtMost(25.0), "");
    let requests = u32::try_from(idle.requests).map_or(f64::INFINITY, f64::from);
    table.row("  API requests in a minute, with a Lease", requests, 0, "", Bound::AtMost(4.0), "");
    measurements.finish()
}
