//! How costs are estimated.

use std::{path::PathBuf, time::Duration};

use crate::cost::infracost::Infracost;

/// The settings of this room; made by `config`.
#[derive(Clone, Debug)]
pub(crate) struct CostSettings {
    /// The program, if there is one.
    pub(crate) infracost: Infracost,
    /// How long an estimate may take, with everything around it.
    pub(crate) time_limit: Duration,
    /// What estimates share is stored here.
    pub(crate) work_dir: PathBuf,
}
