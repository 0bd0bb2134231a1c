//! From a project's base URL to the addresses of its services.

use std::fmt;

use url::Url;

use crate::{error::Error, secret::ApiKey};

/// The websocket protocol's serializer version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
#[non_exhaustive]
pub enum ProtocolVersion {
    /// Messages are JSON objects; no binary payloads.
    V1,
    /// Messages are JSON arrays, broadcasts may be binary. What current servers and clients use.
    #[default]
    V2,
}

impl ProtocolVersion {
    /// Its value of the `vsn` query parameter.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V1 => "1.0.0",
            Self::V2 => "2.0.0",
        }
    }
}

/// The addresses of one Supabase project.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// `http(s)://host[/path]`, no trailing slash.
    base: Url,
    /// Set when the caller named the websocket itself.
    websocket: Option<Url>,
}

impl Endpoint {
    /// Accepts a project's base URL (`https://ref.supabase.co`) or a full `ws(s)://…/websocket` address.
    pub(crate) fn parse(text: &str) -> Result<Self, Error> {
        let url = Url::parse(text.trim()).map_err(|error| {
            Error::invalid("url", format!("{error}; expected something like https://ref.supabase.co"))
        })?;
        if url.host_str().is_none_or(str::is_empty) {
            return Err(Error::invalid(
                "url",
                "it has no host; expected something like https://ref.supabase.co",
            ));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Error::invalid(
                "url",
                "it contains a user name or password; keys go into the api key",
            ));
        }
        match url.scheme() {
            "http" | "https" => Ok(Self { base: cleaned(url), websocket: None }),
            "ws" | "wss" => Self::from_websocket(url),
            other => Err(Error::invalid("url", format!("`{other}:` is not http, https, ws or wss"))),
        }
    }

    fn from_websocket(url: Url) -> Result<Self, Error> {
        let mut websocket = cleaned(url);
        let path = websocket.path().trim_end_matches('/').to_owned();
        // A bare `ws://host` means the project's base as well.
        let named = path.ends_with("/websocket");
        let base_path =
            ["/realtime/v1/websocket", "/socket/websocket", "/websocket", "/realtime/v1", "/socket"]
                .iter()
                .find_map(|suffix| path.strip_suffix(suffix))
                .unwrap_or(&path)
                .to_owned();
        let mut base = websocket.clone();
        base.set_path(&base_path);
        set_scheme(&mut base, if websocket.scheme() == "wss" { "https" } else { "http" })?;
        websocket.set_path(&path);
        Ok(Self { base: cleaned(base), websocket: named.then_some(websocket) })
    }

    /// `…/rest/v1`, without a trailing slash.
    pub(crate) fn rest(&self) -> String {
        format!("{}/rest/v1", self.base.as_str().trim_end_matches('/'))
    }

    /// `…/functions/v1`, without a trailing slash.
    pub(crate) fn functions(&self) -> String {
        format!("{}/functions/v1", self.base.as_str().trim_end_matches('/'))
    }

    /// Where a refresh token is exchanged.
    pub(crate) fn token_refresh(&self) -> String {
        format!("{}/auth/v1/token?grant_type=refresh_token", self.base.as_str().trim_end_matches('/'))
    }

    /// `…/realtime/v1/api/broadcast`, the HTTP side of broadcast.
    pub(crate) fn broadcast(&self) -> String {
        match &self.websocket {
            // A server addressed without its gateway: `/socket/websocket` and `/api/broadcast` are siblings.
            Some(websocket) if !websocket.path().ends_with("/realtime/v1/websocket") => {
                format!("{}/api/broadcast", self.base.as_str().trim_end_matches('/'))
            }
            _ => format!("{}/realtime/v1/api/broadcast", self.base.as_str().trim_end_matches('/')),
        }
    }

    /// The websocket's address, with the key and the version in its query: a secret, not to be logged.
    pub(crate) fn websocket(
        &self,
        key: &ApiKey,
        version: ProtocolVersion,
        query: &[(String, String)],
    ) -> Result<Url, Error> {
        let mut url = if let Some(named) = &self.websocket {
            named.clone()
        } else {
            let mut url = self.base.clone();
            let path = format!("{}/realtime/v1/websocket", url.path().trim_end_matches('/'));
            url.set_path(&path);
            let scheme = if url.scheme() == "https" { "wss" } else { "ws" };
            set_scheme(&mut url, scheme)?;
            url
        };
        url.query_pairs_mut()
            .clear()
            .append_pair("apikey", key.expose())
            .append_pair("vsn", version.as_str())
            .extend_pairs(query);
        Ok(url)
    }
}

fn cleaned(mut url: Url) -> Url {
    url.set_query(None);
    url.set_fragment(None);
    url
}

fn set_scheme(url: &mut Url, scheme: &str) -> Result<(), Error> {
    url.set_scheme(scheme)
        .map_err(|()| Error::invalid("url", "its scheme cannot be changed to a websocket's"))
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { base, websocket } = self;
        f.debug_struct("Endpoint")
            .field("base", &base.as_str())
            .field("websocket", &websocket.as_ref().map(Url::as_str))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn websocket_of(base: &str) -> String {
        let key = ApiKey::new("anon").unwrap();
        Endpoint::parse(base).unwrap().websocket(&key, ProtocolVersion::V2, &[]).unwrap().to_string()
    }

    #[test]
    fn the_websocket_lies_below_the_base_url() {
        assert_eq!(
            websocket_of("https://ref.supabase.co"),
            "wss://ref.supabase.co/realtime/v1/websocket?apikey=anon&vsn=2.0.0"
        );
        assert_eq!(
            websocket_of("http://127.0.0.1:54321/"),
            "ws://127.0.0.1:54321/realtime/v1/websocket?apikey=anon&vsn=2.0.0"
        );
        assert_eq!(
            websocket_of("https://example.org/supabase/"),
            "wss://example.org/supabase/realtime/v1/websocket?apikey=anon&vsn=2.0.0"
        );
    }

    #[test]
    fn a_full_websocket_address_is_used_as_it_is() {
        assert_eq!(
            websocket_of("ws://tenant.localhost:4000/socket/websocket?apikey=other&vsn=1.0.0"),
            "ws://tenant.localhost:4000/socket/websocket?apikey=anon&vsn=2.0.0"
        );
        let endpoint = Endpoint::parse("wss://ref.supabase.co/realtime/v1/websocket").unwrap();
        assert_eq!(endpoint.rest(), "https://ref.supabase.co/rest/v1");
        assert_eq!(endpoint.functions(), "https://ref.supabase.co/functions/v1");
        assert_eq!(endpoint.broadcast(), "https://ref.supabase.co/realtime/v1/api/broadcast");
        let direct = Endpoint::parse("ws://tenant.localhost:4000/socket/websocket").unwrap();
        assert_eq!(direct.broadcast(), "http://tenant.localhost:4000/api/broadcast");
    }

    #[test]
    fn what_is_no_project_url_is_refused_with_a_reason() {
        for (text, part) in [
            ("", "relative"),
            ("ref.supabase.co", "relative"),
            ("ftp://ref.supabase.co", "ftp"),
            ("https://user:secret@ref.supabase.co", "password"),
        ] {
            let error = Endpoint::parse(text).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
