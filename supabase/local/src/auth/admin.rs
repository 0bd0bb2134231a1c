//! `/auth/v1/admin/users`: users as an administrator sees them: a client with the `service_role` key.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path, RawQuery, State};
use axum::response::IntoResponse as _;
use axum::routing::get;
use axum::{Json, Router};
use http::HeaderMap;
use serde_json::{Value, json};
use uuid::Uuid;

use super::error::AuthError;
use super::user::{Change, User};
use super::{Answer, Auth, object};
use crate::gateway::{bearer, query_value};

/// Users on a page where the request does not set it.
const PAGE: i64 = 50;
/// Most users on a page.
const LARGEST_PAGE: i64 = 1000;

pub(super) fn router() -> Router<Arc<Auth>> {
    Router::new()
        .route("/admin/users", get(list).post(create))
        .route("/admin/users/{id}", get(show).put(change).delete(remove))
}

async fn list(State(auth): State<Arc<Auth>>, RawQuery(query): RawQuery, headers: HeaderMap) -> Answer {
    require_admin(&auth, &headers)?;
    let number = |name: &str, otherwise: i64| {
        let text = query.as_deref().and_then(|query| query_value(query, name));
        text.and_then(|text| text.parse().ok()).filter(|number| *number > 0).unwrap_or(otherwise)
    };
    let (page, per_page) = (number("page", 1), number("per_page", PAGE).min(LARGEST_PAGE));
    let (users, total) = User::list(&auth.link, page, per_page).await?;
    let users: Vec<Value> = users.iter().map(User::to_json).collect();
    let last = ((total + per_page - 1) / per_page).max(1);
    let link = |page: i64, rel: &str| {
        format!("<http://localhost/admin/users?page={page}&per_page={per_page}>; rel=\"{rel}\"")
    };
    let next = (page < last).then(|| link(page + 1, "next"));
    let links = next.into_iter().chain([link(last, "last")]).collect::<Vec<_>>().join(", ");
    let shown = "Link, X-Total-Count".to_owned();
    let headers =
        [("link", links), ("x-total-count", total.to_string()), ("access-control-expose-headers", shown)];
    Ok((headers, Json(json!({ "users": users, "aud": "authenticated" }))).into_response())
}

async fn create(State(auth): State<Arc<Auth>>, headers: HeaderMap, body: Bytes) -> Answer {
    require_admin(&auth, &headers)?;
    let body = object(&body)?;
    let change = Change::read(&body, "user_metadata")?.by_admin(&body);
    if !change.has_email() {
        return Err(AuthError::NoEmail);
    }
    Ok(Json(User::create(&auth.link, &change.hashed().await?).await?.to_json()).into_response())
}

async fn show(State(auth): State<Arc<Auth>>, Path(id): Path<Uuid>, headers: HeaderMap) -> Answer {
    require_admin(&auth, &headers)?;
    found(User::by_id(&auth.link, id).await?)
}

async fn change(
    State(auth): State<Arc<Auth>>,
    Path(id): Path<Uuid>,
    headers: HeaderMap,
    body: Bytes,
) -> Answer {
    require_admin(&auth, &headers)?;
    let body = object(&body)?;
    let change = Change::read(&body, "user_metadata")?.by_admin(&body).hashed().await?;
    found(User::change(&auth.link, id, &change).await?)
}

async fn remove(State(auth): State<Arc<Auth>>, Path(id): Path<Uuid>, headers: HeaderMap) -> Answer {
    require_admin(&auth, &headers)?;
    if User::delete(&auth.link, id).await? {
        Ok(Json(json!({})).into_response())
    } else {
        Err(AuthError::UnknownUser)
    }
}

fn found(user: Option<User>) -> Answer {
    Ok(Json(user.ok_or(AuthError::UnknownUser)?.to_json()).into_response())
}

fn require_admin(auth: &Auth, headers: &HeaderMap) -> Result<(), AuthError> {
    let claims =
        auth.keys.jwt().verify(bearer(headers).ok_or(AuthError::NoToken)?).map_err(AuthError::BadToken)?;
    if claims.role() == Some("service_role") { Ok(()) } else { Err(AuthError::NotAdmin) }
}
