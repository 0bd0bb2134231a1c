//! PostgreSQL itself: found on this machine, prepared once as a Supabase database, copied and run.
//!
//! [`binaries`] finds the programs and [`account`] the user to run them as, [`process`] runs them, [`bootstrap`], [`migrations`] and
//! [`pg_cron`] are the contents of the database, [`prepared`] is the data directory with them, [`cache`] stores it for the next
//! start, and [`server`] is the whole. [`existing`] uses an existing server instead. [`crate::stack`] starts it.

mod account;
mod binaries;
mod bootstrap;
mod cache;
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
