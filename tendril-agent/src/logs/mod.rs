//! The log of a job: bytes, lines, redaction, spool on disk, rows in the database.

pub(crate) mod lines;
pub(crate) mod spool;
pub(crate) mod upload;
pub(crate) mod writer;
