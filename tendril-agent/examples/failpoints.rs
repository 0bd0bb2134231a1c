//! The agent with its fail points: the process that the crash tests kill. Built with the feature `failpoints` only.
//!
//! Unless it has `--launcher local`, it runs as the agent does inside another program: jobs are tasks, and no parent process keeps
//! the exit code of an apply. Otherwise it is the agent's own program.

use std::process::ExitCode;

use clap::Parser as _;
use tendril_agent::{Agent, Cli, Config, Shutdown, run_program};

fn main() -> ExitCode {
    let cli = Cli::parse();
    if cli.command.is_some() || cli.launcher.as_deref() == Some("local") {
        return run_program(&cli);
    }
    match run_inside(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run_inside(cli: &Cli) -> Result<(), Box<dyn std::error::Error>> {
    let config = Config::from_cli(cli)?;
    config.install_log();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let shutdown = Shutdown::new();
    runtime.block_on(async {
        shutdown.on_signals()?;
        Ok(Agent::new(config)?.run(shutdown).await?)
    })
}
