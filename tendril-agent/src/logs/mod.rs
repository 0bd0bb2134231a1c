//! The log of a job: bytes become lines, secrets are hidden, lines are stored on disk and then uploaded as rows.
//!
//! `execute` opens it and `terraform` writes to it. It hides secrets with `redaction` and stores rows through `control_plane`.
//!
//! ```text
//! writer   the thread that passes output through the stages
//! lines    bytes to lines
//! spool/   lines on disk, until they are stored
//! upload   chunks from the spool to `deployment_logs`
//! ```

mod lines;
mod spool;
mod upload;
mod writer;

pub(crate) use self::{
    spool::{LogSpool, SpoolRules},
    upload::LogSink,
    writer::{Interpreter, LogWriter, StdoutCapture},
};
