//! A function that runs: a Deno process that listens on a port of its own.

use std::collections::BTreeMap;
use std::env;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use http::header::{CONNECTION, TRANSFER_ENCODING};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, info};

use crate::supervisor::{Ending, supervised};

/// The longest that a start may take: a busy machine, a cold cache.
const START: Duration = Duration::from_secs(30);
/// The longest that an end may take.
const END: Duration = Duration::from_secs(5);
/// How many lines of output explain why it did not start.
const OUTPUT_LINES: usize = 8;
/// What Deno prints before its address.
const LISTENING: &str = "Listening on http://";

/// A process that answers.
#[derive(Debug)]
pub(super) struct Worker {
    address: SocketAddr,
    /// Cancelled once the process has ended.
    ended: CancellationToken,
}

impl Worker {
    /// Starts the process and waits until it listens. It ends with `stop`, with this process, or by itself.
    ///
    /// # Errors
    /// What it printed instead.
    pub(super) async fn start(
        deno: &Path,
        name: &str,
        entry: &Path,
        environment: &BTreeMap<String, String>,
        stop: &CancellationToken,
        tasks: &TaskTracker,
    ) -> Result<Self, String> {
        let mut command = supervised(deno, Ending::Terminate, None);
        command.args(["run", "--no-prompt", "--allow-net", "--allow-env"]);
        command.arg(format!("--allow-read={}", entry.parent().unwrap_or(entry).display()));
        command.arg(entry).env_clear();
        // Deno caches what it has compiled there.
        let inherited =
            ["HOME", "DENO_DIR", "PATH"].into_iter().filter_map(|name| Some((name, env::var_os(name)?)));
        command.envs(inherited).envs(environment);
        command
            .env("DENO_SERVE_ADDRESS", "tcp:127.0.0.1:0")
            .env("DENO_NO_UPDATE_CHECK", "1")
            .env("NO_COLOR", "1");
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child =
            Command::from(command).spawn().map_err(|error| format!("/bin/sh cannot be run: {error}"))?;
        if let Some(stdout) = child.stdout.take() {
            tasks.spawn(log(name.to_owned(), stdout));
        }
        let (started, listening) = oneshot::channel();
        let ended = CancellationToken::new();
        let owner = Owner { name: name.to_owned(), child, stop: stop.clone(), ended: ended.clone() };
        tasks.spawn(owner.run(started));
        let listens =
            timeout(START, listening).await.map_err(|_| format!("it did not listen within {START:?}"))?;
        let address = listens.map_err(|_| "the stack ends".to_owned())??;
        info!(function = name, %address, "the function runs");
        Ok(Self { address, ended })
    }

    /// Whether the process is there.
    pub(super) fn is_running(&self) -> bool {
        !self.ended.is_cancelled()
    }

    /// Passes a request on, and the answer back as it comes.
    ///
    /// # Errors
    /// The process ended, or does not answer in HTTP.
    pub(super) async fn answer(
        &self,
        request: Request,
    ) -> Result<Response, Box<dyn std::error::Error + Send + Sync>> {
        let stream = TcpStream::connect(self.address).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                debug!(%error, "a connection to a function broke");
            }
        });
        let mut response = sender.send_request(request).await?.map(Body::new);
        // Of that connection, not of ours.
        response.headers_mut().remove(CONNECTION);
        response.headers_mut().remove(TRANSFER_ENCODING);
        Ok(response)
    }
}

/// The task that has the process.
struct Owner {
    name: String,
    child: Child,
    stop: CancellationToken,
    ended: CancellationToken,
}

impl Owner {
    /// Sends the address, or the output if there is none; then logs what the function prints until it ends or is stopped.
    async fn run(mut self, started: oneshot::Sender<Result<SocketAddr, String>>) {
        let _ended = self.ended.clone().drop_guard();
        let (mut started, mut output) = (Some(started), Vec::new());
        if let Some(stderr) = self.child.stderr.take() {
            let mut lines = BufReader::new(stderr).lines();
            while let Some(Ok(Some(line))) = self.stop.run_until_cancelled(lines.next_line()).await {
                if let Some(address) = listening(&line).filter(|_| started.is_some()) {
                    // The receiver may have given up.
                    let _dropped = started.take().map(|started| started.send(Ok(address)));
                } else {
                    info!(function = self.name, "{line}");
                }
                output.push(line);
                output.truncate(OUTPUT_LINES);
            }
        }
        // The supervisor ends the program when its pipe closes.
        drop(self.child.stdin.take());
        if timeout(END, self.child.wait()).await.is_err() {
            info!(function = self.name, "the function does not end");
        }
        if let Some(started) = started {
            let output = output.join("\n");
            let _dropped = started.send(Err(output));
        }
    }
}

/// The address in Deno's line.
fn listening(line: &str) -> Option<SocketAddr> {
    line.split_once(LISTENING)?.1.split(['/', ' ']).next()?.parse().ok()
}

async fn log(name: String, stdout: impl AsyncRead + Unpin) {
    let mut lines = BufReader::new(stdout).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        info!(function = name, "{line}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_read_from_what_deno_prints() {
        let address = "127.0.0.1:8000".parse().ok();
        assert_eq!(listening("Listening on http://127.0.0.1:8000/"), address);
        assert_eq!(listening("Listening on http://127.0.0.1:8000/ (http://localhost:8000/)"), address);
        assert_eq!(listening("deno: 127.0.0.1:8000"), None);
    }
}
