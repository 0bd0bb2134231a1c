//! Plays faults to one client program, each on a server and a process of its own, and prints one JSON line for each: what was asked of
//! the client, and what it did instead if it did not.
//!
//!     bench-faults <heartbeat in seconds> <program> <arguments…>

mod scenario;
mod scene;

use std::time::Duration;

use futures_util::{StreamExt as _, stream};

use crate::{scenario::scenarios, scene::Scene};

/// Scenarios at a time: nearly all of them wait.
const AT_ONCE: usize = 8;

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let heartbeat = arguments.next().and_then(|text| text.parse().ok()).map(Duration::from_secs);
    let (Some(heartbeat), command) = (heartbeat, arguments.collect::<Vec<_>>()) else { return usage() };
    if command.is_empty() {
        return usage();
    }
    let command = &command;
    let played = stream::iter(scenarios()).map(|scenario| async move {
        let verdict = match Scene::start(command, heartbeat, &scenario).await {
            Ok(scene) => (scenario.script)(scene).await,
            Err(error) => Err(format!("it did not start: {error}")),
        };
        (scenario.name, verdict)
    });
    let mut played = played.buffered(AT_ONCE);
    while let Some((name, verdict)) = played.next().await {
        println!("{}", serde_json::json!({ "scenario": name, "failure": verdict.err() }));
    }
}

fn usage() {
    eprintln!("bench-faults <heartbeat in seconds> <program> <arguments…>");
    std::process::exit(2);
}
