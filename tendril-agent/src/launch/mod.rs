//! Where claimed attempts run: a [`launcher::Launcher`] starts an executor for each, finds those that run already, and says how
//! each ended.
//!
//! ```text
//! attempt_file   what an executor is given: `attempt.json`
//! launcher       the trait; how an executor ends, and how it is asked to
//! ```

pub(crate) mod attempt_file;
pub(crate) mod launcher;
