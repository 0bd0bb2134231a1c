//! Executors as pods: a Job for each run, and its end as the watches show it.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use futures_util::future::BoxFuture;
use k8s_openapi::api::{
    batch::v1::Job,
    core::v1::{Event, Pod, Secret, ServiceAccount},
};
use kube::{
    Api,
    api::{DeleteParams, Preconditions, PropagationPolicy},
};
use secrecy::SecretString;
use sha2::{Digest as _, Sha256};
use tokio::{sync::Notify, time::sleep};
use uuid::Uuid;

use crate::{
    control_plane::Leases,
    launch::{
        attempt_file::{AttemptFile, AttemptId},
        kubernetes::{
            claims::Claims,
            connection::Connection,
            election::answered,
            manifest,
            names::{self, Part},
            observer::{Observer, Seen},
            settings::KubernetesSettings,
            tries::Tries,
            verdict,
            view::{JobView, PodView},
        },
        launcher::{Executor, LaunchError, Launched, Launcher, Request},
        origin::Origin,
    },
};

/// What a run has beside its grace to hear a cancel by itself: two heartbeats and the delay of an outage.
const HEARS_WITHIN: Duration = Duration::from_secs(60);

/// Between two looks for plans that wait for nothing any more.
const SWEEP_EVERY: Duration = Duration::from_secs(600);

/// Between two looks whether a state is held.
const LOOK_AFTER_STATES: Duration = Duration::from_secs(5);

/// Runs executors as Jobs. Clones share everything.
#[derive(Clone)]
pub(crate) struct KubernetesLauncher {
    pub(super) inner: Arc<Inner>,
}

/// What every clone shares.
pub(super) struct Inner {
    pub(super) settings: KubernetesSettings,
    pub(super) cluster_id: Uuid,
    pub(super) jobs: Api<Job>,
    pub(super) secrets: Api<Secret>,
    pub(super) events: Api<Event>,
    pub(super) accounts: Api<ServiceAccount>,
    pub(super) connection: Connection,
    pub(super) observer: Observer,
    /// When the dispatcher before this one was at work last, in seconds since 1970, where a Lease says it.
    pub(super) since: Option<i64>,
    /// Makes attempt files for runs that an earlier dispatcher did not give theirs.
    pub(super) origin: Arc<Origin>,
    pub(super) claims: Claims,
    /// Extends the claims of runs whose executor does not do so yet.
    pub(super) leases: Leases,
    /// By attempt: what this dispatcher knows of its run.
    pub(super) runs: Mutex<HashMap<AttemptId, Known>>,
    /// Something of it changed.
    pub(super) asked: Notify,
    /// Held by who removes a Job that has ended.
    pub(super) making_room: tokio::sync::Mutex<()>,
    /// When states that were kept are tried to be stored.
    pub(super) tries: Tries,
}

/// What is known beside what is seen.
#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub(super) struct Known {
    /// This dispatcher had it ended.
    pub(super) was_ended: bool,
    /// A cancel was asked for: it is ended if it goes on for too long.
    pub(super) is_cancelled: bool,
    /// Its end was acted upon.
    pub(super) is_forgotten: bool,
    /// It was given what it needs to keep its state.
    pub(super) may_keep: bool,
    /// Its Job goes with the whole namespace.
    pub(super) namespace_leaves: bool,
}

impl fmt::Debug for KubernetesLauncher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KubernetesLauncher").field("observer", &self.inner.observer).finish_non_exhaustive()
    }
}

impl KubernetesLauncher {
    /// Begins to watch the runs of a cluster. Must be called inside a runtime.
    pub(crate) fn start(
        connection: &Connection,
        settings: KubernetesSettings,
        origin: Arc<Origin>,
        claims: Claims,
        leases: Leases,
        since: Option<i64>,
    ) -> Self {
        let (client, namespace, cluster_id) = (&connection.client, &connection.namespace, origin.cluster_id);
        let jobs: Api<Job> = Api::namespaced(client.clone(), namespace);
        let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
        let observer = Observer::start(jobs.clone(), pods, &manifest::selector(cluster_id), since);
        let inner = Inner {
            settings,
            cluster_id,
            origin,
            jobs,
            secrets: Api::namespaced(client.clone(), namespace),
            events: Api::namespaced(client.clone(), namespace),
            accounts: Api::namespaced(client.clone(), namespace),
            connection: connection.clone(),
            observer,
            since,
            claims,
            leases,
            runs: Mutex::default(),
            asked: Notify::new(),
            making_room: tokio::sync::Mutex::default(),
            tries: Tries::default(),
        };
        let launcher = Self { inner: Arc::new(inner) };
        tokio::spawn(sweep(Arc::downgrade(&launcher.inner)));
        tokio::spawn(keep_states(Arc::downgrade(&launcher.inner)));
        launcher
    }

    pub(super) async fn delete(&self, id: AttemptId, part: Part) -> Result<(), LaunchError> {
        let name = names::name(id, part);
        let seen = self.inner.observer.subscribe(&name);
        let view = seen.borrow().job.clone();
        match view {
            Some(view) => self.delete_job(&view).await,
            None => Ok(()),
        }
    }

    /// Ends a Job: SIGTERM to its pod, SIGKILL after the grace, and then the object goes.
    pub(super) async fn delete_job(&self, view: &JobView) -> Result<(), LaunchError> {
        let params = DeleteParams {
            // Without a policy the server removes the Job and leaves its pod running.
            propagation_policy: Some(PropagationPolicy::Foreground),
            // Never another Job of this name.
            preconditions: Some(Preconditions { uid: Some(view.uid.clone()), resource_version: None }),
            ..DeleteParams::default()
        };
        match answered(self.inner.jobs.delete(&view.name, &params)).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => Ok(()),
            Err(error) => Err(failure("the run's Job cannot be deleted", error)),
        }
    }

    /// The Jobs of an attempt that have not ended.
    fn unfinished(&self, id: AttemptId) -> Vec<JobView> {
        let jobs = self.inner.observer.jobs().into_iter();
        jobs.filter(|job| job.id == id && job.part.is_run() && job.finished.is_none()).collect()
    }

    pub(super) async fn end(&self, id: AttemptId) -> Result<(), LaunchError> {
        self.edit(id, |known| known.was_ended = true);
        self.inner.asked.notify_waiters();
        for job in self.unfinished(id).iter().filter(|job| !job.leaves) {
            self.delete_job(job).await?;
        }
        Ok(())
    }

    /// The user asked to cancel: the executor hears it from the control plane and stops in good order. One that has not
    /// begun is ended at once, one that is silent once it must have ended by itself.
    pub(super) fn cancel(&self, id: AttemptId) {
        if self.known(id).is_cancelled {
            return;
        }
        self.edit(id, |known| known.is_cancelled = true);
        self.inner.asked.notify_waiters();
        let jobs = self.unfinished(id);
        let Some(job) = jobs.first() else { return };
        let mut seen = self.inner.observer.subscribe(&job.name);
        // One that has not begun is ended by whoever follows it.
        if !seen.borrow_and_update().pod.as_ref().is_some_and(PodView::is_running) {
            return;
        }
        let (launcher, patience) = (self.clone(), HEARS_WITHIN + self.inner.settings.grace);
        tokio::spawn(async move {
            let ended =
                |seen: &Seen| seen.is_gone || seen.job.as_ref().is_some_and(|job| job.finished.is_some());
            tokio::select! {
                () = async { drop(seen.wait_for(ended).await) } => {}
                () = sleep(patience) => {
                    tracing::warn!(deployment = %id.deployment_id, "a cancelled run does not end by itself: its pod is ended");
                    if let Err(error) = launcher.end(id).await {
                        tracing::warn!(deployment = %id.deployment_id, %error, "a cancelled run cannot be ended");
                    }
                }
            }
        });
    }

    pub(super) fn known(&self, id: AttemptId) -> Known {
        self.runs().get(&id).copied().unwrap_or_default()
    }

    pub(super) fn edit(&self, id: AttemptId, edit: impl FnOnce(&mut Known)) {
        edit(self.runs().entry(id).or_default());
    }

    /// Forgets what is known of runs whose Jobs are gone.
    pub(super) fn forget_gone(&self) {
        let there: HashSet<AttemptId> = self.inner.observer.jobs().iter().map(|job| job.id).collect();
        self.runs().retain(|id, known| !known.is_forgotten || there.contains(id));
    }

    fn runs(&self) -> MutexGuard<'_, HashMap<AttemptId, Known>> {
        // Nothing that holds the lock can leave the map in halves.
        self.inner.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Launcher for KubernetesLauncher {
    fn launch(
        &self,
        attempt: AttemptFile,
        token: Option<SecretString>,
    ) -> BoxFuture<'_, Result<Launched, LaunchError>> {
        Box::pin(self.create(attempt, token))
    }

    fn running(&self) -> BoxFuture<'_, Result<Vec<Executor>, LaunchError>> {
        Box::pin(self.find())
    }

    fn ask(&self, id: AttemptId, request: Request) -> BoxFuture<'_, Result<(), LaunchError>> {
        Box::pin(async move {
            match request {
                Request::Cancel => {
                    self.cancel(id);
                    Ok(())
                }
                // Its disk is its pod's own, and the kubelet's business.
                Request::DiskFull(_) => Ok(()),
                // Pods do not end with their dispatcher; where they are asked to all the same, SIGTERM is how.
                Request::Stop | Request::Force | Request::GiveUp => self.end(id).await,
            }
        })
    }

    fn kill(&self, id: AttemptId) -> BoxFuture<'_, Result<(), LaunchError>> {
        Box::pin(self.end(id))
    }

    fn forget(&self, id: AttemptId) -> BoxFuture<'_, Result<(), LaunchError>> {
        // The Job stays for a while, for people; `ttlSecondsAfterFinished` removes it.
        self.edit(id, |known| *known = Known { is_forgotten: true, ..Known::default() });
        Box::pin(async { Ok(()) })
    }

    fn end_with_dispatcher(&self) -> bool {
        false
    }
}

/// Looks for plans that wait for nothing any more, for as long as there is a launcher.
async fn sweep(inner: Weak<Inner>) {
    loop {
        sleep(SWEEP_EVERY).await;
        let Some(inner) = inner.upgrade() else { return };
        let launcher = KubernetesLauncher { inner };
        launcher.forget_gone();
        if let Err(error) = launcher.remove_decided().await {
            tracing::debug!(%error, "plans that wait for nothing any more are removed later");
        }
    }
}

/// Looks after states that are held, for as long as there is a launcher.
async fn keep_states(inner: Weak<Inner>) {
    let Some(observer) = inner.upgrade().map(|inner| inner.observer.clone()) else { return };
    observer.synced().await;
    drop(observer);
    loop {
        let Some(inner) = inner.upgrade() else { return };
        let launcher = KubernetesLauncher { inner };
        if let Err(error) = launcher.look_after_states().await {
            tracing::warn!(%error, "states that are held are looked after later");
        }
        let waits = async { launcher.inner.tries.woken().await };
        let _late = tokio::time::timeout(LOOK_AFTER_STATES, waits).await;
    }
}

pub(super) fn view(job: &Job) -> Result<JobView, LaunchError> {
    JobView::of(job).ok_or_else(|| {
        let name = job.metadata.name.clone().unwrap_or_default();
        LaunchError::Refused(format!(
            "The Job {name} has not the labels of a run: something in the cluster changes them, or it is not the agent's. Remove it, and queue the deployment again."
        ))
    })
}

/// What is shown of a claim in the cluster: with the claim itself anybody could act for the run.
pub(super) fn digest(claim_token: Uuid) -> String {
    let digest = Sha256::digest(claim_token.as_bytes());
    digest.iter().take(16).fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

/// The end of the names of a run's Secrets. Nobody can make them before the agent who does not know the claim.
pub(super) fn secret_suffix(claim_token: Uuid) -> String {
    let digest = Sha256::new().chain_update("Secrets of ").chain_update(claim_token.as_bytes()).finalize();
    digest.iter().take(8).fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

/// Refusals are final, all else may work the next time.
pub(super) fn failure(context: &str, error: kube::Error) -> LaunchError {
    match &error {
        kube::Error::Api(status) if matches!(status.code, 400 | 403 | 404 | 405 | 413 | 415 | 422) => {
            LaunchError::Refused(format!("{}: {}", verdict::capital(context), status.message))
        }
        _ => LaunchError::Io { context: context.to_owned(), source: std::io::Error::other(error) },
    }
}
