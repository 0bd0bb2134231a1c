//! Hides secrets in text, by value.

pub(crate) mod forms;
pub(crate) mod lines;
mod patterns;
pub(crate) mod redactor;
mod squeeze;
