//! Why the stack cannot start or go on, and what to do about it.

use std::error::Error as StdError;

/// An error of the stack: a kind to match on, a sentence with the fix, and the cause.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct StackError {
    kind: ErrorKind,
    message: String,
    #[source]
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// What went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// No PostgreSQL server programs on this machine.
    PostgresNotFound,
    /// PostgreSQL is older than version 14.
    PostgresTooOld,
    /// A database URL is invalid, or requires what is not supported.
    DatabaseUrl,
    /// An existing database lacks what the stack needs; the message lists all of it, and what to do.
    DatabaseUnsuitable,
    /// An extension of PostgreSQL that was requested is not installed.
    ExtensionNotFound,
    /// A TCP port that was requested is in use.
    PortTaken,
    /// The data directory cannot be created or written.
    DataDirUnwritable,
    /// Another server runs in the data directory.
    DataDirInUse,
    /// PostgreSQL ended or did not become ready; the message has the end of its log.
    PostgresFailed,
    /// A migration, the seed or other SQL failed; the message names the file and PostgreSQL's own words.
    Sql,
    /// The connection to the database failed.
    Database,
    /// A file or directory could not be read.
    File,
}

/// Result of the stack's own operations.
pub type Result<T, E = StackError> = std::result::Result<T, E>;

impl StackError {
    /// An error without a cause.
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None }
    }

    /// An error with its cause.
    pub(crate) fn with_source(
        kind: ErrorKind,
        message: impl Into<String>,
        source: impl Into<Box<dyn StdError + Send + Sync>>,
    ) -> Self {
        Self { kind, message: message.into(), source: Some(source.into()) }
    }

    /// What went wrong, to match on.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
}

impl From<tokio_postgres::Error> for StackError {
    fn from(error: tokio_postgres::Error) -> Self {
        let message = error
            .as_db_error()
            .map_or_else(|| format!("the database: {error}"), |db| format!("the database: {}", db.message()));
        Self::with_source(ErrorKind::Database, message, error)
    }
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
