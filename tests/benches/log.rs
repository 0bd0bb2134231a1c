//! A million lines, 100 MB, through one run: what a line costs, how many requests it takes, how soon it is stored, and
//! whether the program that wrote it had to wait.
//!
//! `make bench`, or `cargo bench -p tendril-tests --bench log`; `-- --check` fails where a bound is missed.
#![allow(clippy::expect_used, reason = "a measurement that cannot be made ends the program")]

use std::{
    fs,
    path::Path,
    process::{Command, ExitCode},
    time::{Duration, Instant},
};

use serde_json::json;
use tendril_tests::{Bound, Deployment, Flood, Measurements, Program, World, fixtures, until_within};

/// Lines of the run, of 100 bytes each.
const LINES: u32 = 1_000_000;
/// A million lines a second, for ten seconds.
const DELUGE: u64 = 10_000_000;
/// Runs of each kind that are compared.
const TURNS: usize = 3;
/// The longest that the run may take, in seconds.
const LONGEST: u64 = 300;
/// Unit of the times in `/proc/<pid>/stat`.
const TICKS: f64 = 100.0;

#[tokio::main]
async fn main() -> ExitCode {
    let Some(mut table) = Measurements::from_args() else { return ExitCode::SUCCESS };
    let world = World::start().await;
    steady(&world, &mut table).await;
    flood(&world, &mut table).await;
    outage(&world, &mut table).await;
    deluge(&world, &mut table).await;
    table.finish()
}

/// Ten lines a second, as a person watches them: from the line to its row.
async fn steady(world: &World, table: &mut Measurements) {
    let (_agent, deployment, _took) =
        run(world, "i=0; while [ $i -lt 200 ]; do i=$((i+1)); echo line $i; sleep 0.05; done").await;
    let query =
        "select percentile_cont(array[0.5, 0.99]) within group (order by extract(epoch from created_at - ts))
        from public.deployment_logs where deployment_id = $1 and stream = 'stdout'";
    let times: Vec<f64> = world.database.query_one(query, &[&deployment]).await.expect("times").get(0);
    table.row(
        "first line of a chunk -> row, 20 lines/s: p50",
        times[0] * 1e3,
        0,
        "ms",
        Bound::AtMost(600.0),
        "",
    );
    table.row("  p99", times[1] * 1e3, 0, "ms", Bound::AtMost(2_000.0), "");
}

/// As fast as it goes.
async fn flood(world: &World, table: &mut Measurements) {
    let script =
        format!("awk 'BEGIN {{ for (n = 1; n <= {LINES}; n++) printf \"%-90s %8d\\n\", \"line\", n }}'");
    let file = world.path("alone");
    let timed = Instant::now();
    let output = fs::File::create(&file).expect("a file");
    let alone = Command::new("sh").args(["-c", &script]).stdout(output).status().expect("it runs");
    assert!(alone.success());
    let alone = timed.elapsed().as_secs_f64();

    let stopwatch = world.path("applied");
    let timed =
        format!("began=$(date +%s%N); {script}; echo $(($(date +%s%N) - began)) >'{}'", stopwatch.display());
    let (agent, deployment, took) = run(world, &timed).await;
    let query = "select count(distinct xmin::text), count(*),
            sum(array_length(string_to_array(log_chunk, E'\\n'), 1) - 1)::bigint,
            extract(epoch from max(created_at) - min(created_at))::float8
        from public.deployment_logs where deployment_id = $1 and stream = 'stdout'";
    let counts = world.database.query_one(query, &[&deployment]).await.expect("the log");
    let count = |column: usize| f64::from(i32::try_from(counts.get::<_, i64>(column)).expect("a count"));
    let (requests, chunks, lines, seconds) = (count(0), count(1), count(2), counts.get::<_, f64>(3));
    let all = format!("{LINES} lines, 100 MB: queued to SUCCESS");
    table.row(&all, took, 1, "s", Bound::None, &format!("{lines} lines stored"));
    let per_line = cpu(&agent) / lines * 1e6;
    table.row("  agent: processor per line", per_line, 2, "us", Bound::AtMost(2.0), "all of its life");
    table.row("  agent: most resident memory", most_memory(&agent), 1, "MiB", Bound::AtMost(128.0), "");
    let rate = (requests - 1.0) / seconds;
    table.row(
        "  requests that store lines",
        rate,
        2,
        "/s",
        Bound::AtMost(2.1),
        &format!("{requests} in all"),
    );
    table.row("  rows", chunks / seconds, 0, "/s", Bound::None, &format!("{chunks} in all"));
    table.row("  the program, output to a file", alone, 2, "s", Bound::None, "");
    let applied =
        fs::read_to_string(&stopwatch).expect("it was timed").trim().parse::<f64>().expect("nanoseconds")
            / 1e9;
    table.row("  the program, under the agent", applied, 2, "s", Bound::None, "");
    table.row("  against its output in a file", applied / alone, 2, "x", Bound::AtMost(2.5), "");
}

/// The control plane is away: whether the program is slower meanwhile, and how soon everything is stored afterwards.
async fn outage(world: &World, table: &mut Measurements) {
    let Some(stack) = world.project.stack("the port is closed") else { return };
    let cluster = world.cluster().await;
    let _agent = Flood::agent(world.agent(&cluster)).start();
    cluster.online().await;
    let (mut undisturbed, mut alone, mut stored) = (Vec::new(), Vec::new(), Vec::new());
    for turn in 0..TURNS {
        for away in [false, true] {
            let flood = Flood::new(world, &format!("outage-{turn}-{away}"), u64::from(LINES));
            let deployment = cluster.queue(flood.config()).await;
            deployment.says("at the gate").await;
            stack.faults().close_port(away);
            flood.begin();
            let took = flood.took().await.as_secs_f64();
            if away {
                // As long as it takes the agent to try ever more seldom.
                tokio::time::sleep(Duration::from_secs(20)).await;
                stack.faults().close_port(false);
                let returned = Instant::now();
                ended(&deployment).await;
                stored.push(returned.elapsed().as_secs_f64());
                alone.push(took);
            } else {
                ended(&deployment).await;
                undisturbed.push(took);
            }
            let numbered = deployment.numbered().await;
            assert_eq!(numbered.assert_of(u64::from(LINES)), 0, "{numbered:?}");
        }
    }
    let [undisturbed, alone, stored] = [undisturbed, alone, stored].map(median);
    table.row("outage: the program's run time, undisturbed", undisturbed, 2, "s", Bound::None, "");
    table.row("  in the outage", alone, 2, "s", Bound::None, "");
    let ratio = alone / undisturbed;
    table.row("  in the outage against undisturbed", ratio, 2, "x", Bound::AtMost(1.15), "aim: <= 1.05");
    let what = format!("  from its end to the last of {LINES} lines and the status");
    table.row(&what, stored, 1, "s", Bound::AtMost(60.0), "");
}

/// Ten million lines as fast as they are read.
async fn deluge(world: &World, table: &mut Measurements) {
    let cluster = world.cluster().await;
    let agent = Flood::agent(world.agent(&cluster)).in_process().start();
    cluster.online().await;
    let flood = Flood::new(world, "deluge", DELUGE);
    flood.begin();
    let deployment = cluster.queue(flood.config()).await;
    let took = flood.took().await.as_secs_f64();
    ended(&deployment).await;
    let numbered = deployment.numbered().await;
    let missing = numbered.assert_of(DELUGE);
    let million = |count: u64| f64::from(u32::try_from(count).expect("a count")) / 1e6;
    let what = format!("{DELUGE} lines, 1 GB, as fast as they are read");
    table.row(&what, million(DELUGE) / took, 2, "M/s", Bound::AtLeast(0.5), "aim: >= 1 M/s");
    let note = format!("{:.2} M did not fit the spool; {} marker", million(missing), numbered.markers);
    table.row("  lines stored", million(numbered.lines), 2, "M", Bound::None, &note);
    table.row("  agent: most resident memory", most_memory(&agent), 1, "MiB", Bound::AtMost(128.0), "");
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

async fn ended(deployment: &Deployment) {
    let row = until_within(LONGEST, "the job ends", async || {
        let row = deployment.row().await;
        if row.has_ended() { Ok(row) } else { Err(format!("{row:?}")) }
    })
    .await;
    assert_eq!(row.status, "SUCCESS", "{row:?}");
}

/// Runs a script as the apply of a job; answers the agent, the job, and how long it took to SUCCESS.
async fn run(world: &World, script: &str) -> (Program, uuid::Uuid, f64) {
    let cluster = world.cluster().await;
    let path = world.path("script");
    fs::write(&path, script).expect("a script");
    // The work for a line is the same in an executor; here it is one process that is measured.
    let agent = world.agent(&cluster).terraform(&fixtures("terraform-babbler")).in_process().start();
    cluster.online().await;
    let started = Instant::now();
    let deployment = cluster.queue(json!({"template": "story", "variables": {"script": path}})).await;
    ended(&deployment).await;
    (agent, deployment.id, started.elapsed().as_secs_f64())
}

/// Largest resident memory so far, in MiB.
fn most_memory(program: &Program) -> f64 {
    let status = proc(program, "status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("its memory");
    line.trim().trim_end_matches(" kB").parse::<f64>().expect("a number") / 1024.0
}

/// Seconds of processor that it has used.
fn cpu(program: &Program) -> f64 {
    let stat = proc(program, "stat");
    // The name in parentheses may hold spaces; user and system time are the 12th and 13th fields after it.
    let (_, fields) = stat.rsplit_once(") ").expect("fields");
    fields.split(' ').skip(11).take(2).map(|ticks| ticks.parse::<f64>().expect("ticks")).sum::<f64>() / TICKS
}

fn proc(program: &Program, file: &str) -> String {
    fs::read_to_string(Path::new("/proc").join(program.pid().to_string()).join(file)).expect("Linux")
}
