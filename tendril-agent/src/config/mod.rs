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
//! preflight        what is tried before the first heartbeat
//! doctor           `tendril-agent doctor`
//! versions         `tendril-agent --version`
//! ```

mod args;
pub mod doctor;
pub(crate) mod handed_secrets;
#[cfg(feature = "kubernetes")]
mod kubernetes;
pub(crate) mod preflight;
mod reader;
mod settings;
mod timing;
mod versions;

pub use self::{
    args::{Cli, Task},
    settings::{Config, ConfigProblems},
    timing::Timing,
    versions::Versions,
};
