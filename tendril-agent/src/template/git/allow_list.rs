//! The Git hosts, owners and repositories that the agent may fetch from.

use std::fmt;

use url::Url;

use crate::job::source::is_loopback;

/// A host, a port where it is not the usual one, and what the paths of its repositories begin with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Allowed {
    host: String,
    port: Option<u16>,
    /// Folders, without `*`; none: every repository of the host.
    pub(super) path: Vec<String>,
    /// Whether what is below the path is meant, and not the repository of that name.
    is_prefix: bool,
}

impl Allowed {
    fn parse(entry: &str) -> Option<Self> {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '[' | ']');
        let (authority, path) =
            entry.split_once('/').map_or((entry, ""), |(authority, path)| (authority, path));
        // The parser of addresses decides how a name is written, so that the two can be compared.
        let url = Url::parse(&format!("https://{authority}/")).ok()?;
        let whole =
            authority.chars().all(plain) && url.path() == "/" && (path.is_empty() != entry.contains('/'));
        let port = authority.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
        let (path, is_prefix) = match path.strip_suffix('*') {
            Some(prefix) if prefix.is_empty() || prefix.ends_with('/') => {
                (prefix.trim_end_matches('/'), true)
            }
            Some(_) => return None,
            // As addresses are written, whose end is not compared either.
            None => (path.strip_suffix(".git").unwrap_or(path), path.is_empty()),
        };
        let path: Vec<String> = path.split('/').filter(|_| !path.is_empty()).map(str::to_owned).collect();
        let is_segment = |segment: &String| {
            !segment.is_empty()
                && !segment.starts_with('.')
                && segment.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._~+@-".contains(&byte))
        };
        let holds = whole && path.iter().all(is_segment);
        holds
            .then(|| url.host_str().map(|host| Self { host: host.to_owned(), port, path, is_prefix }))
            .flatten()
    }

    /// Without a port the usual one is meant. Unencrypted addresses lead to this machine or nowhere.
    pub(super) fn fits(&self, url: &Url) -> bool {
        let port = match self.port {
            Some(port) => url.port_or_known_default() == Some(port),
            None => url.port().is_none(),
        };
        let encrypted = url.scheme() == "https" || is_loopback(url);
        encrypted && port && url.host_str() == Some(&self.host) && self.fits_path(url.path())
    }

    /// The case of repository names is ignored, as servers do.
    fn fits_path(&self, path: &str) -> bool {
        let decoded = percent_encoding::percent_decode_str(path).decode_utf8_lossy();
        let path = decoded.trim_matches('/');
        let path = path.strip_suffix(".git").unwrap_or(path);
        let segments: Vec<&str> = path.split('/').collect();
        // A server may take these for something else.
        if !self.path.is_empty() && segments.iter().any(|segment| matches!(*segment, "" | "." | "..")) {
            return false;
        }
        let begins =
            segments.iter().zip(&self.path).filter(|(one, other)| one.eq_ignore_ascii_case(other)).count()
                == self.path.len();
        begins
            && if self.is_prefix {
                segments.len() > self.path.len()
            } else {
                segments.len() == self.path.len()
            }
    }
}

impl fmt::Display for Allowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.host)?;
        if let Some(port) = self.port {
            write!(f, ":{port}")?;
        }
        for segment in &self.path {
            write!(f, "/{segment}")?;
        }
        if self.is_prefix && !self.path.is_empty() { f.write_str("/*") } else { Ok(()) }
    }
}

/// Reads a list of entries. Errors: a sentence that names the setting.
pub(super) fn hosts(name: &str, text: &str) -> Result<Vec<Allowed>, String> {
    let entries = text.split(',').map(str::trim).filter(|entry| !entry.is_empty());
    let read = |entry: &str| {
        Allowed::parse(entry).ok_or_else(|| {
            format!(
                "{name} holds \"{entry}\": write hosts such as github.com or git.example.org:8443, or repositories such as github.com/acme/*, separated by commas"
            )
        })
    };
    entries.map(read).collect()
}
