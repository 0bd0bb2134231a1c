//! Executors as processes of this machine: each in a session of its own, so that it does not end with its dispatcher.
//!
//! ```text
//! launcher   starts executors, finds those that run already, waits for their ends
//! entry      the directory of one: its lock, what it is asked for, how it ended
//! metrics    what an executor counts, for its dispatcher
//! ```

mod entry;
mod launcher;
mod metrics;

pub(crate) use self::{
    entry::Entry,
    launcher::{EXECUTORS, ExecutorCommand, LocalLauncher, is_alive},
    metrics::{Tally, Totals},
};
