//! An agent whose runs are pods: a world, a cluster of Kubernetes, and what the agent is started with.

use std::{fs, path::PathBuf, sync::Arc};

use serde_json::{Value, json};
use tendril_tests::{
    AgentSetup, Cluster, Deployment, Program, Row, World,
    kubernetes::{AGENT_TOKEN, ApiServer},
    program, repository, until,
};

/// The image of runs.
pub(crate) const IMAGE: &str = "localhost/tendril-agent:test";

pub(crate) struct Pods {
    pub(crate) world: World,
    pub(crate) cluster: Cluster,
    pub(crate) api: ApiServer,
    /// Rules of `--service-account-map`.
    pub(crate) rules: Value,
    /// Variables of runs.
    pub(crate) env: Vec<(&'static str, String)>,
    /// Variables of the agent.
    pub(crate) agent_env: Vec<(&'static str, String)>,
}

impl Pods {
    pub(crate) async fn start() -> Self {
        let world = World::start().await;
        let cluster = world.cluster().await;
        let api = ApiServer::start().await;
        let agent = program::agent();
        api.add_image(IMAGE, &[agent.to_str().expect("a path")]);
        let env = vec![
            ("PATH", path()),
            ("TENDRIL_TEMPLATES_DIR", repository("tests/fixtures/templates").display().to_string()),
            ("TENDRIL_STATE_BACKEND", "pg".to_owned()),
            ("PG_CONN_STR", world.project.database_url.clone()),
            ("TENDRIL_HEARTBEAT", "1s".to_owned()),
            ("TENDRIL_INFRACOST", "off".to_owned()),
        ];
        let rules = json!([{"stacks": ["*"], "serviceAccount": "tendril-run"}]);
        Self { world, cluster, api, rules, env, agent_env: Vec::new() }
    }

    /// The agent, not started yet.
    pub(crate) fn setup(&self) -> AgentSetup {
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
            .env("PG_CONN_STR", self.world.project.database_url.clone())
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
        // What the pod that keeps a plan reaches the API server with.
        let kubeconfig = self.api.kubeconfig("run-account").display().to_string();
        let variables = self.env.iter().map(|(name, value)| json!({"name": name, "value": value}));
        let env: Vec<Value> = variables.chain([json!({"name": "KUBECONFIG", "value": kubeconfig})]).collect();
        json!({"spec": {"containers": [{"name": "run", "env": env}]}})
    }

    pub(crate) fn agent(&self) -> Program {
        self.setup().start()
    }

    pub(crate) async fn queue(&self, config: Value) -> Deployment {
        self.cluster.queue(config).await
    }

    /// A deployment that stops half way until its gate is opened; answers both.
    pub(crate) async fn queue_gated(&self, stack: &str) -> (Deployment, PathBuf) {
        let gate = self.world.path(&format!("gate-{stack}"));
        let config = json!({"template": "count", "stack": stack, "variables": {"lines": 4, "gate": gate}});
        (self.queue(config).await, gate)
    }

    /// Name of the Job of a deployment's attempt.
    pub(crate) fn job_name(deployment: &Deployment, attempt: i32) -> String {
        format!("tendril-{}-{attempt}", deployment.id)
    }

    pub(crate) fn job(&self, name: &str) -> Option<Arc<Value>> {
        self.api.jobs().into_iter().find(|job| job["metadata"]["name"] == name)
    }

    /// Waits until the pod of a Job is there and fits.
    pub(crate) async fn pod(&self, job: &str, what: &str, fits: impl Fn(&Value) -> bool) -> Arc<Value> {
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

    pub(crate) async fn runs(&self, job: &str) -> Arc<Value> {
        self.pod(job, "runs", |pod| pod["status"]["phase"] == "Running").await
    }

    /// Waits until a row says why its run does not start.
    pub(crate) async fn says(&self, deployment: &Deployment, part: &str) -> Row {
        deployment
            .becomes(&format!("says {part}"), |row| {
                row.error_message.as_deref().is_some_and(|message| message.contains(part))
            })
            .await
    }
}

fn path() -> String {
    let mut dirs = vec![repository(".tools/bin")];
    dirs.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()));
    std::env::join_paths(dirs).expect("a PATH").into_string().expect("text")
}
