//! How the network is reached: one rule for the websocket and for HTTP.

use std::sync::Arc;

use rustls::ClientConfig;

use crate::{error::Error, proxy::Proxies, tls::TlsSettings, trace::TraceSource};

/// The settings that a user may make.
#[derive(Debug, Default)]
pub(crate) struct NetworkSettings {
    pub(crate) tls: TlsSettings,
    pub(crate) proxy: ProxyChoice,
    pub(crate) trace: Option<TraceSource>,
}

/// Where proxies come from.
#[derive(Debug, Default)]
pub(crate) enum ProxyChoice {
    #[default]
    Environment,
    None,
    /// This URL.
    Fixed(String),
}

/// TLS and proxies, checked; and what goes along with each request.
#[derive(Debug, Clone)]
pub(crate) struct Network {
    pub(crate) tls: Arc<ClientConfig>,
    pub(crate) proxies: Arc<Proxies>,
    /// The trace that requests belong to.
    pub(crate) trace: Option<TraceSource>,
}

impl NetworkSettings {
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for certificates or proxies that are not understood.
    pub(crate) fn build(self) -> Result<Network, Error> {
        let proxies = match self.proxy {
            ProxyChoice::Environment => Proxies::from_environment()?,
            ProxyChoice::None => Proxies::default(),
            ProxyChoice::Fixed(url) => Proxies::fixed(&url)?,
        };
        Ok(Network { tls: self.tls.client_config()?, proxies: Arc::new(proxies), trace: self.trace })
    }
}

impl Network {
    /// The same proxies for the HTTP stack, which is to read no environment of its own.
    #[cfg(feature = "rest")]
    pub(crate) fn http_proxy(&self) -> reqwest::Proxy {
        let proxies = Arc::clone(&self.proxies);
        reqwest::Proxy::custom(move |url| {
            let secure = url.scheme() == "https";
            let port = url.port_or_known_default().unwrap_or_default();
            proxies.for_target(url.host_str()?, port, secure).map(|proxy| proxy.url().clone())
        })
    }
}
