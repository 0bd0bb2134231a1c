//! One client program and the server that it meets.

use std::{
    io,
    process::Stdio,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tendril_realtime_testkit::{Event, FakeServer, Journal};
use tokio::{
    process::{Child, Command},
    time::{sleep, timeout},
};

use crate::scenario::Scenario;

/// The channel that every client joins.
pub(crate) const CHANNEL: &str = "bench-0";
/// How long a client has for whatever is asked of it. Its own time limits are 10 to 15 s with most libraries.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Scene {
    pub(crate) server: FakeServer,
    client: Child,
    heartbeat: Duration,
}

impl Scene {
    pub(crate) async fn start(command: &[String], heartbeat: Duration, scenario: &Scenario) -> io::Result<Self> {
        let server = FakeServer::start().await?;
        (scenario.plan)(&server);
        let client = Command::new(&command[0])
            .args(&command[1..])
            .env("BENCH_URL", server.url())
            .env("BENCH_EVENTS", scenario.rows.to_string())
            .env("BENCH_CHANNELS", "1")
            .env("BENCH_WARM_UP", "0")
            .env("BENCH_STALL_MS", "0")
            .env("BENCH_HEARTBEAT_MS", heartbeat.as_millis().to_string())
            .env("BENCH_DEADLINE_MS", (PATIENCE * 2).as_millis().to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        Ok(Self { server, client, heartbeat })
    }

    /// Waits for something to become true of the server.
    pub(crate) async fn until(&self, what: &str, is: impl Fn(&FakeServer) -> bool) -> Result<(), String> {
        self.within(PATIENCE, what, is).await
    }

    /// The same, with the time that two heartbeats and their answer take.
    pub(crate) async fn until_silence_is_noticed(
        &self,
        what: &str,
        is: impl Fn(&FakeServer) -> bool,
    ) -> Result<(), String> {
        self.within(self.heartbeat * 2 + PATIENCE, what, is).await
    }

    async fn within(&self, time: Duration, what: &str, is: impl Fn(&FakeServer) -> bool) -> Result<(), String> {
        let start = Instant::now();
        while !is(&self.server) {
            if start.elapsed() > time {
                return Err(format!("not within {} s: {what}", time.as_secs()));
            }
            sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    /// Waits until the channel is joined for the nth time, and is joined now.
    pub(crate) async fn joined(&self, times: usize) -> Result<(), String> {
        self.until(&format!("join {times}"), |server| {
            server.journal().joins(CHANNEL) >= times && server.joined(CHANNEL) > 0
        })
        .await?;
        // Some clients set up their callbacks when the answer has come.
        sleep(Duration::from_millis(300)).await;
        Ok(())
    }

    /// Inserts these rows.
    pub(crate) fn rows(&self, ids: std::ops::Range<u64>) {
        for id in ids {
            self.server.insert("public", "deployments", row(id, "title"));
        }
    }

    /// Waits for the client to end, which it does with the last row.
    pub(crate) async fn all_rows(self, wanted: u64) -> Result<Journal, String> {
        let Self { server, client, .. } = self;
        let output = match timeout(PATIENCE, client.wait_with_output()).await {
            Ok(Ok(output)) => output,
            Ok(Err(error)) => return Err(error.to_string()),
            Err(_) => return Err("the rows do not come".to_owned()),
        };
        if !output.status.success() {
            return Err(format!("the process ended with {}", output.status));
        }
        let text = String::from_utf8_lossy(&output.stdout);
        let result: Value = text.lines().last().and_then(|line| serde_json::from_str(line).ok()).unwrap_or_default();
        match result["seen"].as_u64() {
            Some(seen) if seen == wanted => Ok(server.journal()),
            seen => Err(format!("{seen:?} rows of {wanted}")),
        }
    }

    /// How often this happened within the time from now on.
    pub(crate) async fn count_for(&self, time: Duration, is: impl Fn(&Event) -> bool) -> usize {
        let before = self.server.journal().count(&is);
        sleep(time).await;
        self.server.journal().count(&is) - before
    }

    /// Whether the process lives.
    pub(crate) fn lives(&mut self) -> Result<(), String> {
        match self.client.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(format!("the process ended with {status}")),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// A row of the table that the clients read.
pub(crate) fn row(id: u64, title: &str) -> Value {
    json!({
        "id": 10_000_000 + id, "cluster_id": "c4871fb89", "status": "QUEUED", "phase": null, "attempt": 1, "title": title,
        "created_at": "2026-11-23T14:34:27.253123+00:00", "sent": "0000000000000000",
    })
}
