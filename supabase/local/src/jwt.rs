//! Tokens of the local stack: JSON Web Tokens signed with HS256 by one shared secret.
//!
//! [`JwtSecret::decode`] checks whether a token is genuine; [`Claims::check`] adds what Realtime requires of it (`role`,
//! `exp`, not expired). Other algorithms (JWKS) would be further signers beside [`JwtSecret`].

use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use serde_json::{Map, Value, json};

use crate::clock::Clock;

/// The secret that every Supabase development stack ships with. It protects nothing, and is meant not to.
const LOCAL_SECRET: &str = "super-secret-jwt-token-with-at-least-32-characters-long";

/// Expiry of the project keys: the year 2100, so that they are the same string on each start.
const PROJECT_KEY_EXPIRES: i64 = 4_102_444_800;

/// Issue time of the project keys, fixed for the same reason.
const PROJECT_KEY_ISSUED: i64 = 1_700_000_000;

/// Signs and verifies tokens. Never shown by `Debug`.
#[derive(Clone)]
pub struct JwtSecret {
    secret: String,
    key: hmac::Key,
    /// By which tokens are judged.
    clock: Clock,
}

impl fmt::Debug for JwtSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JwtSecret(…)")
    }
}

impl Default for JwtSecret {
    /// The well-known secret of local development.
    fn default() -> Self {
        Self::new(LOCAL_SECRET)
    }
}

impl JwtSecret {
    /// A secret of the user's choice; its bytes are the HMAC key.
    pub fn new(secret: impl Into<String>) -> Self {
        let secret = secret.into();
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
        Self { secret, key, clock: Clock::default() }
    }

    /// The same secret with a clock of its own.
    pub(crate) fn with_clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// The time by which this judges tokens, in seconds since 1970.
    pub(crate) fn now(&self) -> i64 {
        self.clock.now()
    }

    /// How long it is until a second since 1970, by the same clock.
    pub(crate) fn until(&self, second: i64) -> Duration {
        self.clock.until(second)
    }

    /// The claims of a token that is genuine and, by this clock, good for Realtime.
    pub(crate) fn verify(&self, token: &str) -> Result<Claims, JwtError> {
        let claims = self.decode(token)?;
        claims.check_at(self.now())?;
        Ok(claims)
    }

    /// The secret in clear, for the places that must print or pass it on.
    pub fn expose(&self) -> &str {
        &self.secret
    }

    /// A token with exactly these claims.
    pub fn sign(&self, claims: &Value) -> String {
        let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","typ":"JWT"}"#);
        let body = URL_SAFE_NO_PAD.encode(claims.to_string());
        let signed = format!("{header}.{body}");
        let tag = URL_SAFE_NO_PAD.encode(hmac::sign(&self.key, signed.as_bytes()));
        format!("{signed}.{tag}")
    }

    /// The key of a project for one of the roles `anon` and `service_role`: the same string on each start.
    pub fn project_key(&self, role: &str) -> String {
        self.sign(&json!({
            "iss": "supabase-demo", "role": role, "iat": PROJECT_KEY_ISSUED, "exp": PROJECT_KEY_EXPIRES
        }))
    }

    /// A token as the auth server gives it to a signed-in user, valid for `ttl`.
    pub fn user_token(&self, user_id: &str, ttl: Duration) -> String {
        let now = unix_now();
        self.sign(&json!({
            "aud": "authenticated", "role": "authenticated", "sub": user_id, "iat": now, "exp": now + seconds(ttl)
        }))
    }

    /// A token for an agent of `cluster_id`: role `tendril_agent`, valid for `ttl`.
    pub fn machine_token(&self, cluster_id: &str, ttl: Duration) -> String {
        let now = unix_now();
        self.sign(&json!({
            "iss": "supabase-demo", "aud": "authenticated", "role": "tendril_agent", "sub": cluster_id,
            "cluster_id": cluster_id, "iat": now, "exp": now + seconds(ttl)
        }))
    }

    /// The claims of a genuine token. Neither `role` nor `exp` is checked.
    ///
    /// # Errors
    /// [`JwtError::Malformed`], [`JwtError::Signer`] (an algorithm other than HS256) or [`JwtError::Signature`].
    pub fn decode(&self, token: &str) -> Result<Claims, JwtError> {
        let mut parts = token.split('.');
        let (Some(header), Some(body), Some(tag), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(JwtError::Malformed);
        };
        let header = json_object(header)?;
        let claims = json_object(body)?;
        if header.get("alg").and_then(Value::as_str) != Some("HS256") {
            return Err(JwtError::Signer);
        }
        let tag = URL_SAFE_NO_PAD.decode(tag).map_err(|_| JwtError::Signature)?;
        let signed = &token.as_bytes()[..token.rfind('.').unwrap_or_default()];
        hmac::verify(&self.key, signed, &tag).map_err(|_| JwtError::Signature)?;
        Ok(Claims(claims))
    }
}

/// One base64url part of a token as a JSON object.
fn json_object(part: &str) -> Result<Map<String, Value>, JwtError> {
    let bytes = URL_SAFE_NO_PAD.decode(part).map_err(|_| JwtError::Malformed)?;
    serde_json::from_slice(&bytes).map_err(|_| JwtError::Malformed)
}

/// The claims of a genuine token.
#[derive(Clone, PartialEq)]
pub struct Claims(Map<String, Value>);

impl fmt::Debug for Claims {
    /// Claims may contain personal data, so only the role is shown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Claims").field("role", &self.role()).finish_non_exhaustive()
    }
}

impl Claims {
    /// The database role, if the claim is a string.
    pub fn role(&self) -> Option<&str> {
        self.0.get("role").and_then(Value::as_str)
    }

    /// Seconds since 1970 at which the token ends, if the claim is a JSON number; decimals are cut off.
    pub fn expires_at(&self) -> Option<i64> {
        let exp = self.0.get("exp")?;
        #[allow(clippy::cast_possible_truncation, reason = "a saturating cast is what a far-off date needs")]
        exp.as_i64().or_else(|| exp.as_f64().map(|seconds| seconds as i64))
    }

    /// Any claim by name.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// All claims as one JSON text: the value of `request.jwt.claims`.
    pub fn to_json(&self) -> String {
        Value::Object(self.0.clone()).to_string()
    }

    /// What Realtime demands of a token: `role` and `exp` are there, and `exp` is strictly in the future. No leeway.
    ///
    /// # Errors
    /// [`JwtError::MissingClaims`] or [`JwtError::Expired`].
    pub fn check(&self) -> Result<(), JwtError> {
        self.check_at(unix_now())
    }

    /// [`Claims::check`] at another time than now.
    pub(crate) fn check_at(&self, now: i64) -> Result<(), JwtError> {
        let (Some(_), Some(exp)) = (self.role(), self.expires_at()) else {
            return Err(JwtError::MissingClaims);
        };
        let ago = now - exp;
        if ago >= 0 { Err(JwtError::Expired { seconds_ago: ago }) } else { Ok(()) }
    }
}

/// Why a token is refused. The texts are those of Realtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JwtError {
    /// Not three base64url parts, or the first two are not JSON objects.
    #[error("The token provided is not a valid JWT")]
    Malformed,
    /// Signed with another secret.
    #[error("Failed to validate JWT signature")]
    Signature,
    /// An algorithm this server has no key for (`none` among them).
    #[error("Failed to generate JWT signer, check your JWT secret or JWKS configuration")]
    Signer,
    /// `role` or `exp` is missing or not of the right type.
    #[error("Fields `role` and `exp` are required in JWT")]
    MissingClaims,
    /// `exp` has passed.
    #[error("Token has expired {seconds_ago} seconds ago")]
    Expired {
        /// Whole seconds since `exp`.
        seconds_ago: i64,
    },
}

/// Seconds since 1970.
fn unix_now() -> i64 {
    Clock::default().now()
}

/// Whole seconds; saturates.
fn seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signed_token_verifies_and_keeps_its_claims() {
        let secret = JwtSecret::default();
        let token = secret.user_token("11111111-1111-4111-8111-111111111111", Duration::from_secs(60));
        let claims = secret.decode(&token).unwrap();
        assert_eq!(claims.role(), Some("authenticated"));
        assert_eq!(claims.get("sub").unwrap(), "11111111-1111-4111-8111-111111111111");
        assert_eq!(claims.check(), Ok(()));
    }

    #[test]
    fn each_bad_token_has_its_own_error() {
        let secret = JwtSecret::default();
        let other = JwtSecret::new("another secret");
        assert_eq!(secret.decode("nonsense"), Err(JwtError::Malformed));
        assert_eq!(secret.decode("").unwrap_err(), JwtError::Malformed);
        assert_eq!(secret.decode(&other.project_key("anon")).unwrap_err(), JwtError::Signature);
        let none =
            format!("{}.{}.", URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#), URL_SAFE_NO_PAD.encode("{}"));
        assert_eq!(secret.decode(&none).unwrap_err(), JwtError::Signer);
        let check = |claims: Value| secret.decode(&secret.sign(&claims)).unwrap().check();
        assert_eq!(check(json!({"exp": PROJECT_KEY_EXPIRES})), Err(JwtError::MissingClaims));
        assert_eq!(check(json!({"role": "anon"})), Err(JwtError::MissingClaims));
        assert_eq!(check(json!({"role": "anon", "exp": "4102444800"})), Err(JwtError::MissingClaims));
        let expired = check(json!({"role": "anon", "exp": unix_now() - 100}));
        assert!(matches!(expired, Err(JwtError::Expired { seconds_ago: 100..=101 })), "{expired:?}");
    }

    #[test]
    fn a_tampered_body_is_refused() {
        let secret = JwtSecret::default();
        let token = secret.project_key("anon");
        let (header, rest) = token.split_once('.').unwrap();
        let (_, tag) = rest.split_once('.').unwrap();
        let forged =
            URL_SAFE_NO_PAD.encode(json!({"role": "service_role", "exp": PROJECT_KEY_EXPIRES}).to_string());
        assert_eq!(secret.decode(&format!("{header}.{forged}.{tag}")).unwrap_err(), JwtError::Signature);
    }

    #[test]
    fn debug_shows_no_secret() {
        let shown = format!("{:?}", JwtSecret::new("hunter2"));
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}
