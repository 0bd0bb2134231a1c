//! The start of a run: its Job, and the Secret that goes with it.

use std::time::Duration;

use k8s_openapi::api::batch::v1::Job;
use kube::api::PostParams;
use secrecy::{ExposeSecret, SecretString};
use tokio::time::sleep;
use uuid::Uuid;

use crate::{
    control_plane::Lease,
    execute::Start,
    job::{self, JobResult, JobSpec},
    launch::{
        attempt_file::{AttemptFile, AttemptId, TokenFrom},
        kubernetes::{
            death::Death,
            election::answered,
            launcher::{KubernetesLauncher, digest, failure, secret_suffix, view},
            manifest::{self, Run},
            names::{ATTEMPT_FILE, PLAN_ACCESS_FILE, Part, TOKEN_FILE},
            outcome,
            view::{JobView, PodView},
            waiting::{self, Waiting},
        },
        launcher::{End, Executor, LaunchError, Launched},
    },
    os::failpoint,
};

/// Between two attempts to make a Secret that nobody takes now: the first pause, and the longest.
const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(10);

/// What a run's Secret is made of.
pub(super) struct Handed {
    attempt: AttemptFile,
    token: Option<SecretString>,
}

impl KubernetesLauncher {
    pub(super) async fn create(
        &self,
        mut attempt: AttemptFile,
        token: Option<SecretString>,
    ) -> Result<Launched, LaunchError> {
        // The image has its own.
        attempt.terraform = None;
        attempt.slot_users = None;
        let (id, claim_token, state_key) = (attempt.id(), attempt.claim_token, attempt.state_key.clone());
        let job = attempt.job();
        let lease = self.inner.leases.hold(&job);
        let part = match attempt.start {
            Start::Workspace => Part::First,
            Start::Approval | Start::Apply => Part::Approved,
        };
        let claim = digest(claim_token);
        let manifest = manifest::job(&self.inner.settings, &self.run(&job, part, &claim)?);
        let may_start = part != Part::First || self.has_its_state(&job, &lease).await;
        let made =
            if may_start { self.create_job(manifest, &claim, id, &lease, claim_token).await? } else { None };
        let Some((view, is_new)) = made else {
            // Nothing was started, and nothing is to be.
            let ended = Box::pin(async { End::Stored });
            return Ok(Launched::Started(Executor { id, claim_token, state_key, version: None, ended }));
        };
        failpoint!("run.job_made");
        // Also where the Job was there: a dispatcher that died between the two left it without one.
        let handed = Some(Handed { attempt, token });
        let executor = self.executor(view, lease, claim_token, state_key, handed);
        Ok(if is_new { Launched::Started(executor) } else { Launched::Already(executor) })
    }

    /// What the manifests of a run are made of. Errors: a sentence for its user.
    fn run<'a>(&'a self, job: &'a job::Job, part: Part, claim: &'a str) -> Result<Run<'a>, LaunchError> {
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
            secret: secret_suffix(job.claim_token),
        })
    }

    /// What the Secret of a run is made of that an earlier dispatcher may have left without one.
    pub(super) fn handed(&self, job: &job::Job, part: Part) -> Handed {
        let start = if part == Part::First { Start::Workspace } else { Start::Approval };
        let (mut attempt, token) = self.inner.origin.attempt(job, start);
        attempt.terraform = None;
        attempt.slot_users = None;
        Handed { attempt, token }
    }

    /// Makes the Secret of a run once it has a pod, which waits for it; one that is there is not touched. Tries until the cluster takes or
    /// refuses it.
    pub(super) async fn provide_secret(&self, view: &JobView, handed: Option<Handed>) -> Result<(), Death> {
        let Some(Handed { mut attempt, token }) = handed else { return Ok(()) };
        let pod = self.inner.observer.pod_of(&view.name).await;
        attempt.pod_uid = Some(pod.uid.clone());
        attempt.ended_pods = self.ended_pods(attempt.state_key.as_deref());
        let mut pause = FIRST;
        loop {
            match self.create_secret(view, &pod, &attempt, token.as_ref()).await {
                Ok(()) => break,
                Err(LaunchError::Refused(why)) => return Err(Death::refused(why)),
                Err(error @ LaunchError::Io { .. }) => {
                    tracing::warn!(deployment = %view.id.deployment_id, %error, "the run's Secret is not there yet: trying again");
                }
            }
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST);
        }
        failpoint!("run.secret_made");
        Ok(())
    }

    async fn create_secret(
        &self,
        view: &JobView,
        pod: &PodView,
        attempt: &AttemptFile,
        token: Option<&SecretString>,
    ) -> Result<(), LaunchError> {
        let unwritten =
            |source| LaunchError::Io { context: "the attempt file cannot be written".to_owned(), source };
        let (mut attempt, mut token) = (attempt.clone(), token.cloned());
        if let (TokenFrom::File(file), None) = (&attempt.token, &token) {
            // The file is in the dispatcher's pod, and what it holds now goes with the run.
            let text = tokio::fs::read_to_string(file).await.map_err(|source| LaunchError::Io {
                context: format!("the machine token cannot be read from {}", file.display()),
                source,
            })?;
            token = Some(SecretString::from(text.trim()));
            attempt.token = TokenFrom::File(TOKEN_FILE.into());
        }
        let (job, claim) = (attempt.job(), digest(attempt.claim_token));
        let run = self.run(&job, view.part, &claim)?;
        let mut files = vec![(ATTEMPT_FILE, attempt.to_json().map_err(unwritten)?)];
        if let Some(token) = &token {
            files.push((TOKEN_FILE, token.expose_secret().as_bytes().to_vec()));
        }
        if run.keeps_plan_in_secret(&self.inner.settings) {
            let access = self.plan_access(pod, None).await?;
            files.push((PLAN_ACCESS_FILE, access.to_json().map_err(|error| unwritten(error.into()))?));
        }
        let secret = manifest::secret(&run, &view.uid, files);
        match answered(self.inner.secrets.create(&PostParams::default(), &secret)).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => Ok(()),
            Err(error) => Err(failure("the run's Secret cannot be created", error)),
        }
    }

    /// Creates a Job, or finds the one of the same claim. Waits while the cluster does not take it for now, and says so in the row; none,
    /// if the deployment is cancelled meanwhile.
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
        let mut waiting = Waiting::new(self, id, claim_token, lease);
        loop {
            let error = match answered(inner.jobs.create(&PostParams::default(), &job)).await {
                Ok(job) => {
                    let view = view(&job)?;
                    inner.observer.note(view.clone());
                    waiting.is_over().await;
                    return Ok(Some((view, true)));
                }
                Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => {
                    match self.mine(&name, claim, id).await {
                        Ok(Some(view)) => {
                            waiting.is_over().await;
                            return Ok(Some((view, false)));
                        }
                        // It is gone by now, or going.
                        Ok(None) | Err(LaunchError::Io { .. }) => kube::Error::Api(status),
                        Err(refused) => return Err(refused),
                    }
                }
                Err(error) => error,
            };
            // A quota on Jobs counts those that have ended too; they are kept for people, and room is worth more.
            if waiting::is_full_of_jobs(&error) && self.remove_finished().await {
                continue;
            }
            if !waiting.after("the run's Job cannot be created", error).await? {
                return Ok(None);
            }
        }
    }

    /// Stores that a run was cancelled before it had an executor.
    pub(super) async fn cancelled(&self, id: AttemptId, claim_token: Uuid) {
        let result = JobResult::Cancelled("Cancelled before its pod had started.".to_owned());
        outcome::finish(self.inner.claims.rest(), id, claim_token, &result).await;
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
