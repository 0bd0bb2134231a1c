//! A stack is one state: its deployments run one at a time and in the order in which they were queued, whichever agent claims
//! them, and no agent works on a state that another one stores elsewhere.
//!
//! `TENDRIL_RACE=full` is 10 agents, 50 stacks and 20 deployments of each, as `make verify` and the nightly workflow run it;
//! otherwise the race is smaller, for a machine that does other work too.

use std::{collections::BTreeMap, path::Path};

use rustix::process::Signal;
use serde_json::json;
use supabase_local::{RequestFault, Target};
use tendril_tests::{AgentSetup, Cluster, Program, World, until, until_none_are_left};

/// A run of a stack, as in its row.
#[derive(Debug)]
struct Ran {
    stack: String,
    status: String,
    by: String,
    /// Whether it began before the one that was queued before it had ended.
    overlaps: bool,
    /// Whether it began before the one that was queued before it.
    overtakes: bool,
}

async fn runs(world: &World, cluster: &Cluster) -> Vec<Ran> {
    let query = "select state_key, status, coalesce(claimed_by, ''),
            coalesce(started_at < lag(finished_at) over line, false), coalesce(started_at < lag(started_at) over line, false)
        from public.deployments where cluster_id = $1
        window line as (partition by state_key order by queue_order) order by queue_order";
    let rows = world.database.query(query, &[&cluster.id]).await.expect("the deployments");
    let ran = |row: &tokio_postgres::Row| Ran {
        stack: row.get(0),
        status: row.get(1),
        by: row.get(2),
        overlaps: row.get(3),
        overtakes: row.get(4),
    };
    rows.iter().map(ran).collect()
}

fn assert_in_order(runs: &[Ran]) {
    let wrong: Vec<&Ran> = runs.iter().filter(|run| run.overlaps || run.overtakes).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[tokio::test]
async fn deployments_of_one_stack_run_one_at_a_time_and_in_order_with_several_agents() {
    let world = World::start().await;
    let cluster = world.cluster().await;
    let url = format!("{}?sslmode=disable", world.project.database_url);
    let agents: Vec<Program> = (1..=3)
        .map(|number| {
            let setup = world.agent(&cluster).name(format!("agent {number}"));
            setup.env("TENDRIL_STATE_BACKEND", "pg").env("PG_CONN_STR", &url).start()
        })
        .collect();
    cluster.online().await;
    let mut jobs = Vec::new();
    for number in 2..=9 {
        jobs.push(
            cluster
                .queue(json!({"template": "count", "stack": "prod", "variables": {"lines": number}}))
                .await,
        );
    }
    for (job, number) in jobs.iter().zip(2..) {
        let row = job.ended().await;
        assert_eq!(row.status, "SUCCESS", "{row:?}");
        assert_eq!(row.outputs.expect("outputs")["counted"], number);
    }
    let runs = runs(&world, &cluster).await;
    assert_in_order(&runs);
    let row = world
        .database
        .query_one(
            "select last_status, last_success_id from public.stacks where state_key = 'count.prod'",
            &[],
        )
        .await
        .expect("the stack");
    assert_eq!(row.get::<_, String>(0), "SUCCESS");
    assert_eq!(row.get::<_, uuid::Uuid>(1), jobs[7].id);
    drop(agents);
}

#[tokio::test]
async fn a_second_agent_with_local_states_of_its_own_is_refused_and_makes_no_second_copy() {
    let world = World::start().await;
    let cluster = world.cluster().await;
    let first = world.agent(&cluster).name("first").start();
    cluster.online().await;
    let mut setup = world.agent(&cluster).name("second");
    setup.cli.state_dir = Some(world.path("other-states").to_string_lossy().into_owned());
    let second = setup.start();
    second.says("both use the state backend local").await;
    let mut doctor = setup.doctor();
    assert_eq!(doctor.ended().await.code(), Some(2), "{}", doctor.output());
    assert!(doctor.output().contains("both use the state backend local"), "{}", doctor.output());

    for number in 2..=4 {
        let job =
            cluster.queue(json!({"template": "count", "stack": "s", "variables": {"lines": number}})).await;
        let row = job.ended().await;
        assert_eq!((row.status.as_str(), row.claimed_by.as_deref()), ("SUCCESS", Some("first")), "{row:?}");
        let added = row.plan_summary.expect("a plan")["add"].as_u64();
        assert_eq!(added, Some(u64::from(number == 2)), "the infrastructure is made once");
    }
    // Once the first has gone, the second takes its place.
    first.signal(Signal::TERM);
    second.says("may claim again").await;
    let job = cluster.queue(json!({"template": "count", "stack": "t", "variables": {"lines": 2}})).await;
    assert_eq!(job.ended().await.claimed_by.as_deref(), Some("second"));
}

/// Claims as three agents of contract 2 made them: any row that is QUEUED. Answers which of the stack's deployments run then, in the
/// order of arrival, and the messages of refusals.
async fn claimed_at_once(world: &World) -> (Vec<usize>, Vec<String>) {
    let cluster = world.cluster().await;
    let mut jobs = Vec::new();
    for number in 2..14 {
        let order = json!({"template": "count", "stack": "prod", "variables": {"lines": number}});
        jobs.push(cluster.queue(order).await);
    }
    let mut refusals = Vec::new();
    // The order of the finding: what three agents took first of twelve.
    for place in [1, 0, 3] {
        let claim =
            json!({"status": "PROCESSING", "claim_token": uuid::Uuid::new_v4(), "claimed_by": "agent"});
        let rest = cluster.as_agent().rest().clone();
        let claim = rest.from("deployments").update(&claim).eq("id", jobs[place].id).eq("status", "QUEUED");
        if let Err(error) = claim.select("id").rows::<serde_json::Value>().await {
            refusals.push(error.code().to_owned());
        }
    }
    let mut running = Vec::new();
    for (place, job) in jobs.iter().enumerate() {
        if job.row().await.status == "PROCESSING" {
            running.push(place);
        }
    }
    (running, refusals)
}

/// The same requests under the rules of the contract before: three deployments of one stack run at the same time, and not the oldest.
#[tokio::test]
async fn three_agents_claim_deployments_of_one_stack_one_at_a_time_which_contract_2_did_not_see_to() {
    let before = World::with_migrations(&tendril_tests::fixtures("contract-2")).await;
    let (running, refusals) = claimed_at_once(&before).await;
    assert_eq!((running, refusals.len()), (vec![0, 1, 3], 0), "the fault that contract 3 ends");
    let now = World::start().await;
    let (running, refusals) = claimed_at_once(&now).await;
    assert_eq!((running, refusals), (vec![0], vec!["TD006".to_owned(), "TD006".to_owned()]));
}

/// Two agents with local states of their own; the first is stopped when it has made the infrastructure. Answers how many resources the
/// second would add for the same stack, if it takes the job at all.
async fn second_copy(world: &World) -> Option<u64> {
    let cluster = world.cluster().await;
    let first = world.agent(&cluster).name("first").start();
    first.says("the cluster is online").await;
    let order = |lines: u32| json!({"template": "count", "stack": "s", "variables": {"lines": lines}});
    assert_eq!(cluster.queue(order(2)).await.ended().await.status, "SUCCESS");
    let mut setup = world.agent(&cluster).name("second");
    setup.cli.state_dir = Some(world.path("other-states").to_string_lossy().into_owned());
    let second = setup.start();
    second.says("the cluster is online").await;
    first.signal(Signal::STOP);
    let job = cluster.queue(order(2)).await;
    let is_refused = second.output().contains("claims nothing");
    if is_refused {
        first.signal(Signal::CONT);
    }
    let row = job.ended().await;
    assert_eq!(row.status, "SUCCESS", "{row:?}");
    let added = row.plan_summary.expect("a plan")["add"].as_u64();
    (row.claimed_by.as_deref() == Some("second")).then_some(added?)
}

#[tokio::test]
async fn a_second_copy_of_the_infrastructure_is_made_by_no_agent_which_contract_2_did_not_see_to() {
    let before = World::with_migrations(&tendril_tests::fixtures("contract-2")).await;
    assert_eq!(second_copy(&before).await, Some(1), "the fault that contract 3 ends");
    let now = World::start().await;
    assert_eq!(second_copy(&now).await, None);
}

/// How many agents, stacks, and deployments of each.
fn size() -> (usize, usize, usize) {
    match std::env::var("TENDRIL_RACE").as_deref() {
        Ok("full") => (10, 50, 20),
        Ok(other) => panic!("TENDRIL_RACE is \"{other}\": leave it out, or write \"full\""),
        Err(_) => (4, 8, 6),
    }
}

async fn left(world: &World, cluster: &Cluster) -> i64 {
    let open = "select count(*) from public.deployments where cluster_id = $1 and status in ('QUEUED', 'PROCESSING')";
    world.database.query_one(open, &[&cluster.id]).await.expect("a count").get(0)
}

fn tickets(path: &Path) -> Vec<usize> {
    let ran = std::fs::read_to_string(path).unwrap_or_default();
    ran.lines().map(|line| line.parse().expect("a ticket")).collect()
}

#[tokio::test]
async fn whatever_is_lost_killed_or_stopped_each_stack_runs_its_deployments_once_and_in_order() {
    let world = World::start().await;
    let Some(stack) = world.project.stack("answers are dropped") else { return };
    let (agents, stacks, each) = size();
    let cluster = world.cluster().await;
    let writes = Target::all().method("PATCH").path("/rest/v1/deployments");
    let lost = stack.faults().on_requests(RequestFault::DropAfter, writes.chance(0.2));
    let setups: Vec<AgentSetup> = (0..agents)
        .map(|number| world.agent(&cluster).stand_in().concurrency(4).name(format!("agent {number}")))
        .collect();
    let mut running: Vec<Program> = setups.iter().map(AgentSetup::start).collect();
    let ledger = |stack: usize| world.path(&format!("ledger-{stack}"));
    let mut orders = Vec::new();
    for ticket in 0..each {
        for stack in 0..stacks {
            let (name, path) = (format!("s{stack}"), ledger(stack));
            let variables = json!({"ledger": path, "ticket": ticket.to_string()});
            orders.push(json!({"template": "ticket", "stack": name, "variables": variables}));
        }
    }
    let all = i64::try_from(orders.len()).expect("a count");
    cluster.queue_all(orders).await;
    // Each agent in turn is killed and started again, or stopped for a while, while the others go on.
    for round in 0..agents {
        let wanted = all
            - all * i64::try_from(round + 1).expect("a count") / i64::try_from(agents + 1).expect("a count");
        until("some jobs are done", async || {
            let left = left(&world, &cluster).await;
            if left <= wanted { Ok(()) } else { Err(format!("{left} are left, {wanted} are waited for")) }
        })
        .await;
        if round % 2 == 0 {
            running[round].signal(Signal::KILL);
            // Until it is gone it has the work directory, and its next life would not start.
            running[round].ended().await;
            setups[round].executors().signal(Signal::KILL);
            running[round] = setups[round].start();
        } else {
            running[round].signal(Signal::STOP);
            let executors = setups[round].executors();
            executors.signal(Signal::STOP);
            let stopped = left(&world, &cluster).await;
            until("the others go on", async || {
                let left = left(&world, &cluster).await;
                if left < stopped || left == 0 { Ok(()) } else { Err(left.to_string()) }
            })
            .await;
            executors.signal(Signal::CONT);
            running[round].signal(Signal::CONT);
        }
    }
    until_none_are_left("every job ends", async || match left(&world, &cluster).await {
        0 => Ok(()),
        left => Err(left),
    })
    .await;
    assert!(lost.struck() > 10, "answers were lost: {}", lost.struck());
    let runs = runs(&world, &cluster).await;
    assert_eq!(runs.len(), usize::try_from(all).expect("a count"));
    assert_in_order(&runs);
    let mut ended: BTreeMap<&str, usize> = BTreeMap::new();
    for run in &runs {
        *ended.entry(&run.status).or_default() += 1;
        assert!(["SUCCESS", "FAILED"].contains(&run.status.as_str()), "{run:?}");
    }
    for stack in 0..stacks {
        let ran = tickets(&ledger(stack));
        assert!(ran.is_sorted_by(|before, after| before < after), "stack {stack} ran {ran:?}");
        let succeeded = runs
            .iter()
            .filter(|run| run.stack == format!("ticket.s{stack}") && run.status == "SUCCESS")
            .count();
        assert!(ran.len() >= succeeded, "stack {stack}: {ran:?}, {succeeded} succeeded");
    }
    let by: std::collections::BTreeSet<&str> = runs.iter().map(|run| run.by.as_str()).collect();
    println!(
        "{all} deployments of {stacks} stacks by {} agents: {ended:?}; {} answers were lost",
        by.len(),
        lost.struck()
    );
}
