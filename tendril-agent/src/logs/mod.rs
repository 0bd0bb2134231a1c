//! The log of a job: bytes become lines, secrets are hidden, lines are stored on disk and then uploaded as rows.
//!
//! `execute` opens it and `terraform` writes to it. It hides secrets with `redaction` and stores rows through `control_plane`.
//!
//! ```text
//! writer   the end that programs and the agent write to
//! worker   the thread that passes output through the stages
//! lines    bytes to lines
//! coverage which part of a program's output the lines cover
//! spool/   lines on disk, until they are stored
//! upload   chunks from the spool to `deployment_logs`
//! ```

mod coverage;
mod lines;
mod spool;
mod upload;
mod worker;
mod writer;

pub(crate) use self::{
    spool::{LogSpool, SpoolReader, SpoolRules},
    upload::LogSink,
    worker::Interpreter,
    writer::{LogWriter, StdoutCapture},
};
