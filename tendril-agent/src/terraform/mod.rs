//! Terraform: its commands, its environment, its messages, and the state that it works on.

pub(crate) mod apply_progress;
pub(crate) mod command;
pub(crate) mod environment;
pub(crate) mod executor;
pub(crate) mod long_message;
pub(crate) mod messages;
pub(crate) mod pending_push;
pub(crate) mod plan_changes;
pub(crate) mod plan_digest;
pub(crate) mod provider_cache;
pub(crate) mod settings;
pub(crate) mod state;
pub(crate) mod step_clock;
pub(crate) mod step_timing;
