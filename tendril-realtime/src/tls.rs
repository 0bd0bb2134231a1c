//! How TLS is done, for HTTP and for the websocket alike.

use std::sync::Arc;

use rustls::{
    ClientConfig,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};

use crate::error::{Error, ErrorKind};

/// What a user may set for TLS.
#[derive(Debug, Default)]
pub(crate) struct TlsSettings {
    /// Authorities trusted beside the platform's.
    roots: Vec<CertificateDer<'static>>,
    /// The certificate chain and key by which this client proves who it is.
    identity: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
    /// The first argument that could not be read.
    refused: Option<Error>,
}

impl TlsSettings {
    pub(crate) fn add_root(&mut self, der: Vec<u8>) {
        self.roots.push(CertificateDer::from(der));
    }

    pub(crate) fn add_roots_pem(&mut self, pem: &[u8]) {
        match certificates("root_certificates_pem", pem) {
            Ok(roots) => self.roots.extend(roots),
            Err(error) => self.refused = self.refused.take().or(Some(error)),
        }
    }

    pub(crate) fn set_identity_pem(&mut self, chain: &[u8], key: &[u8]) {
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| {
            Error::invalid("client_certificate", "the key is no PEM of PKCS #8, PKCS #1 or SEC 1")
        });
        match (certificates("client_certificate", chain), key) {
            (Ok(chain), Ok(key)) => self.identity = Some((chain, key)),
            (Err(error), _) | (_, Err(error)) => self.refused = self.refused.take().or(Some(error)),
        }
    }

    /// Trusts the given certificates, and those of the features. Made once per client: reading the platform's store is slow
    /// and blocks.
    pub(crate) fn client_config(self) -> Result<Arc<ClientConfig>, Error> {
        if let Some(error) = self.refused {
            return Err(error);
        }
        let failed =
            |error: rustls::Error| Error::with_source(ErrorKind::Connect { step: "tls setup" }, error);
        let roots = self.roots;
        #[cfg(feature = "webpki-roots")]
        let roots: Vec<_> =
            roots.into_iter().chain(webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter().cloned()).collect();
        let provider = provider()?;
        #[cfg(feature = "platform")]
        let verifier = rustls_platform_verifier::Verifier::new_with_extra_roots(roots, Arc::clone(&provider))
            .map_err(failed)?;
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(failed)?;
        #[cfg(feature = "platform")]
        let config = config
            .dangerous() // The name rustls gives to any verifier of one's own; this one is the platform's.
            .with_custom_certificate_verifier(Arc::new(verifier));
        #[cfg(not(feature = "platform"))]
        let config = {
            let mut store = rustls::RootCertStore::empty();
            for root in roots {
                store.add(root).map_err(failed)?;
            }
            config.with_root_certificates(store)
        };
        let config = match self.identity {
            None => config.with_no_client_auth(),
            Some((chain, key)) => config.with_client_auth_cert(chain, key).map_err(|error| {
                Error::with_source(
                    ErrorKind::InvalidInput {
                        field: "client_certificate",
                        reason: "the key does not belong to the certificate".to_owned(),
                    },
                    error,
                )
            })?,
        };
        Ok(Arc::new(config))
    }
}

/// The provider is named: the process' default is ambiguous as soon as two are linked.
#[allow(clippy::unnecessary_wraps, reason = "without a provider of our own it can fail")]
fn provider() -> Result<Arc<CryptoProvider>, Error> {
    #[cfg(feature = "aws-lc-rs")]
    return Ok(Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
    #[cfg(all(feature = "ring", not(feature = "aws-lc-rs")))]
    return Ok(Arc::new(rustls::crypto::ring::default_provider()));
    #[cfg(not(any(feature = "ring", feature = "aws-lc-rs")))]
    CryptoProvider::get_default().cloned().ok_or_else(|| {
        Error::invalid(
            "tls",
            "there is no cryptography: enable the feature `ring` or `aws-lc-rs` of tendril-realtime, or install a default provider of rustls",
        )
    })
}

fn certificates(field: &'static str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Error> {
    let found: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|error| Error::invalid(field, format!("no PEM: {error}")))?;
    if found.is_empty() {
        return Err(Error::invalid(field, "there is no `BEGIN CERTIFICATE` in it"));
    }
    Ok(found)
}
