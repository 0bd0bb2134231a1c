//! An existing database. It is inspected before anything is done with it; its contents are not changed.

use tokio_postgres::{Client, Row};

use super::binaries::OLDEST;
use super::bootstrap;
use super::migrations::Migrations;
use crate::database::{Access, Database, OWNER};
use crate::error::{ErrorKind, Result, StackError, sql_failure};

/// What is queried, and how roles can be assumed: from version 16 on a membership may be without that right.
const INSPECT: &str = include_str!("bootstrap/inspect.sql");

/// Opens a database, makes it a Supabase database if nothing of one is in it, and applies the migrations that are new.
///
/// # Errors
/// [`ErrorKind::DatabaseUrl`], [`ErrorKind::Database`] if it cannot be reached, [`ErrorKind::PostgresTooOld`],
/// [`ErrorKind::DatabaseUnsuitable`] with all that is missing and what to do, [`ErrorKind::Sql`] for a migration that fails.
/// Nothing was changed then but by the migrations before that one.
pub(crate) async fn open(url: &str, migrations: &Migrations) -> Result<Database> {
    let database = Database::of_url(url)?;
    let mut client = database.admin().await?;
    let found = Found::look(&client, &database).await?;
    found.judge_server(&database)?;
    let access = if found.superuser { Access::Superuser } else { Access::One };
    if found.schemas.is_empty() {
        found.judge_user(&database)?;
        bootstrap::apply(&mut client).await?;
    } else {
        found.judge_contents(&database)?;
    }
    let database = database.with_access(access);
    if !migrations.is_empty() {
        if !found.has_history {
            client
                .batch_execute(bootstrap::HISTORY)
                .await
                .map_err(|error| sql_failure("history.sql", error))?;
        }
        migrations.apply(&mut database.role(OWNER).await?).await?;
    }
    Ok(database)
}

/// What was found.
#[derive(Debug)]
struct Found {
    /// The major version, and the whole.
    version: (i32, String),
    /// What prevents the server itself from being used.
    server: Vec<String>,
    superuser: bool,
    /// Those of a Supabase database that are there: none, or both `auth` and `realtime`.
    schemas: Vec<String>,
    missing_roles: Vec<String>,
    /// Roles that are there and are not what they must be.
    wrong_roles: Vec<String>,
    missing_objects: Vec<String>,
    /// Rights of a superuser that the user lacks.
    missing_rights: Vec<String>,
    has_history: bool,
}

impl Found {
    async fn look(client: &Client, database: &Database) -> Result<Self> {
        let version =
            client.query_one("select current_setting('server_version_num')::int / 10000", &[]).await?;
        let member = if version.get::<_, i32>(0) >= 16 { "SET" } else { "MEMBER" };
        let row = client.query_opt(INSPECT, &[&member]).await?;
        let gone = || unsuitable(database, &["its user is gone".to_owned()]);
        Self::of(&row.ok_or_else(gone)?).map_err(StackError::from)
    }

    fn of(row: &Row) -> Result<Self, tokio_postgres::Error> {
        let mut server = Vec::new();
        let wal_level: String = row.try_get("wal_level")?;
        if wal_level != "logical" {
            server.push(format!(
                "wal_level is {wal_level}, and Realtime needs logical: run `alter system set wal_level = logical` as a superuser \
                 and restart PostgreSQL"
            ));
        }
        for (column, setting) in [("wal_senders", "max_wal_senders"), ("slots", "max_replication_slots")] {
            if row.try_get::<_, i32>(column)? < 2 {
                server.push(format!(
                    "{setting} is below 2, and Realtime needs two: run `alter system set {setting} = 10` as a superuser and \
                     restart PostgreSQL"
                ));
            }
        }
        let encoding: String = row.try_get("encoding")?;
        if encoding != "UTF8" {
            server.push(format!(
                "its encoding is {encoding}: make one with `create database … encoding 'UTF8'`"
            ));
        }
        if row.try_get("replica")? {
            server.push("its server is a read-only replica: name the primary".to_owned());
        }
        Ok(Self {
            version: (row.try_get("version")?, row.try_get("version_text")?),
            server,
            superuser: row.try_get("superuser")?,
            schemas: row.try_get("schemas")?,
            missing_roles: row.try_get("missing_roles")?,
            wrong_roles: row.try_get("wrong_roles")?,
            missing_objects: row.try_get("missing_objects")?,
            missing_rights: row.try_get("missing_rights")?,
            has_history: row.try_get("has_history")?,
        })
    }

    /// Whether the server and its roles can be used.
    fn judge_server(&self, database: &Database) -> Result<()> {
        let (major, version) = &self.version;
        if u32::try_from(*major).unwrap_or_default() < OLDEST {
            return Err(StackError::new(
                ErrorKind::PostgresTooOld,
                format!(
                    "PostgreSQL {version} at {} is too old: use PostgreSQL {OLDEST} or newer",
                    database.place()
                ),
            ));
        }
        complain(database, &[self.server.as_slice(), &self.wrong_roles].concat())
    }

    /// Whether its user can make it a Supabase database.
    fn judge_user(&self, database: &Database) -> Result<()> {
        if self.superuser {
            return Ok(());
        }
        let mut wrong = vec![format!(
            "it is no Supabase database yet, and its user {} is no superuser, who could make it one: name a superuser in the URL",
            database.user()
        )];
        if !self.missing_roles.is_empty() {
            wrong.push(format!("these roles are missing: {}", self.missing_roles.join(", ")));
        }
        complain(database, &wrong)
    }

    /// Whether all is there that a Supabase database has, and its user may use it.
    fn judge_contents(&self, database: &Database) -> Result<()> {
        let mut wrong = Vec::new();
        if let [only] = self.schemas.as_slice() {
            wrong.push(format!(
                "it has a schema {only} and is no Supabase database, so that nothing is done with it: use an empty database, or \
                 rename the schema"
            ));
        } else {
            let roles = self.missing_roles.iter().map(|role| format!("role {role}"));
            let missing: Vec<String> = roles.chain(self.missing_objects.iter().cloned()).collect();
            if !missing.is_empty() {
                wrong.push(format!(
                    "it has the schemas of a Supabase database and not all of its contents ({} missing): complete it, or use an \
                     empty database",
                    missing.join(", ")
                ));
            }
            if !self.superuser && wrong.is_empty() {
                wrong.extend(
                    self.missing_rights.iter().map(|right| format!("its user {}: {right}", database.user())),
                );
            }
        }
        complain(database, &wrong)
    }
}

/// All that is wrong, in one error.
fn complain(database: &Database, wrong: &[String]) -> Result<()> {
    if wrong.is_empty() { Ok(()) } else { Err(unsuitable(database, wrong)) }
}

fn unsuitable(database: &Database, wrong: &[String]) -> StackError {
    StackError::new(
        ErrorKind::DatabaseUnsuitable,
        format!(
            "the database {} at {} cannot be used: {}",
            database.name(),
            database.place(),
            wrong.join("; ")
        ),
    )
}
