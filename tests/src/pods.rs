//! An agent whose runs are pods: a world, a cluster of Kubernetes, and what the agent is started with.

use std::{
    fs,
    path::PathBuf,
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::{
    agent::AgentSetup,
    cluster::Cluster,
    deployment::{Deployment, Row},
    kubernetes::{AGENT_TOKEN, ApiServer},
    program::{self, Program},
    wait::until,
    world::{World, fixtures, repository},
};

/// The image of runs.
pub const IMAGE: &str = "localhost/tendril-agent:test";

/// Everything that an agent whose runs are pods needs.
#[derive(Debug)]
pub struct Pods {
    /// The project, and a scratch directory.
    pub world: World,
    /// The cluster of the deployments, as the control plane has it.
    pub cluster: Cluster,
    /// The stand-in for the cluster of Kubernetes.
    pub api: ApiServer,
    /// Rules of `--service-account-map`.
    pub rules: Value,
    /// Variables of runs.
    pub env: Vec<(&'static str, String)>,
    /// Variables of the agent.
    pub agent_env: Vec<(&'static str, String)>,
}

impl Pods {
    /// Starts the project and the stand-in; the agent is started by [`agent`](Self::agent).
    pub async fn start() -> Self {
        let world = World::start().await;
        let cluster = world.cluster().await;
        let api = ApiServer::start().await;
        let agent = program::agent();
        api.add_image(IMAGE, &[agent.to_str().expect("a path")]);
        let env = vec![
            ("PATH", path()),
            ("TENDRIL_TEMPLATES_DIR", repository("tests/fixtures/templates").display().to_string()),
            ("TENDRIL_STATE_BACKEND", "pg".to_owned()),
            ("PG_CONN_STR", format!("{}?sslmode=disable", world.project.database_url)),
            ("TENDRIL_HEARTBEAT", "1s".to_owned()),
            ("TENDRIL_INFRACOST", "off".to_owned()),
        ];
        let rules = json!([{"stacks": ["*"], "serviceAccount": "tendril-run"}]);
        Self { world, cluster, api, rules, env, agent_env: Vec::new() }
    }

    /// The agent, not started yet.
    pub fn setup(&self) -> AgentSetup {
        let (map, template) = (self.world.path("map.json"), self.world.path("pod.json"));
        fs::write(&map, self.rules.to_string()).expect("the map");
        fs::write(&template, self.pod_template().to_string()).expect("the template");
        let text = |path: &PathBuf| path.display().to_string();
        let mut setup = self
            .world
            .agent(&self.cluster)
            .env("KUBECONFIG", text(&self.api.kubeconfig(AGENT_TOKEN)))
            .env("TENDRIL_LAUNCHER", "kubernetes")
            .env("TENDRIL_RUN_IMAGE", IMAGE)
            .env("TENDRIL_SERVICE_ACCOUNT_MAP", text(&map))
            .env("TENDRIL_POD_TEMPLATE", text(&template))
            .env("TENDRIL_STATE_BACKEND", "pg")
            .env("PG_CONN_STR", format!("{}?sslmode=disable", self.world.project.database_url))
            .env("TENDRIL_INFRACOST", "off")
            // Sixty seconds are a long time for a test.
            .env("TENDRIL_APPLY_CANCEL_GRACE", "20s")
            .env("TENDRIL_PLAN_CANCEL_GRACE", "20s")
            .concurrency(20);
        setup.cli.heartbeat = Some("1s".to_owned());
        for (name, value) in &self.agent_env {
            setup = setup.env(name, value.clone());
        }
        setup
    }

    fn pod_template(&self) -> Value {
        let env: Vec<Value> =
            self.env.iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
        json!({"spec": {"containers": [{"name": "run", "env": env}]}})
    }

    /// Starts an agent, with a work directory of its own.
    pub fn agent(&self) -> Program {
        self.setup().start()
    }

    /// Runs have the stand-in instead of Terraform, which takes no time: for what [`ticket`](Self::ticket) describes.
    pub fn stand_in(&mut self) {
        self.env.push(("TENDRIL_TERRAFORM", fixtures("terraform-stand-in").display().to_string()));
    }

    /// A deployment of a stack for the stand-in.
    pub fn ticket(&self, stack: &str) -> Value {
        json!({"template": "ticket", "stack": stack, "variables": {"ledger": self.world.path("ledger"), "ticket": stack}})
    }

    /// Queues a deployment.
    pub async fn queue(&self, config: Value) -> Deployment {
        self.cluster.queue(config).await
    }

    /// A deployment that stops half way until its gate is opened; answers both.
    pub async fn queue_gated(&self, stack: &str) -> (Deployment, PathBuf) {
        let gate = self.world.path(&format!("gate-{stack}"));
        let config = json!({"template": "count", "stack": stack, "variables": {"lines": 4, "gate": gate}});
        (self.queue(config).await, gate)
    }

    /// The same, once its apply has come to the gate.
    pub async fn at_the_gate(&self, stack: &str) -> (Deployment, PathBuf) {
        let (job, gate) = self.queue_gated(stack).await;
        job.says("at the gate").await;
        (job, gate)
    }

    /// Name of the Job of a deployment's attempt.
    pub fn job_name(deployment: &Deployment, attempt: i32) -> String {
        format!("tendril-{}-{attempt}", deployment.id)
    }

    /// A Job.
    pub fn job(&self, name: &str) -> Option<Arc<Value>> {
        self.api.jobs().into_iter().find(|job| job["metadata"]["name"] == name)
    }

    /// Waits until the pod of a Job is there and fits.
    pub async fn pod(&self, job: &str, what: &str, fits: impl Fn(&Value) -> bool) -> Arc<Value> {
        until(&format!("the pod of {job} {what}"), async || {
            let pod = self.api.pod_of(job);
            match pod {
                Some(pod) if fits(&pod) => Ok(pod),
                Some(pod) => Err(pod["status"].to_string()),
                None => Err("no pod".to_owned()),
            }
        })
        .await
    }

    /// Waits until the pod of a Job runs.
    pub async fn runs(&self, job: &str) -> Arc<Value> {
        self.pod(job, "runs", |pod| pod["status"]["phase"] == "Running").await
    }

    /// Nobody extends the lease of a run for so many minutes, and the database looks.
    pub async fn silent_for(&self, deployment: &Deployment, minutes: i32) {
        let query = "update tendril.leases set last_heartbeat_at = now() - make_interval(mins => $2) where deployment_id = $1";
        self.world.database.execute(query, &[&deployment.id, &minutes]).await.expect("time passes");
        self.world.database.execute("select public.reap_lost_agents()", &[]).await.expect("the reaper");
    }

    /// A run in its apply is not heard of for so long that the database says `UNKNOWN`.
    pub async fn fall_silent(&self, deployment: &Deployment) {
        until("nobody extends its lease", async || {
            self.silent_for(deployment, 2).await;
            let row = deployment.row().await;
            if row.phase.as_deref() == Some("UNKNOWN") { Ok(()) } else { Err(format!("{row:?}")) }
        })
        .await;
    }

    /// Waits until a row says why its run does not start.
    pub async fn says(&self, deployment: &Deployment, part: &str) -> Row {
        deployment
            .becomes(&format!("says {part}"), |row| {
                row.error_message.as_deref().is_some_and(|message| message.contains(part))
            })
            .await
    }
}

/// What an agent costs that watches many Jobs, and has nothing to do.
#[derive(Debug)]
pub struct IdleCost {
    /// Jobs that it watches, each with a pod.
    pub jobs: usize,
    /// Resident memory.
    pub mebibytes: f64,
    /// Requests to the API server in a minute.
    pub requests: usize,
    /// What they were.
    pub asked: Vec<String>,
}

impl Pods {
    /// From the claim of a deployment, by the database's clock, to the request for its Job: milliseconds.
    pub async fn claim_to_job(&self, job: &Deployment) -> f64 {
        let query = "select extract(epoch from claimed_at)::float8 from public.deployments where id = $1";
        let claimed: f64 = self.world.database.query_one(query, &[&job.id]).await.expect("the row").get(0);
        let asked = self.api.asked().into_iter();
        let mut posts = asked.filter(|asked| asked.method == "POST" && asked.path.contains("/jobs"));
        let at = posts.next_back().expect("it was created").at.duration_since(UNIX_EPOCH).expect("a time");
        assert!(self.job(&Self::job_name(job, 1)).is_some(), "that was its Job");
        (at.as_secs_f64() - claimed) * 1000.0
    }

    /// Has an agent watch so many Jobs as it makes them, each with a pod and without anybody who runs them, for a minute.
    pub async fn watch_many(&mut self, count: usize) -> IdleCost {
        self.stand_in();
        let mut first = self.agent();
        let run = self.queue(self.ticket("a")).await;
        assert_eq!(run.ended().await.status, "SUCCESS");
        first.signal(Signal::TERM);
        first.ended().await;
        self.api.set_controller_down(true);
        self.api.copy_run(&Self::job_name(&run, 1), &run.id.to_string(), count);
        let agent = self.agent();
        self.cluster.online().await;
        until("both watches are open", async || {
            let watches = self.api.asked().iter().filter(|asked| asked.path.contains("watch=true")).count();
            if watches >= 4 { Ok(()) } else { Err(format!("{watches}")) }
        })
        .await;
        let before = self.api.asked().len();
        sleep(Duration::from_secs(60)).await;
        let asked: Vec<String> = self.api.asked()[before..]
            .iter()
            .map(|asked| format!("{} {}", asked.method, asked.path))
            .collect();
        let status = fs::read_to_string(format!("/proc/{}/status", agent.pid())).expect("its status");
        let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib: f64 =
            kib.and_then(|kib| kib.trim().trim_end_matches(" kB").parse().ok()).expect("its memory");
        IdleCost { jobs: self.api.jobs().len(), mebibytes: kib / 1024.0, requests: asked.len(), asked }
    }
}

fn path() -> String {
    let mut dirs = vec![repository(".tools/bin")];
    dirs.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
    std::env::join_paths(dirs).expect("a PATH").into_string().expect("text")
}
