//! What a stack shall be like.

use std::io;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::hosted::HostedPlan;
use crate::postgres::PgCron;
use crate::project::project_file;
use crate::stack::{Stack, StackBuilder};

/// The options of `start`.
#[derive(Debug, Clone, Args)]
pub(super) struct Options {
    /// Port of the API (0: any free one)
    #[arg(long, default_value_t = 54321, env = "SUPABASE_LOCAL_PORT")]
    port: u16,
    /// Port of PostgreSQL (0: any free one)
    #[arg(long, default_value_t = 54322, env = "SUPABASE_LOCAL_DB_PORT")]
    db_port: u16,
    /// Use the database of this URL instead of starting a PostgreSQL. It is made a Supabase database if nothing of one is in it, and
    /// gets new migrations; what is in it stays as it is, also at the end
    #[arg(
        long,
        value_name = "URL",
        env = "SUPABASE_LOCAL_DB_URL",
        hide_env_values = true,
        conflicts_with_all = ["persist", "no_pg_cron", "db_port"]
    )]
    db_url: Option<String>,
    /// Keep the database in this directory between starts [default: a temporary one, removed at the end]
    #[arg(long, value_name = "DIR")]
    persist: Option<PathBuf>,
    /// Directory of *.sql files to apply in the order of their names [default: the project's supabase/migrations]
    #[arg(long, value_name = "DIR")]
    migrations: Option<PathBuf>,
    /// Apply no migrations
    #[arg(long, conflicts_with = "migrations")]
    no_migrations: bool,
    /// SQL to run after the migrations [default: the project's supabase/seed.sql, unless --persist or --db-url is given]
    #[arg(long, value_name = "FILE")]
    seed: Option<PathBuf>,
    /// Directory of Edge Functions [default: the project's supabase/functions]
    #[arg(long, value_name = "DIR")]
    functions: Option<PathBuf>,
    /// What to be like: a development stack without limits, or a hosted project with a plan's quotas, the delays after errors and
    /// the limit of 1,000 rows
    #[arg(long = "as", value_enum, default_value_t = Like::Development, value_name = "WHAT")]
    like: Like,
    /// Do not run scheduled jobs [default: they run if `pg_cron` is installed]
    #[arg(long)]
    no_pg_cron: bool,
    /// Do not run any seed
    #[arg(long, conflicts_with = "seed")]
    no_seed: bool,
}

/// What a stack is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Like {
    Development,
    /// The Free plan
    Hosted,
    HostedPro,
    HostedTeam,
}

impl Options {
    /// The stack these options describe.
    pub(super) fn builder(&self) -> StackBuilder {
        let mut builder = Stack::builder().port(self.port).database_port(self.db_port);
        if !self.no_pg_cron {
            builder = builder.pg_cron(PgCron::IfInstalled);
        }
        builder = match self.like {
            Like::Development => builder,
            Like::Hosted => builder.hosted(HostedPlan::Free),
            Like::HostedPro => builder.hosted(HostedPlan::Pro),
            Like::HostedTeam => builder.hosted(HostedPlan::Team),
        };
        if self.no_migrations {
            builder = builder.without_migrations();
        } else if let Some(dir) = &self.migrations {
            builder = builder.migrations(dir);
        }
        if let Some(dir) = &self.functions {
            builder = builder.functions(dir);
        }
        let default_seed =
            if self.no_seed || self.no_migrations || self.persist.is_some() || self.db_url.is_some() {
                None
            } else {
                project_file("seed.sql")
            };
        if let Some(file) = self.seed.clone().or(default_seed) {
            builder = builder.seed(file);
        }
        if let Some(dir) = &self.persist {
            builder = builder.persist(dir);
        }
        if let Some(url) = &self.db_url {
            builder = builder.existing_database(url);
        }
        builder
    }

    /// Requests the ports that a stack had before.
    pub(super) fn keep_ports(&mut self, stack: &Stack) {
        self.port = stack.address().port();
        if let Some(server) = stack.postgres() {
            self.db_port = server.port();
        }
    }

    /// Removes the database from its directory, so that the next start creates it again.
    pub(super) fn empty(&self) -> io::Result<()> {
        match self.persist.as_ref().map(|dir| dir.join("data")) {
            Some(data) if data.exists() => std::fs::remove_dir_all(data),
            _ => Ok(()),
        }
    }
}
