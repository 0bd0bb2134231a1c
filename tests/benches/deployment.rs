//! How fast, how light, how many: a table of distributions and ratios.
//!
//! `make bench`, or `cargo bench -p tendril-tests --bench deployment`; `-- --check` fails where a bound is missed.
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a measurement that cannot be made ends the program"
)]

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    time::{Duration, Instant},
};

use rustix::process::Pid;
use serde_json::json;
use tendril_tests::{
    AgentSetup, Bound, Cluster, Deployment, Executors, Measurements, Program, Row, Story, World, fixtures,
};
use tokio::time::{interval, sleep};

/// Jobs whose way from insert to claim is timed.
const JOBS: usize = 200;
/// Between two of them: the queue is empty when a job comes.
const INTERVAL: Duration = Duration::from_millis(100);
/// Jobs whose way from claim to terraform is timed, with each launcher.
const STARTS: usize = 50;
/// How long an idle agent is watched.
const IDLE: Duration = Duration::from_secs(20);
/// Runs of each kind that are compared.
const TURNS: usize = 5;
/// Lines of the long run.
const LINES: usize = 100_000;
/// Unit of the times in `/proc/<pid>/stat`: Linux has shown 100 ticks a second to programs since ever.
const TICKS: f64 = 100.0;

#[tokio::main]
async fn main() -> ExitCode {
    let Some(mut measurements) = Measurements::from_args() else { return ExitCode::SUCCESS };
    let table = &mut measurements;
    let world = World::start().await;
    let cluster = world.cluster().await;
    let by_changes = world.agent(&cluster).by_row_changes();
    claims(&world, by_changes, &cluster, "row changes", table).await;
    let cluster = world.cluster().await;
    claims(&world, world.agent(&cluster).by_broadcast(), &cluster, "by broadcast", table).await;
    let cluster = world.cluster().await;
    idle(&world, &cluster, table).await;
    starts(&world, table).await;
    let cluster = world.cluster().await;
    executor(&world, &cluster, table).await;
    let cluster = world.cluster().await;
    flood(&world, &cluster, table).await;
    drop(world);
    apart(table).await;
    measurements.finish()
}

/// From insert to claim, by the database's clock.
async fn claims(world: &World, agent: AgentSetup, cluster: &Cluster, how: &str, table: &mut Measurements) {
    // Inside the agent: what follows a claim is measured below, and would take the cores from the next claim here.
    let _agent = agent.stand_in().in_process().concurrency(64).start();
    let ticket = |n: usize| json!({"template": "ticket", "variables": {"ledger": world.path("ledger"), "ticket": n.to_string()}});
    // The first job finds the agent connected or waits for it: it is not counted.
    cluster.queue(ticket(0)).await.ended().await;
    let mut ticks = interval(INTERVAL);
    let mut deployments = Vec::new();
    for n in 1..=JOBS {
        ticks.tick().await;
        deployments.push(cluster.queue(ticket(n)).await);
    }
    for deployment in &deployments {
        succeeded(deployment).await;
    }
    let ids: Vec<_> = deployments.iter().map(|deployment| deployment.id).collect();
    let query = "select (extract(epoch from claimed_at - created_at) * 1000)::float8 from public.deployments where id = any($1)";
    let rows = world.database.query(query, &[&ids]).await.expect("the times");
    let mut times: Vec<f64> = rows.iter().map(|row| row.get(0)).collect();
    times.sort_by(f64::total_cmp);
    let at = |percent: usize| times[(times.len() * percent / 100).min(times.len() - 1)];
    let what = format!("insert -> claimed, {JOBS} jobs, {how}: p50");
    table.row(&what, at(50), 1, "ms", Bound::AtMost(30.0), "");
    table.row("  p99", at(99), 1, "ms", Bound::AtMost(50.0), "aim: <= 25 ms");
    table.row("  slowest", at(100), 1, "ms", Bound::None, "");
}

/// Memory and processor of an agent that has nothing to do.
async fn idle(world: &World, cluster: &Cluster, table: &mut Measurements) {
    let agent = world.agent(cluster).start();
    cluster.online().await;
    // The connection and the first list are part of the start.
    agent.says("connected").await;
    let before = cpu(&agent);
    sleep(IDLE).await;
    let busy = cpu(&agent) - before;
    table.row(
        "idle agent: resident memory",
        resident(agent.pid()),
        1,
        "MiB",
        Bound::AtMost(12.5),
        "aim: <= 12",
    );
    let share = busy / IDLE.as_secs_f64() * 100.0;
    let what = format!("idle agent: processor over {} s", IDLE.as_secs());
    table.row(&what, share, 2, "%", Bound::AtMost(0.5), "of one core");
}

/// From claim to the start of terraform: the executor's start, its workspace, and the variables.
async fn starts(world: &World, table: &mut Measurements) {
    // Runs with users of their own write here too.
    let open = world.open_scratch();
    let [program, notes, ledger] = ["terraform-noted", "starts", "ledger"].map(|name| open.path().join(name));
    for file in [&notes, &ledger] {
        fs::write(file, "").expect("a file");
        fs::set_permissions(file, fs::Permissions::from_mode(0o666)).expect("a file for everybody");
    }
    // Without another process: bash knows the time.
    let script = format!(
        "#!/bin/bash\n[ \"$1\" != init ] || echo \"$TF_DATA_DIR $EPOCHREALTIME\" >>'{}'\nexec '{}' \"$@\"\n",
        notes.display(),
        fixtures("terraform-stand-in").display()
    );
    fs::write(&program, script).expect("a script");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("a program");
    for (launcher, users) in [("local", false), ("local", true), ("in-process", false)] {
        if users && !rustix::process::geteuid().is_root() {
            continue;
        }
        // A cluster of its own: agents of one cluster keep local states in one place, and runs with users need another place.
        let cluster = world.cluster().await;
        let agent = world.agent(&cluster).terraform(&program).env("TENDRIL_LAUNCHER", launcher);
        let agent = if users { agent.with_users_of_runs(open.path()) } else { agent };
        let name = format!("{launcher}{}", if users { ", users of runs" } else { "" });
        let agent = agent.name(&name).start();
        let ticket = |n: usize| json!({"template": "ticket", "stack": format!("{launcher}-{users}"), "variables": {"ledger": ledger, "ticket": format!("{launcher}-{users}-{n}")}});
        let mut times = Vec::new();
        for n in 0..=STARTS {
            let deployment = cluster.queue(ticket(n)).await;
            succeeded(&deployment).await;
            let query = "select extract(epoch from claimed_at)::float8 from public.deployments where id = $1";
            let claimed: f64 =
                world.database.query_one(query, &[&deployment.id]).await.expect("the time").get(0);
            let lines = fs::read_to_string(&notes).expect("a start was noted");
            let line = lines.lines().rev().find(|line| line.contains(&deployment.id.to_string()));
            let (_, started) = line.and_then(|line| line.rsplit_once(' ')).expect("its start");
            // The first one finds nothing in memory: it is not counted.
            if n > 0 {
                times.push((started.parse::<f64>().expect("a time") - claimed) * 1000.0);
            }
        }
        drop(agent);
        times.sort_by(f64::total_cmp);
        let at = |percent: usize| times[(times.len() * percent / 100).min(times.len() - 1)];
        let bound = if launcher == "local" { Bound::AtMost(120.0) } else { Bound::None };
        let what = format!("claimed -> terraform started, {STARTS} jobs, --launcher {name}: p50");
        table.row(&what, at(50), 1, "ms", bound, if launcher == "local" { "aim: <= 60 ms" } else { "" });
        table.row("  p95", at(95), 1, "ms", Bound::None, "");
    }
}

/// Memory of what stands beside a terraform that applies.
async fn executor(world: &World, cluster: &Cluster, table: &mut Measurements) {
    let story = Story { lines: 5000, burst: 500, ..Story::with_gate(world, "apply") };
    let setup = world.agent(cluster).narrator();
    let executors = setup.executors();
    let agent = setup.start();
    let deployment = cluster.queue(story.config()).await;
    deployment.says("at the gate").await;
    let of = |pids: Vec<Pid>| resident(pids.first().expect("it runs").as_raw_nonzero().get().cast_unsigned());
    let note = "after 5,000 lines, beside terraform; aim: <= 15";
    table.row("executor: resident memory", of(executors.running()), 1, "MiB", Bound::AtMost(15.0), note);
    let note = "the parent process that keeps the exit code of an apply";
    table.row("  keeper", of(executors.keepers()), 1, "MiB", Bound::None, note);
    table.row("  dispatcher meanwhile", resident(agent.pid()), 1, "MiB", Bound::None, "");
    story.go_on();
    succeeded(&deployment).await;
}

/// One run of very many lines: how fast they are stored, in how many requests, and whether Terraform had to wait.
async fn flood(world: &World, cluster: &Cluster, table: &mut Measurements) {
    let stopwatch = Stopwatch::new(world, None);
    let setup = world.agent(cluster).terraform(&stopwatch.program);
    let (agent, executors) = (setup.start(), setup.executors());
    cluster.online().await;
    let started = Instant::now();
    let deployment = cluster.queue(json!({"template": "count", "variables": {"lines": LINES}})).await;
    let (row, mut most) = loop_until_ended(&agent, &executors, &deployment).await;
    let took = started.elapsed().as_secs_f64();
    assert_eq!(row.status, "SUCCESS", "{row:?}");
    most = most.max(resident(agent.pid()));

    // Each request is one transaction.
    let query =
        "select count(distinct xmin::text), count(*), coalesce(sum(octet_length(log_chunk)), 0)::bigint,
            sum(array_length(string_to_array(log_chunk, E'\\n'), 1) - 1)::bigint
        from public.deployment_logs where deployment_id = $1";
    let counts = world.database.query_one(query, &[&deployment.id]).await.expect("the log");
    let count = |column: usize| counts.get::<_, i64>(column);
    let (requests, chunks, bytes, lines) = (count(0), count(1), count(2), count(3));
    let per_second = |number: i64| ratio(number) / took;
    table.row(&format!("{LINES} lines in one run: queued to stored"), took, 1, "s", Bound::None, "");
    let note = format!("{lines} lines, {:.1} MiB", ratio(bytes) / 1_048_576.0);
    table.row("  lines stored", per_second(lines), 0, "/s", Bound::None, &note);
    // The first comes at once; a rate counts what follows.
    let note = format!("{requests} in all");
    table.row("  requests that store lines", per_second(requests - 1), 1, "/s", Bound::AtMost(2.1), &note);
    let note = format!("{chunks} in all");
    table.row("  rows (messages over Realtime)", per_second(chunks), 1, "/s", Bound::None, &note);
    table.row("  dispatcher and executor: most resident memory", most, 1, "MiB", Bound::AtMost(128.0), "");
    compare(world, cluster, &stopwatch, "all share the cores", table).await;
}

/// The same with Terraform on a core of its own: the agent's work is then not Terraform's time, only its waiting is.
async fn apart(table: &mut Measurements) {
    let taskset = |cores: &str| {
        let me = std::process::id().to_string();
        let set = Command::new("taskset").args(["-a", "-c", "-p", cores, &me]).stdout(Stdio::null()).status();
        set.is_ok_and(|status| status.success())
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    // What is started from here on stays on the first core, but for Terraform.
    if cores < 2 || !taskset("0") {
        println!("terraform apply on a core of its own: not measured; it needs two cores and taskset");
        return;
    }
    let world = World::start().await;
    let cluster = world.cluster().await;
    let stopwatch = Stopwatch::new(&world, Some("taskset -c 1"));
    compare(&world, &cluster, &stopwatch, "on a core of its own", table).await;
    taskset(&format!("0-{}", cores - 1));
}

/// Terraform's own run time with its output in a file and under the agent, in turns, so that whatever else the machine does
/// meets both.
async fn compare(
    world: &World,
    cluster: &Cluster,
    stopwatch: &Stopwatch,
    how: &str,
    table: &mut Measurements,
) {
    let agent = world.agent(cluster).terraform(&stopwatch.program).start();
    cluster.online().await;
    let (mut alone, mut under) = (Vec::new(), Vec::new());
    for turn in 0..TURNS {
        alone.push(stopwatch.time_alone(&world.path(&format!("alone-{turn}"))));
        let deployment = cluster.queue(json!({"template": "count", "variables": {"lines": LINES}})).await;
        succeeded(&deployment).await;
        under.push(stopwatch.last_apply());
    }
    drop(agent);
    let [alone, under] = [alone, under].map(|mut times| {
        times.sort_by(f64::total_cmp);
        times[TURNS / 2]
    });
    table.row(&format!("terraform apply, output to a file; {how}"), alone, 2, "s", Bound::None, "");
    table.row("  under the agent", under, 2, "s", Bound::None, "");
    let note = "1: it never waited; aim: <= 1.05";
    table.row("  under the agent against a file", under / alone, 2, "x", Bound::AtMost(1.15), note);
}

async fn loop_until_ended(agent: &Program, executors: &Executors, deployment: &Deployment) -> (Row, f64) {
    let mut most = 0.0_f64;
    loop {
        let row = deployment.row().await;
        let of_executors =
            executors.running().into_iter().map(|pid| pid.as_raw_nonzero().get().cast_unsigned());
        most = most.max(resident(agent.pid()) + of_executors.map(resident).sum::<f64>());
        if row.has_ended() {
            return (row, most);
        }
        sleep(Duration::from_millis(100)).await;
    }
}

async fn succeeded(deployment: &Deployment) {
    let row = deployment.ended().await;
    assert_eq!(row.status, "SUCCESS", "{row:?}");
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn ratio(number: i64) -> f64 {
    number as f64
}

/// A program around terraform that notes how long each `apply` took, with and without the agent.
struct Stopwatch {
    program: PathBuf,
    notes: PathBuf,
}

impl Stopwatch {
    /// `prefix` stands before the command.
    fn new(world: &World, prefix: Option<&str>) -> Self {
        let prefix = prefix.unwrap_or_default();
        let (program, notes) = (world.path("terraform-timed"), world.path("applies"));
        let script = format!(
            "#!/bin/sh\nbegan=$(date +%s%N)\n{prefix} terraform \"$@\"\ncode=$?\n\
             [ \"$1\" != apply ] || echo $(($(date +%s%N) - began)) >>'{}'\nexit $code\n",
            notes.display()
        );
        fs::write(&program, script).expect("a script");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("a program");
        Self { program, notes }
    }

    /// Seconds of the newest apply.
    fn last_apply(&self) -> f64 {
        let notes = fs::read_to_string(&self.notes).expect("an apply was timed");
        notes.lines().last().expect("a time").parse::<f64>().expect("nanoseconds") / 1e9
    }

    /// Seconds of the same apply with its output in a file, the fastest that a pipe's reader can hope to allow.
    fn time_alone(&self, dir: &Path) -> f64 {
        fs::create_dir(dir).expect("a directory");
        for file in ["main.tf", "count.sh"] {
            fs::copy(fixtures("templates/count").join(file), dir.join(file)).expect("a copy");
        }
        let run = |arguments: &[&str]| self.run(dir, arguments);
        run(&["init", "-no-color", "-input=false"]);
        run(&["plan", "-no-color", "-json", "-input=false", &format!("-var=lines={LINES}"), "-out=plan"]);
        run(&["apply", "-no-color", "-json", "-input=false", "plan"]);
        self.last_apply()
    }

    fn run(&self, dir: &Path, arguments: &[&str]) {
        let output = fs::File::create(dir.join("output")).expect("a file");
        let mut command = Command::new(&self.program);
        command.args(arguments).current_dir(dir).stdin(Stdio::null()).stdout(output);
        command
            .env("CHECKPOINT_DISABLE", "1")
            .env("TF_IN_AUTOMATION", "1")
            .env("TF_CLI_CONFIG_FILE", "/dev/null");
        let status = command.status().expect("terraform runs");
        assert!(status.success(), "{arguments:?}: {status}");
    }
}

/// Resident memory in MiB.
fn resident(pid: u32) -> f64 {
    // An executor may have ended a moment ago.
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("0 kB");
    line.trim().trim_end_matches(" kB").parse::<f64>().expect("a number") / 1024.0
}

/// Seconds of processor that it has used.
fn cpu(program: &Program) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", program.pid())).expect("its times (Linux)");
    // The name in parentheses may hold spaces; user and system time are the 12th and 13th fields after it.
    let (_, fields) = stat.rsplit_once(") ").expect("fields");
    fields.split(' ').skip(11).take(2).map(|ticks| ticks.parse::<f64>().expect("ticks")).sum::<f64>() / TICKS
}
