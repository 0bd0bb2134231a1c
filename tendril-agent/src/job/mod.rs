//! What a job is: its specification, its source and its variables. No I/O.

pub(crate) mod source;
pub(crate) mod spec;
pub(crate) mod variables;
