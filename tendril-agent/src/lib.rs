//! An autonomous agent that runs Terraform in your own cloud for a Supabase control plane.
//!
//! The journey of a job, one file per station:
//!
//! ```text
//! intake -> crew -> claim -> lease -> journey -> run: source, git, template -> workspace, state -> cost, infracost
//!                                          -> plan_seal -> approval
//!                                     workbench (one step: lock, errors) -> terraform, turn -> runner, output_pipe
//!                                     runner's bytes: log_writer (log_pipe -> message -> redact) -> log_spool -> log_sink
//!                                     report (progress, final status)
//! ```
//!
//! A template is carried by the agent, or comes from a Git repository: `source` (what may be asked for), [`git`](GitSettings)
//! (what is fetched, and how).
//!
//! Around it: `session` (API key and machine token), `heartbeat`, `broadcast_wish`, `recovery` and `rescue` (what an earlier life left: attempts, and
//! state that was not stored), `orphans` and `reaper` (processes without a parent), `shutdown`, `stop` (the order to end one
//! job), `contract` (which database this agent understands), `disk`, `roster`, `series`, `health`, `telemetry`; and [`doctor`]. [`Agent`] wires them, and the process is a [`Config`] and a
//! [`Shutdown`] away:
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
mod approval;
#[cfg(test)]
mod bench;
mod broadcast_wish;
mod claim;
mod cli;
mod config;
mod contract;
mod cost;
mod crew;
mod disk;
pub mod doctor;
mod drain;
mod failpoint;
mod git;
mod health;
mod heartbeat;
pub mod infracost;
mod intake;
mod job;
mod journey;
mod lease;
mod log_pipe;
mod log_sink;
mod log_spool;
mod log_writer;
mod orphans;
mod output_pipe;
mod pace;
mod plan_seal;
mod plugin_cache;
mod preflight;
mod reaper;
mod recovery;
mod redact;
mod report;
mod rescue;
mod roster;
mod run;
mod runner;
mod schema;
mod series;
mod session;
mod shutdown;
mod source;
mod state;
mod stop;
mod telemetry;
mod template;
mod terraform;
mod timing;
mod turn;
mod versions;
mod workbench;
mod workspace;

pub use self::{
    agent::{Agent, AgentError},
    cli::{Cli, Task},
    config::{Config, ConfigProblems, Timing},
    doctor::Finding,
    git::GitSettings,
    health::Health,
    intake::Intake,
    session::Credential,
    shutdown::Shutdown,
    telemetry::{LogFormat, install_log},
    terraform::{AllowList, Product, Terraform},
    versions::Versions,
};
