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
            creation::Handed,
            death::Death,
            election::answered,
            end_message,
            launcher::KubernetesLauncher,
            names::Part,
            observer::Seen,
            outcome,
            verdict::{self, Ended},
            view::{JobView, PodView},
        },
        launcher::{End, Executor},
    },
    os::failpoint,
};

/// How long nothing is wrong with a run that has not started yet.
const NO_POD_YET: Duration = Duration::from_secs(5);
/// Between two looks at the events of a run that does not start, and of which nothing else says why.
const LOOK_AT_EVENTS: Duration = Duration::from_secs(15);
/// Between two looks at the row of a run whose node does not answer.
const LOOK_AT_ROW: Duration = Duration::from_secs(20);
/// How long after the end of a Job its pod may take to say how it ended.
const EXIT_CODE_WITHIN: Duration = Duration::from_secs(15);
/// Between two looks at a Job that a watch calls gone and that is there all the same.
const LOOK_AT_GONE: Duration = Duration::from_secs(10);

impl KubernetesLauncher {
    /// The executor of a Job. `handed` is what its Secret is made of, where it may have none yet.
    pub(super) fn executor(
        &self,
        job: JobView,
        lease: Lease,
        claim_token: Uuid,
        state_key: Option<String>,
        handed: Option<Handed>,
    ) -> Executor {
        let (id, part) = (job.id, job.part);
        let launcher = self.clone();
        // What is seen of it is kept for as long as somebody may look.
        let seen = launcher.inner.observer.subscribe(&job.name);
        // An earlier dispatcher has seen that, and counted it.
        let was_over = seen
            .borrow()
            .pod
            .as_ref()
            .and_then(|pod| pod.terminated.as_ref())
            .is_some_and(|ended| !ended.is_after(launcher.inner.since));
        let ended = async move {
            let claims = &launcher.inner.claims;
            let mut ended = launcher.follow(job, lease, claim_token, handed).await;
            if ended == Some(Ended::Said(End::Waiting)) && !claims.awaits_approval(id, claim_token).await {
                ended = Some(Ended::Died(Death::untrue_wait()));
            }
            failpoint!("run.ended");
            if matches!(ended, Some(Ended::Said(_))) {
                let Seen { job, pod, is_gone, went_unseen } = seen.borrow().clone();
                let is_gone = is_gone && !went_unseen;
                if let Some(ended) =
                    pod.as_ref().and_then(|pod| pod.terminated.as_ref()).filter(|_| !was_over)
                {
                    end_message::record(&ended.message);
                }
                if let (Some(job), Some(pod)) = (job, pod)
                    && let Some(why) = verdict::stopped_by(&job, &pod, is_gone, launcher.known(id).was_ended)
                {
                    let why = launcher.named(id, why);
                    if outcome::amend(claims.rest(), id, claim_token, &why).await {
                        why.count();
                    }
                }
            }
            let end = match ended {
                Some(Ended::Said(End::StateKept | End::StateStored | End::StateLost)) => {
                    launcher.inner.tries.wake();
                    End::Stored
                }
                Some(Ended::Said(end)) => end,
                Some(Ended::Died(death)) => {
                    let death = launcher.named(id, death);
                    let is_counted = outcome::death(claims.rest(), claims, id, claim_token, &death).await;
                    failpoint!("run.concluded");
                    // Its executor may have its grace yet, and then stores its end where nobody sees it.
                    let (claims, grace) = (claims.clone(), launcher.inner.settings.grace);
                    tokio::spawn(async move {
                        if outcome::amend_within(&claims, id, claim_token, &death, grace).await && !is_counted
                        {
                            death.count();
                        }
                    });
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

    /// How a run ended, if it has; asks for a Job that is said to be gone.
    async fn end_of(&self, view: &mut JobView, now: &Seen, was_ended: bool) -> Option<Ended> {
        let pod = now.pod.as_ref();
        let end = verdict::end(view, pod, was_ended);
        if end.is_some() || !now.is_gone {
            return end;
        }
        match self.look(view).await {
            Looked::There(there) => {
                *view = *there;
                verdict::end(view, pod, was_ended)
            }
            Looked::Gone => Some(verdict::end_of_gone(view, pod, was_ended, now.went_unseen)),
            Looked::Unknown => None,
        }
    }

    /// Waits for the end of a run, says in its row what keeps it from starting, and gives it up if it does not start in time.
    /// None: it was cancelled before it began, and its row says so.
    pub(super) async fn follow(
        &self,
        job: JobView,
        lease: Lease,
        claim_token: Uuid,
        handed: Option<Handed>,
    ) -> Option<Ended> {
        let inner = &self.inner;
        let id = job.id;
        let mut has_secret = handed.is_none();
        let secret = self.provide_secret(&job, handed);
        tokio::pin!(secret);
        // Until its executor extends the claim by itself.
        let mut lease = Some(lease);
        let mut seen = inner.observer.subscribe(&job.name);
        let started = Instant::now();
        let deadline = started + inner.settings.start_deadline;
        let mut look = started + NO_POD_YET;
        let mut events: Vec<String> = Vec::new();
        let mut had_pod = false;
        let mut failed_since = None;
        let mut said: Option<String> = None;
        let mut warned_of_silence = false;
        let mut has_left = false;
        loop {
            let now: Seen = seen.borrow_and_update().clone();
            let mut view = now.job.clone().unwrap_or_else(|| job.clone());
            let pod = now.pod.as_ref();
            let was_ended = self.known(id).was_ended;
            if !has_left && !was_ended && (view.leaves || now.is_gone) {
                has_left = true;
                self.note_namespace(id).await;
            }
            if let Some(end) = self.end_of(&mut view, &now, was_ended).await {
                // The watches of Jobs and of pods are not in step: the exit code may be on its way.
                let since = *failed_since.get_or_insert_with(Instant::now);
                let is_open = matches!(end, Ended::Died(_)) && pod.is_none_or(|pod| pod.terminated.is_none());
                if !is_open || since.elapsed() >= EXIT_CODE_WITHIN {
                    return Some(end);
                }
                tokio::select! {
                    _ = seen.changed() => {}
                    () = sleep_until(since + EXIT_CODE_WITHIN) => {}
                }
                continue;
            }
            if pod.is_some_and(|pod| pod.is_silent) != warned_of_silence {
                warned_of_silence = !warned_of_silence;
                warn_of_silence(id, pod, warned_of_silence);
            }
            if pod.is_some() != had_pod {
                // They were about the other object.
                (had_pod, look) = (pod.is_some(), Instant::now() + NO_POD_YET);
                events.clear();
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
                made = &mut secret, if !has_secret => match made {
                    Ok(()) => has_secret = true,
                    // Without it the pod would wait for ever.
                    Err(death) => {
                        self.remove(&view).await;
                        return Some(Ended::Died(death));
                    }
                },
                changed = seen.changed() => if changed.is_err() {
                    // The observer lives as long as this launcher.
                    std::future::pending::<()>().await;
                },
                () = sleep_until(look), if pod.is_none_or(PodView::is_created_silently) && !now.is_gone && is_starting => {
                    look = Instant::now() + LOOK_AT_EVENTS;
                    events = self.warnings(&view, pod).await;
                }
                () = sleep(LOOK_AT_GONE), if now.is_gone => {}
                // Nobody sees its end there, and its result counts all the same.
                () = sleep(LOOK_AT_ROW), if warned_of_silence => {
                    let why = pod.map(verdict::silence).unwrap_or_default();
                    if outcome::is_over_in_silence(&inner.claims, id, claim_token, &why).await {
                        return Some(Ended::Said(End::Stored));
                    }
                }
                () = self.told_to_end(id, lease.as_ref()), if is_starting => {
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

    /// Waits until a run is to end, as its lease or this agent says.
    async fn told_to_end(&self, id: AttemptId, lease: Option<&Lease>) {
        tokio::select! {
            () = stopped(lease) => {}
            () = self.asked_to_end(id) => {}
        }
    }

    /// Removes a run that has not started.
    pub(super) async fn remove(&self, view: &JobView) {
        self.edit(view.id, |known| known.was_ended = true);
        if let Err(error) = self.delete_job(view).await {
            tracing::warn!(deployment = %view.id.deployment_id, %error, "a run that does not start cannot be removed; it finds its claim over");
        }
    }

    /// Looks whether the Job of a run goes with its namespace: at once, as the right to ask goes too.
    async fn note_namespace(&self, id: AttemptId) {
        let namespace_leaves = self.namespace_leaves().await;
        self.edit(id, |known| known.namespace_leaves = namespace_leaves);
    }

    /// A death by deletion, named for what was deleted.
    fn named(&self, id: AttemptId, death: Death) -> Death {
        if self.known(id).namespace_leaves {
            death.with_its_namespace(&self.inner.connection.namespace)
        } else {
            death
        }
    }

    /// Looks at a Job that the watch calls gone: one that leaves the selector is called so too.
    async fn look(&self, view: &JobView) -> Looked {
        match answered(self.inner.jobs.get_opt(&view.name)).await {
            Ok(Some(job)) if job.metadata.uid.as_deref() == Some(view.uid.as_str()) => {
                Looked::There(Box::new(view.clone().now(&job)))
            }
            Ok(_) => Looked::Gone,
            Err(_) => Looked::Unknown,
        }
    }

    /// What the Job controller says of a pod that it cannot create, or the kubelet of one whose volumes it cannot mount: neither
    /// object says it.
    async fn warnings(&self, view: &JobView, pod: Option<&PodView>) -> Vec<String> {
        let (name, uid) = pod.map_or((&view.name, &view.uid), |pod| (&pod.name, &pod.uid));
        let fields = format!("involvedObject.name={name},involvedObject.uid={uid},type=Warning");
        match answered(self.inner.events.list(&ListParams::default().fields(&fields).limit(20))).await {
            Ok(events) => {
                let mut events = events.items;
                events.sort_by_key(|event| event.last_timestamp.clone().map(|time| time.0));
                events.into_iter().filter_map(|event| event.message).collect()
            }
            Err(error) => {
                tracing::debug!(%error, "the events of a run cannot be read");
                Vec::new()
            }
        }
    }
}

/// What became of a Job that the watch calls gone.
enum Looked {
    There(Box<JobView>),
    Gone,
    /// Nobody answers.
    Unknown,
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
