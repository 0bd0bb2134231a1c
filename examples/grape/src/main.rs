//! `grape`: the command line of Tendril.

use std::process::ExitCode;

use clap::Parser as _;
use grape::{cli::Cli, command};

fn main() -> ExitCode {
    let cli = Cli::parse();
    // One crypto provider for everything, as everywhere in this workspace.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("grape: this machine gives no threads or sockets: {error}");
            return ExitCode::FAILURE;
        }
    };
    let code = runtime.block_on(command::run(cli));
    // A prompt that still waits for a key must not hold up the end.
    runtime.shutdown_background();
    code
}
