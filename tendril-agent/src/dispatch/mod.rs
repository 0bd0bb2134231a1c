//! The dispatcher: which job is next, how many run at the same time, and until when.
//!
//! It reads the queue and claims from `control_plane`, and starts an executor for each claim through `launch`. It runs no
//! Terraform itself.
//!
//! ```text
//! intake       how an agent learns of its jobs: broadcasts, row changes or polling
//! feed         keeps the queue up to date: a list, live events, a list again after each gap
//! queue        which jobs wait, and the choice of the next one
//! scheduler    the jobs that run now, up to the concurrency
//! supervisor   one claimed job: starts its executor, waits for its end
//! approvals    plans that wait for a person's approval
//! catalogue    publishes the templates in this agent's folder
//! disk_guard   how full the work directory is, and what is done about it
//! shutdown     the end of the agent, in stages
//! ```

mod approvals;
mod catalogue;
mod disk_guard;
mod feed;
pub(crate) mod intake;
mod queue;
mod scheduler;
mod shutdown;
mod supervisor;

pub use self::shutdown::Shutdown;
pub(crate) use self::{
    approvals::Approvals,
    catalogue::publish_templates,
    disk_guard::DiskGuard,
    feed::{Feed, until},
    queue::{Queue, QueueEvent},
    scheduler::{Ended, Scheduler},
    shutdown::{ShutdownPlan, ShutdownTiming},
    supervisor::{Leave, Supervisor},
};
