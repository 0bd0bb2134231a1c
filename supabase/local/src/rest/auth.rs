//! The role of a request: its token, with PostgREST's errors.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::AUTHORIZATION;
use http::{HeaderMap, StatusCode};
use serde_json::{Map, Value};

use super::error::RestError;
use super::settings::Settings;
use crate::jwt::{Claims, JwtError, JwtSecret};

/// Seconds by which clocks may differ.
const LEEWAY: i64 = 30;

/// The role a request runs as, and what it may read about itself.
#[derive(Debug, Clone)]
pub(super) struct Identity {
    /// The database role.
    pub(super) role: String,
    /// The JSON text of `request.jwt.claims`.
    pub(super) claims: String,
    /// Whether the role is another than the anonymous one, which decides between 401 and 403.
    pub(super) identified: bool,
}

/// Reads and checks the bearer token, if there is one.
pub(super) fn identify(
    headers: &HeaderMap,
    secret: &JwtSecret,
    settings: &Settings,
) -> Result<Identity, RestError> {
    let claims = bearer(headers).map(|token| verified(token, secret, settings)).transpose()?;
    let claimed = claims.as_ref().and_then(|claims| claims.get("role")).and_then(Value::as_str);
    let Some(role) = claimed.or(settings.anon_role.as_deref()).map(str::to_owned) else {
        let error = RestError::new(StatusCode::UNAUTHORIZED, "PGRST302", "Anonymous access is disabled");
        return Err(error.challenge(None));
    };
    let mut claims = claims.unwrap_or_default();
    claims.insert("role".into(), role.clone().into());
    let identified = settings.anon_role.as_ref() != Some(&role);
    Ok(Identity { role, claims: Value::Object(claims).to_string(), identified })
}

/// The token of a `Bearer` header; other schemes count as no token.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let header = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = header.split_once(' ').unwrap_or((header, ""));
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// The claims of a genuine and current token.
fn verified(token: &str, secret: &JwtSecret, settings: &Settings) -> Result<Map<String, Value>, RestError> {
    if token.is_empty() {
        return Err(undecodable("Empty JWT is sent in Authorization header"));
    }
    let parts = token.split('.').count();
    if parts != 3 {
        return Err(undecodable(&format!("Expected 3 parts in JWT; got {parts}")));
    }
    let claims = secret.decode(token).map_err(|error| refusal(token, error))?;
    check(&claims, settings, secret.now())?;
    serde_json::from_str(&claims.to_json()).map_err(|_| invalid("Parsing claims failed"))
}

/// Why a token was not decoded.
fn refusal(token: &str, error: JwtError) -> RestError {
    match error {
        JwtError::Signer if is_unsigned(token) => undecodable("Wrong or unsupported encoding algorithm")
            .details("JWT is unsecured but expected 'alg' was not 'none'"),
        JwtError::Signer => undecodable("No suitable key or wrong key type")
            .details("No suitable key was found to decode the JWT"),
        JwtError::Signature => undecodable("No suitable key or wrong key type")
            .details("None of the keys was able to decode the JWT"),
        _ => undecodable("JWT cryptographic operation failed"),
    }
}

/// Whether the token's header declares that it has no signature.
fn is_unsigned(token: &str) -> bool {
    let header = token.split('.').next().unwrap_or_default();
    let header = URL_SAFE_NO_PAD.decode(header).unwrap_or_default();
    serde_json::from_slice::<Value>(&header).is_ok_and(|header| header["alg"] == "none")
}

/// The times and the audience.
fn check(claims: &Claims, settings: &Settings, now: i64) -> Result<(), RestError> {
    if time(claims, "exp")?.is_some_and(|exp| now > exp + LEEWAY) {
        return Err(invalid("JWT expired"));
    }
    if time(claims, "nbf")?.is_some_and(|nbf| now + LEEWAY < nbf) {
        return Err(invalid("JWT not yet valid"));
    }
    if time(claims, "iat")?.is_some_and(|iat| now + LEEWAY < iat) {
        return Err(invalid("JWT issued at future"));
    }
    match (&settings.audience, claims.get("aud")) {
        (Some(wanted), Some(Value::String(aud))) if aud != wanted => Err(invalid("JWT not in audience")),
        (Some(wanted), Some(Value::Array(list)))
            if !list.is_empty() && !list.iter().any(|aud| aud == wanted) =>
        {
            Err(invalid("JWT not in audience"))
        }
        _ => Ok(()),
    }
}

/// A claim in whole seconds since 1970.
fn time(claims: &Claims, name: &str) -> Result<Option<i64>, RestError> {
    match claims.get(name) {
        None | Some(Value::Null) => Ok(None),
        #[allow(clippy::cast_possible_truncation, reason = "a saturating cast is what a far-off date needs")]
        Some(Value::Number(number)) => {
            Ok(number.as_i64().or_else(|| number.as_f64().map(|seconds| seconds as i64)))
        }
        Some(_) => Err(invalid(&format!("The JWT '{name}' claim must be a number"))),
    }
}

/// An empty token (PGRST301).
fn undecodable(message: &str) -> RestError {
    RestError::new(StatusCode::UNAUTHORIZED, "PGRST301", message).challenge(Some(message))
}

/// A token whose claims forbid its use (PGRST303).
fn invalid(message: &str) -> RestError {
    RestError::new(StatusCode::UNAUTHORIZED, "PGRST303", message).challenge(Some(message))
}
