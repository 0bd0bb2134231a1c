//! A stand-in for a Kubernetes API server, its controllers and one node.
//!
//! It answers the endpoints that the agent uses as the recordings in `tests/recorded/kubernetes` say, and runs the containers of
//! its pods as real processes. What it leaves out is in the ledger of `tests/kubernetes/recorded.rs`.
//!
//! ```text
//! gate        the way to it, which can be cut
//! http        requests          watch        watches
//! access      who may do what   status       refusals               reviews    tokens, rights, quotas
//! list        lists             departure    how objects go         fields     which there are
//! store       objects           selector     labels and fields     defaults   what is added and refused
//! controller  Jobs, garbage     kubelet      pods                  node       images, processes
//! faults      what goes wrong   clock        times                  by_hand    what people change
//! ```

mod access;
mod by_hand;
mod clock;
mod controller;
mod defaults;
mod departure;
mod faults;
mod fields;
mod gate;
mod http;
mod kubelet;
mod list;
mod node;
mod reviews;
mod selector;
mod status;
mod store;
mod watch;

use std::{
    collections::{BTreeSet, HashMap},
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use axum::{
    Router,
    http::{Method, Uri},
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{net::TcpListener, sync::mpsc, task::JoinHandle};

pub use self::{access::AGENT_ROLE, faults::Fate};
use self::{
    access::Access,
    faults::{Faults, Quota},
    gate::Gate,
    kubelet::Order,
    node::Node,
    selector::Selector,
    store::{Kind, Store, name_of},
};

/// The namespace of the stand-in: it enforces the pod security profile `restricted`.
pub const NAMESPACE: &str = store::NAMESPACE;
/// Bearer token of the account `tendril-agent`, which has the [`AGENT_ROLE`].
pub const AGENT_TOKEN: &str = "agent-account";

/// Fail points of a dispatcher whose runs are pods.
pub const PLACES: &[&str] = &["lease.won", "run.job_made", "run.secret_made", "run.ended", "run.concluded"];

/// A request that the server was asked.
#[derive(Clone, Debug)]
pub struct Asked {
    /// When.
    pub at: SystemTime,
    /// GET, POST, …
    pub method: String,
    /// Path and query.
    pub path: String,
    /// The user's name.
    pub user: String,
}

#[derive(Debug)]
struct Cluster {
    store: Store,
    access: Access,
    faults: Faults,
    node: Node,
    accounts: Mutex<BTreeSet<String>>,
    kubelets: Mutex<HashMap<String, mpsc::UnboundedSender<Order>>>,
    /// By pod: the file of its container's output.
    logs: PathBuf,
    asked: Mutex<Vec<Asked>>,
}

/// A cluster that runs. Dropping it kills every container.
#[derive(Debug)]
pub struct ApiServer {
    cluster: Arc<Cluster>,
    gate: Gate,
    serving: JoinHandle<()>,
    dir: TempDir,
}

impl ApiServer {
    /// Starts it, with the account `tendril-agent` and the service accounts `tendril-run`, which may do
    /// nothing, `tendril-plans`, which may create Secrets, and `default`.
    pub async fn start() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let cluster = Arc::new(Cluster {
            store: Store::new(),
            access: Access::default(),
            faults: Faults::default(),
            node: Node::new(dir.path().join("pods")),
            accounts: Mutex::new(["default", "tendril-plans", "tendril-run"].map(str::to_owned).into()),
            kubelets: Mutex::default(),
            logs: dir.path().join("pods"),
            asked: Mutex::default(),
        });
        cluster.access.account(AGENT_TOKEN, "tendril-agent", AGENT_ROLE);
        cluster.access.account("plans-account", "tendril-plans", &[("", "secrets", &["create"])]);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let inner = listener.local_addr().expect("its address");
        let router = Router::new().fallback(http::handle).with_state(Arc::clone(&cluster));
        let serving = tokio::spawn(async move {
            axum::serve(listener, router).await.expect("a server");
        });
        tokio::spawn(controller::run(Arc::downgrade(&cluster)));
        Self { cluster, gate: Gate::open(inner).await, serving, dir }
    }

    /// Its base URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.gate.addr)
    }

    /// A kubeconfig for this bearer token.
    pub fn kubeconfig(&self, token: &str) -> PathBuf {
        let file = self.dir.path().join(format!("{token}.kubeconfig"));
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "stand-in",
            "clusters": [{"name": "stand-in", "cluster": {"server": self.url()}}],
            "users": [{"name": token, "user": {"token": token}}],
            "contexts": [{"name": "stand-in", "context": {"cluster": "stand-in", "user": token, "namespace": NAMESPACE}}],
        });
        fs::write(&file, config.to_string()).expect("a kubeconfig");
        file
    }

    /// Adds a user who may do everything.
    pub fn add_admin(&self, token: &str) {
        self.cluster.access.admin(token);
    }

    /// Adds a service account with a Role, and its bearer token.
    pub fn add_account(&self, token: &str, account: &str, role: &[(&str, &str, &[&str])]) {
        self.cluster.access.account(token, account, role);
        self.add_service_account(account);
    }

    /// Adds a service account that pods may have.
    pub fn add_service_account(&self, account: &str) {
        self.cluster.accounts.lock().expect("a lock").insert(account.to_owned());
    }

    /// Gives the holder of this token a right: (API group, resource, verb).
    pub fn allow(&self, token: &str, right: (&str, &str, &str)) {
        self.cluster.access.set(token, right, true);
    }

    /// Takes that right away.
    pub fn deny(&self, token: &str, right: (&str, &str, &str)) {
        self.cluster.access.set(token, right, false);
    }

    /// Makes a token invalid: 401.
    pub fn revoke(&self, token: &str) {
        self.cluster.access.revoke(token);
    }

    /// An image that the node has, and its entry point. Every other one cannot be pulled.
    pub fn add_image(&self, image: &str, entry_point: &[&str]) {
        self.cluster.node.add_image(image, entry_point);
    }

    /// Refuses connections and cuts open ones, until [`come_back`](Self::come_back). Pods run on.
    pub fn go_away(&self) {
        self.gate.shut();
    }

    /// Is there again, at the same address.
    pub async fn come_back(&self) {
        self.gate.reopen().await;
    }

    /// Forgets every resource version: watches from before are answered 410.
    pub fn forget_versions(&self) {
        self.cluster.store.forget();
    }

    /// Connections are silent, old ones and new ones, until [`come_back`](Self::come_back): what a firewall does that forgets them.
    pub fn go_silent(&self) {
        self.gate.stall();
    }

    /// Connections that are open now are silent for ever; new ones are not.
    pub fn strand(&self) {
        self.gate.strand();
    }

    /// Refuses the next requests with this status and `Retry-After`; only those whose query has this text.
    pub fn refuse(&self, status: u16, retry_after: u64, count: usize, query: &'static str) {
        self.cluster.faults.refuse(status, retry_after, count, query);
    }

    /// Takes so long for each answer.
    pub fn set_delay(&self, delay: Duration) {
        self.cluster.faults.set_delay(delay);
    }

    /// Ends every watch after so long, and gives none a bookmark.
    pub fn set_watches(&self, end_after: Option<Duration>, has_no_bookmarks: bool) {
        self.cluster.faults.set_watches(end_after, has_no_bookmarks);
    }

    /// A quota on Jobs and one on pods; none lifts them.
    pub fn set_quota(&self, jobs: Option<usize>, pods: Option<usize>) {
        self.cluster.faults.set_quota(Quota { jobs, pods });
    }

    /// A `ValidatingAdmissionPolicy` that denies every Job, with its name and sentence.
    pub fn set_policy(&self, policy: Option<(&str, &str)>) {
        let policy = policy.map(|(name, why)| (name.to_owned(), why.to_owned()));
        self.cluster.faults.set_policy(policy);
    }

    /// A validating webhook that cannot be reached: 500 for every Job.
    pub fn set_webhook_down(&self, why: Option<&str>) {
        self.cluster.faults.set_webhook(why.map(str::to_owned));
    }

    /// Carries out the next requests of this method and resource, and cuts the connection instead of answering.
    pub fn lose_answers(&self, method: &str, resource: &str, count: usize) {
        self.cluster.faults.lose_answers(method, resource, count);
    }

    /// Holds requests of this method and resource, before they are carried out, until [`release`](Self::release).
    pub fn hold(&self, method: &str, resource: &str) {
        self.cluster.faults.hold(method, resource);
    }

    /// Lets held requests go on.
    pub fn release(&self) {
        self.cluster.faults.release();
    }

    /// Whether the controllers are away: Jobs are stored, and nothing comes of them.
    pub fn set_controller_down(&self, is_down: bool) {
        self.cluster.faults.set_controller_down(is_down);
    }

    /// Has the pod of a Job end in a certain way. Answers whether it has one.
    pub fn fate(&self, job: &str, fate: Fate) -> bool {
        let Some(pod) = self.pod_of(job) else { return false };
        self.cluster.order(&name_of(&pod), Order::Fate(fate))
    }

    /// The Jobs, in the order of their names.
    pub fn jobs(&self) -> Vec<Arc<Value>> {
        self.cluster.store.list(Kind::Job, &Selector::default()).1
    }

    /// The pods, in the order of their names.
    pub fn pods(&self) -> Vec<Arc<Value>> {
        self.cluster.store.list(Kind::Pod, &Selector::default()).1
    }

    /// The Secrets, in the order of their names.
    pub fn secrets(&self) -> Vec<Arc<Value>> {
        self.cluster.store.list(Kind::Secret, &Selector::default()).1
    }

    /// A Lease.
    pub fn lease(&self, name: &str) -> Option<Arc<Value>> {
        self.cluster.store.get(Kind::Lease, name)
    }

    /// The pod of a Job.
    pub fn pod_of(&self, job: &str) -> Option<Arc<Value>> {
        self.pods().into_iter().find(|pod| pod["metadata"]["ownerReferences"][0]["name"] == job)
    }

    /// What the container of a pod printed.
    pub fn log_of(&self, pod: &Value) -> String {
        let uid = pod["metadata"]["uid"].as_str().unwrap_or_default();
        let log = fs::read(self.cluster.logs.join(uid).join("container.log")).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }

    /// The directory that stands for the root of a pod's container.
    pub fn root_of(&self, pod: &Value) -> PathBuf {
        self.cluster.logs.join(pod["metadata"]["uid"].as_str().unwrap_or_default())
    }

    /// Stores an object as it is, without admission: what somebody made who is not asked about here.
    pub fn seed(&self, object: &Value) {
        let group =
            object["apiVersion"].as_str().unwrap_or_default().split_once('/').map_or("", |(group, _)| group);
        let kind =
            Kind::of_type(group, object["kind"].as_str().unwrap_or_default()).expect("a kind that is kept");
        self.cluster.store.seed(kind, object.clone());
    }

    /// What was asked so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.cluster.asked.lock().expect("a lock").clone()
    }

    /// A directory that lives as long as the server.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        self.serving.abort();
        self.gate.shut();
        // A kubelet that hears nothing more kills its container.
        self.cluster.kubelets.lock().expect("a lock").clear();
    }
}

impl Cluster {
    fn note(&self, method: &Method, uri: &Uri, user: &str) {
        let path = uri.path_and_query().map(ToString::to_string).unwrap_or_default();
        let asked = Asked { at: SystemTime::now(), method: method.to_string(), path, user: user.to_owned() };
        self.asked.lock().expect("a lock").push(asked);
    }

    fn has_account(&self, account: &str) -> bool {
        self.accounts.lock().expect("a lock").contains(account)
    }

    fn event(&self, about: &Value, kind: Kind, level: &str, reason: &str, message: &str) {
        let event = controller::event(about, kind, level, reason, message);
        let _stored = self.store.create(Kind::Event, event);
    }

    fn start_kubelet(self: &Arc<Self>, pod: Arc<Value>) {
        let (orders, heard) = mpsc::unbounded_channel();
        self.kubelets.lock().expect("a lock").insert(name_of(&pod), orders);
        tokio::spawn(kubelet::run(Arc::clone(self), pod, heard));
    }

    fn forget_pod(&self, name: &str) {
        self.kubelets.lock().expect("a lock").remove(name);
    }

    fn order(&self, pod: &str, order: Order) -> bool {
        let kubelets = self.kubelets.lock().expect("a lock");
        kubelets.get(pod).is_some_and(|kubelet| kubelet.send(order).is_ok())
    }

    fn evict(&self, pod: &str) {
        self.order(pod, Order::Fate(Fate::EvictedByApi));
    }

    async fn log_of(&self, pod: &str) -> Option<Vec<u8>> {
        let pod = self.store.get(Kind::Pod, pod)?;
        let uid = pod["metadata"]["uid"].as_str()?;
        tokio::fs::read(self.logs.join(uid).join("container.log")).await.ok()
    }
}
