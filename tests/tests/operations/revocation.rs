//! An agent that the control plane does not accept: its results stay on its disk, it goes on as far as it can, and ends at once
//! on SIGTERM.

use std::{
    fs,
    net::SocketAddr,
    path::PathBuf,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use serde_json::json;
use supabase_local::{RequestFault, Target};
use tendril_tests::{AgentSetup, Cluster, Deployment, Program, World, until};

use crate::{
    keys::readiness,
    probe::{free_address, get},
};

/// The drain of a fleet waits for minutes where something runs; here nothing does.
const AT_ONCE: Duration = Duration::from_secs(30);

struct Bench {
    world: World,
    cluster: Cluster,
    setup: AgentSetup,
    addr: SocketAddr,
}

impl Bench {
    async fn start() -> Self {
        let world = World::start().await;
        let cluster = world.cluster().await;
        let addr = free_address();
        let setup = world.agent(&cluster).env("TENDRIL_HEALTH_ADDR", addr.to_string());
        Self { setup: setup.env("TENDRIL_HEARTBEAT", "1s"), world, cluster, addr }
    }

    async fn revoke(&self) {
        let revoke = "update public.clusters set revoked_at = now() where id = $1";
        self.world.database.execute(revoke, &[&self.cluster.id]).await.expect("it is revoked");
    }

    fn workspace(&self, job: &Deployment) -> PathBuf {
        PathBuf::from(self.setup.cli.work_dir.as_deref().expect("a directory")).join(format!("{}.1", job.id))
    }

    async fn result_on_disk(&self, job: &Deployment) -> serde_json::Value {
        let file = self.workspace(job).join("result.json");
        until("the result is on the disk", async || {
            let text = fs::read_to_string(&file).map_err(|error| error.to_string())?;
            serde_json::from_str(&text).map_err(|error| error.to_string())
        })
        .await
    }

    async fn stops_at_once(&self, mut agent: Program) {
        let requested = Instant::now();
        agent.signal(Signal::TERM);
        assert_eq!(agent.ended().await.code(), Some(0), "{}", agent.output());
        assert!(requested.elapsed() < AT_ONCE, "{:?}: {}", requested.elapsed(), agent.output());
    }

    /// The next start takes no job, changes nothing on disk, and is alive.
    async fn lives_again(&self, job: &Deployment) {
        let agent = self.setup.start();
        agent.says("this cluster was revoked").await;
        readiness(self.addr, 503, "was revoked").await;
        assert_eq!(get(self.addr, "/healthz").map(|(status, _)| status), Some(200));
        self.stops_at_once(agent).await;
        assert!(self.workspace(job).join("claim.json").exists(), "it stays");
    }
}

#[tokio::test]
async fn the_result_of_an_apply_whose_cluster_was_revoked_stays_on_the_disk() {
    let bench = Bench::start().await;
    let agent = bench.setup.start();
    let gate = bench.world.path("gate");
    let job =
        bench.cluster.queue(json!({"template": "count", "variables": {"lines": 50, "gate": gate}})).await;
    job.says("at the gate").await;
    bench.revoke().await;
    readiness(bench.addr, 503, "was revoked").await;
    assert!(
        get(bench.addr, "/status").expect("an answer").1.contains("\"phase\": \"APPLY\""),
        "it still runs"
    );
    fs::write(&gate, "").expect("the gate opens");
    let end = bench.result_on_disk(&job).await;
    assert_eq!(end["status"], "SUCCESS", "{end}");
    assert_eq!(end["outputs"]["counted"], 50, "{end}");
    bench.stops_at_once(agent).await;
    bench.lives_again(&job).await;
    assert_eq!(bench.result_on_disk(&job).await, end, "it is what it was");
}

#[tokio::test]
async fn an_apply_that_goes_on_without_its_agent_is_left_alone_when_its_cluster_was_revoked() {
    let bench = Bench::start().await;
    let mut agent = bench.setup.start();
    let gate = bench.world.path("gate");
    let job =
        bench.cluster.queue(json!({"template": "count", "variables": {"lines": 50, "gate": gate}})).await;
    job.says("at the gate").await;
    agent.signal(Signal::KILL);
    agent.ended().await;
    bench.setup.executors().signal(Signal::KILL);
    bench.revoke().await;
    let again = bench.setup.start();
    readiness(bench.addr, 503, "was revoked").await;
    bench.stops_at_once(again).await;
    let again = bench.setup.start();
    readiness(bench.addr, 503, "was revoked").await;
    fs::write(&gate, "").expect("the gate opens");
    until("terraform has ended by itself", async || {
        let exit = fs::read_to_string(bench.workspace(&job).join("exit.json")).unwrap_or_default();
        if exit.contains("\"code\":0") { Ok(()) } else { Err(exit) }
    })
    .await;
    bench.stops_at_once(again).await;
}

#[tokio::test]
async fn a_run_of_a_revoked_cluster_that_has_not_begun_its_apply_does_not_begin_it() {
    let bench = Bench::start().await;
    let agent = bench.setup.start();
    let order = json!({"template": "count", "stack": "s", "approval": true, "variables": {"lines": 2}});
    let job = bench.cluster.queue(order).await;
    job.becomes("rests in APPROVAL", |row| row.phase.as_deref() == Some("APPROVAL")).await;
    bench.revoke().await;
    readiness(bench.addr, 503, "was revoked").await;
    bench.stops_at_once(agent).await;
    bench.lives_again(&job).await;
}

/// What stands in front of a project may refuse an agent for a while: a gateway, a firewall, a project that is paused.
#[tokio::test]
async fn an_agent_that_is_refused_at_its_start_is_not_ready_and_recovers_by_itself() {
    let bench = Bench::start().await;
    let Some(stack) = bench.world.project.stack("requests are refused") else { return };
    for code in [401, 403, 404, 503] {
        let beats = Target::all().path("/rest/v1/rpc/agent_heartbeat");
        let fault = stack.faults().on_requests(RequestFault::Status { code, retry_after: None }, beats);
        let agent = bench.setup.start();
        readiness(bench.addr, 503, "the last heartbeat failed").await;
        assert_eq!(get(bench.addr, "/healthz").map(|(status, _)| status), Some(200), "{code}");
        until("it has tried again", async || match fault.struck() {
            0..=1 => Err("once".to_owned()),
            _ => Ok(()),
        })
        .await;
        if code != 503 {
            agent.says("tries again until it is accepted").await;
        }
        fault.lift();
        readiness(bench.addr, 200, "ready").await;
        let job = bench.cluster.queue(json!({"template": "count", "variables": {"lines": 2}})).await;
        assert_eq!(job.ended().await.status, "SUCCESS", "{code}: {}", agent.output());
        bench.stops_at_once(agent).await;
    }
}
