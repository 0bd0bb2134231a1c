//! Reads who holds a lock from a state server over HTTP: Terraform shows the lock that it asked for, and of the one that is held its ID alone.
//!
//! The protocol has no request that only asks: an attempt to take the lock would answer it, and would take the lock of whoever wants it at
//! that moment. So only a server whose locks have an address of their own is asked, with the `GET` that changes nothing; many answer it with the lock.

use std::{env, sync::Arc, time::Duration};

use reqwest::{Client, StatusCode};

use super::{
    backend::{Kind, State},
    lock::Lock,
};

/// How long one request may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How often it is tried, while there is no answer.
const TRIES: u32 = 3;
/// The longest description that is read.
const LONGEST: usize = 64 * 1024;

/// The lock that is held, as its server describes it; as Terraform reported it, where the server does not, or where the description is of another lock.
pub(crate) async fn described(state: &State, reported: Lock) -> Lock {
    let (Some(address), Some(id)) = (address(state), reported.id.as_deref()) else { return reported };
    match read(address).await {
        Some(lock) if lock.id.as_deref() == Some(id) => lock,
        _ => reported,
    }
}

/// Where the lock can be read: not where the state is, for that is what a `GET` reads there.
fn address(state: &State) -> Option<&str> {
    if state.kind() != Kind::Http {
        return None;
    }
    let locks_by_get =
        |name: &str| state.setting(name).is_some_and(|method| method.eq_ignore_ascii_case("GET"));
    let address = state.setting("lock_address")?;
    let is_own = state.setting("address") != Some(address) && !locks_by_get("lock_method");
    // Where the lock is given back at the address at which it is taken, the method alone tells them apart.
    (is_own && !locks_by_get("unlock_method")).then_some(address)
}

async fn read(address: &str) -> Option<Lock> {
    let client = client()?;
    for _ in 0..TRIES {
        let request = client.get(address).timeout(TIMEOUT).header("accept", "application/json");
        let request = match env::var("TF_HTTP_USERNAME") {
            Ok(user) => request.basic_auth(user, env::var("TF_HTTP_PASSWORD").ok()),
            Err(_) => request,
        };
        match request.send().await {
            Ok(answer) if answer.status() == StatusCode::OK => return lock_in(answer).await,
            Ok(answer) if !answer.status().is_server_error() => return None,
            Ok(_) => {}
            Err(error) => tracing::debug!(%error, "the state server does not show who holds the lock"),
        }
    }
    None
}

async fn lock_in(mut answer: reqwest::Response) -> Option<Lock> {
    let mut text = Vec::new();
    while let Some(part) = answer.chunk().await.ok()? {
        text.extend_from_slice(&part);
        if text.len() > LONGEST {
            return None;
        }
    }
    serde_json::from_slice(&text).ok()
}

/// As the control plane's client does TLS: what the platform trusts, with `ring`.
fn client() -> Option<Client> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = rustls_platform_verifier::Verifier::new(Arc::clone(&provider)).ok()?;
    let tls =
        rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().ok()?;
    let tls = tls.dangerous().with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth();
    Client::builder().tls_backend_preconfigured(tls).build().ok()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::{Value, json};

    use super::*;
    use crate::terraform::state::backend::StateBackend;

    fn state(kind: &str, settings: &Value) -> State {
        StateBackend::read(Some(kind), Some(&settings.to_string())).unwrap().of(Path::new("/state"), "k")
    }

    #[test]
    fn only_a_lock_with_an_address_of_its_own_is_asked_for() {
        let (states, locks) = ("https://s.example/state/{key}", "https://s.example/lock/{key}");
        let asked = |settings: Value| address(&state("http", &settings)).map(str::to_owned);
        assert_eq!(
            asked(json!({"address": states, "lock_address": locks, "unlock_address": locks})).as_deref(),
            Some("https://s.example/lock/tendril-k")
        );
        assert_eq!(asked(json!({"address": states})), None);
        assert_eq!(asked(json!({"address": states, "lock_address": states})), None);
        for method in ["lock_method", "unlock_method"] {
            assert_eq!(asked(json!({"address": states, "lock_address": locks, method: "get"})), None);
        }
        assert_eq!(address(&state("s3", &json!({"bucket": "b"}))), None);
    }
}
