//! What an operator meets: health, drain, cancels, intake, state backends, tokens, `doctor`; on the local stack.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test may fail")]

mod cancel;
mod compatibility;
mod doctor;
mod drain;
mod health;
mod intake;
mod probe;
mod source;
mod source_faults;
mod state;
mod tokens;
