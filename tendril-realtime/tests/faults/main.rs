//! What the network, the server and the user may do to a client, on the scripted server of `tendril-realtime-testkit`.
#![allow(
    clippy::cast_possible_truncation,
    clippy::items_after_statements,
    clippy::semicolon_if_nothing_returned,
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test may fail"
)]

mod bounds;
mod calls;
mod ends;
mod events;
mod interface;
mod misuse;
mod networks;
mod pauses;
mod presence;
mod sessions;
#[cfg(feature = "socks")]
mod socks;
mod tokens;
mod transports;

use std::{
    future::Future,
    time::{Duration, Instant},
};

use serde::Deserialize;
use tendril_realtime::{ChangeEvent, ChangeStream, Client, ClientBuilder, PostgresChanges, StreamExt as _};
use tendril_realtime_testkit::FakeServer;
use tokio::time::timeout;

const IN_TIME: Duration = Duration::from_secs(10);

#[derive(Debug, Deserialize)]
struct Job {
    id: i64,
}

async fn server() -> FakeServer {
    FakeServer::start().await.unwrap()
}

/// A client that comes back fast.
fn builder(server: &FakeServer) -> ClientBuilder {
    Client::builder(server.url(), "anon-key")
        .no_proxy()
        .reconnect_backoff(Duration::from_millis(20), Duration::from_millis(100))
}

fn client(server: &FakeServer) -> Client {
    builder(server).build().unwrap()
}

fn jobs() -> PostgresChanges {
    PostgresChanges::on("public", "jobs")
}

async fn in_time<F: Future>(what: &str, future: F) -> F::Output {
    timeout(IN_TIME, future).await.unwrap_or_else(|_| panic!("not in time: {what}"))
}

async fn until(what: &str, mut is: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is() {
        assert!(start.elapsed() < IN_TIME, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The next event that is no news of a failure that passes.
async fn next(stream: &mut ChangeStream<Job>) -> ChangeEvent<Job> {
    loop {
        match in_time("an event", stream.next()).await.expect("the stream goes on").expect("no end") {
            ChangeEvent::Interrupted(_) => {}
            event => return event,
        }
    }
}
