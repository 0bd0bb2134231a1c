//! How objects go: graces, finalizers, owners, and the namespace with everything in it.

use serde_json::Value;

use super::{
    Cluster, clock,
    kubelet::Order,
    selector::Selector,
    store::{Kind, name_of},
};

/// Finalizers that the cluster's own controllers set and take away.
const OWN: &[&str] = &["foregroundDeletion", "orphan", TRACKING];
pub(super) const TRACKING: &str = "batch.kubernetes.io/job-tracking";

/// What becomes of the namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Namespace {
    #[default]
    There,
    /// It is being deleted: nothing new is taken.
    Leaves,
    Gone,
}

impl Cluster {
    /// Deletes a pod: its program has its grace, and then the object goes.
    pub(super) fn delete_pod(&self, name: &str) {
        let mut is_new = false;
        self.store.edit(Kind::Pod, name, |pod| {
            let grace = pod["spec"]["terminationGracePeriodSeconds"].as_u64().unwrap_or(30);
            let metadata = &mut pod["metadata"];
            if metadata["deletionTimestamp"].is_null() {
                metadata["deletionTimestamp"] = clock::in_seconds(grace).into();
                metadata["deletionGracePeriodSeconds"] = grace.into();
                is_new = true;
            }
        });
        if is_new && !self.order(name, Order::Delete) {
            // Its container has ended already.
            self.let_go(Kind::Pod, name);
        }
    }

    /// Removes a pod that has ended, once its Job has counted it.
    pub(super) fn let_pod_go(&self, name: &str) {
        let pod = self.store.get(Kind::Pod, name);
        let is_tracked = |pod: &Value| {
            let owner = pod["metadata"]["ownerReferences"][0]["name"].as_str().unwrap_or_default();
            let finalizers = pod["metadata"]["finalizers"].as_array();
            // A Job that is being deleted, or is gone, counts nothing any more.
            let counts = |job: &Value| job["metadata"]["deletionTimestamp"].is_null();
            finalizers.is_some_and(|all| all.iter().any(|one| one == TRACKING))
                && self.store.get(Kind::Job, owner).is_some_and(|job| counts(&job))
        };
        if !pod.is_some_and(|pod| is_tracked(&pod)) {
            self.let_go(Kind::Pod, name);
        }
    }

    /// Removes an object, unless somebody's finalizer keeps it: then it is marked as being deleted, and stays.
    pub(super) fn let_go(&self, kind: Kind, name: &str) {
        let is_kept = self.store.get(kind, name).is_some_and(|object| has_foreign_finalizer(&object));
        if !is_kept {
            self.store.remove(kind, name);
            return;
        }
        self.store.edit(kind, name, |object| {
            let metadata = &mut object["metadata"];
            if metadata["deletionTimestamp"].is_null() {
                metadata["deletionTimestamp"] = clock::now().into();
                metadata["deletionGracePeriodSeconds"] = 0.into();
            }
            if let Some(finalizers) = metadata["finalizers"].as_array_mut() {
                finalizers.retain(|finalizer| !is_own(finalizer));
            }
        });
    }

    /// Takes the owner from the pods of a Job.
    pub(super) fn orphan_pods(&self, job: &str) {
        for pod in self.store.list(Kind::Pod, &Selector::default()).1 {
            if pod["metadata"]["ownerReferences"][0]["name"] == job {
                self.store.edit(Kind::Pod, &name_of(&pod), |pod| {
                    if let Some(metadata) = pod["metadata"].as_object_mut() {
                        metadata.remove("ownerReferences");
                        metadata.remove("finalizers");
                    }
                });
            }
        }
    }

    /// Deletes what is in a namespace that is being deleted; when it is empty, the namespace is gone.
    pub(super) fn empty_namespace(&self) {
        if self.faults.namespace() != Namespace::Leaves {
            return;
        }
        let names = |kind| {
            let objects = self.store.list(kind, &Selector::default()).1;
            objects.iter().map(|object| name_of(object)).collect::<Vec<_>>()
        };
        for kind in [Kind::Job, Kind::Secret, Kind::Lease, Kind::Event] {
            for name in names(kind) {
                self.let_go(kind, &name);
            }
        }
        let pods = names(Kind::Pod);
        for pod in &pods {
            self.delete_pod(pod);
        }
        if pods.is_empty() {
            self.faults.set_namespace(Namespace::Gone);
        }
    }
}

/// Whether an object waits for somebody who is none of the cluster's controllers.
fn has_foreign_finalizer(object: &Value) -> bool {
    object["metadata"]["finalizers"].as_array().into_iter().flatten().any(|finalizer| !is_own(finalizer))
}

fn is_own(finalizer: &Value) -> bool {
    finalizer.as_str().is_some_and(|finalizer| OWN.contains(&finalizer))
}
