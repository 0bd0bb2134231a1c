//! The gateway of a hosted project: the API key check before the services, and the answers that browsers need (CORS).

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS, AUTHORIZATION,
    CONTENT_TYPE,
};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use serde_json::json;

use crate::keys::ProjectKeys;

/// Headers that a page may read where the service lists none.
const EXPOSED: HeaderValue =
    HeaderValue::from_static("Content-Location, Content-Range, Content-Type, Date, Retry-After");

/// Refuses requests without a project key; makes the key's JWT the bearer where no other is given.
pub(crate) async fn require_key(
    State(keys): State<Arc<ProjectKeys>>,
    mut request: Request,
    next: Next,
) -> Response {
    let Some(key) = api_key(&request) else {
        return refusal("No API key found in request", "No `apikey` request header or url param was found.");
    };
    let key = keys.swap(&key).to_owned();
    if !keys.opens(&key) {
        return refusal("Invalid API key", "Double check your Supabase `anon` or `service_role` API key.");
    }
    let bearer = bearer(request.headers()).map_or(key.as_str(), |token| keys.swap(token)).to_owned();
    if let Ok(value) = HeaderValue::from_str(&format!("Bearer {bearer}")) {
        request.headers_mut().insert(AUTHORIZATION, value);
    }
    next.run(request).await
}

/// Lets any page of any origin read every answer.
pub(crate) async fn cors(request: Request, next: Next) -> Response {
    let requested = request.headers().get(ACCESS_CONTROL_REQUEST_HEADERS).cloned();
    let preflight = request.method() == Method::OPTIONS
        && request.headers().contains_key("access-control-request-method");
    let mut response = if preflight { StatusCode::OK.into_response() } else { next.run(request).await };
    let headers = response.headers_mut();
    headers.entry(ACCESS_CONTROL_ALLOW_ORIGIN).or_insert(HeaderValue::from_static("*"));
    headers.entry(ACCESS_CONTROL_EXPOSE_HEADERS).or_insert(EXPOSED);
    if preflight {
        headers.insert(
            ACCESS_CONTROL_ALLOW_METHODS,
            HeaderValue::from_static("GET,HEAD,PUT,PATCH,POST,DELETE,OPTIONS"),
        );
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, requested.unwrap_or(HeaderValue::from_static("*")));
        headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("3600"));
    }
    response
}

/// The key of a request: header `apikey`, else the query parameter of that name.
pub(crate) fn api_key(request: &Request) -> Option<String> {
    let header = request.headers().get("apikey").and_then(|value| value.to_str().ok()).map(str::to_owned);
    header.or_else(|| query_value(request.uri().query()?, "apikey"))
}

/// The first value of a query parameter, decoded.
pub(crate) fn query_value(query: &str, name: &str) -> Option<String> {
    url::form_urlencoded::parse(query.as_bytes())
        .find(|(key, _)| key == name)
        .map(|(_, value)| value.into_owned())
}

/// The token of an `Authorization: Bearer` header.
pub(crate) fn bearer(headers: &HeaderMap) -> Option<&str> {
    headers.get(AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")
}

fn refusal(message: &str, hint: &str) -> Response {
    // The order of a hosted project.
    let body = format!(r#"{{"message":{},"hint":{}}}"#, json!(message), json!(hint));
    (StatusCode::UNAUTHORIZED, [(CONTENT_TYPE, "application/json")], body).into_response()
}
