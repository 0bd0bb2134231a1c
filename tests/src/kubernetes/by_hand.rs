//! What people and programs of the cluster change with `kubectl`, past the agent.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

use super::{
    ApiServer, clock,
    departure::Namespace,
    store::{Kind, name_of},
};

impl ApiServer {
    /// Changes a Job by hand, as `kubectl edit` does. Answers whether it is there.
    pub fn edit_job(&self, job: &str, edit: impl FnOnce(&mut Value)) -> bool {
        self.cluster.store.edit(Kind::Job, job, edit).is_some()
    }

    /// Changes a pod by hand.
    pub fn edit_pod(&self, pod: &Value, edit: impl FnOnce(&mut Value)) -> bool {
        self.cluster.store.edit(Kind::Pod, &name_of(pod), edit).is_some()
    }

    /// Starts a second pod of a Job, as its controller may after a failure of its own; answers its name.
    pub fn start_twin(&self, job: &str) -> Option<String> {
        let mut pod = Value::clone(&*self.pod_of(job)?);
        let name = format!("{}-twin", name_of(&pod));
        pod["metadata"]["name"] = name.clone().into();
        pod["metadata"]["uid"] = Value::Null;
        pod["status"] = json!({"phase": "Pending"});
        let pod = self.cluster.store.create(Kind::Pod, pod).ok()?;
        self.cluster.start_kubelet(pod);
        Some(name)
    }

    /// Stores copies of a Job and its pod, as of so many other deployments.
    ///
    /// # Panics
    /// Where there is no such Job with a pod.
    pub fn copy_run(&self, job: &str, deployment: &str, count: usize) {
        let made = self.cluster.store.get(Kind::Job, job).expect("a Job");
        let pod = self.pod_of(job).expect("its pod");
        for n in 0..count {
            let id = format!("00000000-0000-4000-8000-{n:012}");
            for (kind, object) in [(Kind::Job, &made), (Kind::Pod, &pod)] {
                let mut copy: Value =
                    serde_json::from_str(&object.to_string().replace(deployment, &id)).expect("JSON");
                copy["metadata"]["uid"] = Value::Null;
                copy["metadata"]["ownerReferences"] = Value::Null;
                self.cluster.store.create(kind, copy).expect("a new object");
            }
        }
    }

    /// Stores a Lease of somebody else's.
    pub fn put_lease(&self, name: &str, holder: &str, renewed: &str, seconds: u64) {
        let lease = json!({"metadata": {"name": name}, "spec": {
            "holderIdentity": holder, "leaseDurationSeconds": seconds,
            "acquireTime": renewed, "renewTime": renewed, "leaseTransitions": 0,
        }});
        self.cluster.store.create(Kind::Lease, lease).expect("a new Lease");
    }

    /// Changes the bytes of the plan that waits in a Secret. Answers whether there is one.
    pub fn edit_plan(&self, edit: impl FnOnce(&mut Vec<u8>)) -> bool {
        let secrets = self.secrets();
        let Some(plan) = secrets.iter().find(|secret| secret["data"]["plan"].is_string()) else {
            return false;
        };
        let bytes = BASE64_STANDARD.decode(plan["data"]["plan"].as_str().unwrap_or_default());
        let mut bytes = bytes.expect("Base64");
        edit(&mut bytes);
        let text = BASE64_STANDARD.encode(bytes);
        self.cluster
            .store
            .edit(Kind::Secret, &name_of(plan), |secret| secret["data"]["plan"] = text.into())
            .is_some()
    }

    /// Deletes the namespace, as `kubectl delete namespace` does: nothing new is taken, and everything goes.
    pub fn delete_namespace(&self) {
        self.cluster.faults.set_namespace(Namespace::Leaves);
    }

    /// Removes the object of a pod, as the cluster does for a node that was removed. Its program runs on.
    pub fn collect_pod(&self, pod: &Value) {
        self.cluster.store.edit(Kind::Pod, &name_of(pod), |pod| {
            pod["metadata"]["deletionTimestamp"] = clock::now().into();
            pod["metadata"]["deletionGracePeriodSeconds"] = 0.into();
        });
        self.cluster.store.remove(Kind::Pod, &name_of(pod));
    }

    /// Removes Secrets that belong to a Job; answers how many.
    pub fn remove_secrets_of(&self, job: &str) -> usize {
        let of_job = |secret: &Value| secret["metadata"]["ownerReferences"][0]["name"] == job;
        let secrets = self.secrets();
        let found = secrets.iter().filter(|secret| of_job(secret));
        found.filter_map(|secret| self.cluster.store.remove(Kind::Secret, &name_of(secret))).count()
    }

    /// Removes a Job that has ended, and its pod, as `ttlSecondsAfterFinished` does.
    pub fn expire_job(&self, job: &str) {
        self.cluster.store.remove(Kind::Job, job);
    }

    /// Removes a Job and leaves its pod, as `kubectl delete --cascade=orphan` does.
    pub fn remove_job(&self, job: &str) {
        self.cluster.orphan_pods(job);
        self.cluster.store.remove(Kind::Job, job);
    }
}
