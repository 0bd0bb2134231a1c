//! Queries an agent's health server, as an orchestrator does.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use tendril_tests::until;

/// A free address.
pub(crate) fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port")
}

/// Status and body of a path; none where no answer comes in a second.
pub(crate) fn get(addr: SocketAddr, path: &str) -> Option<(u16, String)> {
    let limit = Duration::from_secs(1);
    let mut stream = TcpStream::connect_timeout(&addr, limit).ok()?;
    stream.set_read_timeout(Some(limit)).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: agent\r\nconnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let status = answer.split(' ').nth(1)?.parse().ok()?;
    Some((status, answer.split_once("\r\n\r\n")?.1.to_owned()))
}

/// The value of a metric, with its labels as they are shown.
pub(crate) fn metric(addr: SocketAddr, series: &str) -> f64 {
    found(addr, series).unwrap_or_else(|body| panic!("{series} is not in\n{body}"))
}

/// The value of a metric that may not have been counted yet.
pub(crate) fn counted(addr: SocketAddr, series: &str) -> f64 {
    found(addr, series).unwrap_or(0.0)
}

fn found(addr: SocketAddr, series: &str) -> Result<f64, String> {
    let (_, body) = get(addr, "/metrics").expect("metrics");
    let line = body.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.map(|value| value.parse().expect("a number")).ok_or(body)
}

/// Waits until the only job has nothing left to do but to report its end.
pub(crate) async fn comes_to_its_report(addr: SocketAddr) {
    until("the job has come to its report", async || {
        let (_, status) = get(addr, "/status").expect("an answer");
        if status.contains("\"phase\": \"OUTPUT\"") || status.contains("\"jobs\": []") {
            Ok(())
        } else {
            Err(status)
        }
    })
    .await;
}
