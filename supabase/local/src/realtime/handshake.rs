//! The upgrade request: which language, whose key, and the refusals.

use std::sync::Arc;

use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::{RawQuery, State, WebSocketUpgrade};
use axum::response::{IntoResponse as _, Response};
use http::header::{CONTENT_TYPE, HOST};
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::frame::Version;
use super::hub::Realtime;
use super::socket::{self, Credentials};
use crate::gateway::query_value;
use crate::jwt::JwtError;

/// The largest frame a client may send, in bytes.
const MAX_FRAME: usize = 5_000_000;

/// Answers `GET …/websocket`.
pub(super) async fn upgrade(
    State(realtime): State<Arc<Realtime>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    if realtime.faults.realtime_refused() {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    let query = query.unwrap_or_default();
    let Some(version) = Version::negotiate(query_value(&query, "vsn").as_deref()) else {
        return StatusCode::FORBIDDEN.into_response();
    };
    let admitted = check_project(&realtime, &headers)
        .and_then(|()| {
            credentials(&realtime, &query, &headers).map_err(|refusal| (StatusCode::UNAUTHORIZED, refusal))
        })
        .and_then(|credentials| check_limits(&realtime).map(|()| credentials));
    let credentials = match admitted {
        Ok(credentials) => credentials,
        Err((status, refusal)) => {
            sleep(realtime.options.connect_error_delay).await;
            let content_type = [(CONTENT_TYPE, "application/json; charset=utf-8")];
            return (status, content_type, json!({ "error": refusal }).to_string()).into_response();
        }
    };
    match upgrade {
        Ok(upgrade) => upgrade
            .max_frame_size(MAX_FRAME)
            .max_message_size(MAX_FRAME)
            .on_upgrade(move |websocket| socket::run(websocket, realtime, version, credentials)),
        Err(rejection) => rejection.into_response(),
    }
}

fn check_project(realtime: &Realtime, headers: &HeaderMap) -> Result<(), (StatusCode, String)> {
    if !realtime.options.is_tenant(host(headers)) {
        return Err((StatusCode::NOT_FOUND, "Tenant not found".to_owned()));
    }
    if realtime.faults.suspended() {
        return Err((StatusCode::FORBIDDEN, "Realtime was disabled for this tenant".to_owned()));
    }
    Ok(())
}

/// The host that a request names.
pub(super) fn host(headers: &HeaderMap) -> &str {
    headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default()
}

fn check_limits(realtime: &Realtime) -> Result<(), (StatusCode, String)> {
    let refusal = if realtime.users.are_full() {
        "Too many connected users"
    } else if realtime.joins.is_over() {
        "Too many joins per second"
    } else {
        return Ok(());
    };
    Err((StatusCode::TOO_MANY_REQUESTS, refusal.to_owned()))
}

/// The headers that reach the real server and its policies, as JSON text.
pub(super) fn x_headers(headers: &HeaderMap) -> String {
    let ours = headers.iter().filter(|(name, _)| name.as_str().starts_with("x-"));
    let pairs = ours.map(|(name, value)| (name.to_string(), value.to_str().unwrap_or_default().into()));
    Value::Object(pairs.collect()).to_string()
}

/// The key of the socket and its claims, or the text of the refusal.
fn credentials(realtime: &Realtime, query: &str, headers: &HeaderMap) -> Result<Credentials, String> {
    let header = |name| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let key = header("x-api-key").or_else(|| query_value(query, "apikey")).or_else(|| header("apikey"));
    let Some(key) = key.filter(|key| !key.is_empty()) else { return Err("API key is missing".to_owned()) };
    let token = realtime.keys.swap(&key).to_owned();
    match realtime.keys.jwt().verify(&token) {
        Ok(claims) => Ok(Credentials { token, claims, headers: x_headers(headers) }),
        // Here, and only here, without the number of seconds.
        Err(JwtError::Expired { .. }) => Err("Token has expired".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}
