//! The command line: `start`, `status`, `stop`, `reset`.
//!
//! `options` describes the stack to start, `running` finds stacks that run, `command` is what the program does.

mod command;
mod options;
mod running;

pub use command::{Arguments, run};
