//! A listener between an agent and its project: it passes everything on, and records what the agent sent and when.

use std::sync::{Arc, Mutex};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy},
    net::{TcpListener, TcpStream},
    time::Instant,
};

/// Something that was sent: when, over which connection, and the bytes.
type Sent = (Instant, usize, Vec<u8>);

/// Listens in until it is dropped with the test's runtime.
#[derive(Debug)]
pub struct Wiretap {
    /// The base URL for the client whose requests are recorded.
    pub url: String,
    sent: Arc<Mutex<Vec<Sent>>>,
}

impl Wiretap {
    /// Stands before this base URL, which must be plain HTTP.
    pub async fn before(url: &str) -> Self {
        let server = url.strip_prefix("http://").expect("plain HTTP").trim_end_matches('/').to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let sent = Arc::new(Mutex::new(Vec::new()));
        let stored = Arc::clone(&sent);
        tokio::spawn(async move {
            for connection in 0.. {
                let Ok((agent, _)) = listener.accept().await else { return };
                let (server, stored) = (server.clone(), Arc::clone(&stored));
                tokio::spawn(async move {
                    let Ok(server) = TcpStream::connect(server).await else { return };
                    pass_on(agent, server, connection, &stored).await;
                });
            }
        });
        Self { url, sent }
    }

    /// All that was sent, connection by connection. What goes through a websocket is masked, and not readable here.
    pub fn everything(&self) -> String {
        let mut sent = self.sent.lock().unwrap().clone();
        sent.sort_by_key(|(_, connection, _)| *connection);
        let bytes: Vec<u8> = sent.into_iter().flat_map(|(_, _, bytes)| bytes).collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// When requests of this method came that have this in their path or query.
    pub fn requests(&self, method: &str, part: &str) -> Vec<Instant> {
        let sent = self.sent.lock().unwrap();
        let fits = |bytes: &[u8]| {
            let line = bytes.split(|byte| *byte == b'\r').next().unwrap_or_default();
            let line = String::from_utf8_lossy(line);
            line.starts_with(method) && line.ends_with("HTTP/1.1") && line.contains(part)
        };
        sent.iter().filter(|(_, _, bytes)| fits(bytes)).map(|(at, _, _)| *at).collect()
    }
}

async fn pass_on(agent: TcpStream, server: TcpStream, connection: usize, stored: &Mutex<Vec<Sent>>) {
    let (mut from_agent, mut to_agent) = agent.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let there = async {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(length @ 1..) = from_agent.read(&mut buffer).await {
            stored.lock().unwrap().push((Instant::now(), connection, buffer[..length].to_vec()));
            if to_server.write_all(&buffer[..length]).await.is_err() {
                return;
            }
        }
        let _closed = to_server.shutdown().await;
    };
    let back = async {
        let _ended = copy(&mut from_server, &mut to_agent).await;
        let _closed = to_agent.shutdown().await;
    };
    tokio::join!(there, back);
}
