//! What an operator meets: health, drain, cancels, cost estimates, intake, state backends, API keys, tokens, `doctor`; on the local stack.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test may fail")]

mod bad_input;
mod busy;
mod cancel;
mod changes;
mod compatibility;
mod cost;
mod doctor;
mod drain;
mod health;
mod intake;
mod keys;
mod log;
mod probe;
mod registries;
mod revocation;
mod source;
mod source_faults;
mod state;
mod terraform_versions;
mod tokens;
