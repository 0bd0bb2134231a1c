//! What the kubelet does with one pod: start, status, grace, end.

use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, sleep_until},
};

use super::{
    Cluster, clock,
    faults::Fate,
    node::{Container, NotStarted, exit_code},
    store::{Kind, name_of},
};

/// Between two looks for a Secret that is missing, and between two pulls of an image.
const RETRY: Duration = Duration::from_millis(250);

/// What a pod is told from outside.
#[derive(Clone, Copy, Debug)]
pub(super) enum Order {
    /// Its object was deleted: end within its grace.
    Delete,
    Fate(Fate),
}

/// Takes a pod from its creation to its end.
pub(super) async fn run(cluster: Arc<Cluster>, pod: Arc<Value>, mut orders: mpsc::UnboundedReceiver<Order>) {
    let kubelet = Kubelet { name: name_of(&pod), cluster, pod };
    kubelet.run(&mut orders).await;
    kubelet.cluster.forget_pod(&kubelet.name);
}

struct Kubelet {
    cluster: Arc<Cluster>,
    name: String,
    pod: Arc<Value>,
}

impl Kubelet {
    async fn run(&self, orders: &mut mpsc::UnboundedReceiver<Order>) {
        let node = &self.cluster.node;
        while let Some(why) = node.refuses(&self.pod["spec"]) {
            let condition =
                json!({"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": why});
            self.status(|status| set_condition(status, condition));
            self.cluster.event(&self.pod, Kind::Pod, "Warning", "FailedScheduling", &why);
            if self.deleted_within(orders, Duration::from_secs(3600)).await {
                self.gone(Some("The container could not be located when the pod was terminated"));
                return;
            }
        }
        self.cluster.store.edit(Kind::Pod, &self.name, |pod| {
            pod["spec"]["nodeName"] = "localhost".into();
            set_condition(&mut pod["status"], json!({"type": "PodScheduled", "status": "True"}));
        });
        let container = &self.pod["spec"]["containers"][0];
        let image = container["image"].as_str().unwrap_or_default();
        self.waiting("ContainerCreating", None);
        let mut pulls = 0;
        while !node.has_image(image) {
            let (reason, message) = match (container["imagePullPolicy"].as_str(), pulls) {
                (Some("Never"), _) => (
                    "ErrImageNeverPull",
                    format!("Container image \"{image}\" is not present with pull policy of Never"),
                ),
                (_, 0) => ("ErrImagePull", format!("failed to pull and unpack image \"{image}\": not found")),
                _ => (
                    "ImagePullBackOff",
                    format!(
                        "Back-off pulling image \"{image}\": ErrImagePull: failed to pull and unpack image \"{image}\": not found"
                    ),
                ),
            };
            pulls += 1;
            self.waiting(reason, Some(&message));
            if self.deleted_within(orders, RETRY).await {
                self.gone(Some("The container could not be located when the pod was terminated"));
                return;
            }
        }
        if pulls > 0 {
            self.waiting("ContainerCreating", None);
        }
        let mut told = None;
        let running = loop {
            match node.start(&self.cluster.store, &self.pod) {
                Ok(running) => break running,
                Err(NotStarted::Missing(why)) => self.waiting("CreateContainerConfigError", Some(&why)),
                Err(NotStarted::NotMounted(why)) if told.as_ref() != Some(&why) => {
                    self.cluster.event(&self.pod, Kind::Pod, "Warning", "FailedMount", &why);
                    told = Some(why);
                }
                Err(NotStarted::NotMounted(_)) => {}
                Err(NotStarted::StartError(why)) => {
                    let terminated = json!({"exitCode": 128, "reason": "StartError", "message": why, "startedAt": "1970-01-01T00:00:00Z", "finishedAt": clock::now()});
                    self.terminated(&terminated, None);
                    return;
                }
            }
            if self.deleted_within(orders, RETRY).await {
                self.gone(Some("The container could not be located when the pod was terminated"));
                return;
            }
        };
        let started = clock::now();
        self.status(|status| {
            status["phase"] = "Running".into();
            ready(status, true, None);
            container_status(status, &self.pod, json!({"running": {"startedAt": started}}), true);
        });
        self.watch(running, &started, orders).await;
    }

    /// Waits for the end of the program.
    async fn watch(
        &self,
        mut running: Container,
        started: &str,
        orders: &mut mpsc::UnboundedReceiver<Order>,
    ) {
        let grace = self.pod["spec"]["terminationGracePeriodSeconds"].as_u64().unwrap_or(30);
        let mut kill_at: Option<Instant> = None;
        let (mut is_oom, mut evicted, mut is_deleted, mut is_node_gone) = (false, false, false, false);
        let mut pending_end = None;
        loop {
            let kill = async {
                match kill_at {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                ended = running.child.wait(), if pending_end.is_none() => {
                    pending_end = Some(ended.map_or(255, exit_code));
                }
                () = sleep(RETRY), if pending_end.is_none() => {
                    self.cluster.node.refresh(&self.cluster.store, &self.pod);
                }
                () = kill => {
                    running.kill();
                    kill_at = None;
                }
                Some(order) = orders.recv() => match order {
                    Order::Delete => {
                        is_deleted = true;
                        if !is_node_gone {
                            running.terminate();
                            kill_at = Some(Instant::now() + Duration::from_secs(grace));
                        }
                    }
                    Order::Fate(Fate::OomKilled) => {
                        is_oom = true;
                        running.kill();
                    }
                    Order::Fate(Fate::Killed) => running.kill(),
                    Order::Fate(Fate::Evicted) => {
                        evicted = true;
                        running.terminate();
                        kill_at = Some(Instant::now() + Duration::from_secs(2));
                    }
                    Order::Fate(Fate::EvictedByApi) => {
                        self.disrupted("EvictionByEvictionAPI", "Eviction API: evicting");
                        self.cluster.delete_pod(&self.name);
                    }
                    Order::Fate(Fate::Deleted) => self.cluster.delete_pod(&self.name),
                    Order::Fate(fate @ (Fate::NodeGone | Fate::NodeSilent)) => {
                        is_node_gone = true;
                        self.status(|status| set_condition(status, json!({"type": "Ready", "status": "False"})));
                        if fate == Fate::NodeGone {
                            self.disrupted("DeletionByTaintManager", "Taint manager: deleting due to NoExecute taint");
                            self.cluster.delete_pod(&self.name);
                        }
                    }
                    Order::Fate(Fate::NodeBack) => {
                        is_node_gone = false;
                        if !is_deleted && pending_end.is_none() {
                            self.status(|status| ready(status, true, None));
                        }
                        if is_deleted || self.cluster.store.get(Kind::Pod, &self.name).is_none() {
                            running.terminate();
                            kill_at = Some(Instant::now() + Duration::from_secs(grace));
                        }
                    }
                },
            }
            if let (Some(code), false) = (pending_end, is_node_gone) {
                running.sweep();
                let reason = match code {
                    _ if is_oom => "OOMKilled",
                    0 => "Completed",
                    _ => "Error",
                };
                let mut terminated = json!({"exitCode": code, "reason": reason, "startedAt": started, "finishedAt": clock::now()});
                if let Some(message) = running.message(&self.pod["spec"]["containers"][0], code != 0) {
                    terminated["message"] = message.into();
                }
                let evicted = evicted.then_some(
                    "Pod ephemeral local storage usage exceeds the total limit of containers 8Mi. ",
                );
                self.terminated(&terminated, evicted);
                if is_deleted {
                    self.cluster.let_pod_go(&self.name);
                }
                return;
            }
        }
    }

    /// The container has ended, and then the pod.
    fn terminated(&self, terminated: &Value, evicted: Option<&str>) {
        let is_success = terminated["exitCode"] == 0;
        let container = |status: &mut Value| {
            ready(status, false, Some(if is_success { "PodCompleted" } else { "PodFailed" }));
            container_status(status, &self.pod, json!({"terminated": terminated}), false);
        };
        let pod = |status: &mut Value| {
            status["phase"] = if is_success { "Succeeded" } else { "Failed" }.into();
            if let Some(message) = evicted {
                status["reason"] = "Evicted".into();
                status["message"] = message.into();
            }
        };
        let there = self.cluster.store.get(Kind::Pod, &self.name);
        if there.is_some_and(|pod| pod["metadata"]["deletionTimestamp"].is_string()) {
            // Of a pod that is being deleted both are said at once.
            self.status(|status| {
                container(status);
                pod(status);
            });
        } else {
            self.status(container);
            self.status(pod);
        }
    }

    /// A pod that never ran is deleted.
    fn gone(&self, message: Option<&str>) {
        let terminated = json!({"exitCode": 137, "reason": "ContainerStatusUnknown", "message": message, "startedAt": null, "finishedAt": null});
        self.terminated(&terminated, None);
        self.cluster.let_pod_go(&self.name);
    }

    /// Waits; whether the pod was deleted meanwhile.
    async fn deleted_within(&self, orders: &mut mpsc::UnboundedReceiver<Order>, time: Duration) -> bool {
        let end = Instant::now() + time;
        loop {
            tokio::select! {
                () = sleep_until(end) => return false,
                order = orders.recv() => match order {
                    Some(Order::Delete) => return true,
                    Some(Order::Fate(fate @ (Fate::Deleted | Fate::NodeGone | Fate::EvictedByApi))) => {
                        if fate == Fate::EvictedByApi {
                            self.disrupted("EvictionByEvictionAPI", "Eviction API: evicting");
                        }
                        self.cluster.delete_pod(&self.name);
                    }
                    Some(Order::Fate(_)) => {}
                    None => {
                        sleep(time).await;
                        return false;
                    }
                },
            }
        }
    }

    fn disrupted(&self, reason: &str, message: &str) {
        let condition =
            json!({"type": "DisruptionTarget", "status": "True", "reason": reason, "message": message});
        self.status(|status| set_condition(status, condition));
    }

    fn waiting(&self, reason: &str, message: Option<&str>) {
        let mut waiting = json!({"reason": reason});
        if let Some(message) = message {
            waiting["message"] = message.into();
        }
        self.status(|status| {
            ready(status, false, Some("ContainersNotReady"));
            container_status(status, &self.pod, json!({"waiting": waiting}), false);
        });
    }

    fn status(&self, edit: impl FnOnce(&mut Value)) {
        self.cluster.store.edit(Kind::Pod, &self.name, |pod| edit(&mut pod["status"]));
    }
}

fn ready(status: &mut Value, is_ready: bool, reason: Option<&str>) {
    for kind in ["Ready", "ContainersReady"] {
        let mut condition = json!({"type": kind, "status": if is_ready { "True" } else { "False" }});
        if let Some(reason) = reason {
            condition["reason"] = reason.into();
        }
        set_condition(status, condition);
    }
}

#[expect(clippy::needless_pass_by_value, reason = "callers make it in place")]
fn container_status(status: &mut Value, pod: &Value, state: Value, is_ready: bool) {
    let container = &pod["spec"]["containers"][0];
    if status["startTime"].is_null() {
        status["startTime"] = clock::now().into();
    }
    status["containerStatuses"] = json!([{
        "name": container["name"], "state": state, "lastState": {}, "ready": is_ready, "restartCount": 0,
        "image": container["image"], "imageID": "", "started": is_ready,
        "resources": container["resources"],
    }]);
}

/// Sets a condition by its type.
pub(super) fn set_condition(status: &mut Value, mut condition: Value) {
    condition["lastTransitionTime"] = clock::now().into();
    condition["lastProbeTime"] = Value::Null;
    if !status["conditions"].is_array() {
        status["conditions"] = json!([]);
    }
    let conditions = status["conditions"].as_array_mut().expect("an array");
    match conditions.iter_mut().find(|there| there["type"] == condition["type"]) {
        Some(there) if there["status"] == condition["status"] && there["reason"] == condition["reason"] => {}
        Some(there) => *there = condition,
        None => conditions.push(condition),
    }
}
