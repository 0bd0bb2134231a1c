//! The command line: options, and what is printed.

use std::fmt::Write as _;
use std::path::PathBuf;

use clap::Parser;

use crate::postgres::PgCron;
use crate::project::project_dir;
use crate::stack::{Stack, StackBuilder};

/// Runs a local Supabase-compatible stack on a real PostgreSQL, for development and tests. Not for production.
#[derive(Debug, Parser)]
#[command(name = "supabase-local", version)]
pub struct Options {
    /// Port of the API (0: any free one)
    #[arg(long, default_value_t = 54321, env = "SUPABASE_LOCAL_PORT")]
    port: u16,
    /// Port of PostgreSQL (0: any free one)
    #[arg(long, default_value_t = 54322, env = "SUPABASE_LOCAL_DB_PORT")]
    db_port: u16,
    /// Keep the database in this directory between starts [default: a temporary one, removed at the end]
    #[arg(long, value_name = "DIR")]
    persist: Option<PathBuf>,
    /// Directory of *.sql files to apply in the order of their names [default: the project's supabase/migrations]
    #[arg(long, value_name = "DIR")]
    migrations: Option<PathBuf>,
    /// Apply no migrations
    #[arg(long, conflicts_with = "migrations")]
    no_migrations: bool,
    /// SQL to run after the migrations [default: the project's supabase/seed.sql, unless --persist is given]
    #[arg(long, value_name = "FILE")]
    seed: Option<PathBuf>,
    /// Do not run scheduled jobs [default: they run if pg_cron is installed]
    #[arg(long)]
    no_pg_cron: bool,
    /// Do not run any seed
    #[arg(long, conflicts_with = "seed")]
    no_seed: bool,
}

impl Options {
    /// The stack these options describe.
    pub fn builder(self) -> StackBuilder {
        let mut builder = Stack::builder().port(self.port).database_port(self.db_port);
        if !self.no_pg_cron {
            builder = builder.pg_cron(PgCron::IfInstalled);
        }
        if self.no_migrations {
            builder = builder.without_migrations();
        } else if let Some(dir) = self.migrations {
            builder = builder.migrations(dir);
        }
        let default_seed = if self.no_seed || self.no_migrations || self.persist.is_some() {
            None
        } else {
            project_dir("seed.sql")
        };
        if let Some(file) = self.seed.or(default_seed) {
            builder = builder.seed(file);
        }
        if let Some(dir) = self.persist {
            builder = builder.persist(dir);
        }
        builder
    }
}

/// What `supabase start` prints: where the stack is, and its keys.
pub fn status(stack: &Stack) -> String {
    let keys = stack.keys();
    let rows = [
        ("API URL", stack.api_url()),
        ("DB URL", stack.database_url()),
        ("JWT secret", keys.jwt().expose().to_owned()),
        ("anon key", keys.anon().to_owned()),
        ("service_role key", keys.service_role().to_owned()),
        ("Publishable key", keys.publishable().to_owned()),
        ("Secret key", keys.secret().to_owned()),
    ];
    rows.iter().fold("Started supabase-local.\n\n".to_owned(), |mut text, (name, value)| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{name:>16}: {value}");
        text
    })
}
