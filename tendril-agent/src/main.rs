//! The `tendril-agent` process.

use std::process::ExitCode;

use clap::Parser as _;
use tendril_agent::{Cli, run_program};

fn main() -> ExitCode {
    run_program(&Cli::parse())
}
