//! What a job is: its specification, its source and its variables. No I/O.

pub(crate) mod failure;
pub(crate) mod json;
pub(crate) mod result;
pub(crate) mod source;
pub(crate) mod spec;
pub(crate) mod status;
pub(crate) mod timeouts;
pub(crate) mod variables;
