//! Keys and tokens, in types that do not show them.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use base64::Engine as _;
use zeroize::Zeroizing;

use crate::error::Error;

/// A project's API key: a legacy JWT (`anon`, `service_role`), or `sb_publishable_…` / `sb_secret_…`.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey(Zeroizing<String>);

/// A JWT that identifies the caller: sent as `Authorization: Bearer` and in channel joins.
#[derive(Clone, PartialEq, Eq)]
pub struct AccessToken(Zeroizing<String>);

/// The token that gets the next session of a signed-in user, once.
#[derive(Clone, PartialEq, Eq)]
pub struct RefreshToken(Zeroizing<String>);

impl RefreshToken {
    /// Takes a refresh token as received; surrounding white space is dropped.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if nothing is left, or if it holds characters outside ASCII.
    pub fn new(token: impl AsRef<str>) -> Result<Self, Error> {
        header_safe("refresh token", token.as_ref()).map(Self)
    }

    /// The token itself, to store it. It is a secret.
    #[doc(alias = "expose_secret")]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl ApiKey {
    /// Takes the key as copied from the project's settings; surrounding white space is dropped.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if nothing is left, or if it holds characters that no header can carry.
    pub fn new(key: impl AsRef<str>) -> Result<Self, Error> {
        header_safe("api key", key.as_ref()).map(Self)
    }

    /// Whether this is one of the `sb_…` keys, which only a gateway understands and which are no JWT.
    pub fn is_opaque(&self) -> bool {
        self.0.starts_with("sb_")
    }

    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl AccessToken {
    /// Takes a JWT as received; surrounding white space (the newline at the end of a file) is dropped.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) if nothing is left, or if it holds characters that no header can carry.
    ///
    /// ```
    /// let token = tendril_realtime::AccessToken::new("eyJhbGciOi….e30.sig\n");
    /// assert!(token.is_err(), "an ellipsis is no header character");
    /// ```
    pub fn new(token: impl AsRef<str>) -> Result<Self, Error> {
        header_safe("access token", token.as_ref()).map(Self)
    }

    /// When the token ends by its `exp` claim; `None` for a token without one, or that is no JWT.
    ///
    /// The signature is not checked: that is the server's part.
    pub fn expires_at(&self) -> Option<SystemTime> {
        #[derive(serde::Deserialize)]
        struct Claims {
            exp: f64,
        }
        let payload = self.0.split('.').nth(1)?;
        let json =
            base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).ok()?;
        let claims: Claims = serde_json::from_slice(&json).ok()?;
        let seconds = Duration::try_from_secs_f64(claims.exp).ok()?;
        SystemTime::UNIX_EPOCH.checked_add(seconds)
    }

    /// The token itself, to store it or to send it elsewhere. It is a secret.
    #[doc(alias = "expose_secret")]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

fn header_safe(field: &'static str, text: &str) -> Result<Zeroizing<String>, Error> {
    let text = text.trim();
    if text.is_empty() {
        return Err(Error::invalid(field, "it is empty"));
    }
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Error::invalid(
            field,
            "it contains white space or characters outside ASCII, which no HTTP header can carry",
        ));
    }
    Ok(Zeroizing::new(text.to_owned()))
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_opaque() { "ApiKey(sb_…)" } else { "ApiKey(…)" })
    }
}

impl fmt::Debug for RefreshToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RefreshToken(…)")
    }
}

impl fmt::Debug for AccessToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AccessToken(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `{"role":"anon","exp":4102444800}`.
    const UNTIL_2100: &str = "eyJhbGciOiJIUzI1NiJ9.eyJyb2xlIjoiYW5vbiIsImV4cCI6NDEwMjQ0NDgwMH0.c2ln";

    #[test]
    fn the_end_of_a_token_is_read_from_its_claims() {
        let token = AccessToken::new(format!("{UNTIL_2100}\n")).unwrap();
        assert_eq!(token.expires_at(), Some(SystemTime::UNIX_EPOCH + Duration::from_secs(4_102_444_800)));
        assert_eq!(AccessToken::new("nonsense").unwrap().expires_at(), None);
    }

    #[test]
    fn neither_keys_nor_tokens_are_shown() {
        let token = AccessToken::new(UNTIL_2100).unwrap();
        let key = ApiKey::new("sb_secret_abc").unwrap();
        let refresh = RefreshToken::new("3f9c").unwrap();
        let shown = format!("{token:?} {key:?} {refresh:?}");
        assert_eq!(shown, "AccessToken(…) ApiKey(sb_…) RefreshToken(…)");
    }

    #[test]
    fn what_no_header_can_carry_is_refused_without_repeating_it() {
        let error = AccessToken::new("abc\ndef").unwrap_err();
        assert!(!error.to_string().contains("abc"), "{error}");
    }
}
