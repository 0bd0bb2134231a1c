//! What a cluster of Kubernetes has to show, whichever it is: a real one, where `TENDRIL_TEST_KUBECONFIG` names a kubeconfig of somebody who
//! may make namespaces and `TENDRIL_TEST_IMAGE` an image of the agent that its nodes have; the stand-in otherwise.
//!
//! The pods of a real cluster use the network of their node (`hostNetwork`), so the node must be this machine, or the tests must run in
//! the node's network.

use std::{env, fmt, fs, path::PathBuf, thread};

use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        batch::v1::Job,
        core::v1::{Namespace, Pod, Secret, ServiceAccount},
        rbac::v1::{Role, RoleBinding},
    },
};
use kube::{
    Api, Client, Config, Resource,
    api::{ListParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use rustix::process::Signal;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tendril_tests::{
    AgentSetup, Cluster, Deployment, Pods, Row, World, kubernetes, pods::IMAGE, repository, until,
};
use tokio::runtime;
use uuid::Uuid;

/// Service accounts of pods.
const ACCOUNTS: [&str; 2] = ["tendril-run", "runs-prod"];
/// As which runs keep their plans; no pod has it.
const PLANS: &str = "tendril-plans";

/// A namespace of the cluster.
struct Target {
    client: Client,
    kubeconfig: PathBuf,
    namespace: String,
    image: String,
    is_real: bool,
    /// The world, and the stand-in where it is used.
    pods: Pods,
    rules: Value,
}

impl Target {
    /// Says which cluster it is.
    async fn start(what: &str) -> Self {
        let pods = Pods::start().await;
        let real = (env::var_os("TENDRIL_TEST_KUBECONFIG"), env::var("TENDRIL_TEST_IMAGE"));
        let (kubeconfig, namespace, image, is_real) = if let (Some(kubeconfig), Ok(image)) = real {
            (kubeconfig.into(), format!("tendril-test-{}", Uuid::new_v4().simple()), image, true)
        } else {
            println!(
                "skipped: {what}, on a real cluster: TENDRIL_TEST_KUBECONFIG and TENDRIL_TEST_IMAGE name none"
            );
            pods.api.add_admin("admin");
            pods.api.add_service_account("runs-prod");
            (pods.api.kubeconfig("admin"), kubernetes::NAMESPACE.to_owned(), IMAGE.to_owned(), false)
        };
        let client = connect(&kubeconfig).await;
        let rules = json!([
            {"stacks": ["prod"], "serviceAccount": "runs-prod"},
            {"stacks": ["nowhere"], "serviceAccount": "tendril-run", "nodeSelector": {"tendril.test/node": "none"}},
            {"stacks": ["*"], "serviceAccount": "tendril-run"},
        ]);
        let target = Self { client, kubeconfig, namespace, image, is_real, pods, rules };
        if is_real {
            target.make_namespace().await;
        }
        target
    }

    /// The namespace, its accounts, and the one right that runs have through `--plan-account`.
    async fn make_namespace(&self) {
        let namespace: Namespace = object(json!({"metadata": {"name": self.namespace}}));
        Api::all(self.client.clone()).create(&PostParams::default(), &namespace).await.expect("a namespace");
        for account in ACCOUNTS.into_iter().chain([PLANS]) {
            self.create::<ServiceAccount>(json!({"metadata": {"name": account}})).await;
        }
        self.create::<Role>(json!({
            "metadata": {"name": PLANS},
            "rules": [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["create"]}],
        }))
        .await;
        self.create::<RoleBinding>(json!({
            "metadata": {"name": PLANS},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": PLANS},
            "subjects": [{"kind": "ServiceAccount", "name": PLANS, "namespace": self.namespace}],
        }))
        .await;
    }

    async fn create<K>(&self, value: Value)
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + Clone
            + fmt::Debug
            + Serialize
            + DeserializeOwned,
    {
        self.api::<K>().create(&PostParams::default(), &object(value)).await.expect("an object");
    }

    fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    fn world(&self) -> &World {
        &self.pods.world
    }

    fn cluster(&self) -> &Cluster {
        &self.pods.cluster
    }

    fn agent(&self) -> AgentSetup {
        let world = self.world();
        let (map, template) = (world.path("map.json"), world.path("pod.json"));
        fs::write(&map, self.rules.to_string()).expect("the map");
        // The local stack's database speaks no TLS.
        let database = format!("{}?sslmode=disable", world.project.database_url);
        let mut variables = vec![
            ("TENDRIL_STATE_BACKEND", "pg".to_owned()),
            ("PG_CONN_STR", database.clone()),
            ("TENDRIL_INFRACOST", "off".to_owned()),
            ("TENDRIL_HEARTBEAT", "1s".to_owned()),
        ];
        if !self.is_real {
            // A container of the stand-in is a process of this machine.
            variables.push(("TENDRIL_TEMPLATES_DIR", repository("templates").display().to_string()));
            variables.extend(self.pods.env.iter().filter(|(name, _)| *name == "PATH").cloned());
        }
        let env: Vec<Value> =
            variables.iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
        let pod = json!({"spec": {"hostNetwork": true, "dnsPolicy": "Default", "containers": [{
            "name": "run", "env": env,
            "resources": {"requests": {"cpu": "50m", "memory": "64Mi", "ephemeral-storage": "64Mi"}},
        }]}});
        fs::write(&template, pod.to_string()).expect("the template");
        let text = |path: &PathBuf| path.display().to_string();
        let mut setup = world
            .agent(self.cluster())
            .templates(&repository("templates"))
            .env("KUBECONFIG", text(&self.kubeconfig))
            .env("TENDRIL_LAUNCHER", "kubernetes")
            .env("TENDRIL_RUN_NAMESPACE", self.namespace.clone())
            .env("TENDRIL_RUN_IMAGE", self.image.clone())
            .env("TENDRIL_RUN_IMAGE_PULL_POLICY", "Never")
            .env("TENDRIL_SERVICE_ACCOUNT_MAP", text(&map))
            .env("TENDRIL_POD_TEMPLATE", text(&template))
            .env("TENDRIL_STATE_BACKEND", "pg")
            .env("PG_CONN_STR", database)
            .env("TENDRIL_INFRACOST", "off")
            .concurrency(10);
        setup.cli.heartbeat = Some("1s".to_owned());
        setup
    }

    async fn queue(&self, stack: &str, more: Value) -> Deployment {
        let mut config = json!({"template": "hello", "stack": stack, "variables": {"name": "cluster"}});
        for (name, value) in more.as_object().into_iter().flatten() {
            config[name] = value.clone();
        }
        self.cluster().queue(config).await
    }

    async fn jobs(&self) -> Vec<Job> {
        self.api::<Job>().list(&ListParams::default()).await.expect("Jobs").items
    }

    async fn pods(&self) -> Vec<Pod> {
        self.api::<Pod>().list(&ListParams::default()).await.expect("pods").items
    }

    /// Waits until nothing of a run is left but what its owner's time to live removes.
    async fn has_no_plan(&self) {
        until("the plan is removed", async || {
            let secrets = self.api::<Secret>().list(&ListParams::default()).await.expect("Secrets").items;
            let names = secrets.into_iter().filter_map(|secret| secret.metadata.name);
            let plans: Vec<String> = names.filter(|name| name.contains("-plan")).collect();
            if plans.is_empty() { Ok(()) } else { Err(plans.join(", ")) }
        })
        .await;
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if !self.is_real {
            return;
        }
        let (kubeconfig, namespace) = (self.kubeconfig.clone(), self.namespace.clone());
        // The runtime of the test cannot be waited in here.
        let removal = thread::spawn(move || {
            let runtime = runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let namespaces: Api<Namespace> = Api::all(connect(&kubeconfig).await);
                namespaces.delete(&namespace, &kube::api::DeleteParams::default()).await.map(drop)
            })
        });
        if !matches!(removal.join(), Ok(Ok(()))) {
            eprintln!("the namespace {} is still there", self.namespace);
        }
    }
}

async fn connect(kubeconfig: &PathBuf) -> Client {
    let kubeconfig = Kubeconfig::read_from(kubeconfig).expect("a kubeconfig");
    let config =
        Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.expect("a context");
    Client::try_from(config).expect("a client")
}

fn object<K: DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).expect("an object")
}

async fn row_says(job: &Deployment, part: &str) -> Row {
    let says = |row: &Row| row.error_message.as_deref().is_some_and(|message| message.contains(part));
    job.becomes(&format!("says {part}"), says).await
}

#[tokio::test]
async fn a_run_succeeds_in_a_pod_with_the_service_account_of_its_stack() {
    let target = Target::start("a run in a pod").await;
    let _agent = target.agent().start();
    let [prod, dev] = [target.queue("prod", json!({})).await, target.queue("dev", json!({})).await];
    for job in [&prod, &dev] {
        let row = job.ended().await;
        assert_eq!((row.status.as_str(), row.attempt), ("SUCCESS", 1), "{row:?}");
        job.log().await.assert_complete(&row);
    }
    let accounts = target.pods().await.into_iter();
    let mut accounts: Vec<_> =
        accounts.filter_map(|pod| pod.spec).filter_map(|spec| spec.service_account_name).collect();
    accounts.sort();
    assert_eq!(accounts, ["runs-prod", "tendril-run"]);
}

#[tokio::test]
async fn a_pod_whose_image_is_missing_says_why() {
    let mut target = Target::start("a pod without its image").await;
    target.image = "localhost/no-such-image:1".to_owned();
    let _agent = target.agent().env("TENDRIL_POD_START_DEADLINE", "10s").start();
    let row = target.queue("a", json!({})).await.ended().await;
    assert_eq!(row.status, "FAILED", "{row:?}");
    let message = row.error_message.expect("a sentence");
    assert!(message.contains("The image localhost/no-such-image:1 cannot be pulled"), "{message}");
}

#[tokio::test]
async fn a_pod_that_no_node_takes_says_why_and_can_be_cancelled() {
    let target = Target::start("a pod that no node takes").await;
    let _agent = target.agent().start();
    let job = target.queue("nowhere", json!({})).await;
    row_says(&job, "No node can take the run's pod").await;
    job.cancel().await;
    let row = job.ended().await;
    assert_eq!(row.status, "CANCELLED", "{row:?}");
    until("its Job is removed", async || {
        let jobs = target.jobs().await.len();
        if jobs == 0 { Ok(()) } else { Err(format!("{jobs} Jobs")) }
    })
    .await;
}

#[tokio::test]
async fn a_run_waits_for_a_service_account_that_is_made_later() {
    let mut target = Target::start("a service account that is missing").await;
    target.rules = json!([{"stacks": ["*"], "serviceAccount": "made-later"}]);
    let _agent = target.agent().start();
    let job = target.queue("a", json!({})).await;
    row_says(&job, "made-later").await;
    if target.is_real {
        target.create::<ServiceAccount>(json!({"metadata": {"name": "made-later"}})).await;
    } else {
        target.pods.api.add_service_account("made-later");
    }
    let row = job.ended().await;
    assert_eq!((row.status.as_str(), row.attempt, row.error_message), ("SUCCESS", 1, None));
}

#[tokio::test]
async fn a_plan_waits_without_a_pod_and_is_applied_in_another() {
    let target = Target::start("a plan that waits for its approval").await;
    let _agent = target.agent().start();
    let job = target.queue("a", json!({"approval": true})).await;
    let digest = job.plan().await;
    until("its pod has ended", async || {
        let phases = target.pods().await.into_iter();
        let phases: Vec<_> = phases.filter_map(|pod| pod.status?.phase).collect();
        if phases.iter().all(|phase| phase != "Running" && phase != "Pending") {
            Ok(())
        } else {
            Err(phases.join(", "))
        }
    })
    .await;
    job.approve(&digest).await;
    let row = job.ended().await;
    assert_eq!((row.status.as_str(), row.attempt), ("SUCCESS", 1), "{row:?}");
    job.log().await.assert_complete(&row);
    target.has_no_plan().await;
}

#[tokio::test]
async fn a_dispatcher_that_was_killed_finds_its_run_and_starts_nothing_twice() {
    let target = Target::start("a dispatcher that is killed").await;
    let mut agent = target.agent().start();
    let job = target.queue("a", json!({})).await;
    until(
        "its pod is there",
        async || {
            if target.pods().await.is_empty() { Err("no pod".to_owned()) } else { Ok(()) }
        },
    )
    .await;
    agent.signal(Signal::KILL);
    agent.ended().await;
    let _next = target.agent().start();
    let row = job.ended().await;
    assert_eq!((row.status.as_str(), row.attempt), ("SUCCESS", 1), "{row:?}");
    job.log().await.assert_complete(&row);
    assert_eq!((target.jobs().await.len(), target.pods().await.len()), (1, 1));
}
