//! Many agents, many jobs: each is claimed once and run once, also when answers to claims are lost.
//!
//! `TENDRIL_RACE=full` is 100 agents and 1,000 jobs, as `make verify` and the nightly workflow run it; otherwise the race is
//! smaller, for a machine that does other work too.

use std::{collections::BTreeSet, path::Path};

use serde_json::json;
use supabase_local::{RequestFault, Target};
use tendril_tests::{Cluster, InsideAgent, World, until_none_are_left, within};

/// How many agents race for how many jobs.
fn size() -> (usize, usize) {
    match std::env::var("TENDRIL_RACE").as_deref() {
        Ok("full") => (100, 1000),
        Ok(other) => panic!("TENDRIL_RACE is \"{other}\": leave it out, or write \"full\""),
        Err(_) => (24, 120),
    }
}

/// What is in the table when nothing is in the queue any more.
#[derive(Debug, PartialEq, Eq)]
struct Tally {
    succeeded: i64,
    in_the_first_attempt: i64,
    claims: i64,
    agents: i64,
}

async fn tally(world: &World, cluster: &Cluster) -> Result<Tally, i64> {
    let open = "select count(*) from public.deployments where cluster_id = $1 and status in ('QUEUED', 'PROCESSING')";
    let open: i64 = world.database.query_one(open, &[&cluster.id]).await.expect("a count").get(0);
    if open > 0 {
        return Err(open);
    }
    let query = "select count(*) filter (where status = 'SUCCESS'), count(*) filter (where attempt = 1),
            count(distinct claim_token), count(distinct claimed_by)
        from public.deployments where cluster_id = $1";
    let row = world.database.query_one(query, &[&cluster.id]).await.expect("counts");
    Ok(Tally {
        succeeded: row.get(0),
        in_the_first_attempt: row.get(1),
        claims: row.get(2),
        agents: row.get(3),
    })
}

/// Deployments whose chunks are not 1 to `log_count`.
async fn torn_logs(world: &World, cluster: &Cluster) -> i64 {
    let query = "select count(*) from public.deployments d
        left join lateral (
            select count(*) as chunks, max(seq) as last from public.deployment_logs l
            where l.deployment_id = d.id and l.attempt = 1
        ) l on true
        where d.cluster_id = $1 and (d.log_count, d.log_count) is distinct from (l.chunks, l.last)";
    world.database.query_one(query, &[&cluster.id]).await.expect("a count").get(0)
}

/// The tickets that were really run.
fn ledger(path: &Path) -> Vec<usize> {
    let ran = std::fs::read_to_string(path).expect("the ledger");
    let mut ran: Vec<usize> = ran.lines().map(|line| line.parse().expect("a ticket")).collect();
    ran.sort_unstable();
    ran
}

async fn race(world: &World) {
    let Some(stack) = world.project.stack("the agents poll, so that all of them see all rows at once") else {
        return;
    };
    // A hundred listeners to thousands of changes would be a test of the stack.
    stack.faults().refuse_realtime(true);
    let (agents, jobs) = size();
    let cluster = world.cluster().await;
    let path = world.path("ledger");
    let config =
        |n: usize| json!({"template": "ticket", "variables": {"ledger": path, "ticket": n.to_string()}});
    cluster.queue_all((0..jobs).map(config)).await;
    let agents: Vec<InsideAgent> = (0..agents)
        .map(|n| world.agent(&cluster).stand_in().name(format!("agent {n}")).start_inside())
        .collect();

    let tally = until_none_are_left("every job ends", async || tally(world, &cluster).await).await;
    let all = i64::try_from(jobs).expect("a count");
    assert_eq!((tally.succeeded, tally.in_the_first_attempt, tally.claims), (all, all, all), "{tally:?}");
    assert!(
        tally.agents > i64::try_from(agents.len()).expect("a count") / 2,
        "the work was shared: {tally:?}"
    );
    let ran = ledger(&path);
    assert_eq!(ran.len(), ran.iter().collect::<BTreeSet<_>>().len(), "no job was run twice");
    assert_eq!(ran, (0..jobs).collect::<Vec<_>>());
    assert_eq!(torn_logs(world, &cluster).await, 0);
    for agent in agents {
        within("an agent stops", agent.stop()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_agents_claim_many_jobs_once_each() {
    race(&World::start().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn claims_whose_answers_are_lost_are_neither_doubled_nor_left() {
    let world = World::start().await;
    let Some(stack) = world.project.stack("answers are dropped") else { return };
    let writes = Target::all().method("PATCH").path("/rest/v1/deployments");
    let lost = stack.faults().on_requests(RequestFault::DropAfter, writes.chance(0.2));
    race(&world).await;
    // Each job is claimed, reported and ended: one answer in five is lost of at least three for each.
    let (_, jobs) = size();
    assert!(
        lost.struck() > u64::try_from(jobs / 4).expect("a count"),
        "answers were lost: {}",
        lost.struck()
    );
}
