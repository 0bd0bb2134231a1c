//! Hides secrets in text, by value.

pub(crate) mod forms;
pub(crate) mod redactor;
