//! The end of a run whose backend did not take its state: the pod stays until the state is stored or kept where it outlives the pod. And the
//! pod that stores what was kept.

use std::{path::PathBuf, time::Duration};

use tokio::time::{Instant, sleep};

use crate::{
    execute::JobContext,
    launch::{
        attempt_file::AttemptFile,
        kubernetes::state_store::{Kept, StateStore},
        launcher::End,
    },
    os::{blocking, files::private_file},
    terraform::{
        pending_push,
        state::{LockOwner, State},
    },
};

/// Between two looks whether the state can be kept.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Before the first try to store it in its backend; then twice as long, up to the longest.
const FIRST: Duration = Duration::from_secs(10);
const LONGEST: Duration = Duration::from_secs(80);

/// The state that this run leaves on the disk of its pod alone; none, if it leaves none.
pub(crate) async fn left(context: &JobContext, attempt: &AttemptFile) -> Option<PathBuf> {
    let state = context.settings.terraform.state(attempt.state_key.as_deref()?);
    let place = state.errored_state_path(&attempt.id().to_string());
    blocking(move || Ok(place.exists().then_some(place))).await.ok().flatten()
}

/// Waits until the state is in its backend, or kept, or given up by the owner of its stack.
pub(crate) async fn hand_over(
    context: &JobContext,
    attempt: &AttemptFile,
    store: &mut StateStore,
    file: PathBuf,
) -> End {
    let state = context.settings.terraform.state(attempt.state_key.as_deref().unwrap_or_default());
    tracing::error!(
        state = state.key(), file = %file.display(),
        "the backend did not take the state: the only copy is on the disk of this pod. Do not delete the pod; it ends once the state is stored, or kept where it outlives the pod"
    );
    let mut pause = FIRST;
    let mut push_at = Instant::now() + pause;
    let mut said = String::new();
    loop {
        match store.keep(file.clone()).await {
            Kept::Whole => {
                tracing::warn!(state = state.key(), "the state is kept until its backend takes it");
                return End::StateKept;
            }
            Kept::NotYet(why) | Kept::Never(why) if why != said => {
                tracing::warn!(
                    state = state.key(),
                    "the state cannot be kept outside of this pod yet: {why}"
                );
                said = why;
            }
            Kept::NotYet(_) | Kept::Never(_) => {}
        }
        if Instant::now() >= push_at {
            // Also where its owner gives it up: then there is nothing to push.
            context.push_held(&state).await;
            if !file.exists() {
                tracing::warn!(state = state.key(), "nothing of the state is on this pod alone any more");
                return End::StateStored;
            }
            pause = (pause * 2).min(LONGEST);
            push_at = Instant::now() + pause;
        }
        sleep(LOOK_EVERY).await;
    }
}

/// Stores the state that the pod of an earlier run left.
pub(crate) async fn push(context: &JobContext, attempt: &AttemptFile) -> End {
    let Some(store) = StateStore::from_env(|name| std::env::var(name).ok()) else {
        return End::Died("nothing says where the state is that is to be stored".to_owned());
    };
    let kept = match store.load().await {
        Ok(Some(kept)) => kept,
        Ok(None) => {
            tracing::error!("no state was kept: that of the run is lost with its pod");
            return End::StateLost;
        }
        // A disk or a mount may be well the next time: nothing that may hold the state is removed.
        Err(error) => return End::Died(format!("the state that was kept cannot be read: {error}")),
    };
    let state = context.settings.terraform.state(attempt.state_key.as_deref().unwrap_or_default());
    if let Err(error) = lay_out(&state, attempt, kept).await {
        return End::Died(format!(
            "the state that was kept cannot be written to the disk of this pod: {error}"
        ));
    }
    pending_push::push(&context.settings.terraform, &*context.runner, &state, &context.drain).await;
    match state.pending() {
        Ok(left) if left.is_empty() => {
            store.remove().await;
            End::Stored
        }
        // Why was logged: it is what the dispatcher reads of this pod.
        _ => End::Kept,
    }
}

async fn lay_out(state: &State, attempt: &AttemptFile, kept: Vec<u8>) -> std::io::Result<()> {
    let (state, pods, name) = (state.clone(), attempt.ended_pods.clone(), attempt.id().to_string());
    blocking(move || {
        crate::os::files::private_dir(state.dir())?;
        // The pod that could not store it could not give its lock back either.
        pods.iter().try_for_each(|pod| LockOwner::of_ended_pod(&state, pod).mark_stale(&state))?;
        private_file(&state.errored_state_path(&name), &kept)
    })
    .await
}
