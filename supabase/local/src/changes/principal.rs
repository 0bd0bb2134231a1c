//! The role and the claims of a channel that receives changes.

use crate::jwt::Claims;

/// The role of a channel, and the claims that its policies read.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Principal {
    pub(crate) role: String,
    /// JSON text: the value of `request.jwt.claims`.
    pub(crate) claims: String,
}

impl Principal {
    pub(crate) fn new(claims: &Claims) -> Self {
        Self { role: claims.role().unwrap_or_default().to_owned(), claims: claims.to_json() }
    }
}
