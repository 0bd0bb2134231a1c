//! HTTP `CONNECT` proxies from the environment, by the rules curl made: `HTTPS_PROXY` for `wss`, `HTTP_PROXY` for `ws`,
//! `ALL_PROXY` for both, `NO_PROXY` for exceptions; lower case wins.

use std::{env, fmt, sync::Arc};

use base64::Engine as _;
use rustls::ClientConfig;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use url::Url;

use super::{
    Io,
    dial::{connect, failed, with_tls},
};
use crate::error::{Error, ErrorKind};

/// The proxies the environment names, read once.
#[derive(Debug, Clone, Default)]
pub(crate) struct Proxies {
    secure: Option<Proxy>,
    plain: Option<Proxy>,
    exceptions: Vec<String>,
}

/// One proxy.
#[derive(Clone)]
pub(crate) struct Proxy {
    url: Url,
}

impl Proxies {
    pub(crate) fn from_environment() -> Self {
        Self::from_lookup(|name| env::var(name).ok())
    }

    fn from_lookup(lookup: impl Fn(&str) -> Option<String>) -> Self {
        let either = |name: &str| {
            lookup(&name.to_lowercase()).or_else(|| lookup(name)).map(|value| value.trim().to_owned())
        };
        let proxy = |name: &str| {
            let text = either(name).filter(|text| !text.is_empty()).or_else(|| either("ALL_PROXY"))?;
            let text = if text.contains("://") { text } else { format!("http://{text}") };
            let url = Url::parse(&text).ok().filter(|url| matches!(url.scheme(), "http" | "https"))?;
            Some(Proxy { url })
        };
        let exceptions = either("NO_PROXY").unwrap_or_default();
        let exceptions =
            exceptions.split(',').map(|part| part.trim().to_lowercase()).filter(|part| !part.is_empty());
        Self { secure: proxy("HTTPS_PROXY"), plain: proxy("HTTP_PROXY"), exceptions: exceptions.collect() }
    }

    /// The proxy for a host; `None` to connect directly.
    pub(crate) fn for_target(&self, host: &str, secure: bool) -> Option<&Proxy> {
        let proxy = if secure { self.secure.as_ref() } else { self.plain.as_ref() }?;
        (!self.is_excepted(&host.to_lowercase())).then_some(proxy)
    }

    fn is_excepted(&self, host: &str) -> bool {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        self.exceptions.iter().any(|exception| {
            let name = exception.split(':').next().unwrap_or_default();
            let domain = name.trim_start_matches("*.").trim_start_matches('.');
            exception == "*"
                || exception == host
                || host == domain
                || (!domain.is_empty() && host.strip_suffix(domain).is_some_and(|front| front.ends_with('.')))
        })
    }
}

impl Proxy {
    /// A connection through the proxy to the target.
    pub(crate) async fn tunnel(
        &self,
        host: &str,
        port: u16,
        tls: &Arc<ClientConfig>,
    ) -> Result<Box<dyn Io>, Error> {
        let proxy_host = self.url.host_str().unwrap_or_default();
        let proxy_port = self.url.port_or_known_default().unwrap_or(8080);
        let tcp = connect(proxy_host, proxy_port).await.map_err(|error| failed("proxy", error))?;
        let mut stream: Box<dyn Io> = Box::new(tcp);
        if self.url.scheme() == "https" {
            stream = Box::new(with_tls(tls, proxy_host, stream).await?);
        }
        let mut request = format!("CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n");
        if let Some(credentials) = self.credentials() {
            request.push_str("Proxy-Authorization: Basic ");
            request.push_str(&credentials);
            request.push_str("\r\n");
        }
        request.push_str("\r\n");
        stream.write_all(request.as_bytes()).await.map_err(|error| failed("proxy", error))?;
        stream.flush().await.map_err(|error| failed("proxy", error))?;
        answered(&mut stream).await?;
        Ok(stream)
    }

    fn credentials(&self) -> Option<String> {
        let decoded = |text: &str| percent_decoded(text);
        (!self.url.username().is_empty()).then(|| {
            let user = decoded(self.url.username());
            let password = decoded(self.url.password().unwrap_or_default());
            base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"))
        })
    }
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

fn percent_decoded(text: &str) -> String {
    // A form value decodes `+` too, which a user name may hold as itself.
    let guarded = text.replace('+', "%2B");
    url::form_urlencoded::parse(format!("v={guarded}").as_bytes())
        .next()
        .map(|(_, value)| value.into_owned())
        .unwrap_or_default()
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proxy({})", self.url.host_str().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(pairs: &[(&str, &str)]) -> Proxies {
        let pairs: Vec<_> =
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Proxies::from_lookup(|name| pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone()))
    }

    #[test]
    fn each_scheme_has_its_proxy_and_lower_case_wins() {
        let both = proxies(&[("HTTPS_PROXY", "http://upper:1"), ("https_proxy", "lower:3128")]);
        assert_eq!(both.for_target("ref.supabase.co", true).unwrap().url.as_str(), "http://lower:3128/");
        assert!(both.for_target("ref.supabase.co", false).is_none());
        let all = proxies(&[("ALL_PROXY", "http://all:1")]);
        assert!(all.for_target("x", true).is_some() && all.for_target("x", false).is_some());
    }

    #[test]
    fn exceptions_name_hosts_and_whole_domains() {
        let some = proxies(&[
            ("ALL_PROXY", "http://p:1"),
            ("NO_PROXY", "localhost, .internal,example.org,10.0.0.1"),
        ]);
        for (host, proxied) in [
            ("localhost", false),
            ("db.internal", false),
            ("example.org", false),
            ("api.example.org", false),
            ("badexample.org", true),
            ("10.0.0.1", false),
            ("ref.supabase.co", true),
        ] {
            assert_eq!(some.for_target(host, true).is_some(), proxied, "{host}");
        }
        assert!(proxies(&[("ALL_PROXY", "p:1"), ("NO_PROXY", "*")]).for_target("x", true).is_none());
    }

    #[test]
    fn a_proxy_with_a_password_does_not_show_it() {
        let one = proxies(&[("HTTPS_PROXY", "http://user:s%40cret@proxy:1")]);
        let proxy = one.for_target("x", true).unwrap();
        assert_eq!(format!("{proxy:?}"), "Proxy(proxy)");
        assert_eq!(proxy.credentials().unwrap(), "dXNlcjpzQGNyZXQ=");
    }
}
