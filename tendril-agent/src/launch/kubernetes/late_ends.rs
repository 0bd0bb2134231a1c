//! Ends of runs that no dispatcher saw: what they counted, and why they were asked to stop.
//!
//! A run whose row is over is nobody's to follow. What its Job and its pod say of its end is read once, by the dispatcher that comes
//! next, for as long as they are there.

use std::collections::HashSet;

use uuid::Uuid;

use crate::launch::{
    attempt_file::AttemptId,
    kubernetes::{
        claims::ClaimRow,
        death::Death,
        end_message,
        launcher::{KubernetesLauncher, digest},
        names::attempt_of,
        observer::Seen,
        outcome, verdict,
    },
    launcher::LaunchError,
};

/// A run that may have been asked to stop.
struct Stopped {
    id: AttemptId,
    /// Digest of its claim; none, where only its pod is left.
    claim: Option<String>,
    why: Death,
    /// Whether its pod may still be at work.
    goes_on: bool,
}

impl KubernetesLauncher {
    /// Does for runs that have ended what an earlier dispatcher could not do any more; those in `adopted` are followed.
    pub(super) async fn catch_up(&self, adopted: &HashSet<String>) -> Result<(), LaunchError> {
        let inner = &self.inner;
        let runs = inner.observer.all().into_iter().filter(|(name, _)| !adopted.contains(name));
        let mut stopped = Vec::new();
        for (name, seen) in runs {
            let ended = seen.pod.as_ref().and_then(|pod| pod.terminated.as_ref());
            let is_run =
                seen.job.as_ref().map_or_else(|| attempt_of(&name).is_some(), |job| job.part.is_run());
            if let Some(ended) = ended.filter(|ended| is_run && ended.is_after(inner.since)) {
                end_message::record(&ended.message);
            }
            stopped.extend(why_stopped(&name, &seen));
        }
        let ids = |goes_on: bool| -> Vec<Uuid> {
            let of_these = stopped.iter().filter(|run| run.goes_on == goes_on);
            of_these.map(|run| run.id.deployment_id).collect()
        };
        let (over, running) = (ids(false), ids(true));
        let ended = inner.claims.stopped(&[over, running.clone()].concat()).await.map_err(unread)?;
        let running = if running.is_empty() { Vec::new() } else { self.claims_of(&running).await? };
        for run in stopped {
            if let Some(token) = ended.iter().find_map(|row| run.claim_token(row)) {
                let rest = inner.claims.rest().clone();
                tokio::spawn(async move {
                    if outcome::amend(&rest, run.id, token, &run.why).await {
                        run.why.count();
                    }
                });
            } else if let Some(token) = running.iter().find_map(|row| run.claim_token(row)) {
                let (claims, grace) = (inner.claims.clone(), inner.settings.grace);
                tokio::spawn(async move {
                    if outcome::amend_within(&claims, run.id, token, &run.why, grace).await {
                        run.why.count();
                    }
                });
            }
        }
        Ok(())
    }
}

impl Stopped {
    /// The claim, if that row is of this run.
    fn claim_token(&self, row: &ClaimRow) -> Option<Uuid> {
        let token =
            row.claim_token.filter(|_| row.id == self.id.deployment_id && row.attempt == self.id.attempt)?;
        self.claim.as_ref().is_none_or(|claim| *claim == digest(token)).then_some(token)
    }
}

/// Why a run was asked to stop, as far as anything is left of it.
fn why_stopped(name: &str, seen: &Seen) -> Option<Stopped> {
    let Some(job) = &seen.job else {
        let pod = seen.pod.as_ref()?;
        // Its Job was deleted, and its pod has its grace yet.
        let id = attempt_of(name)?;
        let why = Death::deleted("Job", pod.terminated.is_some());
        return Some(Stopped { id, claim: None, why, goes_on: pod.terminated.is_none() });
    };
    let why = match &seen.pod {
        Some(pod) => verdict::stopped_by(job, pod, seen.is_gone && !seen.went_unseen, false)?,
        None => verdict::stopped_unseen(job)?,
    };
    let claim = Some(job.claim.clone()?);
    job.part.is_run().then_some(Stopped { id: job.id, claim, why, goes_on: false })
}

fn unread(error: tendril_realtime::Error) -> LaunchError {
    LaunchError::Io {
        context: "the ends of runs that nobody saw cannot be read".to_owned(),
        source: std::io::Error::other(error),
    }
}
