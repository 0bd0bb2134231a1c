//! The `tendril-agent` process: configuration, runtime, signals, exit code.

use std::process::ExitCode;

use clap::Parser;
use tendril_agent::{Agent, Cli, Config, Finding, Shutdown, Task, Versions, doctor, keep_exit};

/// The configuration must be fixed.
const BAD_CONFIG: u8 = 2;

fn main() -> ExitCode {
    let cli = Cli::parse();
    if cli.version {
        println!("{}", Versions::find(&cli));
        return ExitCode::SUCCESS;
    }
    match &cli.command {
        Some(Task::Doctor) => return examine(&cli),
        Some(Task::KeepExit { exit_file, command }) => {
            // The parser wants at least one.
            let Some((program, args)) = command.split_first() else { return ExitCode::from(BAD_CONFIG) };
            return keep_exit(exit_file, program, args);
        }
        None => {}
    }
    let mut config = match Config::from_cli(&cli) {
        Ok(config) => config,
        Err(problems) => {
            eprintln!("{problems}");
            return ExitCode::from(BAD_CONFIG);
        }
    };
    // As it is now, whatever takes its place on the disk.
    config.keeper = Some("/proc/self/exe".into());
    config.install_log();
    match run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Says what every check found; the code says whether all is well.
fn examine(cli: &Cli) -> ExitCode {
    let findings = match Config::from_cli(cli) {
        Err(problems) => doctor::of_problems(&problems),
        Ok(config) => match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime.block_on(doctor::examine(&config)),
            Err(error) => vec![Finding {
                check: "runtime",
                problem: Some(error.to_string()),
                note: None,
                warning: None,
            }],
        },
    };
    for finding in &findings {
        println!("{finding}");
    }
    if findings.iter().all(|finding| finding.problem.is_none()) {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(BAD_CONFIG)
    }
}

/// One thread runs everything that waits; a few more, alive while jobs run, do what blocks.
fn run(config: Config) -> Result<(), Box<dyn std::error::Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        // Each job has one for its log, those that wait for approval too; they are made when they are needed. Where so many
        // wait that none is free, the liveness probe says it.
        .max_blocking_threads(512)
        .thread_keep_alive(std::time::Duration::from_secs(2))
        .build()?;
    let shutdown = Shutdown::new();
    let done = runtime.block_on(async {
        shutdown.on_signals()?;
        Ok(Agent::new(config)?.run(shutdown).await?)
    });
    // A thread that still waits for the disk must not hold the process.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    done
}
