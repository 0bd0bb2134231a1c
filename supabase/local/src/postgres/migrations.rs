//! The project's migrations: `*.sql` files applied in the order of their names, each once.

use std::fs;
use std::path::{Path, PathBuf};

use tokio_postgres::Client;

use crate::error::sql_failure;
use crate::error::{ErrorKind, Result, StackError};

/// The migrations of one directory, read into memory.
#[derive(Debug, Clone, Default)]
pub(crate) struct Migrations(Vec<Migration>);

#[derive(Debug, Clone)]
struct Migration {
    /// The file's name without `.sql`.
    stem: String,
    sql: String,
}

impl Migration {
    /// `20260101000000` of `20260101000000_tables`, as the Supabase CLI names it.
    fn version(&self) -> &str {
        self.stem.split_once('_').map_or(&self.stem, |(version, _)| version)
    }

    fn name(&self) -> &str {
        self.stem.split_once('_').map_or("", |(_, name)| name)
    }
}

impl Migrations {
    /// Reads a directory's `*.sql` files in the order of their names.
    pub(crate) fn read(dir: &Path) -> Result<Self> {
        let unreadable = |path: &Path, error: std::io::Error| {
            let message = format!("cannot read the migrations in {}: {error}", path.display());
            StackError::with_source(ErrorKind::File, message, error)
        };
        let mut paths: Vec<PathBuf> = fs::read_dir(dir)
            .map_err(|error| unreadable(dir, error))?
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "sql"))
            .collect();
        paths.sort();
        paths
            .into_iter()
            .map(|path| {
                let sql = fs::read_to_string(&path).map_err(|error| unreadable(&path, error))?;
                let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
                Ok(Migration { stem, sql })
            })
            .collect::<Result<_>>()
            .map(Self)
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Names and texts in order, for a hash.
    pub(crate) fn texts(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|migration| (migration.stem.as_str(), migration.sql.as_str()))
    }

    /// Applies those that are not yet in `supabase_migrations.schema_migrations`, each in a transaction of its own.
    pub(crate) async fn apply(&self, owner: &mut Client) -> Result<()> {
        let query = "select version from supabase_migrations.schema_migrations";
        let done: Vec<String> = owner.query(query, &[]).await?.iter().map(|row| row.get(0)).collect();
        for migration in self.0.iter().filter(|migration| !done.iter().any(|d| d == migration.version())) {
            let file = format!("{}.sql", migration.stem);
            let transaction = owner.transaction().await?;
            transaction.batch_execute(&migration.sql).await.map_err(|error| sql_failure(&file, error))?;
            let record = "insert into supabase_migrations.schema_migrations (version, name) values ($1, $2)";
            transaction.execute(record, &[&migration.version(), &migration.name()]).await?;
            transaction.commit().await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_name_gives_version_and_name() {
        let migration = Migration { stem: "20260101000000_core_tables".into(), sql: String::new() };
        assert_eq!((migration.version(), migration.name()), ("20260101000000", "core_tables"));
    }

    #[test]
    fn files_are_read_in_the_order_of_their_names_and_others_are_left_out() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["2_b.sql", "1_a.sql", "README.md"] {
            fs::write(dir.path().join(name), name).unwrap();
        }
        let migrations = Migrations::read(dir.path()).unwrap();
        assert_eq!(migrations.texts().collect::<Vec<_>>(), [("1_a", "1_a.sql"), ("2_b", "2_b.sql")]);
    }
}
