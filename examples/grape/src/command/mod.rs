//! The commands.

mod account;
mod approval;
mod clusters;
mod deploy;
mod lists;
mod log_printer;
mod logs;
mod open;
mod shell;
mod wait;
mod watch;

use std::{io, process::ExitCode};

use crate::{
    cli::{Cli, Command},
    context::{Context, output},
    failure::{Failure, Result},
    up,
};

/// Runs a command, prints what went wrong, and returns the exit code.
pub async fn run(cli: Cli) -> ExitCode {
    let out = output(&cli.global);
    match dispatch(cli).await {
        Ok(()) => ExitCode::SUCCESS,
        // `grape … | head` is no failure.
        Err(failure) if is_broken_pipe(&failure) => ExitCode::SUCCESS,
        Err(failure) => {
            out.failure(&failure);
            failure.exit_code()
        }
    }
}

fn is_broken_pipe(failure: &Failure) -> bool {
    let source = std::error::Error::source(failure).and_then(|source| source.downcast_ref::<io::Error>());
    source.is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

async fn dispatch(cli: Cli) -> Result<()> {
    match cli.command {
        Command::Completions { shell } => return shell::completions(shell),
        Command::Man { dir } => return shell::man(dir.as_deref()),
        _ => {}
    }
    let context = Context::new(&cli.global)?;
    match cli.command {
        Command::Login(options) => account::login(&context, options).await,
        Command::Logout => account::logout(&context).await,
        Command::Whoami => account::whoami(&context).await,
        Command::Profiles(options) => account::profiles(&context, options).await,
        Command::Up(options) => up::up(&context, &options).await,
        Command::Down(options) => up::down::down(&context, &options).await,
        Command::Clusters => clusters::list(&context).await,
        Command::Cluster(action) => clusters::change(&context, action).await,
        Command::Templates(options) => lists::templates(&context, options).await,
        Command::Stacks(options) => lists::stacks(&context, &options).await,
        Command::Deployments(options) => lists::deployments(&context, &options).await,
        Command::Deploy(options) => deploy::deploy(&context, *options).await,
        Command::Plan(options) => approval::plan(&context, &options).await,
        Command::Approve(options) => approval::approve(&context, &options).await,
        Command::Reject(options) => approval::reject(&context, &options).await,
        Command::Cancel(options) => approval::cancel(&context, &options).await,
        Command::Logs(options) => logs::logs(&context, &options).await,
        Command::Watch(options) => watch::watch(&context, &options).await,
        Command::Wait(options) => wait::wait(&context, &options).await,
        Command::Open(options) => open::open(&context, &options).await,
        Command::Completions { .. } | Command::Man { .. } => Ok(()),
    }
}
