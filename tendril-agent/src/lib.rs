//! An autonomous agent that runs Terraform in your own cloud for a Supabase control plane.
//!
//! The rooms, from the process down to the operating system; imports point down only:
//!
//! ```text
//! program           the process: which of the programs in one binary it is
//! executor          the program that runs one attempt
//! agent             the program that finds jobs: what starts, in which order, and how it ends
//! config/           flags to settings; preflight, versions, doctor
//! observability/    health, HTTP, the agent's own log
//! dispatch/         queue, scheduler, registry, disk guard, drain: which job next, how many, until when
//! launch/           where executors run: the trait, the attempt file, in this process or in processes of their own
//! execute/          one claimed attempt from start to stored result: stages, approval, recovery
//! cost/             Infracost
//! terraform/        commands, environment, messages, plan digest, provider cache, executor; state/
//! template/         declared variables, workspace layout, git/
//! logs/             bytes -> lines -> redacted -> spool -> rows
//! control_plane/    auth/, contract, claim, lease, heartbeat, final status: everything that talks to Supabase
//! job/              specification, source, variables; no I/O
//! redaction/        hides secrets by value
//! process/          runs one program and ends it gracefully
//! os/               files, file lock, fail points
//! telemetry         names of metrics
//! ```
//!
//! [`Agent`] wires them, and the process is a [`Config`] and a [`Shutdown`] away:
//!
//! ```no_run
//! # async fn run(cli: tendril_agent::Cli) -> Result<(), Box<dyn std::error::Error>> {
//! use tendril_agent::{Agent, Config, Shutdown};
//!
//! let shutdown = Shutdown::new();
//! Agent::new(Config::from_cli(&cli)?)?.run(shutdown.clone()).await?;
//! # Ok(()) }
//! ```

mod agent;
mod config;
mod control_plane;
mod cost;
mod dispatch;
mod execute;
mod executor;
mod job;
mod launch;
mod logs;
mod observability;
mod os;
mod process;
mod program;
mod redaction;
mod telemetry;
mod template;
mod terraform;
#[cfg(test)]
mod testing;

pub use self::{
    agent::{Agent, AgentError},
    config::{
        Cli, Config, ConfigProblems, Task, Timing, Versions,
        doctor::{self, Finding},
    },
    control_plane::{
        Health,
        auth::{Claim, Credential},
    },
    cost::infracost,
    dispatch::{Shutdown, intake::Intake},
    job::Product,
    launch::{LauncherKind, OnStop},
    observability::logging::LogFormat,
    program::run_program,
    template::git::GitSettings,
    terraform::{Terraform, environment::AllowList},
};
