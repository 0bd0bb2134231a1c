//! Faults of requests: REST, the other HTTP services, and the upgrade of a websocket.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use futures_util::{StreamExt as _, stream};
use http::header::{CONTENT_LENGTH, RETRY_AFTER};
use http::{HeaderValue, StatusCode};
use serde_json::json;
use tokio::task::yield_now;
use tokio::time::sleep;

use super::Faults;
use super::target::Subject;
use crate::gateway;
use crate::jwt::Claims;
use crate::keys::ProjectKeys;

/// What happens to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum RequestFault {
    /// It is answered with a status at once, and not executed.
    Status {
        /// Such as 429, 500, 502 or 503.
        code: u16,
        /// The header of that name, in whole seconds.
        retry_after: Option<Duration>,
    },
    /// It is not executed, and the connection closes without an answer.
    DropBefore,
    /// It is executed (a write is committed), and the connection closes without an answer.
    DropAfter,
    /// It is executed; half of the answer's body is sent, and the connection closes.
    Truncate,
    /// It is executed, and the answer comes so much later.
    Delay(Duration),
    /// It is not executed, and the connection stays open without an answer until the fault is lifted.
    Stall,
}

/// The middleware's state.
pub(crate) type Struck = (Faults, Arc<ProjectKeys>);

/// Lets the faults strike before and after a request is served.
pub(crate) async fn strike(State((faults, keys)): State<Struck>, request: Request, next: Next) -> Response {
    if faults.port_is_closed() {
        return hang_up();
    }
    let path = request.uri().path().to_owned();
    if faults.rest_refused() && path.starts_with("/rest/") {
        return status(StatusCode::SERVICE_UNAVAILABLE, None);
    }
    let claims = claims(&request, &keys);
    let subject = Subject {
        method: Some(request.method().as_str()),
        path: Some(&path),
        claims: claims.iter().collect(),
        ..Subject::default()
    };
    let struck = faults.requests(&subject);
    let mut delay = Duration::ZERO;
    let mut after = None;
    for (rule, fault) in struck {
        match fault {
            RequestFault::Status { code, retry_after } => {
                return status(StatusCode::from_u16(code).unwrap_or(StatusCode::BAD_GATEWAY), retry_after);
            }
            RequestFault::DropBefore => return hang_up(),
            RequestFault::Stall => {
                faults.lifted(rule).await;
                return hang_up();
            }
            RequestFault::Delay(more) => delay += more,
            RequestFault::DropAfter | RequestFault::Truncate => after = after.or(Some(fault)),
        }
    }
    let response = next.run(request).await;
    if !delay.is_zero() {
        sleep(delay).await;
    }
    match after {
        Some(RequestFault::Truncate) => truncated(response).await,
        Some(_) => hang_up(),
        None => response,
    }
}

/// The claims of the request's tokens, whether or not they are still valid.
fn claims(request: &Request, keys: &ProjectKeys) -> Vec<Claims> {
    let bearer = gateway::bearer(request.headers()).map(str::to_owned);
    let tokens = bearer.into_iter().chain(gateway::api_key(request));
    tokens.filter_map(|token| keys.jwt().decode(keys.swap(&token)).ok()).collect()
}

fn status(code: StatusCode, retry_after: Option<Duration>) -> Response {
    let message = code.canonical_reason().unwrap_or("an injected fault");
    let mut response = (code, Json(json!({ "message": message }))).into_response();
    if let Some(wait) = retry_after {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(wait.as_secs()));
    }
    response
}

/// The HTTP server closes the connection when a body fails; it has sent nothing yet when the very beginning does.
fn hang_up() -> Response {
    Response::new(Body::from_stream(stream::once(async { Err::<Bytes, _>(broken()) })))
}

/// Half of a body, then the end of the connection. The length is that of the whole.
async fn truncated(response: Response) -> Response {
    let (mut parts, body) = response.into_parts();
    let Ok(body) = to_bytes(body, usize::MAX).await else { return hang_up() };
    parts.headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    let half = body.slice(..body.len() / 2);
    let pieces = stream::once(async { Ok(half) }).chain(stream::once(async {
        // The server writes what it has while it waits for more.
        yield_now().await;
        Err(broken())
    }));
    Response::from_parts(parts, Body::from_stream(pieces))
}

fn broken() -> io::Error {
    io::Error::other("the fault plan breaks this answer")
}
