//! An embedded Supabase-compatible stack on a real PostgreSQL, for development and tests.
//!
//! ```no_run
//! # async fn example() -> Result<(), supabase_local::StackError> {
//! let stack = supabase_local::Stack::builder().start().await?;
//! println!("{} with {}", stack.api_url(), stack.anon_key());
//! stack.stop().await?;
//! # Ok(()) }
//! ```
//!
//! Each test may start a stack of its own: the prepared data directory is made once per machine and copied, so a start
//! takes about half a second. Several stacks of one process can share a server ([`PostgresServer`],
//! [`StackBuilder::shared_postgres`]), each with its own database. PostgreSQL ends with the stack, also when the
//! process is killed.
//!
//! Edge Functions are run by the real Deno, from their first request on: `scripts/tool.sh deno` installs it, `TENDRIL_DENO` names
//! another one.
//!
//! It is no production server: it listens on the loopback address, trusts every client that connects there, and its default keys
//! are public. What it answers is held to recordings of the real servers.

mod auth;
mod changes;
pub mod cli;
mod clock;
mod database;
mod error;
mod fault;
mod functions;
mod gateway;
mod hosted;
pub mod http;
pub mod jwt;
mod keys;
mod link;
mod postgres;
mod project;
mod realtime;
mod replication;
pub mod rest;
mod server;
mod stack;
mod supervisor;

pub use error::{ErrorKind, Result, StackError};
pub use fault::{Cut, Faults, FrameFault, Injection, RequestFault, Target};
pub use hosted::HostedPlan;
pub use jwt::{Claims, JwtError, JwtSecret};
pub use keys::ProjectKeys;
pub use postgres::{PgCron, PostgresOptions, PostgresServer};
pub use realtime::RealtimeOptions;
pub use stack::{Stack, StackBuilder};
