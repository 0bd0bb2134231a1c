//! The command line.

mod account;
mod deployment;
mod up;
mod value;

use std::{fmt::Write as _, path::PathBuf};

use clap::{Args, CommandFactory as _, Parser, Subcommand};
use clap_complete::Shell;

pub use self::{
    account::{Cluster, Login, OfCluster, ProfileAction, Profiles},
    deployment::{
        Approve, Cancel, Deploy, Deployments, Logs, Open, Plan, Reject, Templates, Until, Wait, Watch,
    },
    up::{Down, Kubernetes, Up},
};
use crate::{
    failure::FailureKind,
    output::{Format, style::ColorChoice},
    session::profile::checked_name,
};

/// Tendril from a terminal: sign in, deploy, follow, approve, and bring a cluster online.
#[derive(Debug, Parser)]
#[command(name = "grape", version, max_term_width = 100, after_long_help = exit_codes(), disable_help_subcommand = true)]
pub struct Cli {
    /// Options of every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Debug, Clone, Args)]
pub struct Global {
    /// Which profile (project and session) to use.
    #[arg(long, global = true, env = "GRAPE_PROFILE", value_name = "NAME", value_parser = checked_name)]
    pub profile: Option<String>,
    /// The form of the answer.
    #[arg(short, long, global = true, value_enum, default_value_t, env = "GRAPE_OUTPUT")]
    pub output: Format,
    /// When to colour; `NO_COLOR` is respected.
    #[arg(long, global = true, value_enum, default_value_t, value_name = "WHEN")]
    pub color: ColorChoice,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Sign in to a project.
    Login(Login),
    /// End the session.
    Logout,
    /// Show who is signed in, and to which project.
    Whoami,
    /// List profiles, or choose one.
    Profiles(Profiles),
    /// Bring a cluster online: Kubernetes, key, agent.
    Up(Box<Up>),
    /// Remove what `up` made.
    Down(Down),
    /// List clusters.
    Clusters,
    /// Make and change a cluster and its keys.
    #[command(subcommand)]
    Cluster(Cluster),
    /// List the templates that a cluster can run, or describe one.
    Templates(Templates),
    /// List stacks: what deployments work on.
    Stacks(OfCluster),
    /// List the newest deployments.
    Deployments(Deployments),
    /// Queue a deployment and follow it to its end.
    Deploy(Box<Deploy>),
    /// Show what a deployment would change, or has changed.
    Plan(Plan),
    /// Approve the plan of a deployment, which is then applied.
    Approve(Approve),
    /// Reject the plan of a deployment, which ends as CANCELLED.
    Reject(Reject),
    /// Request the cancel of a deployment.
    Cancel(Cancel),
    /// Print the log of a deployment.
    Logs(Logs),
    /// A live table of clusters and deployments.
    Watch(Watch),
    /// Wait for the end of a deployment; the exit code is its result.
    Wait(Wait),
    /// Open a deployment's page in the portal.
    Open(Open),
    /// Print the completions of a shell.
    Completions {
        /// Which shell.
        shell: Shell,
    },
    /// Print the manual page, or write all of them into a directory.
    Man {
        /// Where to write grape.1 and one page for each command.
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
    },
}

/// The table of exit codes.
pub fn exit_codes() -> String {
    let mut text = "Exit codes:\n    0  done; of a deployment: SUCCESS\n".to_owned();
    for kind in FailureKind::ALL {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  {:>3}  {}", kind.exit_code(), kind.meaning());
    }
    text.push_str("\nEnvironment: GRAPE_TOKEN (a user's token, for CI) with SUPABASE_URL and SUPABASE_PUBLISHABLE_KEY, GRAPE_CONFIG_DIR, NO_COLOR.");
    text
}

/// The command line as clap's type, for completions and manual pages.
pub fn command() -> clap::Command {
    Cli::command()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_made() {
        command().debug_assert();
    }

    #[test]
    fn every_exit_code_is_in_the_help_and_in_the_readme() {
        let text = exit_codes();
        let readme = include_str!("../../README.md");
        let codes = text
            .split_once(":\n")
            .and_then(|(_, rest)| rest.split_once("\n\n"))
            .map(|(codes, _)| codes)
            .unwrap();
        assert!(readme.contains(codes), "README.md must have\n{codes}");
        for kind in FailureKind::ALL {
            assert!(text.contains(&format!("{:>3}  {}", kind.exit_code(), kind.meaning())), "{kind:?}");
        }
    }
}
