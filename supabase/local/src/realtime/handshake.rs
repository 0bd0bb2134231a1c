//! The upgrade request: which language, whose key, and the refusals.

use std::sync::Arc;

use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::{RawQuery, State, WebSocketUpgrade};
use axum::response::{IntoResponse as _, Response};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, StatusCode};
use serde_json::json;
use tokio::time::sleep;

use super::Realtime;
use super::frame::Version;
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
    let credentials = match credentials(&realtime, &query, &headers) {
        Ok(credentials) => credentials,
        Err(refusal) => {
            sleep(realtime.options.connect_error_delay).await;
            let content_type = [(CONTENT_TYPE, "application/json; charset=utf-8")];
            return (StatusCode::UNAUTHORIZED, content_type, json!({ "error": refusal }).to_string())
                .into_response();
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

/// The key of the socket and its claims, or the text of the refusal.
fn credentials(realtime: &Realtime, query: &str, headers: &HeaderMap) -> Result<Credentials, String> {
    let header = |name| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let key = header("x-api-key").or_else(|| query_value(query, "apikey")).or_else(|| header("apikey"));
    let Some(key) = key.filter(|key| !key.is_empty()) else { return Err("API key is missing".to_owned()) };
    let token = realtime.keys.swap(&key).to_owned();
    let claims = realtime.keys.jwt().decode(&token).and_then(|claims| claims.check().map(|()| claims));
    match claims {
        Ok(claims) => Ok(Credentials { token, claims }),
        // Here, and only here, without the number of seconds.
        Err(JwtError::Expired { .. }) => Err("Token has expired".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}
