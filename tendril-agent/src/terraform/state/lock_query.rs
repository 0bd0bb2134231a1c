//! Queries a state server over HTTP for the owner of a lock: Terraform does not show it.
//!
//! The query is an attempt to take the lock: a server that refuses it answers with the owner. If it is free after all, it
//! is given back at once.

use std::{env, sync::Arc, time::Duration};

use reqwest::{Client, Method, Response, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    backend::{Kind, State},
    lock::Lock,
    lock_owner::{LockOwner, who},
};
use crate::os::blocking;

/// How long one query may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How often a query is repeated while there is no clear answer. A repeated request for a lock of the same ID takes none that it has
/// not taken already.
const TRIES: u32 = 3;

/// The owner of the state's lock, where the backend is `http` and states it.
///
/// Before the lock is requested, its ID is recorded beside the state: if this agent ends in between, or the server
/// carries out what it never answered, a later run recognises the lock as abandoned.
pub(crate) async fn owner(state: &State) -> Option<Lock> {
    if state.kind() != Kind::Http {
        return None;
    }
    let client = client()?;
    let id = Uuid::new_v4();
    let ours = json!({
        "ID": id, "Operation": "OperationTypeInvalid", "Info": "tendril-agent queries the lock's owner",
        "Who": who(), "Version": env!("CARGO_PKG_VERSION"), "Created": jiff::Timestamp::now(), "Path": "",
    });
    let (query, place) = (LockOwner::of_query(id, state), state.clone());
    let noted = blocking(move || query.mark_stale(&place)).await;
    noted
        .inspect_err(
            |error| tracing::warn!(%error, "the lock's owner is not queried: the query cannot be recorded"),
        )
        .ok()?;
    let mut uncertain = false;
    let mut found = None;
    for _ in 0..TRIES {
        let answer = send(&client, state, ("lock_address", "lock_method", "LOCK"), &ours).await;
        let status = answer.as_ref().map(Response::status);
        let lock: Option<Lock> = match (answer, status) {
            (Some(answer), Some(StatusCode::LOCKED | StatusCode::CONFLICT)) => answer.json().await.ok(),
            _ => None,
        };
        let is_ours = |lock: &Lock| lock.id.as_deref() == Some(id.to_string().as_str());
        match (status, lock) {
            // An earlier try was carried out after all.
            (Some(StatusCode::LOCKED | StatusCode::CONFLICT), Some(lock)) if is_ours(&lock) => {}
            (Some(StatusCode::LOCKED | StatusCode::CONFLICT), lock) => {
                found = lock;
                break;
            }
            (Some(status), _) if status.is_success() => {}
            (Some(status), _) if status.is_client_error() => break,
            _ => {
                uncertain = true;
                continue;
            }
        }
        // The lock was free, and is ours now.
        uncertain |= !give_back(&client, state, &ours).await;
        break;
    }
    // What is uncertain stays noted: nothing else can have a lock of this ID.
    if !uncertain && let Err(error) = state.forget_query(id) {
        tracing::warn!(%error, "the note of a lock query cannot be removed");
    }
    found
}

/// Gives our lock back; returns whether the server confirms it.
async fn give_back(client: &Client, state: &State, ours: &Value) -> bool {
    for _ in 0..TRIES {
        let answer = send(client, state, ("unlock_address", "unlock_method", "UNLOCK"), ours).await;
        if answer.is_some_and(|answer| answer.status().is_success()) {
            return true;
        }
    }
    false
}

async fn send(
    client: &Client,
    state: &State,
    (address, method, usual): (&str, &str, &str),
    lock: &Value,
) -> Option<Response> {
    let method = Method::from_bytes(state.setting(method).unwrap_or(usual).as_bytes()).ok()?;
    let request = client.request(method, state.setting(address)?).timeout(TIMEOUT);
    let request = match env::var("TF_HTTP_USERNAME") {
        Ok(user) => request.basic_auth(user, env::var("TF_HTTP_PASSWORD").ok()),
        Err(_) => request,
    };
    let answer = request.header("content-type", "application/json").body(lock.to_string()).send().await;
    answer
        .inspect_err(|error| tracing::debug!(%error, "the state server does not show who holds the lock"))
        .ok()
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
