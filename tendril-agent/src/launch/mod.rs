//! Where claimed attempts run: a [`launcher::Launcher`] starts an executor for each, finds those that run already, and says how
//! each ended.
//!
//! ```text
//! attempt_file   what an executor is given: `attempt.json`
//! launcher       the trait; how an executor ends, and how it is asked to
//! in_process     executors as tasks of this process
//! local/         executors as processes of this machine
//! kubernetes/    executors as pods of Jobs; the feature `kubernetes`
//! origin         makes attempt files: what all attempts of an agent have in common
//! ```

pub(crate) mod attempt_file;
pub(crate) mod in_process;
pub(crate) mod kind;
#[cfg(feature = "kubernetes")]
pub(crate) mod kubernetes;
pub(crate) mod launcher;
pub(crate) mod local;
pub(crate) mod origin;
