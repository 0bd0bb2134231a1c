//! What a fleet of idle agents costs a project, and how soon one of them claims a job.
//!
//! `make bench`, or `cargo bench -p tendril-tests --bench fleet`; `-- --check` fails where a bound is missed. Agents, portals and the
//! local stack are in this process; the database is a real PostgreSQL beside it.
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "a measurement that cannot be made ends the program"
)]

use std::{
    fs,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::StreamExt as _;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::{Value, json};
use supabase_local::{RequestFault, Stack, Target};
use tendril_realtime::{ChangeEvent, Client, PostgresChanges};
use tendril_tests::{Bound, Cluster, InsideAgent, Measurements, World, until_within};
use tokio::time::{interval, sleep};

/// How many agents are measured, each in a cluster of its own. What more of them cost is computed from the two.
const FLEETS: [usize; 2] = [100, 1000];
/// For so many it is computed.
const LARGE: usize = 10_000;
/// Open pages of a portal: each follows everything that its user may see.
const PORTALS: usize = 20;
/// How long an idle fleet is watched: each agent beats once in it.
const WINDOW: Duration = Duration::from_secs(60);
/// A fleet has started when no change of its start has reached a portal for so long.
const SETTLE: Duration = Duration::from_secs(10);
/// How many seconds the agents may take to start.
const START: u64 = 600;
/// Jobs whose way from insert to claim is timed.
const JOBS: usize = 200;
/// Between two of them.
const PACE: Duration = Duration::from_millis(100);
/// Unit of the times in `/proc/<pid>/stat`: Linux has shown 100 ticks a second to programs since ever.
const TICKS: f64 = 100.0;

#[tokio::main]
async fn main() -> ExitCode {
    let Some(mut measurements) = Measurements::from_args() else { return ExitCode::SUCCESS };
    allow_many_descriptors();
    let world = World::start().await;
    let Some(stack) = world.project.stack("its requests are counted") else { return ExitCode::SUCCESS };
    let owner = world.cluster().await;
    let seen = Arc::new(AtomicU64::new(0));
    let mut portals = Vec::new();
    for _ in 0..PORTALS {
        portals.push(portal(&owner, Arc::clone(&seen)).await);
    }
    let mut fleet = Fleet { owner, clusters: Vec::new(), agents: Vec::new() };
    let mut idle = Vec::new();
    for size in FLEETS {
        fleet.grow(&world, size, &seen).await;
        idle.push(Idle::watch(&world, stack, &seen).await);
        report(size, &idle[idle.len() - 1], &mut measurements);
    }
    extrapolate(&idle, &mut measurements);
    // A portal costs the local stack an evaluation of each change, in the same thread that notifies the agents.
    for portal in portals {
        portal.shutdown().await;
    }
    claims(&world, &fleet, &mut measurements).await;
    fleet.stop().await;
    measurements.finish()
}

/// Each agent has a websocket and an HTTP connection, and this process has both ends of both.
fn allow_many_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    setrlimit(Resource::Nofile, raised).expect("the limit of descriptors is raised");
}

/// An open page: its user's client, which counts the changes that arrive.
async fn portal(owner: &Cluster, seen: Arc<AtomicU64>) -> Client {
    let client = owner.as_user();
    let all = PostgresChanges::in_schema("public");
    let mut changes =
        client.channel("portal").postgres_changes::<Value>(all).subscribe().await.expect("a portal");
    tokio::spawn(async move {
        while let Some(event) = changes.next().await {
            if !matches!(event, Ok(ChangeEvent::Resync(_)) | Err(_)) {
                seen.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    client
}

/// Agents, each in a cluster of its own.
struct Fleet {
    owner: Cluster,
    clusters: Vec<Cluster>,
    agents: Vec<InsideAgent>,
}

impl Fleet {
    /// Starts agents until there are so many, and waits until they get broadcasts.
    async fn grow(&mut self, world: &World, size: usize, seen: &AtomicU64) {
        while self.agents.len() < size {
            let cluster = world.cluster_of(&self.owner).await;
            let mut setup = world.agent(&cluster).stand_in();
            setup.cli.startup_jitter = Some("10s".to_owned());
            self.agents.push(setup.start_inside());
            self.clusters.push(cluster);
            // The agents that run have a share of this thread too.
            tokio::task::yield_now().await;
        }
        until_within(START, &format!("{size} agents are online and requested broadcasts"), async || {
            let ready = "select least((select count(*) from public.clusters where status = 'ONLINE'),
                (select count(*) from tendril.broadcast_requests))";
            let ready: i64 = world.database.query_one(ready, &[]).await.expect("a count").get(0);
            if usize::try_from(ready).expect("a count") >= size { Ok(()) } else { Err(ready.to_string()) }
        })
        .await;
        // Each cluster that came ONLINE is a change for each portal, and they wait in line.
        let mut before = None;
        while before.replace(seen.load(Ordering::Relaxed)) != Some(seen.load(Ordering::Relaxed)) {
            sleep(SETTLE).await;
        }
    }

    async fn stop(self) {
        for agent in self.agents {
            agent.stop().await;
        }
    }
}

/// What an idle fleet does in the window, per second.
struct Idle {
    requests: f64,
    /// Of the database, in cores.
    cpu: f64,
    /// Row changes that reached the portals.
    received: u64,
    /// Rows of published tables that were written.
    written: i64,
    /// Messages in `realtime.messages`.
    messages: i64,
}

impl Idle {
    async fn watch(world: &World, stack: &Stack, seen: &AtomicU64) -> Self {
        let requests = stack.faults().on_requests(RequestFault::Delay(Duration::ZERO), Target::all());
        let (received, (written, messages)) = (seen.load(Ordering::Relaxed), published(world).await);
        let cpu = database_cpu(world).await;
        let began = Instant::now();
        sleep(WINDOW).await;
        let seconds = began.elapsed().as_secs_f64();
        let cpu = (database_cpu(world).await - cpu) / seconds;
        #[expect(clippy::cast_precision_loss, reason = "a count of requests in a minute")]
        let rate = requests.struck() as f64 / seconds;
        requests.lift();
        // Each connection of the database hands in its counts within a second or so of its last statement.
        sleep(Duration::from_secs(2)).await;
        let (now_written, now_messages) = published(world).await;
        Self {
            requests: rate,
            cpu,
            received: seen.load(Ordering::Relaxed) - received,
            written: now_written - written,
            messages: now_messages - messages,
        }
    }
}

/// Rows that were ever written in published tables, and messages.
async fn published(world: &World) -> (i64, i64) {
    let query = "select coalesce(sum(n_tup_ins + n_tup_upd + n_tup_del), 0)::bigint, (select count(*) from realtime.messages)
        from pg_stat_user_tables s
        join pg_publication_tables p on p.schemaname = s.schemaname and p.tablename = s.relname
        where p.pubname = 'supabase_realtime'";
    let row = world.database.query_one(query, &[]).await.expect("the counts");
    (row.get(0), row.get(1))
}

/// Processor time of all processes of the database since their start, in seconds.
async fn database_cpu(world: &World) -> f64 {
    let own: i32 =
        world.database.query_one("select pg_backend_pid()", &[]).await.expect("a process id").get(0);
    let postmaster = stat(own).expect("the connection's process").parent;
    let mut ticks = stat(postmaster).expect("the database's process").with_ended_children();
    for entry in fs::read_dir("/proc").expect("/proc") {
        let pid = entry.ok().and_then(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        if let Some(process) = pid.and_then(stat).filter(|process| process.parent == postmaster) {
            ticks += process.own;
        }
    }
    ticks / TICKS
}

struct Process {
    parent: i32,
    own: f64,
    ended_children: f64,
}

impl Process {
    fn with_ended_children(&self) -> f64 {
        self.own + self.ended_children
    }
}

/// None: it has ended.
fn stat(pid: i32) -> Option<Process> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may hold anything; what follows its closing bracket are numbers.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |at: usize| fields.get(at)?.parse::<f64>().ok();
    Some(Process {
        parent: fields.get(1)?.parse().ok()?,
        own: ticks(11)? + ticks(12)?,
        ended_children: ticks(13)? + ticks(14)?,
    })
}

#[expect(clippy::cast_precision_loss, reason = "small counts")]
fn report(size: usize, idle: &Idle, table: &mut Measurements) {
    let what =
        format!("{size} idle agents, {PORTALS} portals, {} s: published rows written", WINDOW.as_secs());
    table.row(&what, idle.written as f64, 0, "", Bound::AtMost(0.0), "");
    table.row("  row changes that reached a portal", idle.received as f64, 0, "", Bound::AtMost(0.0), "");
    table.row("  broadcasts", idle.messages as f64, 0, "", Bound::AtMost(0.0), "");
    table.row("  requests", idle.requests, 2, "/s", Bound::None, "");
    table.row("  processor of the database", idle.cpu * 100.0, 2, "%", Bound::None, "of one core");
}

/// A straight line through both.
#[expect(clippy::cast_precision_loss, reason = "small counts")]
fn extrapolate(idle: &[Idle], table: &mut Measurements) {
    let [few, many] = idle else { return };
    let line = |few: f64, many: f64| {
        let each = (many - few) / (FLEETS[1] - FLEETS[0]) as f64;
        many + each * (LARGE - FLEETS[1]) as f64
    };
    let what = format!("{LARGE} idle agents (computed): requests");
    let requests = line(few.requests, many.requests);
    table.row(&what, requests, 0, "/s", Bound::AtMost(185.0), "aim: <= 170 /s");
    let cpu = line(few.cpu, many.cpu) * 100.0;
    table.row("  processor of the database", cpu, 0, "%", Bound::None, "of one core");
}

/// From insert to claim, by the database's clock, for jobs of clusters here and there in the fleet.
async fn claims(world: &World, fleet: &Fleet, table: &mut Measurements) {
    let mut pace = interval(PACE);
    let mut jobs = Vec::new();
    for number in 0..JOBS {
        pace.tick().await;
        let cluster = &fleet.clusters[number * 7919 % fleet.clusters.len()];
        let variables = json!({"ledger": world.path("ledger"), "ticket": number.to_string()});
        jobs.push(cluster.queue(json!({"template": "ticket", "variables": variables})).await);
    }
    for job in &jobs {
        let row = job.ended().await;
        assert_eq!(row.status, "SUCCESS", "{row:?}");
    }
    let ids: Vec<_> = jobs.iter().map(|job| job.id).collect();
    let query = "select (extract(epoch from claimed_at - created_at) * 1000)::float8 from public.deployments where id = any($1)";
    let rows = world.database.query(query, &[&ids]).await.expect("the times");
    let mut times: Vec<f64> = rows.iter().map(|row| row.get(0)).collect();
    times.sort_by(f64::total_cmp);
    let at = |percent: usize| times[(times.len() * percent / 100).min(times.len() - 1)];
    let what = format!("insert -> claimed, {JOBS} jobs in a fleet of {}: p50", fleet.agents.len());
    table.row(&what, at(50), 1, "ms", Bound::AtMost(30.0), "");
    table.row("  p95", at(95), 1, "ms", Bound::None, "");
    table.row("  p99", at(99), 1, "ms", Bound::AtMost(50.0), "aim: <= 25 ms");
}
