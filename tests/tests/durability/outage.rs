//! The control plane is away in mid-apply: terraform is not held up, and everything arrives in order once it is back.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use supabase_local::{Cut, RequestFault, Stack, Target};
use tendril_tests::{Cluster, Deployment, Flood, Log, Program, Story, World, until};

/// A run of about five seconds, whatever its reader does.
fn steady() -> Story {
    Story { planned: 10, lines: 5_010, burst: 50, width: 60, gate: None }
}

/// The lines of the apply, with the times between the first and the last chunk, as the agent noted them.
async fn output_time(world: &World, deployment: &Deployment) -> Duration {
    let query = "select extract(epoch from max(ts) - min(ts))::float8 from public.deployment_logs
        where deployment_id = $1 and stream = 'stdout'";
    let seconds: f64 = world.database.query_one(query, &[&deployment.id]).await.expect("times").get(0);
    Duration::from_secs_f64(seconds)
}

fn assert_whole(log: &Log, lines: u64) {
    assert_eq!(log.counted(), (1..=lines).collect::<Vec<u64>>());
}

#[tokio::test]
async fn an_outage_in_mid_apply_holds_up_nothing_and_everything_arrives_in_order() {
    let world = World::start().await;
    let Some(stack) = world.project.stack("the port is closed") else { return };
    let cluster = world.cluster().await;
    let setup = world.agent(&cluster).narrator();
    let agent = setup.start();
    let undisturbed = cluster.queue(steady().config()).await;
    assert_eq!(undisturbed.ended().await.status, "SUCCESS");
    let undisturbed = output_time(&world, &undisturbed).await;

    let deployment = cluster.queue(steady().config()).await;
    deployment.says("line 500").await;
    // No server at all: connections are refused, and the open socket is gone. It is back only when the run is long over.
    stack.faults().close_port(true);
    stack.faults().cut_sockets(Cut::Abrupt);
    agent.says("a heartbeat failed").await;
    let result = Path::new(setup.cli.work_dir.as_deref().expect("a directory"))
        .join(format!("{}.1/result.json", deployment.id));
    until(
        "the run is over while nobody listens",
        async || {
            if result.exists() { Ok(()) } else { Err(agent.output()) }
        },
    )
    .await;
    let query = "select status from public.deployments where id = $1";
    let status: String = world.database.query_one(query, &[&deployment.id]).await.expect("a row").get(0);
    assert_eq!(status, "PROCESSING");
    stack.faults().close_port(false);

    let row = deployment.ended().await;
    assert_eq!((row.status.as_str(), row.attempt), ("SUCCESS", 1), "{row:?}");
    let log = deployment.log().await;
    log.assert_complete(&row);
    assert_whole(&log, 5_010);
    // The narrator breathes by itself; had its pipe been full it would have been held up for the whole outage.
    let disturbed = output_time(&world, &deployment).await;
    assert!(disturbed <= undisturbed.mul_f64(1.25), "{disturbed:?} with the outage, {undisturbed:?} without");
}

/// The output of ten minutes of a busy run: five hundred lines a second, 30 MB.
const TEN_MINUTES: u64 = 300_000;

/// No server at all: connections are refused, and the open socket is gone.
async fn begin_outage(stack: &Stack, agent: &Program) {
    let heartbeats = |agent: &Program| agent.output().matches("a heartbeat failed").count();
    let before = heartbeats(agent);
    stack.faults().close_port(true);
    stack.faults().cut_sockets(Cut::Abrupt);
    until(
        "the agent notices",
        async || {
            if heartbeats(agent) > before { Ok(()) } else { Err(agent.output()) }
        },
    )
    .await;
}

/// An agent that notices an outage soon.
fn alert(world: &World, cluster: &Cluster) -> Program {
    Flood::agent(world.agent(cluster)).env("TENDRIL_HEARTBEAT", "1s").start()
}

async fn at_the_gate(cluster: &Cluster, flood: &Flood) -> Deployment {
    let deployment = cluster.queue(flood.config()).await;
    deployment.says("at the gate").await;
    deployment
}

async fn succeeded(deployment: &Deployment, lines: u64) {
    let row = deployment.ended().await;
    assert_eq!((row.status.as_str(), row.attempt), ("SUCCESS", 1), "{row:?}");
    let numbered = deployment.numbered().await;
    assert_eq!(numbered.assert_of(lines), 0, "{numbered:?}");
    assert_eq!(i64::try_from(numbered.chunks).expect("a count"), row.log_count);
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort();
    times[times.len() / 2]
}

/// Turns of each kind. Their medians are compared, so that one turn beside another program's work decides nothing.
const TURNS: usize = 3;
/// An agent that waits for its log makes a run several times slower. `benches/log.rs` measures the ratio with more lines and
/// holds a tighter bound.
const SLOWER: f64 = 2.0;

/// Both kinds of run in turns, so that whatever else the machine does affects both.
#[tokio::test]
async fn a_program_is_not_slower_while_the_control_plane_is_away() {
    let world = World::start().await;
    let Some(stack) = world.project.stack("the port is closed") else { return };
    let cluster = world.cluster().await;
    let agent = alert(&world, &cluster);
    let lines = 100_000;
    let (mut undisturbed, mut alone) = (Vec::new(), Vec::new());
    for turn in 0..TURNS {
        let flood = Flood::new(&world, &format!("undisturbed-{turn}"), lines);
        let deployment = at_the_gate(&cluster, &flood).await;
        flood.begin();
        undisturbed.push(flood.took().await);
        succeeded(&deployment, lines).await;

        let flood = Flood::new(&world, &format!("alone-{turn}"), lines);
        let deployment = at_the_gate(&cluster, &flood).await;
        begin_outage(stack, &agent).await;
        flood.begin();
        alone.push(flood.took().await);
        stack.faults().close_port(false);
        succeeded(&deployment, lines).await;
    }
    let ratio = median(&mut alone).as_secs_f64() / median(&mut undisturbed).as_secs_f64();
    println!("{ratio:.2} times the undisturbed run");
    assert!(ratio <= SLOWER, "{ratio:.2} times: {alone:?} in outages, {undisturbed:?} otherwise");
}

#[tokio::test]
async fn what_was_printed_in_ten_minutes_of_outage_is_stored_within_a_minute_of_the_return() {
    let world = World::start().await;
    let Some(stack) = world.project.stack("the port is closed") else { return };
    let cluster = world.cluster().await;
    let agent = alert(&world, &cluster);
    let flood = Flood::new(&world, "ten-minutes", TEN_MINUTES);
    let deployment = at_the_gate(&cluster, &flood).await;
    begin_outage(stack, &agent).await;
    flood.begin();
    flood.took().await;
    stack.faults().close_port(false);
    let returned = Instant::now();
    succeeded(&deployment, TEN_MINUTES).await;
    let took = returned.elapsed();
    assert!(took <= Duration::from_secs(60), "{took:?}");
}

#[tokio::test]
async fn beyond_the_spools_limit_head_and_tail_are_kept_with_one_marker() {
    let world = World::start().await;
    let Some(stack) = world.project.stack("log rows are refused") else { return };
    let cluster = world.cluster().await;
    let mut setup = world.agent(&cluster).narrator();
    setup.cli.spool_limit = Some("1MiB".to_owned());
    let _agent = setup.start();
    let lines = 6_000;
    let story = Story { planned: 10, lines, burst: 1_000, width: 1_000, ..Story::with_gate(&world, "apply") };
    let logs = Target::all().method("POST").path("/rest/v1/deployment_logs");
    let fault = RequestFault::Status { code: 503, retry_after: None };
    let outage = stack.faults().on_requests(fault, logs);
    let deployment = cluster.queue(story.config()).await;
    deployment.becomes("is applied", |row| row.phase.as_deref() == Some("APPLY")).await;
    let spool = Path::new(setup.cli.work_dir.as_deref().expect("a directory"))
        .join(format!("{}.1/log", deployment.id));
    until("the end of the story is on disk", async || {
        // A segment that was just begun has no line.
        let mut texts =
            segments(&spool).into_iter().rev().map(|path| fs::read_to_string(path).unwrap_or_default());
        let has_lines = |text: &String| text.lines().any(|record| !record.starts_with('p'));
        let last = texts.find(has_lines).unwrap_or_default();
        if last.contains("at the gate") { Ok(()) } else { Err(format!("{:?}", last.lines().last())) }
    })
    .await;
    let bytes: u64 = segments(&spool).iter().filter_map(|path| Some(fs::metadata(path).ok()?.len())).sum();
    assert!(bytes < 1_200_000, "{bytes} bytes are on disk");
    outage.lift();
    story.go_on();

    let row = deployment.ended().await;
    assert_eq!(row.status, "SUCCESS", "{row:?}");
    let log = deployment.log().await;
    log.assert_complete(&row);
    let marked: Vec<_> =
        log.lines("agent").into_iter().filter(|line| line.contains("lines are missing")).collect();
    assert_eq!(marked.len(), 1, "{marked:?}");
    let missing: usize = marked[0].split(' ').nth(1).expect("a number").parse().expect("a number");
    let reported = log.counted();
    let others = log.lines("stdout").len() - reported.len();
    // The two lines that are not numbered are not among those in the middle.
    assert_eq!(reported.len() + missing, usize::try_from(lines).expect("a count"), "{others} others");
    assert!(
        reported.starts_with(&[1, 2, 3]) && reported.ends_with(&[lines - 1, lines]),
        "head and tail are there"
    );
    assert!(reported.is_sorted());
}

/// The segments of a spool, in order.
fn segments(spool: &Path) -> Vec<std::path::PathBuf> {
    let mut numbers: Vec<u64> = fs::read_dir(spool)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    numbers.sort_unstable();
    numbers.into_iter().map(|number| spool.join(number.to_string())).collect()
}
