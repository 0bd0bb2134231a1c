//! Nothing is planned for a stack while a newer state than that in its backend is kept, or was lost.

use std::{collections::HashSet, time::Duration};

use tokio::time::{Instant, sleep};

use crate::{
    control_plane::Lease,
    job::{ErrorCode, Failure, Job, JobResult},
    launch::{
        attempt_file::AttemptId,
        kubernetes::{
            held_states::pushes_of,
            launcher::KubernetesLauncher,
            names::Part,
            outcome,
            verdict::last_line,
            view::{Finished, JobView},
        },
        launcher::End,
    },
};

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What is said in the row while the state is being stored.
const WAITS: &str =
    "The state of the stack's last run is not in its backend yet, so the run waits: it is stored first.";

impl KubernetesLauncher {
    /// Waits until the newest state of the stack is in its backend. False: it is not, and the deployment has failed or was cancelled.
    pub(super) async fn has_its_state(&self, job: &Job, lease: &Lease) -> bool {
        let Some(key) = &job.state_key else { return true };
        let id = AttemptId { deployment_id: job.id, attempt: job.attempt };
        let begun = Instant::now();
        let mut failed_before: Option<HashSet<String>> = None;
        loop {
            let holder = match self.inner.claims.holder_of(key).await {
                Ok(holder) => holder,
                Err(error) => {
                    tracing::debug!(%error, stack = key, "whether the state of a stack is held cannot be read yet");
                    if !self.pauses(id, job, lease).await {
                        return false;
                    }
                    continue;
                }
            };
            let jobs = self.inner.observer.jobs();
            let of_stack = |job: &&JobView| job.stack.as_deref() == Some(key);
            let kept = jobs.iter().filter(of_stack).find(|job| job.part == Part::State);
            if holder.is_none() && kept.is_none() {
                if failed_before.is_some() {
                    self.inner.claims.say(id, job.claim_token, None).await;
                }
                return true;
            }
            // Runs of a stack come one after the other.
            let last = jobs.iter().filter(of_stack).filter(|job| job.part.is_run() && job.id != id);
            let last = last.max_by_key(|job| job.created);
            let runs = last.is_some_and(|run| run.finished.is_none() || self.may_have_kept(run));
            if let (Some(holder), None, false) = (&holder, kept, runs) {
                self.not_stored(id, job, &lost(key, holder)).await;
                return false;
            }
            let failed: HashSet<String> = kept
                .map(|kept| {
                    pushes_of(kept, &jobs).filter(|push| has_failed(push)).map(|push| push.name.clone())
                })
                .into_iter()
                .flatten()
                .collect();
            match &failed_before {
                None => {
                    self.inner.claims.say(id, job.claim_token, Some(WAITS)).await;
                    self.inner.tries.hurry(key);
                    failed_before = Some(failed);
                }
                Some(before) => {
                    let new = failed.difference(before).next();
                    let is_late = begun.elapsed() >= self.inner.settings.start_deadline;
                    if new.is_some() || is_late {
                        let why = new.map(|push| self.said_by(push)).unwrap_or_default();
                        self.not_stored(id, job, &refused(key, &why)).await;
                        return false;
                    }
                }
            }
            if !self.pauses(id, job, lease).await {
                return false;
            }
        }
    }

    /// A pause; false, if the deployment was cancelled meanwhile.
    async fn pauses(&self, id: AttemptId, job: &Job, lease: &Lease) -> bool {
        tokio::select! {
            () = sleep(LOOK_EVERY) => return true,
            () = lease.stop.wait() => {}
            () = self.asked_to_end(id) => {}
        }
        self.cancelled(id, job.claim_token).await;
        false
    }

    async fn not_stored(&self, id: AttemptId, job: &Job, sentence: &str) {
        tracing::error!(deployment = %id.deployment_id, attempt = id.attempt, "{sentence}");
        let result = JobResult::Failed(Failure::new(ErrorCode::StateNotStored, sentence));
        outcome::finish(self.inner.claims.rest(), id, job.claim_token, &result).await;
    }

    /// Whether it is not known yet what became of the state that a run could not store.
    fn may_have_kept(&self, run: &JobView) -> bool {
        let is_new = !self.known(run.id).may_keep;
        is_new && self.has_ended_with(run, &End::StateKept) || self.has_ended_with(run, &End::StateStored)
    }

    /// The last line of the pod of a push.
    fn said_by(&self, push: &str) -> String {
        let pod = self.inner.observer.subscribe(push).borrow().pod.clone();
        pod.and_then(|pod| pod.terminated).map(|ended| last_line(&ended.message)).unwrap_or_default()
    }
}

fn has_failed(push: &JobView) -> bool {
    matches!(push.finished, Some(Finished::Failed(_)))
}

fn lost(stack: &str, holder: &str) -> String {
    format!(
        "The newest state of stack {stack} is in no backend, and nothing in the cluster keeps it: it was lost with the pod of its run, or the agent {holder} has it. Nothing was planned. Compare the state with the cloud; then the owner of the stack gives up what is held of it (discard_held_state)."
    )
}

fn refused(stack: &str, why: &str) -> String {
    let why = if why.is_empty() { String::new() } else { format!(" It was tried again just now: {why}") };
    format!(
        "The newest state of stack {stack} is not in its backend yet, and cannot be stored now.{why} It is kept in the cluster, and tried again. Nothing was planned."
    )
}
