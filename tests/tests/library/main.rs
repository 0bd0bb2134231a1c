//! The library against a real PostgreSQL behind the local stack, with faults.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a failed expectation is a failed test"
)]

mod gaps;
mod invalidation;
mod keys;
mod names;
mod postgrest;
mod rooms;
mod rows;
mod secrets;
mod slow_reader;
mod table;
mod tokens;
mod transport;
mod types;
mod watched;
