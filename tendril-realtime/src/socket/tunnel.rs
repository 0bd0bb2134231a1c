//! A connection through a proxy.

use std::sync::Arc;

use base64::Engine as _;
use rustls::ClientConfig;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::{
    Io,
    tls::{failed, with_tls},
};
use crate::{
    error::{Error, ErrorKind},
    proxy::{Proxy, ProxyKind},
};

/// Opens a tunnel to the target through the proxy at the other end of this connection.
pub(super) async fn tunnel(
    proxy: &Proxy,
    tcp: TcpStream,
    host: &str,
    port: u16,
    tls: &Arc<ClientConfig>,
) -> Result<Box<dyn Io>, Error> {
    match proxy.kind() {
        ProxyKind::Http => connect(proxy, Box::new(tcp), host, port).await,
        ProxyKind::Https => {
            let stream = with_tls(tls, proxy.host(), Box::new(tcp)).await?;
            connect(proxy, Box::new(stream), host, port).await
        }
        #[cfg(feature = "socks")]
        ProxyKind::Socks5 | ProxyKind::Socks5Remote => socks(proxy, tcp, host, port).await,
    }
}

#[cfg(feature = "socks")]
async fn socks(proxy: &Proxy, tcp: TcpStream, host: &str, port: u16) -> Result<Box<dyn Io>, Error> {
    use tokio_socks::{TargetAddr, tcp::Socks5Stream};

    let host = host.trim_start_matches('[').trim_end_matches(']');
    let target: TargetAddr<'_> = if proxy.kind() == ProxyKind::Socks5 {
        let mut found =
            tokio::net::lookup_host((host, port)).await.map_err(|error| failed("name look-up", error))?;
        let address = found.next().ok_or_else(|| Error::new(ErrorKind::Connect { step: "name look-up" }))?;
        TargetAddr::Ip(address)
    } else {
        TargetAddr::Domain(host.into(), port)
    };
    let stream = match proxy.credentials() {
        Some((user, password)) => {
            Socks5Stream::connect_with_password_and_socket(tcp, target, &user, &password).await
        }
        None => Socks5Stream::connect_with_socket(tcp, target).await,
    };
    Ok(Box::new(stream.map_err(|error| failed("proxy", error))?.into_inner()))
}

async fn connect(
    proxy: &Proxy,
    mut stream: Box<dyn Io>,
    host: &str,
    port: u16,
) -> Result<Box<dyn Io>, Error> {
    let mut request = format!("CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n");
    if let Some((user, password)) = proxy.credentials() {
        request.push_str("Proxy-Authorization: Basic ");
        request.push_str(&base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}")));
        request.push_str("\r\n");
    }
    request.push_str("\r\n");
    stream.write_all(request.as_bytes()).await.map_err(|error| failed("proxy", error))?;
    stream.flush().await.map_err(|error| failed("proxy", error))?;
    answered(&mut stream).await?;
    Ok(stream)
}

/// Reads the proxy's answer up to its blank line, byte by byte: what follows belongs to the tunnel.
async fn answered(stream: &mut Box<dyn Io>) -> Result<(), Error> {
    let mut head = Vec::with_capacity(256);
    while !head.ends_with(b"\r\n\r\n") {
        let byte = stream.read_u8().await.map_err(|error| failed("proxy", error))?;
        head.push(byte);
        if head.len() > 16 << 10 {
            return Err(Error::new(ErrorKind::Connect { step: "proxy" }));
        }
    }
    let line = String::from_utf8_lossy(&head);
    let line = line.lines().next().unwrap_or_default();
    let status = line.split(' ').nth(1).unwrap_or_default();
    if status.starts_with('2') {
        return Ok(());
    }
    let refusal = format!("the proxy answered `{line}` to CONNECT");
    Err(Error::with_source(ErrorKind::Connect { step: "proxy" }, refusal))
}
