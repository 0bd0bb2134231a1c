//! The command line: `start`, `status`, `stop`, `reset`.
//!
//! `options` says what a stack shall be like, `running` finds stacks that run, `command` is what the program does.

mod command;
mod options;
mod running;

pub use command::{Arguments, run};
