//! Terraform: its commands, its environment, its messages, its plan, and the state that it works on.
//!
//! `execute` decides which step is next; this room runs it, through `process`, in a workspace of `template`, with its output in a
//! log of `logs`.
//!
//! ```text
//! settings         what the room is configured with
//! command          the commands, their arguments, and what their exit codes mean
//! dependency_lock  the providers that a template's lock file names
//! environment      the variables that Terraform gets
//! executor/        runs the steps of one attempt
//! installed        the directory of further versions
//! version_choice   which of them a run has
//! probe            which version a program is
//! registry_token   tokens of private registries
//! cli_config       the credentials in Terraform's own configuration
//! outputs          what an apply put out
//! step_timing      how long steps may take
//! step_timeout     stops a step that takes too long
//! messages         Terraform's JSON lines, read
//! plain_errors     errors that it writes as plain text
//! long_message     a message that is too long to be read as a whole
//! plan_changes     the saved plan as rows
//! plan_digest      what was planned is what is applied
//! apply_progress   how far each change got
//! provider_cache   downloaded providers
//! pending_push     state that Terraform could not write, stored later
//! backend_trial    whether states can be stored, for `doctor`
//! state/           backend, lock, lock owner, errored state
//! ```

mod apply_progress;
pub(crate) mod backend_trial;
mod cli_config;
mod command;
mod dependency_lock;
pub(crate) mod environment;
mod executor;
mod installed;
mod long_message;
mod messages;
mod outputs;
pub(crate) mod pending_push;
mod plain_errors;
mod plan_changes;
mod plan_digest;
mod probe;
pub(crate) mod provider_cache;
mod registry_token;
mod settings;
pub(crate) mod state;
mod step_timeout;
mod step_timing;
mod version_choice;

pub use self::command::Terraform;
pub(crate) use self::{
    apply_progress::ApplyProgress,
    cli_config::credentials,
    command::{KnownTerraform, Step},
    executor::{Log, StageError, TerraformExecutor},
    installed::{TerraformDir, Verified},
    messages::OutputReader,
    plan_changes::PlannedChanges,
    plan_digest::PlanDigest,
    probe::{PROBE_LIMIT, version_of},
    registry_token::RegistryTokens,
    settings::TerraformSettings,
    step_timing::StepTiming,
    version_choice::Choice,
};
