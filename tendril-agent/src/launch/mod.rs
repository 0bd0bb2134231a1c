//! Where claimed attempts run: a [`Launcher`] starts an executor for each, finds those that run already, and says how
//! each ended.
//!
//! ```text
//! attempt_file   what an executor is given: `attempt.json`
//! kind           which launcher, and what SIGTERM does to its executors
//! launcher       the trait; how an executor ends, and how it is asked to
//! in_process     executors as tasks of this process
//! local/         executors as processes of this machine
//! kubernetes/    executors as pods of Jobs; the feature `kubernetes`
//! origin         makes attempt files: what all attempts of an agent have in common
//! ```

mod attempt_file;
mod in_process;
mod kind;
#[cfg(feature = "kubernetes")]
pub(crate) mod kubernetes;
mod launcher;
pub(crate) mod local;
mod origin;

pub use self::kind::{LauncherKind, OnStop};
pub(crate) use self::{
    attempt_file::{AttemptFile, AttemptId},
    in_process::InProcessLauncher,
    launcher::{End, Executor, LaunchError, Launched, Launcher, Request},
    origin::Origin,
};
