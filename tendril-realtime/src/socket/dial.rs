//! From an address to an open websocket: TCP, perhaps a proxy, perhaps TLS, the upgrade.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use tokio::{io::BufReader, time};
use tokio_tungstenite::{
    client_async_with_config,
    tungstenite::{
        Error as WsError,
        client::IntoClientRequest as _,
        http::{
            HeaderMap, HeaderValue, Response,
            header::{DATE, LOCATION, USER_AGENT},
        },
        protocol::WebSocketConfig,
    },
};
use url::Url;

use super::{
    Io, Socket,
    addresses::Addresses,
    tls::{failed, with_tls},
    tunnel::tunnel,
};
use crate::{
    error::{Error, ErrorKind},
    network::Network,
    trace::TraceSource,
};

/// The server ends connections over frames of 5 MB; what it sends is smaller, but headroom costs nothing.
const LARGEST_MESSAGE: usize = 16 << 20;

/// Opens websockets.
#[derive(Clone)]
pub(crate) struct Dialer {
    network: Network,
    timeout: Duration,
    tuning: TcpTuning,
    /// Sent with each upgrade.
    headers: HeaderMap,
}

/// Sizes of one connection's buffers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TcpTuning {
    /// Bytes read from the socket at once.
    pub(crate) read_buffer: usize,
    /// Bytes of the chunks that messages are cut from. A message that is held holds its whole chunk in memory.
    pub(crate) chunk: usize,
}

impl Default for TcpTuning {
    fn default() -> Self {
        Self { read_buffer: 64 << 10, chunk: 4 << 10 }
    }
}

impl Dialer {
    /// `timeout` is for everything together, from the name look-up to the accepted upgrade.
    pub(crate) fn new(network: Network, timeout: Duration, tuning: TcpTuning, headers: HeaderMap) -> Self {
        Self { network, timeout, tuning, headers }
    }

    /// The URL is a secret: it holds the key. It appears in no error.
    pub(crate) async fn dial(&self, url: &Url) -> Result<Opened, Error> {
        time::timeout(self.timeout, self.open(url))
            .await
            .map_err(|_| Error::new(ErrorKind::Timeout { waiting_for: "the websocket to open" }))?
    }

    async fn open(&self, url: &Url) -> Result<Opened, Error> {
        let host = url.host_str().unwrap_or_default();
        let secure = url.scheme() == "wss";
        let port = url.port_or_known_default().unwrap_or(if secure { 443 } else { 80 });
        let proxy = self.network.proxies.for_target(host, port, secure);
        let (step, first_host, first_port) = match proxy {
            Some(proxy) => ("proxy", proxy.host(), proxy.port()),
            None => ("tcp", host, port),
        };
        let mut addresses =
            Addresses::of(first_host, first_port).await.map_err(|error| failed(step, error))?;
        loop {
            let (tcp, address) = addresses.connect().await.map_err(|error| failed(step, error))?;
            let handshake = async {
                let stream = match proxy {
                    Some(proxy) => tunnel(proxy, tcp, host, port, &self.network.tls).await?,
                    None => Box::new(tcp) as Box<dyn Io>,
                };
                self.upgrade(url, host, secure, stream).await
            };
            // An address that accepts and is of no use afterwards leaves time for the others.
            let silence = Error::new(ErrorKind::Timeout { waiting_for: "the websocket to open" });
            let result = if addresses.has_alternative() {
                time::timeout(self.timeout / 4, handshake).await.unwrap_or(Err(silence))
            } else {
                handshake.await
            };
            match result {
                Err(error) if !matches!(error.kind(), ErrorKind::Handshake { .. }) => {
                    addresses.give_up(address);
                    if addresses.is_empty() {
                        return Err(error);
                    }
                }
                other => return other,
            }
        }
    }

    /// TLS and the upgrade.
    async fn upgrade(
        &self,
        url: &Url,
        host: &str,
        secure: bool,
        stream: Box<dyn Io>,
    ) -> Result<Opened, Error> {
        let stream: Box<dyn Io> =
            if secure { Box::new(with_tls(&self.network.tls, host, stream).await?) } else { stream };
        let mut request = url
            .as_str()
            .into_client_request()
            .map_err(|_| Error::invalid("url", "no websocket request can be made of it"))?;
        request.headers_mut().insert(
            USER_AGENT,
            HeaderValue::from_static(concat!("tendril-realtime/", env!("CARGO_PKG_VERSION"))),
        );
        if let Some(trace) = self.network.trace.as_ref().and_then(TraceSource::current) {
            trace.add_to(request.headers_mut());
        }
        request.headers_mut().extend(self.headers.clone());
        // The websocket's own buffer shrinks to a few KiB as soon as a message outlives the next read, and with it each read.
        let stream: Box<dyn Io> = Box::new(BufReader::with_capacity(self.tuning.read_buffer, stream));
        let config = WebSocketConfig::default()
            .read_buffer_size(self.tuning.chunk)
            .write_buffer_size(16 << 10)
            .max_message_size(Some(LARGEST_MESSAGE))
            .max_frame_size(Some(LARGEST_MESSAGE));
        match client_async_with_config(request, stream, Some(config)).await {
            Ok((stream, response)) => {
                let date = response.headers().get(DATE).and_then(|date| date.to_str().ok());
                let server_time = date.and_then(|date| httpdate::parse_http_date(date).ok());
                Ok(Opened { socket: Socket::new(stream), server_time })
            }
            Err(WsError::Http(response)) => Err(refused(&response)),
            Err(WsError::Io(error)) => Err(failed("websocket upgrade", error)),
            Err(error) => Err(failed("websocket upgrade", error)),
        }
    }
}

/// An open websocket, and the time of the server's clock.
pub(crate) struct Opened {
    pub(crate) socket: Socket,
    pub(crate) server_time: Option<SystemTime>,
}

/// The server's message is in a JSON body `{"error":"…"}`; older servers and gateways have other forms.
fn refused(response: &Response<Option<Vec<u8>>>) -> Error {
    #[derive(serde::Deserialize)]
    struct Body {
        error: Option<String>,
        message: Option<String>,
        msg: Option<String>,
    }
    let status = response.status();
    let body = response.body().as_deref().unwrap_or_default();
    let given =
        serde_json::from_slice::<Body>(body).ok().and_then(|body| body.error.or(body.message).or(body.msg));
    let message = given.unwrap_or_else(|| match status.as_u16() {
        300..=399 => match response.headers().get(LOCATION).and_then(|location| location.to_str().ok()) {
            // Without its query: it may repeat the key.
            Some(location) => {
                let location = location.split('?').next().unwrap_or_default();
                format!("it redirects to {location}, and a websocket follows no redirect: use that host and scheme in the URL")
            }
            None => "it redirects, and a websocket follows no redirect: check the URL's host and scheme".to_owned(),
        },
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
    fn every_recorded_refusal_of_the_upgrade_has_the_servers_message() {
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
                let ErrorKind::Handshake { status: shown, message } = error.kind() else {
                    panic!("{error:?}")
                };
                assert_eq!(*shown, status);
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
