//! PostgreSQL itself: found on this machine, prepared once as a Supabase database, copied and run.
//!
//! [`binaries`] and [`account`] say what runs and as whom, [`process`] runs it, [`bootstrap`], [`migrations`] and [`pg_cron`] are what
//! goes into it, [`prepared`] is the directory that has all that, and [`server`] is the whole. [`existing`] uses one that is there.

mod account;
mod binaries;
mod bootstrap;
mod existing;
mod migrations;
mod pg_cron;
mod prepared;
mod process;
mod server;

pub(crate) use existing::open;
pub(crate) use migrations::Migrations;
pub use pg_cron::PgCron;
pub use server::{PostgresOptions, PostgresServer};
