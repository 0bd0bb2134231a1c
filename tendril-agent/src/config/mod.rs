//! Flags and environment variables, and the settings that the rooms get from them.
//!
//! Each room has a settings type of its own, which is made here. No room reads [`Config`] but `agent`, `executor` and this one.
//!
//! ```text
//! args             the command line
//! reader           the values of flags, one by one, and what is wrong with them
//! settings         from `Cli` to `Config`: read, validated, tried on this machine
//! timing           intervals and grace periods
//! kubernetes       how runs become pods
//! handed_secrets   secrets taken out of the environment and the arguments
//! slot_users       the users of runs, where the agent is root
//! slot_uids        which IDs they have
//! uid_range        which agent of the machine has which of them
//! preflight        what is tried before the first heartbeat
//! isolation        what a template can reach beside its own run
//! doctor           `tendril-agent doctor`
//! versions         `tendril-agent --version`
//! ```

mod args;
pub mod doctor;
pub(crate) mod handed_secrets;
pub(crate) mod isolation;
#[cfg(feature = "kubernetes")]
mod kubernetes;
pub(crate) mod preflight;
mod reader;
mod settings;
pub(crate) mod slot_uids;
pub(crate) mod slot_users;
mod timing;
mod uid_range;
mod versions;

pub use self::{
    args::{Cli, Task},
    settings::{Config, ConfigProblems},
    timing::Timing,
    versions::Versions,
};
