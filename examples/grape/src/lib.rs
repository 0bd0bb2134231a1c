//! Tendril from a terminal: sign in, deploy, follow, approve, and bring a cluster online.
//!
//! ```text
//! failure         what went wrong, what to do next, the exit code
//! output          tables, colours, progress, JSON
//! session         who is signed in, where; tokens that renew themselves
//! variable        values typed by a template's schema
//! control_plane   rows of the database as their owner sees them
//! context         what commands share
//! up              from nothing to ONLINE, step by step, and the way back
//! command         one file for each group of commands
//! cli             the command line
//! ```

pub mod cli;
pub mod command;
pub mod context;
pub mod control_plane;
pub mod failure;
pub mod output;
pub mod session;
pub mod up;
pub mod variable;
