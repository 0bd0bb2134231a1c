//! The same on a real cluster, where there is one: `TENDRIL_TEST_KUBECONFIG` names a kubeconfig of somebody who may make namespaces, and
//! `TENDRIL_TEST_IMAGE` an image of the agent that its nodes have. The pods use the network of their node (`hostNetwork`), so the node must be
//! this machine, or the tests must run in the node's network.

use std::{fs, path::PathBuf};

use serde_json::{Value, json};
use tendril_tests::{AgentSetup, Cluster, World, repository};
use tokio::process::Command;
use uuid::Uuid;

/// A namespace of the real cluster; removed at the end.
struct Namespace {
    name: String,
    kubeconfig: PathBuf,
    image: String,
}

impl Namespace {
    /// None, and a note about it, where there is no cluster.
    async fn make(what: &str) -> Option<Self> {
        let (Some(kubeconfig), Ok(image)) =
            (std::env::var_os("TENDRIL_TEST_KUBECONFIG"), std::env::var("TENDRIL_TEST_IMAGE"))
        else {
            println!("skipped: {what}: TENDRIL_TEST_KUBECONFIG and TENDRIL_TEST_IMAGE name no real cluster");
            return None;
        };
        let name = format!("tendril-test-{}", Uuid::new_v4().simple());
        let namespace = Self { name, kubeconfig: kubeconfig.into(), image };
        namespace.kubectl(&["create", "namespace", &namespace.name]).await;
        for account in ["tendril-agent", "tendril-run", "runs-prod"] {
            namespace.kubectl(&["--namespace", &namespace.name, "create", "serviceaccount", account]).await;
        }
        Some(namespace)
    }

    async fn kubectl(&self, args: &[&str]) -> String {
        let output = Command::new("kubectl")
            .arg("--kubeconfig")
            .arg(&self.kubeconfig)
            .args(args)
            .output()
            .await
            .expect("kubectl");
        assert!(output.status.success(), "kubectl {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn agent(&self, world: &World, cluster: &Cluster) -> AgentSetup {
        let (map, template) = (world.path("map.json"), world.path("pod.json"));
        let rules = json!([
            {"stacks": ["prod"], "serviceAccount": "runs-prod"},
            {"stacks": ["*"], "serviceAccount": "tendril-run"},
        ]);
        fs::write(&map, rules.to_string()).expect("the map");
        // The local stack's database speaks no TLS.
        let database = format!("{}?sslmode=disable", world.project.database_url);
        let variables = [
            ("TENDRIL_STATE_BACKEND", "pg"),
            ("PG_CONN_STR", database.as_str()),
            ("TENDRIL_INFRACOST", "off"),
        ];
        let env: Vec<Value> =
            variables.iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
        let pod = json!({"spec": {"hostNetwork": true, "dnsPolicy": "Default", "containers": [{
            "name": "run", "env": env,
            "resources": {"requests": {"cpu": "50m", "memory": "64Mi", "ephemeral-storage": "64Mi"}},
        }]}});
        fs::write(&template, pod.to_string()).expect("the template");
        let text = |path: &PathBuf| path.display().to_string();
        world
            .agent(cluster)
            .templates(&repository("templates"))
            .env("KUBECONFIG", text(&self.kubeconfig))
            .env("TENDRIL_LAUNCHER", "kubernetes")
            .env("TENDRIL_RUN_NAMESPACE", self.name.clone())
            .env("TENDRIL_RUN_IMAGE", self.image.clone())
            .env("TENDRIL_RUN_IMAGE_PULL_POLICY", "Never")
            .env("TENDRIL_SERVICE_ACCOUNT_MAP", text(&map))
            .env("TENDRIL_POD_TEMPLATE", text(&template))
            .env("TENDRIL_STATE_BACKEND", "pg")
            .env("PG_CONN_STR", database)
            .env("TENDRIL_INFRACOST", "off")
            .concurrency(10)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let removal = std::process::Command::new("kubectl")
            .arg("--kubeconfig")
            .arg(&self.kubeconfig)
            .args(["delete", "namespace", &self.name, "--wait=false"])
            .output();
        if let Err(error) = removal {
            eprintln!("the namespace {} is still there: {error}", self.name);
        }
    }
}

#[tokio::test]
async fn a_run_succeeds_in_a_pod_of_a_real_cluster() {
    let Some(namespace) = Namespace::make("a run in a pod of a real cluster").await else { return };
    let world = World::start().await;
    let cluster = world.cluster().await;
    let _agent = namespace.agent(&world, &cluster).start();
    let job = cluster.queue(json!({"template": "hello", "stack": "prod", "variables": {}})).await;
    let row = job.ended().await;
    assert_eq!((row.status.as_str(), row.attempt), ("SUCCESS", 1), "{row:?}");
    job.log().await.assert_complete(&row);
    let accounts = namespace
        .kubectl(&[
            "--namespace",
            &namespace.name,
            "get",
            "pods",
            "--output",
            "jsonpath={.items[*].spec.serviceAccountName}",
        ])
        .await;
    assert_eq!(accounts, "runs-prod");
}

#[tokio::test]
async fn a_pod_of_a_real_cluster_that_cannot_start_says_why() {
    let Some(mut namespace) = Namespace::make("a pod of a real cluster that cannot start").await else {
        return;
    };
    namespace.image = "localhost/no-such-image:1".to_owned();
    let world = World::start().await;
    let cluster = world.cluster().await;
    let _agent = namespace.agent(&world, &cluster).env("TENDRIL_POD_START_DEADLINE", "20s").start();
    let job = cluster.queue(json!({"template": "hello", "stack": "a", "variables": {}})).await;
    let row = job.ended().await;
    assert_eq!(row.status, "FAILED", "{row:?}");
    let message = row.error_message.expect("a sentence");
    assert!(message.contains("The image localhost/no-such-image:1 cannot be pulled"), "{message}");
}
