//! The Job controller and the garbage collector: they read what is stored, and do what is missing.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
    time::Duration,
};

use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::{
    Cluster, clock, defaults,
    departure::TRACKING,
    kubelet::set_condition,
    selector::Selector,
    store::{Kind, NAMESPACE, name_of, stamped},
};

/// Between two looks, where nothing changes: deadlines, delays and times to live pass without an event.
const TICK: Duration = Duration::from_millis(50);
/// Before the first repetition of a pod's creation that was refused; then twice as long each time.
const FIRST_DELAY: Duration = Duration::from_millis(500);

/// The controller's state of a Job, beside its object.
#[derive(Debug)]
struct Known {
    since: Instant,
    pod: Option<String>,
    try_again: Instant,
    delay: Duration,
    finished: Option<Instant>,
}

impl Known {
    fn new() -> Self {
        let now = Instant::now();
        Self { since: now, pod: None, try_again: now, delay: FIRST_DELAY, finished: None }
    }
}

/// Runs until the cluster is dropped.
pub(super) async fn run(cluster: Weak<Cluster>) {
    let mut known: HashMap<String, Known> = HashMap::new();
    let Some(mut changed) = cluster.upgrade().map(|cluster| cluster.store.subscribe()) else { return };
    loop {
        {
            let Some(cluster) = cluster.upgrade() else { return };
            if !cluster.faults.controller_down() {
                changed.mark_unchanged();
                let (_, jobs) = cluster.store.list(Kind::Job, &Selector::default());
                let (_, pods) = cluster.store.list(Kind::Pod, &Selector::default());
                for job in &jobs {
                    let uid = job["metadata"]["uid"].as_str().unwrap_or_default();
                    let known = known.entry(uid.to_owned()).or_insert_with(Known::new);
                    let of_job = pods.iter().find(|pod| pod["metadata"]["ownerReferences"][0]["uid"] == uid);
                    Reconciler { cluster: &cluster, job, pod: of_job, known }.run();
                }
                collect_garbage(&cluster, &jobs, &pods);
                cluster.empty_namespace();
            }
        }
        tokio::select! {
            _ = changed.changed() => {}
            () = sleep(TICK) => {}
        }
    }
}

/// What belongs to a Job that is gone goes too.
fn collect_garbage(cluster: &Arc<Cluster>, jobs: &[Arc<Value>], pods: &[Arc<Value>]) {
    // An owner that was created after `jobs` was listed is not gone.
    let is_gone = |owned: &Value| {
        let owner = &owned["metadata"]["ownerReferences"][0];
        let is_there = |job: &Value| job["metadata"]["uid"] == owner["uid"];
        let now = || cluster.store.get(Kind::Job, owner["name"].as_str().unwrap_or_default());
        owner.is_object() && !jobs.iter().any(|job| is_there(job)) && !now().is_some_and(|job| is_there(&job))
    };
    for pod in pods.iter().filter(|pod| pod["metadata"]["deletionTimestamp"].is_null() && is_gone(pod)) {
        cluster.delete_pod(&name_of(pod));
    }
    for job in jobs.iter().filter(|job| job["metadata"]["deletionTimestamp"].is_null() && is_gone(job)) {
        let name = name_of(job);
        cluster
            .store
            .edit(Kind::Job, &name, |job| job["metadata"]["deletionTimestamp"] = clock::now().into());
    }
    let (_, secrets) = cluster.store.list(Kind::Secret, &Selector::default());
    for secret in secrets.iter().filter(|secret| is_gone(secret)) {
        cluster.store.remove(Kind::Secret, &name_of(secret));
    }
}

struct Reconciler<'a> {
    cluster: &'a Arc<Cluster>,
    job: &'a Arc<Value>,
    pod: Option<&'a Arc<Value>>,
    known: &'a mut Known,
}

impl Reconciler<'_> {
    fn run(mut self) {
        let name = name_of(self.job);
        if self.job["metadata"]["deletionTimestamp"].is_string() {
            match self.pod {
                Some(pod) if pod["metadata"]["deletionTimestamp"].is_null() => {
                    self.cluster.delete_pod(&name_of(pod));
                }
                Some(_) => {}
                None => self.cluster.let_go(Kind::Job, &name),
            }
            return;
        }
        if self.has_condition("Complete") || self.has_condition("Failed") {
            let finished = *self.known.finished.get_or_insert_with(Instant::now);
            let ttl = self.job["spec"]["ttlSecondsAfterFinished"].as_u64().map(Duration::from_secs);
            if ttl.is_some_and(|ttl| finished.elapsed() >= ttl) {
                self.cluster.let_go(Kind::Job, &name);
            }
            return;
        }
        if self.job["spec"]["suspend"] == true {
            return;
        }
        if self.job["status"]["startTime"].is_null() {
            self.known.since = Instant::now();
            self.status(|status| {
                status["startTime"] = clock::now().into();
                status["ready"] = 0.into();
                status["terminating"] = 0.into();
                status["uncountedTerminatedPods"] = json!({});
            });
        }
        let deadline = self.job["spec"]["activeDeadlineSeconds"].as_u64().map(Duration::from_secs);
        if deadline.is_some_and(|deadline| self.known.since.elapsed() >= deadline)
            && !self.has_condition("FailureTarget")
        {
            self.condition(
                "FailureTarget",
                "DeadlineExceeded",
                "Job was active longer than specified deadline",
            );
            if let Some(pod) = self.pod {
                self.cluster.delete_pod(&name_of(pod));
            }
        }
        match self.pod {
            Some(pod) => self.follow(pod),
            None if self.has_condition("FailureTarget") => self.failed(),
            None if self.known.pod.is_some() => {
                self.condition(
                    "FailureTarget",
                    "BackoffLimitExceeded",
                    "Job has reached the specified backoff limit",
                );
                self.failed();
            }
            None => self.create_pod(),
        }
    }

    fn follow(&mut self, pod: &Value) {
        self.known.pod = Some(name_of(pod));
        let (name, phase) = (name_of(pod), pod["status"]["phase"].as_str().unwrap_or_default());
        let leaves = pod["metadata"]["deletionTimestamp"].is_string();
        let ready = i32::from(phase == "Running" && !leaves);
        match phase {
            "Succeeded" if !self.has_condition("FailureTarget") => {
                self.untrack(&name);
                self.condition(
                    "SuccessCriteriaMet",
                    "CompletionsReached",
                    "Reached expected number of succeeded pods",
                );
                self.condition("Complete", "CompletionsReached", "Reached expected number of succeeded pods");
                self.status(|status| {
                    status["completionTime"] = clock::now().into();
                    status["succeeded"] = 1.into();
                    status["ready"] = 0.into();
                    remove(status, "active");
                });
                self.event("Normal", "Completed", "Job completed");
                if leaves {
                    self.cluster.let_go(Kind::Pod, &name);
                }
            }
            "Succeeded" | "Failed" => {
                self.untrack(&name);
                self.condition(
                    "FailureTarget",
                    "BackoffLimitExceeded",
                    "Job has reached the specified backoff limit",
                );
                // Also of a pod that somebody's finalizer keeps: it does not run any more.
                self.failed();
                if leaves {
                    self.cluster.let_go(Kind::Pod, &name);
                }
            }
            // It counts when it has ended.
            _ if leaves && self.job["spec"]["podReplacementPolicy"] == "Failed" => self.status(|status| {
                status["terminating"] = 1.into();
                status["ready"] = 0.into();
                remove(status, "active");
            }),
            _ if leaves => {
                self.untrack(&name);
                self.condition(
                    "FailureTarget",
                    "BackoffLimitExceeded",
                    "Job has reached the specified backoff limit",
                );
                self.status(|status| {
                    status["terminating"] = 1.into();
                    status["failed"] = 1.into();
                    status["ready"] = 0.into();
                    remove(status, "active");
                });
            }
            _ => self.status(|status| {
                status["active"] = 1.into();
                status["ready"] = ready.into();
            }),
        }
    }

    /// Every pod has ended, and the Job with it.
    fn failed(&self) {
        let target = self.current("FailureTarget");
        let (reason, message) = (
            target["reason"].as_str().unwrap_or("BackoffLimitExceeded").to_owned(),
            target["message"].as_str().unwrap_or_default().to_owned(),
        );
        self.status(|status| {
            status["failed"] = 1.into();
            status["terminating"] = 0.into();
            status["ready"] = 0.into();
            remove(status, "active");
        });
        self.condition("Failed", &reason, &message);
        self.event("Warning", &reason, &message);
    }

    fn create_pod(&mut self) {
        if Instant::now() < self.known.try_again {
            return;
        }
        let job = name_of(self.job);
        let name = format!("{job}-{}", defaults::suffix());
        if let Err(why) = self.admit_pod(&name) {
            self.event("Warning", "FailedCreate", &format!("Error creating: {why}"));
            self.known.try_again = Instant::now() + self.known.delay;
            self.known.delay *= 2;
            return;
        }
        let template = &self.job["spec"]["template"];
        let mut spec = template["spec"].clone();
        spec["tolerations"] = Value::Array(
            spec["tolerations"]
                .as_array()
                .cloned()
                .unwrap_or_default()
                .into_iter()
                .chain(["not-ready", "unreachable"].map(|taint| {
                    json!({"key": format!("node.kubernetes.io/{taint}"), "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300})
                }))
                .collect(),
        );
        spec["priority"] = 0.into();
        spec["preemptionPolicy"] = "PreemptLowerPriority".into();
        let mut metadata = template["metadata"].clone();
        metadata["name"] = name.clone().into();
        metadata["generateName"] = format!("{job}-").into();
        metadata["finalizers"] = json!(["batch.kubernetes.io/job-tracking"]);
        metadata["ownerReferences"] = json!([{
            "apiVersion": "batch/v1", "kind": "Job", "name": job, "uid": self.job["metadata"]["uid"],
            "controller": true, "blockOwnerDeletion": true,
        }]);
        let pod = json!({"metadata": metadata, "spec": spec, "status": {"phase": "Pending", "qosClass": "Burstable"}});
        if let Ok(pod) = self.cluster.store.create(Kind::Pod, pod) {
            self.known.pod = Some(name.clone());
            self.event("Normal", "SuccessfulCreate", &format!("Created pod: {name}"));
            self.cluster.start_kubelet(pod);
        }
    }

    fn admit_pod(&self, name: &str) -> Result<(), String> {
        let spec = &self.job["spec"]["template"]["spec"];
        let account = spec["serviceAccountName"].as_str().unwrap_or("default");
        if !self.cluster.has_account(account) {
            let job = name_of(self.job);
            return Err(format!(
                "pods \"{job}-\" is forbidden: error looking up service account {NAMESPACE}/{account}: serviceaccount \"{account}\" not found"
            ));
        }
        if let Some(violation) = defaults::pod_security(spec) {
            let violation = violation.replacen("violate", "violates", 1);
            return Err(format!("pods \"{name}\" is forbidden: {violation}"));
        }
        if let Some(limit) = self.cluster.faults.quota().pods {
            let (_, pods) = self.cluster.store.list(Kind::Pod, &Selector::default());
            let used = pods
                .iter()
                .filter(|pod| matches!(pod["status"]["phase"].as_str(), Some("Pending" | "Running")))
                .count();
            if used >= limit {
                return Err(format!(
                    "pods \"{name}\" is forbidden: exceeded quota: pods, requested: pods=1, used: pods={used}, limited: pods={limit}"
                ));
            }
        }
        Ok(())
    }

    fn untrack(&self, pod: &str) {
        self.cluster.store.edit(Kind::Pod, pod, |pod| {
            let Some(metadata) = pod["metadata"].as_object_mut() else { return };
            let mut left = metadata.remove("finalizers").unwrap_or_default();
            if let Some(finalizers) = left.as_array_mut() {
                finalizers.retain(|finalizer| finalizer != TRACKING);
                if !finalizers.is_empty() {
                    metadata.insert("finalizers".to_owned(), left);
                }
            }
        });
    }

    fn current(&self, condition: &str) -> Value {
        let job = self.cluster.store.get(Kind::Job, &name_of(self.job));
        let conditions = job.as_ref().and_then(|job| job["status"]["conditions"].as_array());
        conditions.into_iter().flatten().find(|there| there["type"] == condition).cloned().unwrap_or_default()
    }

    fn has_condition(&self, kind: &str) -> bool {
        self.current(kind)["status"] == "True"
    }

    /// Sets a condition that is not there yet.
    fn condition(&self, kind: &str, reason: &str, message: &str) {
        if !self.has_condition(kind) {
            let condition = json!({"type": kind, "status": "True", "reason": reason, "message": message});
            self.status(|status| {
                set_condition(status, condition);
                for condition in status["conditions"].as_array_mut().into_iter().flatten() {
                    condition["lastProbeTime"] = condition["lastTransitionTime"].clone();
                }
            });
        }
    }

    fn status(&self, edit: impl FnOnce(&mut Value)) {
        self.cluster.store.edit(Kind::Job, &name_of(self.job), |job| edit(&mut job["status"]));
    }

    fn event(&self, kind: &str, reason: &str, message: &str) {
        self.cluster.event(self.job, Kind::Job, kind, reason, message);
    }
}

fn remove(status: &mut Value, field: &str) {
    if let Some(fields) = status.as_object_mut() {
        fields.remove(field);
    }
}

/// An Event about an object, as its controller writes it.
pub(super) fn event(about: &Value, kind: Kind, level: &str, reason: &str, message: &str) -> Value {
    let component = if kind == Kind::Job { "job-controller" } else { "kubelet" };
    let name = format!("{}.{}", name_of(about), uuid::Uuid::new_v4().simple());
    stamped(
        Kind::Event,
        json!({
            "metadata": {"name": name},
            "involvedObject": {
                "kind": kind.name(), "namespace": NAMESPACE, "name": name_of(about),
                "uid": about["metadata"]["uid"], "apiVersion": kind.api_version(),
                "resourceVersion": about["metadata"]["resourceVersion"],
            },
            "reason": reason, "message": message, "type": level, "count": 1,
            "source": {"component": component}, "firstTimestamp": clock::now(), "lastTimestamp": clock::now(),
            "eventTime": null, "reportingComponent": component, "reportingInstance": "",
        }),
    )
}
