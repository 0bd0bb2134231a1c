//! `tendril-agent doctor`: tries everything that an agent needs, one thing after the other, and says what to fix.
//!
//! It changes nothing in the control plane and claims nothing, so that it can be run beside a working agent. An API key is
//! exchanged, which the control plane remembers as its last use.
//!
//! ```text
//! examination     all checks, in their order
//! finding         what one check found
//! machine         templates, disk, health address, isolation
//! terraform       programs, registries, state backend, cost estimates
//! kubernetes      the cluster that runs become pods in
//! control_plane   the database, its contract, other agents
//! realtime        live changes
//! ```

mod control_plane;
mod examination;
mod finding;
#[cfg(feature = "kubernetes")]
mod kubernetes;
mod machine;
mod realtime;
mod terraform;

pub use self::{
    examination::{examine, of_problems},
    finding::Finding,
};
