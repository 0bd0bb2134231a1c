//! One HTTP request, written by hand so that exactly these headers go out.

use std::time::Duration;

use supabase_local::Stack;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// What came back.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// The head in lower case.
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    /// The value of a header.
    #[allow(dead_code, reason = "not every test reads the headers")]
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}

/// Sends a request; none if the connection ends without an answer.
pub(crate) async fn send(
    stack: &Stack,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Option<Answer> {
    let address = stack.api_url().replace("http://", "");
    let mut socket = TcpStream::connect(&address).await.ok()?;
    let named = |(name, value): &(&str, &str)| name.eq_ignore_ascii_case("host").then(|| (*value).to_owned());
    let host = headers.iter().find_map(named).unwrap_or_else(|| address.clone());
    let mut request = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n");
    let length = body.len().to_string();
    let sent = headers.iter().filter(|header| named(header).is_none());
    for (name, value) in sent.chain(&[("Content-Length", length.as_str())]) {
        request.push_str(&[name, ": ", value, "\r\n"].concat());
    }
    request.push_str("\r\n");
    socket.write_all(&[request.as_bytes(), body].concat()).await.ok()?;
    let mut bytes = Vec::new();
    // What came before the connection broke still counts.
    let _ = timeout(Duration::from_secs(15), socket.read_to_end(&mut bytes)).await.expect("an end");
    let text = String::from_utf8(bytes).expect("text");
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some(Answer { status, head: head.to_lowercase(), body: body.to_owned() })
}
