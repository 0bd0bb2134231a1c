//! Who hears the changes.

use crate::jwt::Claims;

/// Who hears the changes: a role, and the claims its policies read.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Listener {
    pub(crate) role: String,
    /// JSON text: the value of `request.jwt.claims`.
    pub(crate) claims: String,
}

impl Listener {
    pub(crate) fn new(claims: &Claims) -> Self {
        Self { role: claims.role().unwrap_or_default().to_owned(), claims: claims.to_json() }
    }
}
