//! Pods of a stack that have ended: a lock on its state that one of them took is nobody's.
//!
//! Terraform writes `user@host` into a lock, and the host of a run is its pod, whose name no other pod ever has. The dispatcher sees
//! which pods have ended; what it gives to the next run of the stack names them, and that run removes such a lock.

use std::io;

use crate::{
    execute::JobContext,
    job::JobSpec,
    launch::{attempt_file::AttemptFile, kubernetes::launcher::KubernetesLauncher},
    os::blocking,
    terraform::state::LockOwner,
};

/// The most that are named.
const MOST: usize = 50;

impl KubernetesLauncher {
    /// The pods of this stack that have ended, as far as the cluster still has their Jobs.
    pub(super) fn ended_pods(&self, state_key: Option<&str>) -> Vec<String> {
        let Some(stack) = state_key else { return Vec::new() };
        self.inner.observer.ended_pods(stack, MOST)
    }
}

/// Writes them down beside the state, where whoever finds the lock looks.
pub(crate) async fn note(context: &JobContext, attempt: &AttemptFile) -> io::Result<()> {
    let job = attempt.job();
    let Ok(spec) = JobSpec::parse(&job.config) else { return Ok(()) };
    let (state, pods) = (context.state(&spec, &job), attempt.ended_pods.clone());
    blocking(move || pods.iter().try_for_each(|pod| LockOwner::of_ended_pod(&state, pod).mark_stale(&state)))
        .await
}
