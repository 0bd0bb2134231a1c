//! How TLS is done, for HTTP and for the websocket alike.

use std::sync::Arc;

use rustls::{ClientConfig, pki_types::CertificateDer};

use crate::error::{Error, ErrorKind};

/// Trusts what the platform trusts and, on top of it, the given certificates (DER). Made once: reading the platform's
/// store is slow and blocks.
///
/// `ring` is named as the provider instead of the process default, which is ambiguous as soon as two are linked.
pub(crate) fn client_config(extra_roots: &[CertificateDer<'static>]) -> Result<Arc<ClientConfig>, Error> {
    let failed = |error: rustls::Error| Error::with_source(ErrorKind::Connect { step: "tls setup" }, error);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = rustls_platform_verifier::Verifier::new_with_extra_roots(
        extra_roots.iter().cloned(),
        Arc::clone(&provider),
    )
    .map_err(failed)?;
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(failed)?
        .dangerous() // The name rustls gives to any verifier of one's own; this one is the platform's.
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    Ok(Arc::new(config))
}
