//! Runs one program, reads its output, and ends it with everything that it started.

pub(crate) mod cancellation;
pub(crate) mod drain;
pub(crate) mod file_sink;
pub(crate) mod keeper;
pub(crate) mod orphans;
pub(crate) mod output_pipe;
pub(crate) mod runner;
pub(crate) mod stream;
pub(crate) mod time_limit;
pub(crate) mod zombies;
