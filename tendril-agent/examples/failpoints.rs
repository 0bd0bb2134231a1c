//! The agent with its fail points: the process that the crash tests kill. Built with the feature `failpoints` only.

use std::process::ExitCode;

use clap::Parser as _;
use tendril_agent::{Agent, Cli, Config, Shutdown};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn std::error::Error>> {
    let config = Config::from_cli(&Cli::parse())?;
    config.install_log();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let shutdown = Shutdown::new();
    runtime.block_on(async {
        shutdown.on_signals()?;
        Ok(Agent::new(config)?.run(shutdown).await?)
    })
}
