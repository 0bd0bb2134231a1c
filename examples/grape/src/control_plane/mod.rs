//! Rows of the control plane as their owner sees them.
//!
//! ```text
//! project     the project and the user: URL, key, tokens, contract
//! cluster     where agents run, and the keys of a cluster
//! catalogue   templates that a cluster can run
//! deployment  a run: queued, looked up, approved, cancelled
//! stack       what runs work on: one state
//! plan        the changes of a plan
//! follow      a run and its log, to the end
//! ```

pub mod catalogue;
pub mod cluster;
pub mod deployment;
pub mod follow;
pub mod plan;
pub mod project;
pub mod stack;
