//! What a Supabase database has before the first migration: roles, schemas, `auth` and `realtime`, the publications.

use tokio_postgres::Client;

use crate::error::{ErrorKind, Result, StackError};

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

/// SQL that failed, with the name of its file and PostgreSQL's own words.
pub(crate) fn sql_failure(name: &str, error: tokio_postgres::Error) -> StackError {
    let words = error.as_db_error().map_or_else(
        || error.to_string(),
        |db| {
            let hint = db.hint().map(|hint| format!(" ({hint})")).unwrap_or_default();
            format!("{}: {}{hint}", db.code().code(), db.message())
        },
    );
    StackError::with_source(ErrorKind::Sql, format!("{name}: {words}"), error)
}
