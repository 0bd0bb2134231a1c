//! Terraform: its commands, its environment, its messages, its plan, and the state that it works on.
//!
//! `execute` decides which step is next; this room runs it, through `process`, in a workspace of `template`, with its output in a
//! log of `logs`.
//!
//! ```text
//! settings         what the room is configured with
//! command          the commands, their arguments, and what their exit codes mean
//! environment      the variables that Terraform gets
//! executor/        runs the steps of one attempt
//! step_timing      how long steps may take
//! step_clock       stops a step that takes too long
//! messages         Terraform's JSON lines, read
//! long_message     a message that is too long to be read as a whole
//! plan_changes     the saved plan as rows
//! plan_digest      what was planned is what is applied
//! apply_progress   how far each change got
//! provider_cache   downloaded providers
//! pending_push     state that Terraform could not write, stored later
//! state/           backend, lock, lock owner, errored state
//! ```

mod apply_progress;
mod command;
pub(crate) mod environment;
mod executor;
mod long_message;
mod messages;
pub(crate) mod pending_push;
mod plan_changes;
mod plan_digest;
pub(crate) mod provider_cache;
mod settings;
pub(crate) mod state;
mod step_clock;
mod step_timing;

pub use self::command::{Product, Terraform};
pub(crate) use self::{
    apply_progress::ApplyProgress,
    command::{KnownTerraform, Step},
    executor::{Log, StageError, TerraformExecutor},
    messages::OutputReader,
    plan_changes::PlannedChanges,
    plan_digest::PlanDigest,
    settings::TerraformSettings,
    step_timing::StepTiming,
};
