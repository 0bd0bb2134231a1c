//! Runs as pods: the stand-in against recordings of a real cluster, and the agent on the stand-in.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test may fail")]

#[cfg(feature = "kubernetes")]
mod cost;
#[cfg(feature = "kubernetes")]
mod deaths;
mod http;
mod lifecycle;
#[cfg(feature = "kubernetes")]
mod pods;
#[cfg(feature = "kubernetes")]
mod real_cluster;
mod recorded;
mod recording;
#[cfg(feature = "kubernetes")]
mod runs;
