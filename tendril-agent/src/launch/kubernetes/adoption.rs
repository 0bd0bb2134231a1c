//! Runs of an earlier dispatcher, and what nobody needs any more.

use std::{collections::HashSet, time::Duration};

use tokio::time::timeout;
use uuid::Uuid;

use crate::{
    job,
    launch::{
        attempt_file::AttemptId,
        kubernetes::{
            claims::ClaimRow,
            launcher::{KubernetesLauncher, digest},
            names::Part,
            verdict::{self, Ended},
            view::JobView,
        },
        launcher::{End, Executor, LaunchError},
    },
};

/// How long the removal of a Job that has ended may take.
const GONE_WITHIN: Duration = Duration::from_secs(10);

impl KubernetesLauncher {
    pub(super) async fn find(&self) -> Result<Vec<Executor>, LaunchError> {
        let inner = &self.inner;
        inner.observer.synced().await;
        let jobs = inner.observer.jobs();
        let ids: Vec<Uuid> = jobs.iter().map(|job| job.id.deployment_id).collect();
        let claims = self.claims_of(&ids).await?;
        let approved: HashSet<AttemptId> =
            jobs.iter().filter(|job| job.part == Part::Approved).map(|job| job.id).collect();
        let (mut found, mut adopted) = (Vec::new(), HashSet::new());
        for job in jobs.into_iter().filter(|job| job.part.is_run()) {
            let claim = claims.iter().find(|claim| {
                claim.id == job.id.deployment_id
                    && claim.attempt == job.id.attempt
                    && claim.claim_token.map(digest) == job.claim
            });
            let Some((claim, token)) = claim.and_then(|claim| Some((claim, claim.claim_token?))) else {
                continue;
            };
            // Its other part is the run that goes on.
            let goes_on = job.part == Part::First && approved.contains(&job.id);
            if goes_on {
                continue;
            }
            let (id, state_key) = (job.id, claim.state_key.clone());
            let row = job::Job {
                id: id.deployment_id,
                attempt: id.attempt,
                claim_token: token,
                config: claim.config_snapshot.clone(),
                state_key: state_key.clone(),
            };
            let lease = inner.leases.hold(&row);
            adopted.insert(job.name.clone());
            let needs_secret = job.finished.is_none() && !self.has_run(&job);
            let handed = needs_secret.then(|| self.handed(&row, job.part));
            found.push(self.executor(job, lease, token, state_key, handed));
        }
        self.catch_up(&adopted).await?;
        Ok(found)
    }

    /// Whether the container of a Job was seen to run.
    fn has_run(&self, job: &JobView) -> bool {
        let seen = self.inner.observer.subscribe(&job.name);
        let seen = seen.borrow();
        seen.pod.as_ref().is_some_and(|pod| pod.is_running() || pod.terminated.is_some())
    }

    /// Removes one Job that has ended, and waits until it is gone; answers whether there was one. One at a time: each makes room for one.
    pub(super) async fn remove_finished(&self) -> bool {
        let _one = self.inner.making_room.lock().await;
        let jobs = self.inner.observer.jobs();
        let ended = jobs
            .iter()
            .find(|job| job.part.is_run() && job.finished.is_some() && !job.leaves && !self.waits(job));
        let Some(job) = ended else { return false };
        let mut seen = self.inner.observer.subscribe(&job.name);
        if self.delete_job(job).await.is_err() {
            return false;
        }
        let gone = seen.wait_for(|seen| seen.is_gone);
        timeout(GONE_WITHIN, gone).await.is_ok()
    }

    /// Whether a Job is that of a plan that waits, or waited, for its approval.
    pub(super) fn waits(&self, job: &JobView) -> bool {
        let pod = self.inner.observer.subscribe(&job.name).borrow().pod.clone();
        job.part == Part::First && verdict::end(job, pod.as_ref(), false) == Some(Ended::Said(End::Waiting))
    }

    /// Removes the Jobs that wait for nothing any more, and what they own: of plans that are decided, and of runs that have not begun and
    /// whose claim is over.
    pub(super) async fn remove_decided(&self) -> Result<(), LaunchError> {
        let jobs = self.inner.observer.jobs().into_iter();
        let waiting: Vec<JobView> = jobs
            .filter(|job| {
                job.part.is_run()
                    && !job.leaves
                    && (self.waits(job) || job.finished.is_none() && !self.has_run(job))
            })
            .collect();
        if waiting.is_empty() {
            return Ok(());
        }
        let ids: Vec<Uuid> = waiting.iter().map(|job| job.id.deployment_id).collect();
        let claims = self.claims_of(&ids).await?;
        for job in waiting {
            let is_held = claims
                .iter()
                .any(|claim| claim.id == job.id.deployment_id && claim.claim_token.map(digest) == job.claim);
            if !is_held {
                self.delete_job(&job).await?;
            }
        }
        Ok(())
    }

    pub(super) async fn claims_of(&self, ids: &[Uuid]) -> Result<Vec<ClaimRow>, LaunchError> {
        self.inner.claims.of(ids).await.map_err(|error| LaunchError::Io {
            context: "the claims of the runs in the cluster cannot be read".to_owned(),
            source: std::io::Error::other(error),
        })
    }
}
