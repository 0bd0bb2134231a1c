//! States that their backends did not take: kept beyond the end of the pod that has them, and stored as soon as that is possible.
//!
//! The row of the stack says that its state is held. A run with such a state does not end before it is kept: it is given the right to create
//! Secrets, which belong to a Job that is suspended. Pods that are made from that Job store the state; then the stack is released, and the
//! Job is removed with everything that belongs to it. Whatever of this is cut off is found again: in the rows, and in the Jobs.

use k8s_openapi::api::batch::v1::Job;
use kube::api::PostParams;

use crate::{
    execute::Start,
    job,
    launch::{
        attempt_file::FORMAT_OF_PUSH,
        kubernetes::{
            claims::HeldStack,
            election::answered,
            held_manifest::{self, Keeping},
            launcher::{KubernetesLauncher, failure, view},
            names::{self, ATTEMPT_FILE, PLAN_ACCESS_FILE, Part},
            view::{Finished, JobView, PodView},
        },
        launcher::{End, LaunchError},
    },
    telemetry,
};

impl KubernetesLauncher {
    /// Does what is to be done for the states that are held.
    pub(super) async fn look_after_states(&self) -> Result<(), LaunchError> {
        let jobs = self.inner.observer.jobs();
        let holders: Vec<&JobView> =
            jobs.iter().filter(|job| job.part == Part::State && !job.leaves).collect();
        metrics::gauge!(telemetry::KEPT_STATES).set(u32::try_from(holders.len()).unwrap_or(u32::MAX));
        let running: Vec<(&JobView, PodView)> = jobs
            .iter()
            .filter(|job| job.part.is_run() && job.finished.is_none())
            .filter_map(|job| Some((job, self.pod_of(job).filter(PodView::is_running)?)))
            .collect();
        let is_new = |job: &JobView| {
            !self.known(job.id).may_keep && self.has_ended_with(job, &End::StateKept)
                || self.has_ended_with(job, &End::StateStored)
        };
        if holders.is_empty() && running.is_empty() && !jobs.iter().any(is_new) {
            return Ok(());
        }
        let held = self.held_stacks().await?;
        for holder in &holders {
            if !held.iter().any(|stack| stack.is_of(holder)) {
                self.remove_holder(holder, &jobs).await?;
            }
        }
        for (run, pod) in &running {
            if held.iter().any(|stack| stack.is_of(run)) {
                self.let_keep(run, pod).await?;
            }
        }
        for stack in &held {
            let of_stack = |job: &&JobView| stack.is_of(job);
            let runs = jobs.iter().filter(of_stack).filter(|job| job.part.is_run());
            let newest = runs.max_by_key(|job| job.created);
            if newest.is_some_and(|job| self.has_ended_with(job, &End::StateStored)) {
                self.release(stack).await?;
                continue;
            }
            if running.iter().any(|(run, _)| stack.is_of(run)) {
                continue;
            }
            // Of two the newer one counts: an older state is never stored over it.
            let holder = holders.iter().copied().filter(of_stack).max_by_key(|job| job.created);
            match (holder, newest.and_then(|run| Some((run, self.pod_of(run)?)))) {
                (Some(holder), _) => self.store(stack, holder, &jobs).await?,
                // A volume took the state before anybody had seen it.
                (None, Some((run, pod))) if self.has_ended_with(run, &End::StateKept) => {
                    self.let_keep(run, &pod).await?;
                    self.inner.tries.wake();
                }
                _ => {}
            }
        }
        Ok(())
    }

    async fn held_stacks(&self) -> Result<Vec<HeldStack>, LaunchError> {
        self.inner.claims.held().await.map_err(|error| LaunchError::Io {
            context: "the stacks whose states are held cannot be read".to_owned(),
            source: std::io::Error::other(error),
        })
    }

    fn pod_of(&self, job: &JobView) -> Option<PodView> {
        self.inner.observer.subscribe(&job.name).borrow().pod.clone()
    }

    pub(super) fn has_ended_with(&self, job: &JobView, end: &End) -> bool {
        let pod = self.pod_of(job);
        let code = pod.as_ref().and_then(|pod| pod.terminated.as_ref()).map(|ended| ended.code);
        job.part.is_run() && code == Some(end.code().into())
    }

    /// Lets a run keep its state: makes what owns it, and gives the run the right to it.
    async fn let_keep(&self, run: &JobView, pod: &PodView) -> Result<(), LaunchError> {
        if self.known(run.id).may_keep {
            return Ok(());
        }
        let inner = &self.inner;
        let job = answered(inner.jobs.get(&run.name)).await;
        let job = job.map_err(|error| failure("the run's Job cannot be read", error))?;
        let keeping = Keeping::of(&job);
        // A Secret that was not made by the end of its pod is not made any more.
        let Some(keeping) = keeping.filter(|keeping| keeping.late.is_none() || run.finished.is_none()) else {
            self.edit(run.id, |known| known.may_keep = true);
            return Ok(());
        };
        tracing::error!(
            deployment = %run.id.deployment_id, attempt = run.id.attempt, pod = pod.name, stack = run.stack,
            "the backend did not take the state of a run: it is kept, and stored as soon as the backend takes it"
        );
        let holder = self.holder(run, pod, &job, &keeping).await?;
        if let Some(late) = keeping.late {
            let owner = held_manifest::owner(&holder);
            let access = self.plan_access(pod, Some(owner)).await?;
            let bytes = access.to_json().map_err(|error| unwritten(error.into()))?;
            let secret = held_manifest::owner(run).secret(late, PLAN_ACCESS_FILE, bytes);
            self.create_kept_secret(secret).await?;
        }
        self.edit(run.id, |known| known.may_keep = true);
        Ok(())
    }

    /// The Job that owns what the state of a run is kept in. It is made if it is not there.
    async fn holder(
        &self,
        run: &JobView,
        pod: &PodView,
        job: &Job,
        keeping: &Keeping,
    ) -> Result<JobView, LaunchError> {
        let inner = &self.inner;
        let manifest = held_manifest::holder(job, run, keeping);
        let name = names::name(run.id, Part::State);
        let holder = loop {
            match answered(inner.jobs.create(&PostParams::default(), &manifest)).await {
                Ok(made) => break view(&made)?,
                Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => {
                    let there = answered(inner.jobs.get(&name)).await;
                    let there = view(&there.map_err(|error| failure("a Job cannot be read", error))?)?;
                    if there.claim != run.claim {
                        return Err(LaunchError::Refused(format!("The Job {name} is another claim's.")));
                    }
                    break there;
                }
                Err(error) if super::waiting::is_full_of_jobs(&error) && self.remove_finished().await => {}
                Err(error) => {
                    return Err(failure("the Job that owns a state cannot be created", error));
                }
            }
        };
        inner.observer.note(holder.clone());
        // What a push is started with: it speaks to the backend alone.
        let row = job::Job {
            id: run.id.deployment_id,
            attempt: run.id.attempt,
            claim_token: uuid::Uuid::nil(),
            config: job::ConfigSnapshot::default(),
            state_key: run.stack.clone(),
        };
        let (mut attempt, _token) = inner.origin.attempt(&row, Start::Workspace);
        (attempt.terraform, attempt.format, attempt.stores_state) = (None, FORMAT_OF_PUSH, true);
        attempt.ended_pods = vec![pod.name.clone()];
        let bytes = attempt.to_json().map_err(unwritten)?;
        let secret = held_manifest::owner(&holder).secret(keeping.push(run), ATTEMPT_FILE, bytes);
        self.create_kept_secret(secret).await?;
        Ok(holder)
    }

    async fn create_kept_secret(
        &self,
        secret: k8s_openapi::api::core::v1::Secret,
    ) -> Result<(), LaunchError> {
        match answered(self.inner.secrets.create(&PostParams::default(), &secret)).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => Ok(()),
            Err(error) => Err(failure("a Secret for a state cannot be created", error)),
        }
    }

    /// Has a state stored that was kept, or acts upon the end of the last try.
    async fn store(&self, stack: &HeldStack, holder: &JobView, jobs: &[JobView]) -> Result<(), LaunchError> {
        let pushes: Vec<&JobView> = pushes_of(holder, jobs).collect();
        if pushes.iter().any(|push| push.finished == Some(Finished::Complete)) {
            return self.release(stack).await;
        }
        if pushes.iter().any(|push| push.finished.is_none() && !push.leaves) {
            return Ok(());
        }
        let last = pushes.iter().max_by_key(|push| number_of(push));
        let pod = last.and_then(|push| self.pod_of(push));
        let code = pod.as_ref().and_then(|pod| pod.terminated.as_ref()).map(|ended| ended.code);
        if code == Some(End::StateLost.code().into()) {
            tracing::error!(
                stack = stack.state_key,
                "the state of a run was not whole when its pod ended: it is lost. Compare the state with the cloud, and discard what is held of the stack"
            );
            return self.remove_holder(holder, jobs).await;
        }
        if !self.inner.tries.is_due(&stack.state_key) {
            return Ok(());
        }
        if let Some(pod) = &pod {
            tracing::warn!(
                stack = stack.state_key,
                pod = pod.name,
                "a state is still not stored: the log of its pod says why"
            );
        }
        let number = last.map_or(1, |push| number_of(push) + 1);
        let job = answered(self.inner.jobs.get(&holder.name)).await;
        let job = job.map_err(|error| failure("the Job that owns a state cannot be read", error))?;
        let push = held_manifest::push(&job, holder, number);
        let made = match answered(self.inner.jobs.create(&PostParams::default(), &push)).await {
            Ok(made) => view(&made)?,
            // The watch shows it.
            Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => return Ok(()),
            Err(error) => {
                if super::waiting::is_full_of_jobs(&error) && self.remove_finished().await {
                    self.inner.tries.hurry(&stack.state_key);
                }
                return Err(failure("the Job that stores a state cannot be created", error));
            }
        };
        tracing::info!(stack = stack.state_key, job = made.name, "a state that was kept is being stored");
        self.inner.observer.note(made.clone());
        let mut seen = self.inner.observer.subscribe(&made.name);
        let launcher = self.clone();
        tokio::spawn(async move {
            let ended = seen
                .wait_for(|seen| seen.is_gone || seen.job.as_ref().is_some_and(|job| job.finished.is_some()));
            drop(ended.await);
            launcher.inner.tries.wake();
        });
        Ok(())
    }

    /// The state of a stack is in its backend: anybody may claim it again.
    async fn release(&self, stack: &HeldStack) -> Result<(), LaunchError> {
        let released = self.inner.claims.release(stack).await;
        released.map_err(|error| LaunchError::Io {
            context: "the stack of a state that is stored cannot be released".to_owned(),
            source: std::io::Error::other(error),
        })?;
        tracing::info!(stack = stack.state_key, "a state that a run could not store is stored");
        self.inner.tries.forget(&stack.state_key);
        self.inner.tries.wake();
        Ok(())
    }

    /// Removes what a state was kept in: it is stored, or nobody wants it any more.
    async fn remove_holder(&self, holder: &JobView, jobs: &[JobView]) -> Result<(), LaunchError> {
        for push in pushes_of(holder, jobs).filter(|push| !push.leaves) {
            self.delete_job(push).await?;
        }
        self.delete_job(holder).await
    }
}

/// The Jobs that tried to store what a holder keeps.
pub(super) fn pushes_of<'a>(holder: &JobView, jobs: &'a [JobView]) -> impl Iterator<Item = &'a JobView> {
    let id = holder.id;
    jobs.iter().filter(move |job| job.part == Part::Push && job.id == id)
}

/// Which try a Job is.
fn number_of(push: &JobView) -> u32 {
    push.name.rsplit('-').next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

fn unwritten(source: std::io::Error) -> LaunchError {
    LaunchError::Io { context: "the attempt file cannot be written".to_owned(), source }
}
