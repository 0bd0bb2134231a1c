//! Runs as pods: the stand-in against recordings of a real cluster, and the agent on the stand-in.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test may fail")]

mod cost;
mod crashes;
mod deaths;
mod departures;
mod hostile;
mod http;
mod ledger;
mod lifecycle;
mod locks;
mod metrics;
mod outages;
mod plans;
mod real_cluster;
mod recorded;
mod recording;
mod runs;
mod states;
