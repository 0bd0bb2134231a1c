//! Passwords at rest: PBKDF2 with a salt, as text that names its parameters.
//!
//! Hosted projects use bcrypt; a hash of theirs fits no password here.

use std::num::NonZeroU32;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use ring::digest::SHA256_OUTPUT_LEN;
use ring::pbkdf2;
use ring::rand::{SecureRandom as _, SystemRandom};
use tokio::task::spawn_blocking;

use super::error::AuthError;

/// Enough for passwords of a development machine, and quick enough for tests.
const ROUNDS: NonZeroU32 = NonZeroU32::new(20_000).unwrap();

const NAME: &str = "pbkdf2-sha256";

/// The text to store.
pub(super) async fn hash(password: String) -> Result<String, AuthError> {
    let hashed = spawn_blocking(move || {
        let mut salt = [0; 16];
        SystemRandom::new().fill(&mut salt).ok()?;
        let mut out = [0; SHA256_OUTPUT_LEN];
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, ROUNDS, &salt, password.as_bytes(), &mut out);
        Some(format!("${NAME}${ROUNDS}${}${}", STANDARD_NO_PAD.encode(salt), STANDARD_NO_PAD.encode(out)))
    });
    hashed.await.ok().flatten().ok_or_else(|| AuthError::Internal("no random numbers".to_owned()))
}

/// Whether the password is the one whose hash was stored.
pub(super) async fn fits(password: String, stored: String) -> Result<bool, AuthError> {
    let verified = spawn_blocking(move || verify(&password, &stored).is_some());
    verified.await.map_err(|error| AuthError::Internal(error.to_string()))
}

fn verify(password: &str, stored: &str) -> Option<()> {
    let mut parts = stored.strip_prefix('$')?.split('$');
    if parts.next()? != NAME {
        return None;
    }
    let rounds: NonZeroU32 = parts.next()?.parse().ok()?;
    let salt = STANDARD_NO_PAD.decode(parts.next()?).ok()?;
    let hash = STANDARD_NO_PAD.decode(parts.next()?).ok()?;
    pbkdf2::verify(pbkdf2::PBKDF2_HMAC_SHA256, rounds, &salt, password.as_bytes(), &hash).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_same_password_fits_and_each_hash_is_another() {
        let stored = hash("correct horse".to_owned()).await.unwrap();
        assert_ne!(stored, hash("correct horse".to_owned()).await.unwrap());
        assert!(!stored.contains("horse"));
        assert!(fits("correct horse".to_owned(), stored.clone()).await.unwrap());
        assert!(!fits("battery staple".to_owned(), stored).await.unwrap());
        assert!(!fits("any".to_owned(), "$2a$10$bcrypt".to_owned()).await.unwrap());
        assert!(!fits("any".to_owned(), String::new()).await.unwrap());
    }
}
