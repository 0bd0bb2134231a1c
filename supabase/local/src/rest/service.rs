//! What all requests share.

use deadpool_postgres::Pool;

use super::query::Range;
use super::reload::SchemaCache;
use super::settings::Settings;
use crate::jwt::JwtSecret;

/// A server's connections, its settings and the schema of its database.
#[derive(Debug)]
pub(super) struct Service {
    pub(super) pool: Pool,
    pub(super) secret: JwtSecret,
    pub(super) settings: Settings,
    pub(super) schema: SchemaCache,
}

impl Service {
    /// The page within the limit of rows.
    pub(super) fn limited(&self, range: Range) -> Range {
        let limit = [range.limit, self.settings.max_rows].into_iter().flatten().min();
        Range { limit, ..range }
    }
}
