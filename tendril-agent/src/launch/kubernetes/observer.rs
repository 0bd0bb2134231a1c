//! What is known of the Jobs and pods of this cluster: two watches, and the last that was seen of each.
//!
//! A watch ends by itself within five minutes, and starts where it ended; both are begun anew with a list every twenty minutes,
//! because a server whose storage was restored from a backup says nothing to a watch from its future. With 500 Jobs that is
//! one request a minute.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::{batch::v1::Job, core::v1::Pod};
use kube::{
    Api, Resource,
    runtime::{
        WatchStreamExt as _,
        utils::Backoff,
        watcher::{self, DefaultBackoff, Event, watcher},
    },
};
use serde::de::DeserializeOwned;
use tokio::{
    sync::{Notify, watch},
    task::JoinHandle,
    time::{sleep, timeout},
};

use crate::launch::kubernetes::view::{JobView, PodView};

/// Between two lists.
const LIST_EVERY: Duration = Duration::from_secs(1200);
/// Of one watch; the server's own limit is 295.
const WATCH_SECONDS: u32 = 290;
/// The longest pause after a server that did not answer.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// Objects per page of a list: what is read at once is small, however many there are.
const PAGE: u32 = 100;

/// The last that was seen of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) job: Option<JobView>,
    /// Also when it is gone: its end is in it.
    pub(crate) pod: Option<PodView>,
    /// Whether the Job is gone, or left the selector.
    pub(crate) is_gone: bool,
    /// Whether it went between two lists: what is known of it is older than its end.
    pub(crate) went_unseen: bool,
}

impl Seen {
    fn has_ended(&self) -> bool {
        self.is_gone || self.job.as_ref().is_some_and(|job| job.finished.is_some())
    }
}

/// Watches until it is dropped. Clones share it.
#[derive(Clone)]
pub(crate) struct Observer {
    runs: Runs,
    synced: watch::Receiver<[bool; 2]>,
    _tasks: Arc<[Task; 2]>,
}

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Observer").field("runs", &self.runs.all().len()).finish_non_exhaustive()
    }
}

/// What was seen. Clones share it.
#[derive(Clone, Debug, Default)]
struct Runs {
    /// By name of the Job.
    seen: Arc<Mutex<HashMap<String, watch::Sender<Seen>>>>,
    /// A Job has ended, or is gone.
    freed: Arc<Notify>,
}

impl Runs {
    fn all(&self) -> MutexGuard<'_, HashMap<String, watch::Sender<Seen>>> {
        // Nothing that holds the lock can leave the map in halves.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn edit(&self, job: &str, edit: impl FnOnce(&mut Seen)) {
        let mut runs = self.all();
        let run = runs.entry(job.to_owned()).or_insert_with(|| watch::channel(Seen::default()).0);
        let mut has_ended = false;
        run.send_if_modified(|seen| {
            let before = seen.clone();
            edit(seen);
            has_ended = seen.has_ended() && !before.has_ended();
            *seen != before
        });
        if has_ended {
            self.freed.notify_one();
        }
    }

    /// Whether somebody waits for what becomes of a Job.
    fn is_watched(&self, job: &str) -> bool {
        self.all().get(job).is_some_and(|run| run.receiver_count() > 0)
    }

    /// Nobody waits for it, and it is gone.
    fn forget_gone(&self) {
        let is_gone = |seen: &Seen| match &seen.job {
            Some(_) => seen.is_gone,
            None => seen.pod.as_ref().is_some_and(|pod| pod.is_gone),
        };
        self.all().retain(|_, run| run.receiver_count() > 0 || !is_gone(&run.borrow()));
    }
}

struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Observer {
    /// Begins to watch. Must be called inside a runtime.
    /// Of what ended after `since` everything is kept: nobody else has seen it.
    pub(crate) fn start(jobs: Api<Job>, pods: Api<Pod>, selector: &str, since: Option<i64>) -> Self {
        let runs = Runs::default();
        let (is_synced, synced) = watch::channel([false; 2]);
        let is_synced = Arc::new(is_synced);
        let config = watcher::Config::default().labels(selector).timeout(WATCH_SECONDS).page_size(PAGE);
        let tasks = [
            Task(tokio::spawn(follow(
                jobs,
                config.clone(),
                "Jobs",
                Jobs(runs.clone()),
                0,
                Arc::clone(&is_synced),
            ))),
            Task(tokio::spawn(follow(
                pods,
                config,
                "pods",
                Pods { runs: runs.clone(), since },
                1,
                is_synced,
            ))),
        ];
        Self { runs, synced, _tasks: Arc::new(tasks) }
    }

    /// Waits until both were listed once.
    pub(crate) async fn synced(&self) {
        let mut synced = self.synced.clone();
        let _ended = synced.wait_for(|[jobs, pods]| *jobs && *pods).await;
    }

    /// What becomes of a Job, also before it is seen.
    pub(crate) fn subscribe(&self, job: &str) -> watch::Receiver<Seen> {
        let mut runs = self.runs.all();
        runs.entry(job.to_owned()).or_insert_with(|| watch::channel(Seen::default()).0).subscribe()
    }

    /// Waits for the pod of a Job.
    pub(crate) async fn pod_of(&self, job: &str) -> PodView {
        let mut seen = self.subscribe(job);
        let there = seen.wait_for(|seen| seen.pod.is_some()).await;
        match there.ok().and_then(|seen| seen.pod.clone()) {
            Some(pod) => pod,
            // What is seen is kept for as long as somebody waits for it.
            None => std::future::pending().await,
        }
    }

    /// A Job that was read or made by other means than the watch.
    pub(crate) fn note(&self, job: JobView) {
        let name = job.name.clone();
        self.runs.edit(&name, |seen| {
            (seen.is_gone, seen.went_unseen) = (false, false);
            if seen.job.is_none() {
                seen.job = Some(job);
            }
        });
    }

    /// Waits until a Job has ended since the last time that somebody waited: one of those who wait is woken for each.
    pub(crate) async fn freed(&self) {
        self.runs.freed.notified().await;
    }

    /// The names of the pods of a stack whose containers are known to have ended, at most so many.
    pub(crate) fn ended_pods(&self, stack: &str, most: usize) -> Vec<String> {
        let runs = self.runs.all();
        let seen = runs.values().map(|run| run.borrow());
        let of_stack =
            seen.filter(|seen| seen.job.as_ref().is_some_and(|job| job.stack.as_deref() == Some(stack)));
        let ended = of_stack.filter_map(|seen| {
            let pod = seen.pod.as_ref()?;
            (pod.terminated.is_some() && !pod.is_silent).then(|| pod.name.clone())
        });
        ended.take(most).collect()
    }

    /// Everything that was seen, by name of the Job: of some only the pod is there.
    pub(crate) fn all(&self) -> Vec<(String, Seen)> {
        self.runs.all().iter().map(|(name, run)| (name.clone(), run.borrow().clone())).collect()
    }

    /// Every Job that is there.
    pub(crate) fn jobs(&self) -> Vec<JobView> {
        let runs = self.runs.all();
        let seen = runs.values().map(|run| run.borrow());
        seen.filter(|seen| !seen.is_gone).filter_map(|seen| seen.job.clone()).collect()
    }
}

/// What is kept of the objects of a watch.
trait Keep<K>: Send {
    /// Keeps it; answers its name.
    fn apply(&self, object: &K) -> Option<String>;
    fn delete(&self, object: &K);
    /// What was not listed is gone.
    fn only(&self, listed: &HashSet<String>);
}

struct Jobs(Runs);

impl Keep<Job> for Jobs {
    fn apply(&self, job: &Job) -> Option<String> {
        let job = JobView::of(job)?;
        let name = job.name.clone();
        self.0.edit(&name, |seen| {
            (seen.is_gone, seen.went_unseen) = (false, false);
            seen.job = Some(job);
        });
        Some(name)
    }

    fn delete(&self, job: &Job) {
        if let Some(job) = JobView::of(job) {
            let name = job.name.clone();
            self.0.edit(&name, |seen| {
                seen.job = Some(job);
                seen.is_gone = true;
            });
        }
        self.0.forget_gone();
    }

    fn only(&self, listed: &HashSet<String>) {
        let gone: Vec<String> = {
            let runs = self.0.all();
            let is_gone = |(name, run): &(&String, &watch::Sender<Seen>)| {
                !listed.contains(*name) && run.borrow().job.is_some()
            };
            runs.iter().filter(is_gone).map(|(name, _)| name.clone()).collect()
        };
        for name in gone {
            self.0.edit(&name, |seen| {
                seen.went_unseen |= !seen.is_gone;
                seen.is_gone = true;
            });
        }
        self.0.forget_gone();
    }
}

struct Pods {
    runs: Runs,
    since: Option<i64>,
}

impl Keep<Pod> for Pods {
    fn apply(&self, pod: &Pod) -> Option<String> {
        let mut pod = PodView::of(pod)?;
        let (name, job) = (pod.name.clone(), pod.job.clone());
        let is_unseen = pod.terminated.as_ref().is_some_and(|ended| ended.is_after(self.since));
        if !self.runs.is_watched(&job) && !is_unseen {
            pod.forget_message();
        }
        self.runs.edit(&job, |seen| {
            // A second pod of a run does nothing, and says nothing of the run.
            let is_surplus = seen
                .pod
                .as_ref()
                .is_some_and(|there| there.uid != pod.uid && there.terminated.is_none() && !there.leaves);
            if !is_surplus {
                seen.pod = Some(pod);
            }
        });
        Some(name)
    }

    /// The last event has the exit code.
    fn delete(&self, pod: &Pod) {
        if let Some(mut pod) = PodView::of(pod) {
            (pod.leaves, pod.is_gone) = (true, true);
            let job = pod.job.clone();
            self.runs.edit(&job, |seen| {
                if seen.pod.as_ref().is_none_or(|there| there.uid == pod.uid) {
                    seen.pod = Some(pod);
                }
            });
        }
        self.runs.forget_gone();
    }

    /// A pod that is gone is remembered as it was seen last.
    fn only(&self, listed: &HashSet<String>) {
        for run in self.runs.all().values() {
            run.send_if_modified(|seen| {
                let gone = seen.pod.as_mut().filter(|pod| !pod.is_gone && !listed.contains(&pod.name));
                gone.map(|pod| pod.is_gone = true).is_some()
            });
        }
    }
}

async fn follow<K, S>(
    api: Api<K>,
    config: watcher::Config,
    what: &'static str,
    keep: S,
    index: usize,
    synced: Arc<watch::Sender<[bool; 2]>>,
) where
    K: Resource + Clone + DeserializeOwned + fmt::Debug + Send + 'static,
    S: Keep<K>,
{
    loop {
        let mut events = watcher(api.clone(), config.clone()).backoff(ShortBackoff::default()).boxed();
        let mut listed = HashSet::new();
        let mut complained = false;
        let watched = async {
            loop {
                let event = events.try_next().await;
                // A watch that goes on where it was lists nothing: its first event shows that the server is there.
                if complained && matches!(event, Ok(Some(_))) && !matches!(event, Ok(Some(Event::Init))) {
                    tracing::info!(what, "the Kubernetes API answers again");
                    complained = false;
                }
                match event {
                    Ok(Some(Event::Init)) => listed.clear(),
                    Ok(Some(Event::InitApply(object))) => listed.extend(keep.apply(&object)),
                    Ok(Some(Event::InitDone)) => {
                        keep.only(&listed);
                        listed = HashSet::new();
                        synced.send_if_modified(|synced| match synced.get_mut(index) {
                            Some(done) => !std::mem::replace(done, true),
                            None => false,
                        });
                    }
                    Ok(Some(Event::Apply(object))) => drop(keep.apply(&object)),
                    Ok(Some(Event::Delete(object))) => keep.delete(&object),
                    Ok(None) => return,
                    // A watch whose version is too old says so; the watcher lists again by itself.
                    Err(watcher::Error::WatchError(status)) if status.code == 410 => {
                        tracing::debug!(what, "the watch is too old: listing again");
                    }
                    Err(error) if complained => {
                        tracing::debug!(what, %error, "the Kubernetes API does not answer");
                    }
                    Err(error) => {
                        tracing::warn!(
                            what,
                            %error,
                            "the Kubernetes API does not answer: runs go on, and are looked at again as soon as it does"
                        );
                        complained = true;
                    }
                }
            }
        };
        if timeout(LIST_EVERY, watched).await.is_ok() {
            // The stream never ends by itself; should it do so, not in a tight loop.
            sleep(Duration::from_secs(1)).await;
        }
    }
}

/// Between two tries: as the library's own, and shorter at its longest, so that the end of a run is known soon after an outage.
#[derive(Default)]
struct ShortBackoff(DefaultBackoff);

impl Iterator for ShortBackoff {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        self.0.next().map(|pause| pause.min(LONGEST_PAUSE))
    }
}

impl Backoff for ShortBackoff {
    fn reset(&mut self) {
        self.0.reset();
    }
}
