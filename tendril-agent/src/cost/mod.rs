//! Estimates what a deployment will cost each month, before anything is planned. An estimate never fails a job.
//!
//! `execute` runs it as one stage. It runs the program `infracost` through `process`, in the workspace of `template`.
//!
//! ```text
//! infracost/   the program: found, its version, its command
//! estimator    the stage
//! estimate     the contents of an estimate: its status, its figures, its sentence
//! breakdown    the output of infracost 0.10
//! scan         the output of infracost 2.x
//! money        amounts, exact
//! ```

mod breakdown;
mod estimate;
mod estimator;
pub mod infracost;
mod money;
mod scan;
mod settings;

pub(crate) use self::{
    estimator::{Estimate, Estimator},
    settings::CostSettings,
};
