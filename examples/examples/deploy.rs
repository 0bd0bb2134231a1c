//! Queues a deployment and follows its log to the end.
//!
//! ```text
//! cargo run -p tendril-examples --example deploy -- --cluster $CLUSTER --template hello --var name=you
//! ```
//!
//! Ctrl-C requests a cancel, a second one leaves. Exit codes: 0 for SUCCESS, 1 for any other end, 130 when left early.

use std::process::ExitCode;

use clap::Parser;
use serde::Deserialize;
use serde_json::Value;
use tendril_examples::{
    deployment::{self, Order},
    follow::{Follow, FollowEvent},
    screen::{Screen, Tone},
};
use tendril_realtime::{AccessToken, Client};
use tokio::signal::unix::{SignalKind, signal};
use uuid::Uuid;

/// Queues a deployment and follows its log to the end.
#[derive(Parser)]
struct Options {
    /// The project's base URL, such as <https://ref.supabase.co>.
    #[arg(long, env = "SUPABASE_URL")]
    url: String,
    /// An API key of the project.
    #[arg(long, env = "SUPABASE_ANON_KEY", hide_env_values = true)]
    key: String,
    /// The JWT of the user who owns the cluster.
    #[arg(long, env = "SUPABASE_USER_TOKEN", hide_env_values = true)]
    token: String,
    /// Where it shall run: the id of a cluster.
    #[arg(long, env = "TENDRIL_CLUSTER")]
    cluster: Uuid,
    /// A template in the folder of the cluster's agent.
    #[arg(long, default_value = "hello")]
    template: String,
    /// A variable of the template; JSON where that preserves what is written (`3`, `true`, `["a"]`), otherwise text. May be repeated.
    #[arg(long = "var", value_name = "NAME=VALUE", value_parser = deployment::variable)]
    vars: Vec<(String, Value)>,
    /// What to do.
    #[arg(long, default_value = "apply", value_parser = ["plan", "apply", "destroy"])]
    action: String,
    /// Which state it works on; runs of one stack never overlap.
    #[arg(long)]
    stack: Option<String>,
}

/// Left while the deployment was still running.
const LEFT: u8 = 130;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run(Options::parse()).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("deploy: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: Options) -> Result<ExitCode, Box<dyn std::error::Error>> {
    let client =
        Client::builder(options.url, options.key).token_source(AccessToken::new(options.token)?).build()?;
    let mut screen = Screen::default();
    inspect(&client, options.cluster, &screen).await?;

    let order = Order {
        template: options.template,
        action: options.action,
        stack: options.stack,
        variables: options.vars.into_iter().collect(),
    };
    let id = Uuid::new_v4();
    // Listening before it exists: nothing of it can be missed.
    let mut follow = Follow::start(&client, id)?;
    follow.live(&client).await?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    screen.start_clock();
    order.queue(client.rest(), id, options.cluster).await?;
    screen.fact("deployment", id)?;

    let mut asked_to_cancel = false;
    loop {
        let event = tokio::select! {
            event = follow.next() => event?,
            _ = interrupt.recv() => {
                if asked_to_cancel {
                    eprintln!("deploy: left; the deployment continues without this program");
                    return Ok(ExitCode::from(LEFT));
                }
                asked_to_cancel = true;
                eprintln!("deploy: asking to cancel; Ctrl-C again leaves at once");
                deployment::cancel(client.rest(), id).await?;
                continue;
            }
        };
        match event {
            Some(FollowEvent::Logged(chunk)) => screen.chunk(&chunk)?,
            Some(FollowEvent::Changed(row)) => screen.status(&row)?,
            Some(FollowEvent::Ended(row)) => {
                screen.fact("status", screen.end(&row))?;
                for (name, value) in row.outputs.iter().flatten() {
                    screen.fact("output", format_args!("{name} = {value}"))?;
                }
                client.shutdown().await;
                return Ok(if row.succeeded() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
            }
            None => return Err("the deployment was not followed to its end".into()),
        }
    }
}

/// Prints in advance why it would wait for ever.
async fn inspect(client: &Client, id: Uuid, screen: &Screen) -> Result<(), Box<dyn std::error::Error>> {
    #[derive(Deserialize)]
    struct Cluster {
        name: String,
        status: String,
    }
    let cluster: Option<Cluster> =
        client.rest().from("clusters").select("name,status").eq("id", id).maybe_single().await?;
    let Some(Cluster { name, status }) = cluster else {
        return Err(format!("the token's user has no cluster {id}").into());
    };
    let tone = if status == "ONLINE" { Tone::Good } else { Tone::Odd };
    screen.fact("cluster", format_args!("{name}, {}", screen.paint(tone, &status)))?;
    if status != "ONLINE" {
        screen.fact("", "No agent is there: the deployment waits until one comes. Ctrl-C cancels it.")?;
    }
    Ok(())
}
