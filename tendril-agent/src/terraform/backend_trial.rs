//! A trial of the state backend, for `doctor`: it does what the first run of a state does, and leaves nothing.

use std::io;

use crate::{
    process::{Runner, StopSignal, orphans},
    terraform::{
        pending_push::{initialised, run},
        settings::TerraformSettings,
        state::{
            Kind,
            backend::{State, TRIAL_SCHEMA},
        },
    },
};

/// What the directories begin with in which a backend is tried.
const TRIAL: &str = "trial-";
/// Workspaces can be deleted, the one that every state has cannot.
const WORKSPACE: &str = "trial";

/// Tries whether states can be stored; answers a warning where the trial has left something. Errors: Terraform's message.
///
/// * `pg` creates a schema for each state, and Terraform removes none. PostgreSQL asks for the right to create a schema first, and
///   then refuses this name whoever asks: that refusal shows that all before it is well.
/// * `kubernetes` stores an empty state at once. It is stored as a workspace, which is deleted.
/// * The others store nothing before there is something to store.
pub(crate) async fn try_backend(
    settings: &TerraformSettings,
    runner: &dyn Runner,
    state: &State,
) -> io::Result<Option<String>> {
    let state = state.on_trial();
    let stop = StopSignal::default();
    let deletes = state.kind() == Kind::Kubernetes;
    let variable = deletes.then_some(("TF_WORKSPACE", WORKSPACE));
    let (_place, workspace) = match initialised(settings, runner, &state, TRIAL, &stop, variable).await {
        Err(error) if state.kind() == Kind::Pg && error.to_string().contains(TRIAL_SCHEMA) => {
            return Ok(None);
        }
        tried => tried?,
    };
    let mut warning = None;
    if deletes {
        let command = settings.program.delete_workspace(WORKSPACE, &workspace, &settings.timing)?;
        let (exit, message) = run(runner, command, &stop).await?;
        warning = (exit.code != Some(0)).then(|| {
            let suffix = state.setting("secret_suffix").unwrap_or_default();
            format!(
                "the backend works, and the empty state of this trial cannot be removed: delete the Secret tfstate-{WORKSPACE}-{suffix} and the Lease lock-tfstate-{WORKSPACE}-{suffix}. Terraform says:\n{message}"
            )
        });
    }
    orphans::kill(&workspace.data_dir());
    Ok(warning)
}
