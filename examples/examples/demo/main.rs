//! A deployment from the queue to the live log, on real parts: PostgreSQL, Terraform, the agent as a process of its own.
//!
//! ```text
//! make demo
//! make demo ARGS='--var name=you --var lines=40'
//! make demo ARGS=--keep
//! ```
//!
//! Ends with 0 only if the deployment does with SUCCESS.

mod agent_process;
mod control_plane;
mod keep;
mod portal;
mod summary;

use std::{
    io,
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::Parser;
use futures_util::StreamExt as _;
use serde::Deserialize;
use serde_json::Value;
use tendril_examples::{
    deployment::{self, Order},
    follow::{Follow, FollowEvent},
    screen::{Screen, Tone, span},
};
use tendril_realtime::watch::{Query, WatchEvent};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::timeout,
};
use uuid::Uuid;

use self::{agent_process::AgentProcess, control_plane::ControlPlane, portal::Portal, summary::Summary};

/// What went wrong, as a sentence.
type Problem = Box<dyn std::error::Error>;

/// A deployment from the queue to the live log.
#[derive(Parser)]
struct Options {
    /// Leave the stack and the agent running, and print how to queue more, until Ctrl-C.
    #[arg(long)]
    keep: bool,
    /// Serve the portal, a web application, beside the stack, and leave both running until Ctrl-C.
    #[arg(long)]
    portal: bool,
    /// A variable of the template `hello`: name, greeting, lines. May be repeated.
    #[arg(long = "var", value_name = "NAME=VALUE", value_parser = deployment::variable)]
    vars: Vec<(String, Value)>,
}

/// How long the agent may take to come online.
const ONLINE: Duration = Duration::from_secs(30);

#[tokio::main]
async fn main() -> ExitCode {
    match run(Options::parse()).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(problem) => {
            eprintln!("demo: {problem}");
            ExitCode::FAILURE
        }
    }
}

/// Starts the parts, runs the story, and stops the parts however it ended. Returns whether the deployment succeeded.
async fn run(options: Options) -> Result<bool, Problem> {
    let mut screen = Screen::default();
    let mut stop = Stop::new()?;
    let Some(plane) = stop.or(start(options.keep || options.portal, &screen)).await else { return Ok(false) };
    let plane = plane?;
    let mut agent = match plane.start_agent() {
        Ok(agent) => agent,
        Err(problem) => {
            plane.stop().await?;
            return Err(problem);
        }
    };
    let finished = match stop.or(story(&options, &plane, &mut agent, &mut screen)).await {
        Some(Ok(true)) if options.portal => match stop.or(portal(&plane, &mut agent, &screen)).await {
            Some(ended) => Err(ended),
            None => Ok(true),
        },
        Some(Ok(true)) if options.keep => match stop.or(keep::wait(&plane, &mut agent, &screen)).await {
            Some(ended) => Err(ended),
            None => Ok(true),
        },
        Some(finished) => finished,
        None => Err("interrupted".into()),
    };
    if !matches!(finished, Ok(true)) {
        agent.print_tail();
    }
    let stopped = agent.stop(&plane).await;
    plane.stop().await?;
    let succeeded = finished?;
    screen.fact("stopped", stopped?)?;
    Ok(succeeded)
}

/// Serves the portal. Resolves only if it cannot be started, or if the agent ends by itself.
async fn portal(plane: &ControlPlane, agent: &mut AgentProcess, screen: &Screen) -> Problem {
    let portal = match Portal::start(plane).await {
        Ok(portal) => portal,
        Err(problem) => return problem,
    };
    if let Err(error) = screen.fact("portal", screen.paint(Tone::Bold, portal.advice())) {
        return error.into();
    }
    keep::wait(plane, agent, screen).await
}

async fn start(keep: bool, screen: &Screen) -> Result<ControlPlane, Problem> {
    let started = Instant::now();
    screen.line(screen.paint(Tone::Bold, "Tendril: a deployment from the queue to the live log"))?;
    screen.line("")?;
    let plane = ControlPlane::start(keep).await?;
    let took = span(started.elapsed());
    screen.fact("stack", format_args!("{}, a real PostgreSQL behind it, up in {took}", plane.url()))?;
    screen.fact("cluster", format_args!("{} ({}), made by a user", control_plane::CLUSTER, plane.cluster))?;
    Ok(plane)
}

/// Waits for the agent, queues the deployment, shows its log and the summary.
async fn story(
    options: &Options,
    plane: &ControlPlane,
    agent: &mut AgentProcess,
    screen: &mut Screen,
) -> Result<bool, Problem> {
    let started = Instant::now();
    tokio::select! {
        online = online(plane) => online?,
        ended = agent.ended() => return Err(ended),
    }
    let took = span(started.elapsed());
    screen.fact(
        "agent",
        format_args!("process {}, {} in {took}", agent.id(), screen.paint(Tone::Good, "ONLINE")),
    )?;
    tokio::select! {
        succeeded = deployment(options, plane, agent.id(), screen) => succeeded,
        ended = agent.ended() => Err(ended),
    }
}

/// Resolves when the agent's first heartbeat has made the cluster ONLINE.
async fn online(plane: &ControlPlane) -> Result<(), Problem> {
    #[derive(Deserialize)]
    struct Cluster {
        status: String,
    }
    let query = Query::table("clusters").select("id,status").immutable_eq("id", plane.cluster);
    let mut clusters = plane.user.watch::<Cluster>(query)?;
    let online = async {
        while let Some(event) = clusters.next().await {
            if let WatchEvent::InitApply(cluster) | WatchEvent::Apply(cluster) = event?
                && cluster.status == "ONLINE"
            {
                return Ok(());
            }
        }
        Err("the client was closed".into())
    };
    match timeout(ONLINE, online).await {
        Ok(outcome) => outcome,
        Err(_) => Err(format!("the agent did not make its cluster ONLINE within {}", span(ONLINE)).into()),
    }
}

/// Queues a deployment as the user, and shows all that becomes of it.
async fn deployment(
    options: &Options,
    plane: &ControlPlane,
    agent: u32,
    screen: &mut Screen,
) -> Result<bool, Problem> {
    let mut order = Order { template: "hello".to_owned(), action: "apply".to_owned(), ..Order::default() };
    order.variables.insert("name".to_owned(), "Tendril".into());
    order.variables.extend(options.vars.iter().cloned());

    let id = Uuid::new_v4();
    // Listening before it exists: nothing of it can be missed.
    let mut follow = Follow::start(&plane.user, id)?;
    follow.live(&plane.user).await?;
    let inserted = screen.start_clock();
    order.queue(plane.user.rest(), id, plane.cluster).await?;
    screen.fact("queued", format_args!("deployment {id} of template hello, as the user\n"))?;

    let mut summary = Summary::new(agent, inserted);
    while let Some(update) = follow.next().await? {
        match update {
            FollowEvent::Logged(chunk) => {
                summary.count(&chunk);
                screen.chunk(&chunk)?;
            }
            FollowEvent::Changed(row) => screen.status(&row)?,
            FollowEvent::Ended(row) => {
                summary.print(&row, screen)?;
                return Ok(row.succeeded());
            }
        }
    }
    Err("the client was closed".into())
}

/// The request of the user to end the demo.
struct Stop {
    interrupt: Signal,
    terminate: Signal,
}

impl Stop {
    fn new() -> io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// The work's outcome, or `None` if a signal came first.
    async fn or<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            done = work => Some(done),
            _ = self.interrupt.recv() => None,
            _ = self.terminate.recv() => None,
        }
    }
}
