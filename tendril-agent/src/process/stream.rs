//! The streams that a program writes.

use serde::Serialize;

/// Whose words they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Stream {
    /// Terraform's standard output.
    Stdout,
    /// Terraform's standard error.
    Stderr,
    /// The agent's own remarks.
    Agent,
}
