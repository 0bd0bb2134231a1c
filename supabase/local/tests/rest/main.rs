//! The REST server, on a real PostgreSQL and over a real socket: against the recordings of PostgREST, and
//! for what those do not show.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]
#![allow(unreachable_pub, missing_docs, reason = "nobody else uses a test")]

mod calls;
mod concurrency;
#[path = "../ledger/mod.rs"]
mod ledger;
mod operators;
mod recording;
mod recordings;
mod related;
mod service;
mod strictness;
