//! The monthly cost of a plan.

pub(crate) mod breakdown;
pub(crate) mod estimate;
pub(crate) mod estimator;
pub mod infracost;
pub(crate) mod money;
pub(crate) mod scan;
pub(crate) mod settings;
