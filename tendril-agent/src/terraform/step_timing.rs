//! How long the steps of a run may take.

use std::time::Duration;

use crate::job::Timeouts;

/// How long a step may take to end early, and to wait for a lock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StepTiming {
    /// How long a command waits for a state lock that another one holds.
    pub(crate) lock_timeout: Duration,
    /// First interrupt to second interrupt, while nothing is being changed.
    pub(crate) plan_cancel_grace: Duration,
    /// First interrupt to second interrupt, while resources are being changed.
    pub(crate) apply_cancel_grace: Duration,
    /// Second interrupt to SIGKILL of the process group.
    pub(crate) kill_grace: Duration,
    /// How long a step may take at most.
    pub(crate) limits: Timeouts,
}
