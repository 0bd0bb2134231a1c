//! What goes wrong on purpose.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard},
    time::Duration,
};

use tokio::sync::watch;

use super::departure::Namespace;

/// How the container of a pod ends, whatever its program does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The kernel kills it for its memory: every process of the pod at once.
    OomKilled,
    /// SIGKILL, by whomever.
    Killed,
    /// The kubelet ends it for its disk: SIGTERM, and SIGKILL two seconds later.
    Evicted,
    /// The eviction API: SIGTERM, and SIGKILL after the pod's grace.
    EvictedByApi,
    /// Somebody deletes the pod.
    Deleted,
    /// Its node stops answering, and no other one could take the pod: nothing is deleted.
    NodeSilent,
    /// Its node stops answering, and the pod is given up: the program continues, unseen.
    NodeGone,
    /// The node answers again, and what it had to do is done.
    NodeBack,
}

/// The quota of the namespace.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Quota {
    pub(super) jobs: Option<usize>,
    pub(super) pods: Option<usize>,
}

/// The faults that are in force.
#[derive(Debug, Default)]
pub(super) struct Faults {
    state: Mutex<State>,
    /// Requests that are held: method and resource.
    held: watch::Sender<BTreeSet<(String, String)>>,
}

#[derive(Debug, Default)]
struct State {
    quota: Quota,
    /// A policy and its sentence, that every Job breaks.
    policy: Option<(String, String)>,
    webhook: Option<String>,
    /// The next answers, by method and resource: the request is carried out and its answer is lost.
    lost_answers: BTreeMap<(String, String), usize>,
    /// What is answered to the next requests: status, seconds to wait, and how many; only to those whose query has this.
    refused: Option<(u16, u64, usize, &'static str)>,
    /// Before each answer.
    delay: Duration,
    /// Every watch ends after so long, whatever it asked for.
    watch_ends: Option<Duration>,
    /// Watches have no bookmarks.
    has_no_bookmarks: bool,
    /// The controller manager is away: Jobs are stored, and nothing comes of them.
    is_controller_down: bool,
    namespace: Namespace,
}

impl Faults {
    pub(super) fn namespace(&self) -> Namespace {
        self.state().namespace
    }

    pub(super) fn set_namespace(&self, namespace: Namespace) {
        self.state().namespace = namespace;
    }

    pub(super) fn quota(&self) -> Quota {
        self.state().quota
    }

    pub(super) fn set_quota(&self, quota: Quota) {
        self.state().quota = quota;
    }

    pub(super) fn policy(&self) -> Option<(String, String)> {
        self.state().policy.clone()
    }

    pub(super) fn set_policy(&self, policy: Option<(String, String)>) {
        self.state().policy = policy;
    }

    pub(super) fn webhook(&self) -> Option<String> {
        self.state().webhook.clone()
    }

    pub(super) fn set_webhook(&self, why: Option<String>) {
        self.state().webhook = why;
    }

    pub(super) fn lose_answers(&self, method: &str, resource: &str, count: usize) {
        self.state().lost_answers.insert((method.to_owned(), resource.to_owned()), count);
    }

    /// Whether the answer to this request is lost.
    pub(super) fn loses_answer(&self, method: &str, resource: &str) -> bool {
        let mut state = self.state();
        let key = (method.to_owned(), resource.to_owned());
        let Some(left) = state.lost_answers.get_mut(&key).filter(|left| **left > 0) else { return false };
        *left -= 1;
        true
    }

    pub(super) fn refuse(&self, status: u16, retry_after: u64, count: usize, query: &'static str) {
        self.state().refused = Some((status, retry_after, count, query));
    }

    /// What this request is refused with, if it is: status, and seconds to wait.
    pub(super) fn refuses(&self, query: &str) -> Option<(u16, u64)> {
        let mut state = self.state();
        let (status, retry_after, left, wanted) = state.refused.as_mut()?;
        if *left == 0 || !query.contains(*wanted) {
            return None;
        }
        *left -= 1;
        Some((*status, *retry_after))
    }

    pub(super) fn set_delay(&self, delay: Duration) {
        self.state().delay = delay;
    }

    pub(super) fn delay(&self) -> Duration {
        self.state().delay
    }

    pub(super) fn set_watches(&self, end_after: Option<Duration>, has_no_bookmarks: bool) {
        let mut state = self.state();
        (state.watch_ends, state.has_no_bookmarks) = (end_after, has_no_bookmarks);
    }

    /// How long a watch lasts at most, and whether it has no bookmarks.
    pub(super) fn watches(&self) -> (Option<Duration>, bool) {
        let state = self.state();
        (state.watch_ends, state.has_no_bookmarks)
    }

    pub(super) fn hold(&self, method: &str, resource: &str) {
        self.held.send_modify(|held| {
            held.insert((method.to_owned(), resource.to_owned()));
        });
    }

    pub(super) fn release(&self) {
        self.held.send_modify(BTreeSet::clear);
    }

    /// Waits while requests of this kind are held. A client that gives up meanwhile has asked for nothing.
    pub(super) async fn pass(&self, method: &str, resource: &str) {
        let key = (method.to_owned(), resource.to_owned());
        let mut held = self.held.subscribe();
        drop(held.wait_for(|held| !held.contains(&key)).await);
    }

    pub(super) fn controller_down(&self) -> bool {
        self.state().is_controller_down
    }

    pub(super) fn set_controller_down(&self, is_down: bool) {
        self.state().is_controller_down = is_down;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics while holding it")
    }
}
