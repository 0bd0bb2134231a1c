//! The objects of one namespace, and what became of them: what etcd and the watch cache are to the API server.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard},
};

use serde_json::{Value, json};
use tokio::sync::watch;
use uuid::Uuid;

use super::{clock, selector::Selector, status::Refusal};

/// The namespace that exists.
pub(super) const NAMESPACE: &str = "tendril";

/// What is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Kind {
    Job,
    Pod,
    Secret,
    Lease,
    Event,
}

impl Kind {
    pub(super) fn of(group: &str, plural: &str) -> Option<Self> {
        [Self::Job, Self::Pod, Self::Secret, Self::Lease, Self::Event]
            .into_iter()
            .find(|kind| kind.group() == group && kind.plural() == plural)
    }

    pub(super) fn of_type(group: &str, name: &str) -> Option<Self> {
        [Self::Job, Self::Pod, Self::Secret, Self::Lease, Self::Event]
            .into_iter()
            .find(|kind| kind.group() == group && kind.name() == name)
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Job => "Job",
            Self::Pod => "Pod",
            Self::Secret => "Secret",
            Self::Lease => "Lease",
            Self::Event => "Event",
        }
    }

    pub(super) fn plural(self) -> &'static str {
        match self {
            Self::Job => "jobs",
            Self::Pod => "pods",
            Self::Secret => "secrets",
            Self::Lease => "leases",
            Self::Event => "events",
        }
    }

    pub(super) fn group(self) -> &'static str {
        match self {
            Self::Job => "batch",
            Self::Lease => "coordination.k8s.io",
            Self::Pod | Self::Secret | Self::Event => "",
        }
    }

    pub(super) fn api_version(self) -> &'static str {
        match self {
            Self::Job => "batch/v1",
            Self::Lease => "coordination.k8s.io/v1",
            Self::Pod | Self::Secret | Self::Event => "v1",
        }
    }

    /// `jobs.batch`.
    pub(super) fn qualified(self) -> String {
        dotted(self.plural(), self.group())
    }

    /// `Job.batch`; of a Lease the resource, as recorded.
    pub(super) fn type_name(self) -> String {
        match self {
            Self::Lease => "Lease.coordination.k8s.io".to_owned(),
            kind => dotted(kind.name(), kind.group()),
        }
    }

    /// Whether changes of `spec` count up `metadata.generation`.
    pub(super) fn has_generation(self) -> bool {
        matches!(self, Self::Job | Self::Pod)
    }
}

fn dotted(name: &str, group: &str) -> String {
    if group.is_empty() { name.to_owned() } else { format!("{name}.{group}") }
}

/// What a watcher hears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Added,
    Modified,
    Deleted,
}

/// One version of the namespace.
#[derive(Clone, Debug)]
pub(super) struct Step {
    pub(super) version: u64,
    pub(super) kind: Kind,
    pub(super) change: Change,
    pub(super) object: Arc<Value>,
    before: Option<Arc<Value>>,
}

impl Step {
    /// What a watcher with this selector hears of it: an object that leaves the selector is deleted for it, as it was before.
    pub(super) fn seen_through(&self, selector: &Selector) -> Option<(&'static str, Arc<Value>)> {
        let (is, was) = (
            self.change != Change::Deleted && selector.matches(&self.object),
            self.before.as_ref().is_some_and(|before| selector.matches(before)),
        );
        match (was, is) {
            (false, true) => Some(("ADDED", Arc::clone(&self.object))),
            (true, true) => Some(("MODIFIED", Arc::clone(&self.object))),
            (true, false) if self.change == Change::Deleted => Some(("DELETED", Arc::clone(&self.object))),
            (true, false) => {
                let mut before = self.before.as_deref().cloned().unwrap_or_default();
                before["metadata"]["resourceVersion"] = self.version.to_string().into();
                Some(("DELETED", Arc::new(before)))
            }
            (false, false) => None,
        }
    }
}

#[derive(Debug)]
pub(super) struct Store {
    state: Mutex<State>,
    changed: watch::Sender<u64>,
}

#[derive(Debug)]
struct State {
    version: u64,
    /// Versions before it are forgotten.
    oldest: u64,
    objects: HashMap<Kind, BTreeMap<String, Arc<Value>>>,
    steps: Vec<Step>,
}

impl Store {
    pub(super) fn new() -> Self {
        let state = State { version: 100, oldest: 100, objects: HashMap::new(), steps: Vec::new() };
        Self { state: Mutex::new(state), changed: watch::channel(100).0 }
    }

    pub(super) fn version(&self) -> u64 {
        self.state().version
    }

    /// The first version that a watch may still start from.
    pub(super) fn oldest(&self) -> u64 {
        self.state().oldest
    }

    /// Forgets every version: a watch or list from before is refused as expired.
    pub(super) fn forget(&self) {
        let mut state = self.state();
        state.version += 1;
        state.oldest = state.version;
        state.steps.clear();
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    pub(super) fn get(&self, kind: Kind, name: &str) -> Option<Arc<Value>> {
        self.state().objects.get(&kind)?.get(name).cloned()
    }

    /// In the order of their names, as etcd keeps them.
    pub(super) fn list(&self, kind: Kind, selector: &Selector) -> (u64, Vec<Arc<Value>>) {
        let state = self.state();
        let all = state.objects.get(&kind).into_iter().flat_map(BTreeMap::values);
        (state.version, all.filter(|object| selector.matches(object)).cloned().collect())
    }

    /// What happened after this version.
    pub(super) fn since(&self, version: u64, kind: Kind) -> Vec<Step> {
        let state = self.state();
        let from = state.steps.partition_point(|step| step.version <= version);
        state.steps[from..].iter().filter(|step| step.kind == kind).cloned().collect()
    }

    /// Fills in what the server fills in, and stores it.
    pub(super) fn create(&self, kind: Kind, object: Value) -> Result<Arc<Value>, Refusal> {
        let mut state = self.state();
        let object = stamped(kind, object);
        let name = name_of(&object);
        if let Some(there) = state.objects.get(&kind).and_then(|objects| objects.get(&name)) {
            let leaves = there["metadata"]["deletionTimestamp"].is_string();
            return Err(Refusal::already_exists(kind, &name, leaves));
        }
        Ok(self.put(&mut state, kind, Change::Added, None, object))
    }

    /// Stores an object with everything that is in it.
    pub(super) fn seed(&self, kind: Kind, object: Value) {
        self.put(&mut self.state(), kind, Change::Added, None, object);
    }

    /// Changes an object; none, if it is not there or `edit` wants it as it is.
    pub(super) fn edit(&self, kind: Kind, name: &str, edit: impl FnOnce(&mut Value)) -> Option<Arc<Value>> {
        let mut state = self.state();
        let before = Arc::clone(state.objects.get(&kind)?.get(name)?);
        let mut object = Value::clone(&before);
        edit(&mut object);
        if object == *before {
            return Some(before);
        }
        if kind.has_generation() && object["spec"] != before["spec"] {
            let generation = before["metadata"]["generation"].as_i64().unwrap_or(1);
            object["metadata"]["generation"] = (generation + 1).into();
        }
        Some(self.put(&mut state, kind, Change::Modified, Some(before), object))
    }

    pub(super) fn remove(&self, kind: Kind, name: &str) -> Option<Arc<Value>> {
        let mut state = self.state();
        let before = state.objects.get_mut(&kind)?.remove(name)?;
        let object = Value::clone(&before);
        Some(self.put(&mut state, kind, Change::Deleted, Some(before), object))
    }

    fn put(
        &self,
        state: &mut State,
        kind: Kind,
        change: Change,
        before: Option<Arc<Value>>,
        mut object: Value,
    ) -> Arc<Value> {
        state.version += 1;
        object["metadata"]["resourceVersion"] = state.version.to_string().into();
        let object = Arc::new(object);
        if change != Change::Deleted {
            state.objects.entry(kind).or_default().insert(name_of(&object), Arc::clone(&object));
        }
        state.steps.push(Step { version: state.version, kind, change, object: Arc::clone(&object), before });
        self.changed.send_replace(state.version);
        object
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics while holding it")
    }
}

/// With uid, time and type.
pub(super) fn stamped(kind: Kind, mut object: Value) -> Value {
    object["kind"] = kind.name().into();
    object["apiVersion"] = kind.api_version().into();
    let metadata = &mut object["metadata"];
    metadata["namespace"] = NAMESPACE.into();
    if metadata["uid"].is_null() {
        metadata["uid"] = Uuid::new_v4().to_string().into();
    }
    metadata["creationTimestamp"] = clock::now().into();
    if kind.has_generation() {
        metadata["generation"] = json!(1);
    }
    object
}

pub(super) fn name_of(object: &Value) -> String {
    object["metadata"]["name"].as_str().unwrap_or_default().to_owned()
}
