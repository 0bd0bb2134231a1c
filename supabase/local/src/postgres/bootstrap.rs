//! What a Supabase database has before the first migration: roles, schemas, `auth` and `realtime`, the publications.

use tokio_postgres::Client;

use crate::error::{Result, sql_failure};

/// Run in this order, as superuser, once per cluster.
pub(crate) const SCRIPTS: [(&str, &str); 5] = [
    ("roles.sql", include_str!("bootstrap/roles.sql")),
    ("schemas.sql", include_str!("bootstrap/schemas.sql")),
    ("auth.sql", include_str!("bootstrap/auth.sql")),
    ("realtime.sql", include_str!("bootstrap/realtime.sql")),
    ("safeupdate.sql", include_str!("bootstrap/safeupdate.sql")),
];

/// Makes an empty database a Supabase database.
pub(crate) async fn apply(superuser: &Client) -> Result<()> {
    for (name, script) in SCRIPTS {
        superuser.batch_execute(script).await.map_err(|error| sql_failure(name, error))?;
    }
    Ok(())
}
