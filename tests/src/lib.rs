//! The world the scenarios play in: a stack, users with clusters, agents, deployments.
//!
//! ```text
//! project    where Supabase is: the local stack, or STACK=external
//! world      a project and a scratch directory; makes clusters
//! cluster    a user with a cluster; queues deployments
//! deployment a row and its log, and waits for them
//! agent      an agent of a cluster: a process, or a task of this process
//! program    a program beside the test, its output and its end
//! git_server a Git server with a login, and repositories to push into
//! state_server where Terraform stores states over HTTP, with locks that stay
//! kubernetes a stand-in for a Kubernetes cluster, whose pods are processes
//! pods       an agent whose runs are pods of that cluster
//! crash      a job whose agent is killed at a chosen place, and what became of it
//! flood      a program that prints very much, and how long it takes
//! policy     a policy that is taken away, and put back
//! story      what a program that looks like terraform prints
//! tap        what pgTAP prints
//! measurement the table of a bench, and the bounds of a release
//! usage      memory, threads and descriptors of a process
//! waiting    very many plans that wait for approval
//! wiretap    what an agent sends, and when
//! ```
//!
//! Everything ends when its value is dropped, also when a test fails.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    clippy::missing_panics_doc,
    reason = "what cannot be set up fails the test that needs it"
)]

mod agent;
mod cluster;
pub mod crash;
mod deployment;
mod flood;
mod git_server;
pub mod kubernetes;
mod measurement;
pub mod pods;
mod policy;
pub mod program;
mod project;
mod state_server;
mod story;
pub mod tap;
mod usage;
mod wait;
mod waiting;
mod wiretap;
mod world;

pub use self::{
    agent::{AgentSetup, Executors, InsideAgent},
    cluster::Cluster,
    deployment::{Chunk, Deployment, Log, Numbered, Row},
    flood::Flood,
    git_server::{GitServer, Repository, Seen},
    measurement::{Bound, Measurements},
    pods::Pods,
    policy::without_policy,
    program::Program,
    project::{Project, connect},
    state_server::StateServer,
    story::Story,
    usage::Usage,
    wait::{TIMEOUT, until, until_none_are_left, until_within, within},
    wiretap::Wiretap,
    world::{World, fixtures, repository, terraform_that_begins_together},
};
