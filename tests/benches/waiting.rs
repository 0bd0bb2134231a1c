//! Plans that wait for approval: what they cost an agent, and what the next job notices of them.
//!
//! `make bench`, or `cargo bench -p tendril-tests --bench waiting`; `-- --check` fails where a bound is missed.
#![allow(clippy::expect_used, reason = "a measurement that cannot be made ends the program")]

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use serde_json::json;
use tendril_tests::{AgentSetup, Bound, Cluster, Measurements, Program, Usage, World};
use tokio::time::sleep;

/// Plans that wait.
const PLANS: usize = 2000;
/// Jobs whose way from insert to claim is timed, one after the other.
const JOBS: usize = 50;
/// How long an agent has nothing to do before it is looked at: threads of its start have ended.
const REST: Duration = Duration::from_secs(20);

#[tokio::main]
async fn main() -> ExitCode {
    let Some(mut measurements) = Measurements::from_args() else { return ExitCode::SUCCESS };
    let table = &mut measurements;
    let world = World::start().await;
    let cluster = world.cluster().await;
    let setup = world.agent(&cluster).stand_in();
    let (agent, before) = measure(&world, &cluster, &setup, "no plan waits", None, table).await;
    end(agent).await;
    world.plans_that_wait(&cluster, &setup, PLANS).await;
    let many = format!("{PLANS} plans wait");
    let (agent, _) = measure(&world, &cluster, &setup, &many, Some(before), table).await;
    end(agent).await;
    let again = format!("{many}, after one more restart");
    let (_agent, _) = measure(&world, &cluster, &setup, &again, Some(before), table).await;
    assert_eq!(world.plans_waiting(&cluster).await, PLANS, "each waits still");
    measurements.finish()
}

/// As a crash ends it.
async fn end(mut agent: Program) {
    agent.signal(Signal::KILL);
    agent.ended().await;
}

/// Starts the agent and measures it: with nothing to do, and with jobs that come one after the other.
async fn measure(
    world: &World,
    cluster: &Cluster,
    setup: &AgentSetup,
    what: &str,
    before: Option<Usage>,
    table: &mut Measurements,
) -> (Program, Usage) {
    let ticket = |n: usize| json!({"template": "ticket", "variables": {"ledger": world.path("ledger"), "ticket": n.to_string()}});
    let started = Instant::now();
    let agent = setup.start();
    let first = cluster.queue(ticket(0)).await;
    first.becomes("is claimed", |row| row.claimed_by.is_some()).await;
    let until_claimed = started.elapsed().as_secs_f64();
    assert_eq!(first.ended().await.status, "SUCCESS");
    sleep(REST).await;
    let usage = Usage::of(agent.pid());
    let mut ids = Vec::new();
    for n in 1..=JOBS {
        let job = cluster.queue(ticket(n)).await;
        assert_eq!(job.ended().await.status, "SUCCESS");
        ids.push(job.id);
    }
    let query = "select (extract(epoch from claimed_at - created_at) * 1000)::float8 from public.deployments where id = any($1)";
    let rows = world.database.query(query, &[&ids]).await.expect("the times");
    let mut times: Vec<f64> = rows.iter().map(|row| row.get(0)).collect();
    times.sort_by(f64::total_cmp);
    let at = |percent: usize| times[(times.len() * percent / 100).min(times.len() - 1)];

    // Those of the first agent are what the others are compared with.
    let more = |bound: f64, of: fn(&Usage) -> f64| {
        before.map_or(Bound::None, |before| Bound::AtMost(of(&before) + bound))
    };
    let name = format!("{what}: idle, resident memory");
    table.row(&name, usage.mebibytes(), 1, "MiB", more(20.0, Usage::mebibytes), "");
    table.row("  threads", f64::from(usage.threads), 0, "", more(4.0, |usage| f64::from(usage.threads)), "");
    let descriptors = |usage: &Usage| f64::from(usage.descriptors);
    table.row("  descriptors", descriptors(&usage), 0, "", more(4.0, descriptors), "");
    table.row("  from the start to the claim of a job", until_claimed, 2, "s", Bound::AtMost(5.0), "");
    table.row(&format!("  insert -> claimed, {JOBS} jobs: p50"), at(50), 1, "ms", Bound::AtMost(60.0), "");
    table.row("    p99", at(99), 1, "ms", Bound::None, "");
    (agent, usage)
}
