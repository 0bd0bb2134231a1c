//! Asks a state server over HTTP who holds a lock: Terraform does not say it.
//!
//! The question is an attempt to take the lock: a server that refuses it answers with the holder. If it is free after all, it
//! is given back at once.

use std::{env, sync::Arc, time::Duration};

use reqwest::{Client, Method, Response, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Kind, State, holder::who, lock::Lock};

/// How long one question may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The holder of the state's lock, where the backend is `http` and tells it.
pub(crate) async fn holder(state: &State) -> Option<Lock> {
    if state.kind() != Kind::Http {
        return None;
    }
    let client = client()?;
    let ours = json!({
        "ID": Uuid::new_v4(), "Operation": "OperationTypeInvalid", "Info": "tendril-agent asks who holds the lock",
        "Who": who(), "Version": env!("CARGO_PKG_VERSION"), "Created": jiff::Timestamp::now(), "Path": "",
    });
    let answer = ask(&client, state, ("lock_address", "lock_method", "LOCK"), &ours).await?;
    match answer.status() {
        StatusCode::LOCKED | StatusCode::CONFLICT => answer.json().await.ok(),
        status if status.is_success() => {
            ask(&client, state, ("unlock_address", "unlock_method", "UNLOCK"), &ours).await;
            None
        }
        _ => None,
    }
}

async fn ask(
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
        .inspect_err(|error| tracing::debug!(%error, "the state server does not say who holds the lock"))
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
