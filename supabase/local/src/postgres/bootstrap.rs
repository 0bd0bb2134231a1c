//! What a Supabase database has before the first migration: roles, schemas, `auth` and `realtime`, the publications.

use tokio_postgres::Client;

use crate::error::{Result, sql_failure};

/// Run in this order, as superuser, once per database. Roles and other things that a server may have already stay as they are.
pub(crate) const SCRIPTS: [(&str, &str); 6] = [
    ("roles.sql", include_str!("bootstrap/roles.sql")),
    ("schemas.sql", include_str!("bootstrap/schemas.sql")),
    ("history.sql", HISTORY),
    ("auth.sql", include_str!("bootstrap/auth.sql")),
    ("realtime.sql", include_str!("bootstrap/realtime.sql")),
    ("safeupdate.sql", include_str!("bootstrap/safeupdate.sql")),
];

/// The list of migrations that were applied. Safe to repeat.
pub(crate) const HISTORY: &str = include_str!("bootstrap/history.sql");

/// Run after these, on a server of our own only.
pub(crate) const OWNED: &str = include_str!("bootstrap/owned.sql");

/// Makes a database a Supabase database: wholly, or not at all.
pub(crate) async fn apply(superuser: &mut Client) -> Result<()> {
    let transaction = superuser.transaction().await?;
    for (name, script) in SCRIPTS {
        transaction.batch_execute(script).await.map_err(|error| sql_failure(name, error))?;
    }
    Ok(transaction.commit().await?)
}
