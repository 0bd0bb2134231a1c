//! Which job is next, how many run, and until when.

pub(crate) mod approvals;
pub(crate) mod catalogue;
pub(crate) mod disk_guard;
pub(crate) mod feed;
pub(crate) mod intake;
pub(crate) mod queue;
pub(crate) mod scheduler;
pub(crate) mod shutdown;
pub(crate) mod supervisor;
