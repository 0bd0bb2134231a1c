//! From an address to an open websocket: TCP, perhaps a proxy, perhaps TLS, the upgrade.

use std::{fmt, io, sync::Arc, time::Duration};

use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{io::BufReader, net::TcpStream, time};
use tokio_rustls::TlsConnector;
use tokio_tungstenite::{
    client_async_with_config,
    tungstenite::{
        Error as WsError,
        client::IntoClientRequest as _,
        http::{HeaderValue, Response, header::USER_AGENT},
        protocol::WebSocketConfig,
    },
};
use url::Url;

use super::{Io, Socket, proxy};
use crate::error::{Error, ErrorKind};

/// The server ends connections over frames of 5 MB; what it sends is smaller, but headroom costs nothing.
const LARGEST_MESSAGE: usize = 16 << 20;

/// Opens websockets.
#[derive(Clone)]
pub(crate) struct Dialer {
    tls: Arc<ClientConfig>,
    proxies: proxy::Proxies,
    timeout: Duration,
    tuning: TcpTuning,
}

/// Sizes of one connection's buffers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TcpTuning {
    /// Bytes read from the socket at once.
    pub(crate) read_buffer: usize,
    /// Bytes of the pieces that messages are cut from. A message that is kept keeps its whole piece in memory.
    pub(crate) piece: usize,
}

impl Default for TcpTuning {
    fn default() -> Self {
        Self { read_buffer: 64 << 10, piece: 4 << 10 }
    }
}

impl Dialer {
    /// `timeout` is for everything together, from the name look-up to the accepted upgrade.
    pub(crate) fn new(tls: Arc<ClientConfig>, timeout: Duration, tuning: TcpTuning) -> Self {
        Self { tls, proxies: proxy::Proxies::from_environment(), timeout, tuning }
    }

    /// The URL is a secret: it holds the key. It appears in no error.
    pub(crate) async fn dial(&self, url: &Url) -> Result<Socket, Error> {
        time::timeout(self.timeout, self.open(url))
            .await
            .map_err(|_| Error::new(ErrorKind::Timeout { waiting_for: "the websocket to open" }))?
    }

    async fn open(&self, url: &Url) -> Result<Socket, Error> {
        let host = url.host_str().unwrap_or_default();
        let secure = url.scheme() == "wss";
        let port = url.port_or_known_default().unwrap_or(if secure { 443 } else { 80 });
        let tcp = match self.proxies.for_target(host, secure) {
            Some(proxy) => proxy.tunnel(host, port, &self.tls).await?,
            None => Box::new(connect(host, port).await.map_err(|error| failed("tcp", error))?) as Box<dyn Io>,
        };
        let stream: Box<dyn Io> = if secure { Box::new(with_tls(&self.tls, host, tcp).await?) } else { tcp };
        let mut request = url
            .as_str()
            .into_client_request()
            .map_err(|_| Error::invalid("url", "no websocket request can be made of it"))?;
        request.headers_mut().insert(
            USER_AGENT,
            HeaderValue::from_static(concat!("tendril-realtime/", env!("CARGO_PKG_VERSION"))),
        );
        // The websocket's own buffer shrinks to a few KiB as soon as a message outlives the next read, and with it each read.
        let stream: Box<dyn Io> = Box::new(BufReader::with_capacity(self.tuning.read_buffer, stream));
        let config = WebSocketConfig::default()
            .read_buffer_size(self.tuning.piece)
            .write_buffer_size(16 << 10)
            .max_message_size(Some(LARGEST_MESSAGE))
            .max_frame_size(Some(LARGEST_MESSAGE));
        match client_async_with_config(request, stream, Some(config)).await {
            Ok((stream, _)) => Ok(Socket::new(stream)),
            Err(WsError::Http(response)) => Err(refused(&response)),
            Err(error) => Err(failed("websocket upgrade", error)),
        }
    }
}

/// Opens a TCP connection without Nagle's delay.
pub(super) async fn connect(host: &str, port: u16) -> io::Result<TcpStream> {
    // The brackets of an IPv6 address belong to the URL, not to the address.
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let tcp = TcpStream::connect((host, port)).await?;
    tcp.set_nodelay(true)?;
    Ok(tcp)
}

/// Wraps a connection in TLS for this host.
pub(super) async fn with_tls(
    tls: &Arc<ClientConfig>,
    host: &str,
    stream: Box<dyn Io>,
) -> Result<tokio_rustls::client::TlsStream<Box<dyn Io>>, Error> {
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let name = ServerName::try_from(host).map_err(|error| failed("tls", error))?;
    TlsConnector::from(Arc::clone(tls)).connect(name, stream).await.map_err(|error| failed("tls", error))
}

pub(super) fn failed(step: &'static str, source: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::with_source(ErrorKind::Connect { step }, source)
}

/// The server's words are in a JSON body `{"error":"…"}`; older servers and gateways have their own.
fn refused(response: &Response<Option<Vec<u8>>>) -> Error {
    #[derive(serde::Deserialize)]
    struct Body {
        error: Option<String>,
        message: Option<String>,
        msg: Option<String>,
    }
    let status = response.status();
    let body = response.body().as_deref().unwrap_or_default();
    let said =
        serde_json::from_slice::<Body>(body).ok().and_then(|body| body.error.or(body.message).or(body.msg));
    let message = said.unwrap_or_else(|| match status.as_u16() {
        403 if body.is_empty() => {
            "forbidden; an unsupported protocol version, or a key the server does not take".to_owned()
        }
        _ => status.canonical_reason().unwrap_or("no reason given").to_owned(),
    });
    Error::new(ErrorKind::Handshake { status: status.as_u16(), message })
}

impl fmt::Debug for Dialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dialer").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::error::Retry;

    #[test]
    fn every_recorded_refusal_of_the_upgrade_is_told_in_the_servers_words() {
        let mut seen = Vec::new();
        for version in ["1.0.0", "2.0.0"] {
            let path = Path::new(env!("CARGO_MANIFEST_DIR"))
                .join(format!("tests/recorded/{version}/connect_refused.jsonl"));
            for line in std::fs::read_to_string(path).unwrap().lines() {
                let line: serde_json::Value = serde_json::from_str(line).unwrap();
                if line["dir"] != "server" || line["type"] != "http" {
                    continue;
                }
                let status = u16::try_from(line["status"].as_u64().unwrap()).unwrap();
                let body = line["data"].as_str().unwrap_or_default().as_bytes().to_vec();
                let response = Response::builder().status(status).body(Some(body.clone())).unwrap();
                let error = refused(&response);
                let ErrorKind::Handshake { status: told, message } = error.kind() else {
                    panic!("{error:?}")
                };
                assert_eq!(*told, status);
                assert!(!message.is_empty());
                let words = serde_json::from_slice::<serde_json::Value>(&body).ok();
                if let Some(words) = words.and_then(|body| body["error"].as_str().map(str::to_owned)) {
                    assert_eq!(*message, words);
                }
                seen.push((status, message.clone(), error.retry()));
            }
        }
        for (status, words, retry) in [
            (401, "API key is missing", Retry::Never),
            (401, "Token has expired", Retry::Never),
            (401, "Failed to validate JWT signature", Retry::Never),
            (404, "Tenant not found", Retry::After(Duration::from_secs(60))),
        ] {
            assert!(seen.contains(&(status, words.to_owned(), retry)), "{status} {words}: {seen:?}");
        }
        assert!(seen.iter().any(|(status, message, retry)| *status == 403
            && message.contains("version")
            && *retry == Retry::Never));
    }
}
