//! Scenarios: the agent, the database and the library together, on the local stack or with `STACK=external`.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test may fail")]

mod configuration;
mod deployment;
mod isolation;
mod listen;
mod order;
mod outage;
mod race;
mod shutdown;
mod token;
