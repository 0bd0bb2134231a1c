//! Which proxy leads to a host: for the websocket and for HTTP alike, by the rules curl made. `HTTPS_PROXY` is for `https` and
//! `wss`, `HTTP_PROXY` for `http` and `ws`, `ALL_PROXY` for both, `NO_PROXY` for exceptions; lower case wins.
//!
//! A proxy that is named and not understood is an error: going direct would leave the path that its owner wanted.

use std::{env, fmt, net::IpAddr};

use url::Url;

use crate::error::Error;

/// The proxies of one client.
#[derive(Debug, Clone, Default)]
pub(crate) struct Proxies {
    secure: Option<Proxy>,
    plain: Option<Proxy>,
    exceptions: Vec<Exception>,
}

/// One proxy.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Proxy {
    url: Url,
    kind: ProxyKind,
}

/// How a proxy is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ProxyKind {
    /// HTTP `CONNECT`.
    Http,
    /// HTTP `CONNECT` inside TLS.
    Https,
    /// SOCKS 5, with names resolved here.
    #[cfg(feature = "socks")]
    Socks5,
    /// SOCKS 5, with names resolved by the proxy.
    #[cfg(feature = "socks")]
    Socks5Remote,
}

/// A target that is reached without a proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Exception {
    All,
    /// An address, or a network with its prefix length.
    Network(IpAddr, u8),
    /// A host with all below it, perhaps on one port only.
    Domain(String, Option<u16>),
}

impl Proxies {
    /// The proxy of the environment's variables.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for what is set and not understood; it names the variable.
    pub(crate) fn from_environment() -> Result<Self, Error> {
        Self::from_lookup(|name| env::var(name).ok())
    }

    /// This proxy for everything.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for a URL that is not understood.
    pub(crate) fn fixed(url: &str) -> Result<Self, Error> {
        let proxy = Proxy::parse("proxy", url)?;
        Ok(Self { secure: Some(proxy.clone()), plain: Some(proxy), exceptions: Vec::new() })
    }

    fn from_lookup(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, Error> {
        let set = |name: &str| {
            let upper = || lookup(name).filter(|_| !is_forged(name, &lookup));
            let value = lookup(&name.to_lowercase()).or_else(upper)?;
            Some(value.trim().to_owned()).filter(|text| !text.is_empty())
        };
        let proxy = |name: &'static str| match (set(name), set("ALL_PROXY")) {
            (Some(text), _) => Proxy::parse(name, &text).map(Some),
            (None, Some(text)) => Proxy::parse("ALL_PROXY", &text).map(Some),
            (None, None) => Ok(None),
        };
        let exceptions = set("NO_PROXY").unwrap_or_default();
        let exceptions = exceptions.split(',').map(str::trim).filter(|part| !part.is_empty());
        Ok(Self {
            secure: proxy("HTTPS_PROXY")?,
            plain: proxy("HTTP_PROXY")?,
            exceptions: exceptions.map(Exception::parse).collect::<Result<_, _>>()?,
        })
    }

    /// The proxy for a host; `None` to connect directly.
    pub(crate) fn for_target(&self, host: &str, port: u16, secure: bool) -> Option<&Proxy> {
        let proxy = if secure { self.secure.as_ref() } else { self.plain.as_ref() }?;
        let host = host.trim_start_matches('[').trim_end_matches(']').trim_end_matches('.').to_lowercase();
        let excepted = self.exceptions.iter().any(|exception| exception.covers(&host, port));
        (!excepted).then_some(proxy)
    }
}

/// A program run by a web server finds the client's `Proxy:` header in `HTTP_PROXY`.
fn is_forged(name: &str, lookup: &impl Fn(&str) -> Option<String>) -> bool {
    name == "HTTP_PROXY" && lookup("REQUEST_METHOD").is_some()
}

impl Proxy {
    fn parse(name: &'static str, text: &str) -> Result<Self, Error> {
        let wrong = |reason: String| Error::invalid("proxy", format!("{name}: {reason}"));
        let text = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        let url = Url::parse(&text).map_err(|error| wrong(format!("no URL: {error}")))?;
        let kind = match url.scheme() {
            "http" => ProxyKind::Http,
            "https" => ProxyKind::Https,
            #[cfg(feature = "socks")]
            "socks5" => ProxyKind::Socks5,
            #[cfg(feature = "socks")]
            "socks5h" => ProxyKind::Socks5Remote,
            #[cfg(not(feature = "socks"))]
            "socks5" | "socks5h" => {
                return Err(wrong("SOCKS 5 needs the Cargo feature `socks` of tendril-realtime".to_owned()));
            }
            other => {
                return Err(wrong(format!(
                    "`{other}:` is no kind of proxy this client speaks; http, https, socks5 and socks5h are"
                )));
            }
        };
        if url.host_str().is_none_or(str::is_empty) {
            return Err(wrong("it names no host".to_owned()));
        }
        Ok(Self { url, kind })
    }

    pub(crate) fn kind(&self) -> ProxyKind {
        self.kind
    }

    /// Its address, with user name and password: a secret.
    pub(crate) fn url(&self) -> &Url {
        &self.url
    }

    pub(crate) fn host(&self) -> &str {
        self.url.host_str().unwrap_or_default()
    }

    pub(crate) fn port(&self) -> u16 {
        let usual = match self.kind {
            ProxyKind::Http => 80,
            ProxyKind::Https => 443,
            #[cfg(feature = "socks")]
            ProxyKind::Socks5 | ProxyKind::Socks5Remote => 1080,
        };
        self.url.port().unwrap_or(usual)
    }

    /// User name and password, where the URL has them.
    pub(crate) fn credentials(&self) -> Option<(String, String)> {
        (!self.url.username().is_empty()).then(|| {
            let decoded = |text: &str| percent_decoded(text);
            (decoded(self.url.username()), decoded(self.url.password().unwrap_or_default()))
        })
    }
}

impl Exception {
    fn parse(text: &str) -> Result<Self, Error> {
        let text = text.to_lowercase();
        if text == "*" {
            return Ok(Self::All);
        }
        if let Some((address, prefix)) = text.split_once('/') {
            let address: Option<IpAddr> = address.trim_matches(['[', ']']).parse().ok();
            let longest = if address.is_some_and(|address| address.is_ipv6()) { 128 } else { 32 };
            return match (address, prefix.parse::<u8>()) {
                (Some(address), Ok(prefix)) if prefix <= longest => Ok(Self::Network(address, prefix)),
                _ => Err(Error::invalid(
                    "proxy",
                    format!("NO_PROXY: `{text}` is no network such as 10.0.0.0/8"),
                )),
            };
        }
        let bare = text.trim_start_matches('[').trim_end_matches(']');
        if let Ok(address) = bare.parse::<IpAddr>() {
            return Ok(Self::Network(address, if address.is_ipv6() { 128 } else { 32 }));
        }
        let (name, port) = match text.rsplit_once(':') {
            Some((name, port)) => {
                let port = port.parse().map_err(|_| {
                    Error::invalid("proxy", format!("NO_PROXY: `{text}` has a port that is no number"))
                })?;
                (name, Some(port))
            }
            None => (text.as_str(), None),
        };
        let domain = name.trim_start_matches("*.").trim_matches('.');
        if domain.is_empty() || domain.contains('*') {
            return Err(Error::invalid(
                "proxy",
                format!("NO_PROXY: `{text}` is no host, domain, address or network"),
            ));
        }
        Ok(Self::Domain(domain.to_owned(), port))
    }

    fn covers(&self, host: &str, port: u16) -> bool {
        match self {
            Self::All => true,
            Self::Network(network, prefix) => {
                host.parse::<IpAddr>().is_ok_and(|address| is_within(address, *network, *prefix))
            }
            Self::Domain(domain, of_port) => {
                let below = host
                    .strip_suffix(domain.as_str())
                    .is_some_and(|front| front.is_empty() || front.ends_with('.'));
                below && of_port.is_none_or(|of_port| of_port == port)
            }
        }
    }
}

/// Whether an address is in a network. An IPv4 address written as IPv6 counts as the IPv4 address.
fn is_within(address: IpAddr, network: IpAddr, prefix: u8) -> bool {
    match (address.to_canonical(), network) {
        (IpAddr::V4(address), IpAddr::V4(network)) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or_default();
            address.to_bits() & mask == network.to_bits() & mask
        }
        (IpAddr::V6(address), IpAddr::V6(network)) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or_default();
            address.to_bits() & mask == network.to_bits() & mask
        }
        _ => false,
    }
}

fn percent_decoded(text: &str) -> String {
    // A form value decodes `+` too, which a user name may hold as itself.
    let guarded = text.replace('+', "%2B").replace('&', "%26");
    url::form_urlencoded::parse(format!("v={guarded}").as_bytes())
        .next()
        .map(|(_, value)| value.into_owned())
        .unwrap_or_default()
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proxy({}://{})", self.url.scheme(), self.host())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Proxies, Error> {
        let pairs: Vec<_> =
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Proxies::from_lookup(|name| pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone()))
    }

    fn proxies(pairs: &[(&str, &str)]) -> Proxies {
        read(pairs).unwrap()
    }

    #[test]
    fn each_scheme_has_its_proxy_and_lower_case_wins() {
        let both = proxies(&[("HTTPS_PROXY", "http://upper:1"), ("https_proxy", "lower:3128")]);
        assert_eq!(both.for_target("ref.supabase.co", 443, true).unwrap().url.as_str(), "http://lower:3128/");
        assert!(both.for_target("ref.supabase.co", 80, false).is_none());
        let all = proxies(&[("ALL_PROXY", "http://all:1")]);
        assert!(all.for_target("x", 443, true).is_some() && all.for_target("x", 80, false).is_some());
    }

    #[test]
    fn exceptions_name_hosts_domains_addresses_and_networks() {
        let some = proxies(&[
            ("ALL_PROXY", "http://p:1"),
            (
                "NO_PROXY",
                "localhost, .internal,example.org,10.0.0.1,172.16.0.0/12,fd00::/8,::1,*.corp,only.one:8443",
            ),
        ]);
        for (host, port, proxied) in [
            ("localhost", 1, false),
            ("LOCALHOST", 1, false),
            ("db.internal", 1, false),
            ("example.org", 1, false),
            ("example.org.", 1, false),
            ("api.example.org", 1, false),
            ("badexample.org", 1, true),
            ("10.0.0.1", 1, false),
            ("10.0.0.2", 1, true),
            ("172.31.255.255", 1, false),
            ("172.32.0.0", 1, true),
            ("[fd12::1]", 1, false),
            ("[fe80::1]", 1, true),
            ("[::1]", 1, false),
            ("[::ffff:10.0.0.1]", 1, false),
            ("a.corp", 1, false),
            ("only.one", 8443, false),
            ("only.one", 443, true),
            ("ref.supabase.co", 443, true),
        ] {
            assert_eq!(some.for_target(host, port, true).is_some(), proxied, "{host}:{port}");
        }
        assert!(proxies(&[("ALL_PROXY", "p:1"), ("NO_PROXY", "*")]).for_target("x", 1, true).is_none());
        assert!(
            proxies(&[("ALL_PROXY", "p:1"), ("NO_PROXY", "0.0.0.0/0")])
                .for_target("9.9.9.9", 1, true)
                .is_none()
        );
    }

    #[test]
    fn what_is_set_and_not_understood_is_an_error_that_names_the_variable() {
        for (name, value) in [
            ("ALL_PROXY", "socks4://p:1"),
            ("HTTPS_PROXY", "ftp://p:1"),
            ("http_proxy", "http://"),
            ("HTTP_PROXY", "http://p:99999"),
            ("NO_PROXY", "10.0.0.0/33"),
            ("NO_PROXY", "10.0.0/8"),
            ("NO_PROXY", "a*b"),
            ("NO_PROXY", "host:http"),
            #[cfg(not(feature = "socks"))]
            ("ALL_PROXY", "socks5://p:1"),
        ] {
            let error = read(&[(name, value), ("ALL_PROXY", "http://ok:1")]).unwrap_err().to_string();
            assert!(error.contains(&name.to_uppercase()), "{name}={value}: {error}");
        }
        let error = read(&[("HTTPS_PROXY", "socks4://user:s3cret@p:1")]).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("s3cret"), "{error:?}");
    }

    #[cfg(feature = "socks")]
    #[test]
    fn socks_proxies_are_understood() {
        let all = proxies(&[("ALL_PROXY", "socks5h://u:p@s")]);
        let proxy = all.for_target("x", 443, true).unwrap();
        assert_eq!((proxy.kind(), proxy.port()), (ProxyKind::Socks5Remote, 1080));
    }

    #[test]
    fn a_web_servers_client_cannot_set_the_proxy() {
        let forged = [("HTTP_PROXY", "http://evil:1"), ("REQUEST_METHOD", "GET")];
        assert!(proxies(&forged).for_target("x", 80, false).is_none());
    }

    #[test]
    fn a_proxy_with_a_password_does_not_show_it() {
        let one = proxies(&[("HTTPS_PROXY", "http://us+er:s%40cret@proxy:1")]);
        let proxy = one.for_target("x", 443, true).unwrap();
        assert_eq!(format!("{proxy:?}"), "Proxy(http://proxy)");
        assert_eq!(proxy.credentials().unwrap(), ("us+er".to_owned(), "s@cret".to_owned()));
    }
}
