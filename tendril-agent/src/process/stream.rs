//! The streams that a program writes.

use serde::Serialize;

/// Where the text comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Stream {
    /// Terraform's standard output.
    Stdout,
    /// Terraform's standard error.
    Stderr,
    /// The agent's own annotations.
    Agent,
}
