//! What the agent promises when things break: no job twice, no line lost, the true status in the end, no secret shown.
//! Real PostgreSQL, the agent's own program, and the local stack's faults.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test may fail")]

mod approval;
mod canary;
mod claim;
mod crash;
mod disk;
mod executors;
mod fencing;
mod hostile;
mod lost;
mod memory;
mod odd_templates;
mod outage;
mod poison;
mod removed;
mod result;
mod run_providers;
mod run_users;
mod stacks;
mod state;
mod strays;
mod waiting_plans;
mod walls;
