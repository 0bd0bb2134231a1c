//! TLS over a connection.

use std::sync::Arc;

use rustls::{ClientConfig, pki_types::ServerName};
use tokio_rustls::TlsConnector;

use super::Io;
use crate::error::{Error, ErrorKind};

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

/// The error of a step of the connection.
pub(super) fn failed(step: &'static str, source: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::with_source(ErrorKind::Connect { step }, source)
}
