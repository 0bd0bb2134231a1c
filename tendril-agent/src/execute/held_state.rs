//! A state of which this agent has the only copy, from the moment that it is found to the moment that it is stored: other agents
//! must not plan against the older one in the backend.

use std::{fs, io, path::PathBuf, time::Duration};

use jiff::Timestamp;

use crate::{
    control_plane::{
        Backoff,
        state_hold::{Hold, hold, release},
    },
    execute::context::JobContext,
    os::{blocking, files::rename_durably},
    terraform::{pending_push, state::State},
};

/// How often a release is tried before it is left to the next run of the stack, or the next start.
const RELEASES: usize = 5;

impl JobContext {
    /// Stores what is pending of this state; then other agents may claim its stack again.
    pub(crate) async fn push_held(&self, state: &State) {
        if self.hold_pending(state).await {
            pending_push::push(&self.settings.terraform, &*self.runner, state, &self.drain).await;
        }
        self.release_stored(state).await;
    }

    /// Reports that this agent has the only copy of a newer state, if it has. False: the stack's owner discarded it, and it is set
    /// aside.
    pub(crate) async fn hold_pending(&self, state: &State) -> bool {
        let held = state.clone();
        let pending = blocking(move || held.pending()).await.unwrap_or_default();
        if pending.is_empty() {
            return true;
        }
        let since = pending.iter().filter_map(made_at).max();
        let reason = "The backend did not take the state of the last run.";
        match hold(&self.rest, state.key(), &self.settings.agent_name, reason, since).await {
            Ok(Hold::Held) => {
                let marked = state.clone();
                if let Err(error) = blocking(move || marked.mark_held()).await {
                    tracing::warn!(%error, state = state.key(), "that the state is held cannot be noted on disk");
                }
                true
            }
            Ok(Hold::Unknown) => true,
            Ok(Hold::Discarded) => {
                for file in pending {
                    let aside = file.with_extension("discarded");
                    tracing::warn!(
                        state = state.key(), file = %aside.display(),
                        "the owner discarded a state that could not be stored: it is set aside and not stored any more"
                    );
                    if let Err(error) = rename_durably(&file, &aside) {
                        tracing::error!(%error, file = %file.display(), "a discarded state cannot be set aside");
                    }
                }
                false
            }
            Err(error) => {
                tracing::warn!(%error, state = state.key(), "that a state is held here cannot be reported to the database");
                true
            }
        }
    }

    /// Lets other agents claim the stack, if this agent held it and has nothing of it any more.
    pub(crate) async fn release_stored(&self, state: &State) {
        let held = state.clone();
        let stored = blocking(move || Ok(held.is_marked_held() && held.pending()?.is_empty())).await;
        if !stored.unwrap_or(false) {
            return;
        }
        let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(5));
        for _ in 0..RELEASES {
            match release(&self.rest, state.key(), &self.settings.agent_name).await {
                Ok(()) => {
                    let marked = state.clone();
                    if let Err(error) = blocking(move || marked.unmark_held()).await {
                        tracing::warn!(%error, state = state.key(), "a note of a held state cannot be removed");
                    }
                    return;
                }
                Err(error) => {
                    tracing::warn!(%error, state = state.key(), "the stack of a stored state cannot be released yet");
                    tokio::time::sleep(backoff.after(&error)).await;
                }
            }
        }
    }
}

fn made_at(file: &PathBuf) -> Option<Timestamp> {
    let modified: io::Result<_> = fs::metadata(file).and_then(|data| data.modified());
    Timestamp::try_from(modified.ok()?).ok()
}
