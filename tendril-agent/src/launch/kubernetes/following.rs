//! A run that was started: what is said of it, and its end.

use std::time::Duration;

use kube::api::ListParams;
use tokio::time::{Instant, sleep, sleep_until};
use uuid::Uuid;

use crate::{
    control_plane::Lease,
    launch::{
        attempt_file::AttemptId,
        kubernetes::{
            election::answered,
            launcher::KubernetesLauncher,
            manifest::Part,
            observer::Seen,
            settle,
            verdict::{self, Death, Ended},
            view::{JobView, PodView},
        },
        launcher::{End, Executor},
    },
};

/// How long nothing is wrong with a Job that has no pod yet.
const NO_POD_YET: Duration = Duration::from_secs(5);
/// Between two looks at the events of a Job that has no pod.
const LOOK_AT_EVENTS: Duration = Duration::from_secs(15);
/// Between two looks at the row of a run whose node does not answer.
const LOOK_AT_ROW: Duration = Duration::from_secs(20);
/// Between two looks at a Job that a watch calls gone and that is there all the same.
const LOOK_AT_GONE: Duration = Duration::from_secs(10);

impl KubernetesLauncher {
    pub(super) fn executor(
        &self,
        job: JobView,
        lease: Lease,
        claim_token: Uuid,
        state_key: Option<String>,
    ) -> Executor {
        let (id, part) = (job.id, job.part);
        let launcher = self.clone();
        let ended = async move {
            let end = match launcher.follow(job, lease, claim_token).await {
                Some(Ended::Said(end)) => end,
                Some(Ended::Died(death)) => {
                    let claims = &launcher.inner.claims;
                    settle::death(claims.rest(), claims, id, claim_token, &death).await;
                    End::Stored
                }
                None => End::Stored,
            };
            // The plan was kept for this part.
            if part == Part::Approved
                && end == End::Stored
                && let Err(error) = launcher.delete(id, Part::First).await
            {
                tracing::debug!(%error, "a plan that was approved is removed later");
            }
            end
        };
        Executor { id, claim_token, state_key, version: None, ended: Box::pin(ended) }
    }

    /// Waits for the end of a run, says in its row what keeps it from starting, and gives it up if it does not start in time.
    /// None: it was cancelled before it began, and its row says so.
    pub(super) async fn follow(&self, job: JobView, lease: Lease, claim_token: Uuid) -> Option<Ended> {
        let inner = &self.inner;
        let id = job.id;
        // Until its executor extends the claim by itself.
        let mut lease = Some(lease);
        let mut seen = inner.observer.subscribe(&job.name);
        let started = Instant::now();
        let deadline = started + inner.settings.start_deadline;
        let mut look = started + NO_POD_YET;
        let mut events = Vec::new();
        let mut said: Option<String> = None;
        let mut warned_of_silence = false;
        loop {
            let now: Seen = seen.borrow_and_update().clone();
            let view = now.job.clone().unwrap_or_else(|| job.clone());
            let pod = now.pod.as_ref();
            let was_ended = self.known(id).was_ended;
            if let Some(end) = verdict::end(&view, pod, was_ended) {
                return Some(end);
            }
            if now.is_gone && self.is_gone(&view).await {
                return Some(verdict::end_of_gone(&view, pod, was_ended));
            }
            if pod.is_some_and(|pod| pod.is_silent) != warned_of_silence {
                warned_of_silence = !warned_of_silence;
                warn_of_silence(id, pod, warned_of_silence);
            }
            let has_run = pod.is_some_and(|pod| pod.is_running() || pod.terminated.is_some());
            let hindrance = if has_run || was_ended { None } else { verdict::hindrance(&view, pod, &events) };
            if hindrance != said {
                inner.claims.say(id, claim_token, hindrance.as_deref()).await;
                said.clone_from(&hindrance);
            }
            if has_run {
                lease = None;
            }
            let is_starting = !has_run && !was_ended;
            tokio::select! {
                changed = seen.changed() => if changed.is_err() {
                    // The observer lives as long as this launcher.
                    std::future::pending::<()>().await;
                },
                () = sleep_until(look), if pod.is_none() && !now.is_gone && is_starting => {
                    look = Instant::now() + LOOK_AT_EVENTS;
                    events = self.failed_creates(&view).await;
                }
                () = sleep(LOOK_AT_GONE), if now.is_gone => {}
                // Nobody sees its end there, and its result counts all the same.
                () = sleep(LOOK_AT_ROW), if warned_of_silence => {
                    if self.is_over(id, claim_token).await {
                        return Some(Ended::Said(End::Stored));
                    }
                }
                () = stopped(lease.as_ref()), if is_starting => {
                    self.remove(&view).await;
                    self.cancelled(id, claim_token).await;
                    return None;
                }
                () = self.asked_to_end(id), if is_starting => {
                    self.remove(&view).await;
                    self.cancelled(id, claim_token).await;
                    return None;
                }
                () = sleep_until(deadline), if is_starting => {
                    self.remove(&view).await;
                    return Some(Ended::Died(Death::not_started(inner.settings.start_deadline, said.as_deref())));
                }
            }
        }
    }

    /// Removes a run that has not started.
    pub(super) async fn remove(&self, view: &JobView) {
        self.edit(view.id, |known| known.was_ended = true);
        if let Err(error) = self.delete_job(view).await {
            tracing::warn!(deployment = %view.id.deployment_id, %error, "a run that does not start cannot be removed; it finds its claim over");
        }
    }

    /// Whether the row says that a run is over, or another's.
    async fn is_over(&self, id: AttemptId, claim_token: Uuid) -> bool {
        match self.inner.claims.of(&[id.deployment_id]).await {
            Ok(rows) => !rows.iter().any(|row| row.claim_token == Some(claim_token)),
            Err(_) => false,
        }
    }

    /// Whether a Job that the watch calls gone is: an object that leaves the selector is called so too.
    pub(super) async fn is_gone(&self, view: &JobView) -> bool {
        match answered(self.inner.jobs.get_opt(&view.name)).await {
            Ok(Some(job)) => job.metadata.uid.as_deref() != Some(view.uid.as_str()),
            Ok(None) => true,
            Err(_) => false,
        }
    }

    /// What the Job controller says of a pod that it cannot create.
    pub(super) async fn failed_creates(&self, view: &JobView) -> Vec<String> {
        let fields =
            format!("involvedObject.name={},involvedObject.uid={},reason=FailedCreate", view.name, view.uid);
        match answered(self.inner.events.list(&ListParams::default().fields(&fields).limit(20))).await {
            Ok(events) => {
                let mut events = events.items;
                events.sort_by_key(|event| event.last_timestamp.clone().map(|time| time.0));
                events.into_iter().filter_map(|event| event.message).collect()
            }
            Err(error) => {
                tracing::debug!(%error, "the events of a Job cannot be read");
                Vec::new()
            }
        }
    }
}

/// Waits until a claim is to stop; for ever, if nobody holds it.
async fn stopped(lease: Option<&Lease>) {
    match lease {
        Some(lease) => lease.stop.wait().await,
        None => std::future::pending().await,
    }
}

fn warn_of_silence(id: AttemptId, pod: Option<&PodView>, is_silent: bool) {
    let node = pod.and_then(|pod| pod.node.clone()).unwrap_or_default();
    if is_silent {
        tracing::warn!(deployment = %id.deployment_id, node, "the node of a run does not answer; the run may go on there");
    } else {
        tracing::info!(deployment = %id.deployment_id, node, "the node of a run answers again");
    }
}
