//! The process: which of the programs in one binary it is, and its exit code.

use std::process::ExitCode;

use rustix::process::{DumpableBehavior, set_dumpable_behavior};

use crate::{
    agent::Agent,
    config::{
        Cli, Config, Task, Versions,
        doctor::{self, Finding},
        handed_secrets, isolation,
    },
    dispatch::Shutdown,
    executor,
    process::{
        keeper::keep_exit,
        run_as::{Identity, run_as, try_user},
        run_user::OWN_PROGRAM,
    },
};

/// The configuration must be fixed.
const BAD_CONFIG: u8 = 2;

/// Runs the command of the command line, and returns the process's exit code. For a `main` that does nothing else: the agent starts
/// its own program again, to run each job in a process of its own.
pub fn run_program(cli: &Cli) -> ExitCode {
    if !matches!(cli.command, Some(Task::KeepExit { .. }))
        && let Err(error) = set_dumpable_behavior(DumpableBehavior::NotDumpable)
    {
        eprintln!("other processes of this user may read the memory of this one: {error}");
    }
    if cli.version {
        println!("{}", Versions::find(cli));
        return ExitCode::SUCCESS;
    }
    match &cli.command {
        Some(Task::Doctor) => return examine(cli),
        Some(Task::Execute { attempt }) => return executor::execute(cli, attempt),
        Some(Task::RunAs { uid, groups, tmp, private_places, tries, command }) => {
            let identity = Identity { uid: *uid, groups, tmp: tmp.as_deref(), private_places };
            // The parser wants at least one.
            let Some((program, args)) = command.split_first() else { return ExitCode::from(BAD_CONFIG) };
            return if *tries { try_user(&identity, command) } else { run_as(&identity, program, args) };
        }
        Some(Task::KeepExit { exit_file, command }) => {
            // The parser wants at least one.
            let Some((program, args)) = command.split_first() else { return ExitCode::from(BAD_CONFIG) };
            return keep_exit(exit_file, program, args);
        }
        None => {}
    }
    let mut cli = cli.clone();
    if let Err(error) = handed_secrets::take(&mut cli) {
        eprintln!("the secrets of this process stay in its environment or arguments: {error}");
    }
    let mut config = match Config::from_cli(&cli) {
        Ok(config) => config,
        Err(problems) => {
            eprintln!("{problems}");
            return ExitCode::from(BAD_CONFIG);
        }
    };
    // As it is now, whatever takes its place on the disk.
    config.keeper = Some(OWN_PROGRAM.into());
    if let Err(problems) = config.find_slot_users() {
        eprintln!("{problems}");
        return ExitCode::from(BAD_CONFIG);
    }
    config.install_log();
    if let Some(sentence) = isolation::of_root(&config) {
        // Root that was not chosen is a warning.
        if config.no_slot_users.is_some() {
            tracing::warn!("{sentence}");
        } else {
            tracing::info!("{sentence}");
        }
    }
    match run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Prints the result of every check; the exit code shows whether all is well.
fn examine(cli: &Cli) -> ExitCode {
    let examined = Config::from_cli(cli).and_then(|mut config| {
        config.keeper = Some(OWN_PROGRAM.into());
        config.find_slot_users().map(|()| config)
    });
    let findings = match examined {
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

/// One thread runs everything that waits; a few more do what blocks.
fn run(config: Config) -> Result<(), Box<dyn std::error::Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        // Each job inside this process has one for its log; they are made when they are needed. Where none is free, the
        // liveness probe reports it.
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
