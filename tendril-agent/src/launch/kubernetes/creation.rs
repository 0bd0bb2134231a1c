//! The start of a run: its Job, and the Secret that goes with it.

use std::time::Duration;

use k8s_openapi::api::batch::v1::Job;
use kube::{api::PostParams, core::Status};
use secrecy::{ExposeSecret, SecretString};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::{
    control_plane::Lease,
    execute::Start,
    job::{JobResult, JobSpec, spec},
    launch::{
        attempt_file::{AttemptFile, AttemptId},
        kubernetes::{
            election::answered,
            launcher::{KubernetesLauncher, digest, failure, view},
            manifest::{self, Part, Run},
            settle,
            view::JobView,
        },
        launcher::{End, Executor, LaunchError, Launched},
    },
};

/// Between two attempts to create a Job that a quota or a policy refuses now.
const REFUSED: Duration = Duration::from_secs(10);
/// The first of them: a run may have ended just now.
const REFUSED_FIRST: Duration = Duration::from_secs(1);
/// How long a refusal for want of a right is not believed.
const BELIEVED_AFTER: Duration = Duration::from_secs(30);

impl KubernetesLauncher {
    pub(super) async fn create(
        &self,
        mut attempt: AttemptFile,
        token: Option<SecretString>,
    ) -> Result<Launched, LaunchError> {
        let inner = &self.inner;
        // The image has its own.
        attempt.terraform = None;
        let id = attempt.id();
        let lease = inner.leases.hold(&attempt.job());
        let part = match attempt.start {
            Start::Workspace => Part::First,
            Start::Approval | Start::Apply => Part::Approved,
        };
        let job = attempt.job();
        let claim = digest(job.claim_token);
        let run = self.run(&job, part, &claim)?;
        let manifest = manifest::job(&inner.settings, &run);
        let Some((view, is_new)) = self.create_job(manifest, &claim, id, &lease, attempt.claim_token).await?
        else {
            // Nothing was started, and nothing is to be.
            let ended = Box::pin(async { End::Stored });
            let (claim_token, state_key) = (attempt.claim_token, attempt.state_key);
            return Ok(Launched::Started(Executor { id, claim_token, state_key, version: None, ended }));
        };
        // Also where the Job was there: a dispatcher that died between the two left it without one.
        if let Err(failed) = self.create_secret(&run, &view.uid, &attempt, token.as_ref()).await {
            if matches!(failed, LaunchError::Refused(_)) && is_new {
                // Without it the pod would wait for ever.
                self.delete_job(&view).await?;
            }
            return Err(failed);
        }
        let executor = self.executor(view, lease, attempt.claim_token, attempt.state_key.clone());
        Ok(if is_new { Launched::Started(executor) } else { Launched::Already(executor) })
    }

    /// What the manifests of a run are made of. Errors: a sentence for its user.
    fn run<'a>(&'a self, job: &'a spec::Job, part: Part, claim: &'a str) -> Result<Run<'a>, LaunchError> {
        let settings = &self.inner.settings;
        let spec = JobSpec::parse(&job.config).map_err(|failure| LaunchError::Refused(failure.message))?;
        let rule = settings.accounts.rule(&spec.source.key(), spec.stack.as_deref());
        Ok(Run {
            id: AttemptId { deployment_id: job.id, attempt: job.attempt },
            part,
            cluster_id: self.inner.cluster_id,
            claim,
            stack: job.state_key.as_deref().unwrap_or_default(),
            rule: rule.map_err(LaunchError::Refused)?,
            deadline: settings.deadline,
            waits_for_approval: spec.approval && part == Part::First,
        })
    }

    /// Gives a run the Secret that its dispatcher did not live to make. One that is there is not touched.
    pub(super) async fn give_secret(&self, view: &JobView, job: &spec::Job) -> Result<(), LaunchError> {
        let start = if view.part == Part::First { Start::Workspace } else { Start::Approval };
        let (mut attempt, token) = self.inner.origin.attempt(job, start);
        attempt.terraform = None;
        let claim = digest(job.claim_token);
        let run = self.run(job, view.part, &claim)?;
        self.create_secret(&run, &view.uid, &attempt, token.as_ref()).await
    }

    async fn create_secret(
        &self,
        run: &Run<'_>,
        job_uid: &str,
        attempt: &AttemptFile,
        token: Option<&SecretString>,
    ) -> Result<(), LaunchError> {
        let bytes = attempt.to_json().map_err(|source| LaunchError::Io {
            context: "the attempt file cannot be written".to_owned(),
            source,
        })?;
        let secret = manifest::secret(run, job_uid, bytes, token.map(ExposeSecret::expose_secret));
        match answered(self.inner.secrets.create(&PostParams::default(), &secret)).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => Ok(()),
            Err(error) => Err(failure("the run's Secret cannot be created", error)),
        }
    }

    /// Creates a Job, or finds the one of the same claim. Waits while a quota or a webhook refuses it for now, and says so in
    /// the row; none, if the deployment is cancelled meanwhile.
    pub(super) async fn create_job(
        &self,
        job: Job,
        claim: &str,
        id: AttemptId,
        lease: &Lease,
        claim_token: Uuid,
    ) -> Result<Option<(JobView, bool)>, LaunchError> {
        let inner = &self.inner;
        let name = job.metadata.name.clone().unwrap_or_default();
        let (begun, mut pause, mut said) = (Instant::now(), REFUSED_FIRST, false);
        loop {
            match answered(inner.jobs.create(&PostParams::default(), &job)).await {
                Ok(job) => {
                    let view = view(&job)?;
                    inner.observer.note(view.clone());
                    if said {
                        inner.claims.say(id, claim_token, None).await;
                    }
                    return Ok(Some((view, true)));
                }
                Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => {
                    if let Some(view) = self.mine(&name, claim, id).await? {
                        return Ok(Some((view, false)));
                    }
                }
                Err(kube::Error::Api(status)) if is_passing(&status) => {
                    // A quota on Jobs counts those that have ended too; they are kept for people, and room is worth more.
                    if status.message.contains("jobs.batch") && self.remove_finished().await {
                        continue;
                    }
                    inner.claims.say(id, claim_token, Some(&waits(&status))).await;
                    said = true;
                    pause = (pause * 2).min(REFUSED);
                }
                // A server that has just started refuses for some seconds what it allows otherwise.
                Err(kube::Error::Api(status)) if status.code == 403 && begun.elapsed() < BELIEVED_AFTER => {
                    pause = BELIEVED_AFTER / 5;
                }
                Err(error) => return Err(failure("the run's Job cannot be created", error)),
            }
            tokio::select! {
                () = sleep(pause) => {}
                () = lease.stop.wait() => {
                    self.cancelled(id, claim_token).await;
                    return Ok(None);
                }
                () = self.asked_to_end(id) => {
                    self.cancelled(id, claim_token).await;
                    return Ok(None);
                }
            }
        }
    }

    /// Stores that a run was cancelled before it had an executor.
    pub(super) async fn cancelled(&self, id: AttemptId, claim_token: Uuid) {
        let result = JobResult::Cancelled("Cancelled before its pod had started.".to_owned());
        settle::finish(self.inner.claims.rest(), id, claim_token, &result).await;
    }

    /// Waits until this run is to end.
    pub(super) async fn asked_to_end(&self, id: AttemptId) {
        loop {
            let asked = self.inner.asked.notified();
            let known = self.known(id);
            if known.is_cancelled || known.was_ended {
                return;
            }
            asked.await;
        }
    }

    /// The Job of this name, if it is of this claim. None: it is gone, or going.
    pub(super) async fn mine(
        &self,
        name: &str,
        claim: &str,
        id: AttemptId,
    ) -> Result<Option<JobView>, LaunchError> {
        let inner = &self.inner;
        let job = answered(inner.jobs.get_opt(name)).await;
        let Some(job) = job.map_err(|error| failure("the run's Job cannot be read", error))? else {
            return Ok(None);
        };
        let view = view(&job)?;
        if view.claim.as_deref() != Some(claim) {
            return Err(LaunchError::Refused(format!(
                "The Job {name} is there already, and of another claim than this one's: remove it (kubectl delete job {name}), and queue the deployment again."
            )));
        }
        if view.leaves {
            return Ok(None);
        }
        if view.finished.is_some() && self.known(id).is_forgotten {
            self.edit(id, |known| known.is_forgotten = false);
            self.delete_job(&view).await?;
            return Ok(None);
        }
        inner.observer.note(view.clone());
        Ok(Some(view))
    }
}

/// Whether a refusal passes by itself: other runs end, and then there is room; a webhook comes back.
fn is_passing(status: &Status) -> bool {
    status.message.contains("exceeded quota")
        || (status.reason == "InternalError" && status.message.contains("webhook"))
}

/// The sentence of a refusal that passes.
fn waits(status: &Status) -> String {
    if status.message.contains("exceeded quota") {
        let why = status.message.split_once("is forbidden: ").map_or(status.message.as_str(), |(_, why)| why);
        return format!("The namespace's quota is used up, so the run waits: {why}.");
    }
    format!("The cluster's admission webhook does not answer, so the run waits: {}.", status.message)
}
