//! The executor: one claimed attempt, from its start to its stored result.
//!
//! It uses the rooms below it (`template`, `terraform`, `cost`, `logs`, `control_plane`) and knows nothing of `dispatch`: it is a
//! program of its own where executors are processes or pods.
//!
//! ```text
//! context          what every job of an agent needs
//! attempt          opens the workspace and the log, runs the stages, stores the result
//! stages/          source, workspace, cost, init, plan, approval, apply, outputs
//! version          which Terraform a run has
//! directory_watch  stops a run whose directory is removed
//! approval_check   whether the plan is approved
//! changes          the planned changes as rows, and how far they get
//! hooks            programs of the operator at fixed places of a run
//! held_state       a state of which this agent has the only copy
//! recovery         what a previous run of this agent left behind
//! salvage          what a lost run's programs wrote that is not in its log
//! registry         which jobs run now, for `/status`
//! ```

mod approval_check;
mod attempt;
mod changes;
mod context;
mod directory_watch;
mod held_state;
pub(crate) mod hooks;
mod recovery;
mod registry;
mod salvage;
mod settings;
mod stages;
mod version;

pub(crate) use self::{
    attempt::{RunEnd, Start},
    context::JobContext,
    directory_watch::removed,
    recovery::{OrphanedAttempt, claimed_job, claimed_row, orphaned_attempt, orphaned_attempts},
    registry::{Registry, RunningJob},
    settings::ExecuteSettings,
};
