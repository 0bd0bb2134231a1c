//! Hides secrets in text, by value.

pub(crate) mod forms;
pub(crate) mod lines;
pub(crate) mod pattern_set;
mod patterns;
pub(crate) mod redactor;
mod squeeze;
