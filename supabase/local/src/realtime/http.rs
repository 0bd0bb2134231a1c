//! Broadcasts over HTTP: several in one request, or one whose body is the payload.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, RawQuery, State};
use axum::response::{IntoResponse as _, Response};
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, StatusCode};
use serde_json::{Map, Value, json};

use super::binary::BinaryBroadcast;
use super::channel::PREFIX;
use super::handshake::{host, x_headers};
use super::hub::{NO_DATABASE, Realtime};
use super::permission::{self, Requester};
use super::rooms::RoomMessage;
use crate::gateway::query_value;
use crate::jwt::Claims;

/// `GET /api/ping`.
pub(super) async fn ping() -> Json<Value> {
    Json(json!({ "message": "Success" }))
}

/// The answer where there is no service.
pub(super) async fn not_found() -> Response {
    (StatusCode::NOT_FOUND, [(CONTENT_TYPE, "text/html; charset=utf-8")], "Not Found").into_response()
}

/// `POST …/api/broadcast`: `{"messages": [{"topic", "event", "payload", "private", "id"}]}`. What may not be sent is
/// left out, without any notice.
pub(super) async fn batch(
    State(realtime): State<Arc<Realtime>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let Ok(body) = serde_json::from_slice::<Value>(&body) else {
        return (StatusCode::BAD_REQUEST, [(CONTENT_TYPE, "text/html; charset=utf-8")], "Bad Request")
            .into_response();
    };
    let claims = match admitted(&realtime, &headers) {
        Ok(claims) => claims,
        Err((status, message)) => return refusal(status, message),
    };
    let messages = match messages(&body, &realtime) {
        Ok(messages) => messages,
        Err(errors) => {
            let errors = json!({ "errors": { "messages": errors } });
            return (StatusCode::UNPROCESSABLE_ENTITY, Json(errors)).into_response();
        }
    };
    #[allow(clippy::cast_precision_loss, reason = "no batch is that long")]
    let after = realtime.events.average() + messages.len() as f64;
    if realtime.events.limit().is_some_and(|limit| after > f64::from(limit)) {
        let message = "Too many messages to broadcast, please reduce the batch size";
        return refusal(StatusCode::TOO_MANY_REQUESTS, message);
    }
    let headers = x_headers(&headers);
    for message in messages {
        let room = (format!("{PREFIX}{}", message.topic), message.private);
        if message.private && !may_send(&realtime, &claims, &headers, message.topic).await.unwrap_or(false) {
            continue;
        }
        realtime.events.add(1);
        realtime.rooms.send(&room, None, &RoomMessage::Text(message.text().into()));
    }
    StatusCode::ACCEPTED.into_response()
}

/// `POST …/api/broadcast/{topic}/events/{event}?private=`: the body is the payload, JSON or bytes.
pub(super) async fn single(
    State(realtime): State<Arc<Realtime>>,
    Path((topic, event)): Path<(String, String)>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let (json, payload) = match content_type.split(';').next().unwrap_or_default().trim() {
        "application/json" => match serde_json::from_slice::<Value>(&body) {
            Ok(Value::Object(payload)) => (true, Value::Object(payload).to_string().into()),
            Ok(other) => (true, json!({ "_json": other }).to_string().into()),
            Err(_) => {
                let html = [(CONTENT_TYPE, "text/html; charset=utf-8")];
                return (StatusCode::BAD_REQUEST, html, "Bad Request").into_response();
            }
        },
        "application/octet-stream" => (false, body),
        _ => {
            let error = "Unsupported Media Type. Use application/json or application/octet-stream";
            return (StatusCode::UNSUPPORTED_MEDIA_TYPE, Json(json!({ "error": error }))).into_response();
        }
    };
    let claims = match admitted(&realtime, &headers) {
        Ok(claims) => claims,
        Err((status, message)) => return refusal(status, message),
    };
    if realtime.options.is_too_large(payload.len()) {
        return refusal(StatusCode::UNPROCESSABLE_ENTITY, "Payload size exceeds tenant limit");
    }
    let private = query.is_some_and(|query| query_value(&query, "private").as_deref() == Some("true"));
    if private {
        match may_send(&realtime, &claims, &x_headers(&headers), &topic).await {
            Some(true) => {}
            Some(false) => return refusal(StatusCode::FORBIDDEN, "Unauthorized"),
            None => return refusal(StatusCode::UNPROCESSABLE_ENTITY, NO_DATABASE),
        }
    }
    realtime.events.add(1);
    let message = BinaryBroadcast { event, json, id: None, replayed: false, payload };
    realtime.rooms.send(
        &(format!("{PREFIX}{topic}"), private),
        None,
        &RoomMessage::Binary(Arc::new(message)),
    );
    StatusCode::ACCEPTED.into_response()
}

/// One message of a batch.
struct Message<'a> {
    topic: &'a str,
    event: &'a str,
    payload: &'a Map<String, Value>,
    private: bool,
    id: Option<&'a Value>,
}

impl Message<'_> {
    /// The payload of the `broadcast` frame.
    fn text(&self) -> String {
        let mut whole = json!({ "event": self.event, "payload": self.payload, "type": "broadcast" });
        if let Some(id) = self.id {
            whole["meta"] = json!({ "id": id });
        }
        whole.to_string()
    }
}

/// The messages of a batch, or what is wrong: with the list, or with each of them in its place.
fn messages<'a>(body: &'a Value, realtime: &Realtime) -> Result<Vec<Message<'a>>, Value> {
    let list = match body.get("messages") {
        Some(Value::Array(list)) if !list.is_empty() => list,
        None | Some(Value::Array(_)) => return Err(json!(["can't be blank"])),
        Some(_) => return Err(json!(["is invalid"])),
    };
    let read: Vec<_> = list.iter().map(|entry| message(entry, realtime)).collect();
    if read.iter().all(Result::is_ok) {
        return Ok(read.into_iter().flatten().collect());
    }
    Err(read.into_iter().map(|entry| entry.err().unwrap_or_default()).map(Value::Object).collect())
}

fn message<'a>(entry: &'a Value, realtime: &Realtime) -> Result<Message<'a>, Map<String, Value>> {
    let mut errors = Map::new();
    let mut found = |name: &str, fits: fn(&Value) -> bool| {
        let error = match entry.get(name) {
            None | Some(Value::Null) => "can't be blank",
            Some(value) if !fits(value) => "is invalid",
            Some(value) => return Some(value),
        };
        errors.insert(name.to_owned(), json!([error]));
        None
    };
    let topic = found("topic", Value::is_string).and_then(Value::as_str);
    let event = found("event", Value::is_string).and_then(Value::as_str);
    let payload = found("payload", Value::is_object).and_then(Value::as_object);
    let (Some(topic), Some(event), Some(payload)) = (topic, event, payload) else { return Err(errors) };
    if realtime.options.is_too_large(Value::Object(payload.clone()).to_string().len()) {
        errors.insert("payload".to_owned(), json!(["Payload size exceeds tenant limit"]));
        return Err(errors);
    }
    let private = entry.get("private").and_then(Value::as_bool).unwrap_or(false);
    Ok(Message { topic, event, payload, private, id: entry.get("id").filter(|id| !id.is_null()) })
}

/// A status and the message that goes with it.
type Refusal = (StatusCode, &'static str);

/// The claims of the caller, or why nothing is done for it.
fn admitted(realtime: &Realtime, headers: &HeaderMap) -> Result<Claims, Refusal> {
    let header = |name| headers.get(name).and_then(|value: &http::HeaderValue| value.to_str().ok());
    let bearer = header(AUTHORIZATION.as_str()).map(|value| value.strip_prefix("Bearer ").unwrap_or(value));
    if !realtime.options.is_tenant(host(headers)) {
        return Err((StatusCode::UNAUTHORIZED, "Tenant not found in database"));
    }
    if realtime.faults.suspended() {
        return Err((StatusCode::FORBIDDEN, "Tenant is suspended"));
    }
    let unauthorized = || (StatusCode::UNAUTHORIZED, "Unauthorized");
    let token = bearer.or_else(|| header("apikey")).ok_or_else(unauthorized)?;
    let token = realtime.keys.swap(token);
    let claims = realtime.keys.jwt().verify(token).map_err(|_| unauthorized())?;
    if realtime.events.is_over() {
        return Err((StatusCode::TOO_MANY_REQUESTS, "You have exceeded your rate limit"));
    }
    Ok(claims)
}

/// Whether the policies let the caller broadcast on a private topic; none if they could not be evaluated.
async fn may_send(realtime: &Realtime, claims: &Claims, headers: &str, topic: &str) -> Option<bool> {
    let requester = Requester { claims, headers, topic };
    permission::write(&realtime.link, &requester).await.ok().map(|grants| grants.broadcast)
}

fn refusal(status: StatusCode, message: &str) -> Response {
    (status, Json(json!({ "message": message }))).into_response()
}
