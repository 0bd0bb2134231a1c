//! `/auth/v1`: sign-up and sign-in with a password or anonymously, and the administration of users, as far as local
//! development needs them.
//!
//! It depends on [`crate::keys`] and the database alone; no other service uses it.
//!
//! Users are rows of `auth.users`, confirmed at once because there is no mail. A sign-in is a row of
//! `auth.sessions`; its tokens are signed with the project's secret and renewed by refresh tokens that are good once.
//! Other ways to sign in, and mail, are not implemented: a request for one is answered with 404 and an explanation.

mod admin;
mod error;
mod password;
mod session;
mod user;

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use http::{HeaderMap, StatusCode, Uri};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::gateway::{bearer, query_value};
use crate::jwt::Claims;
use crate::keys::ProjectKeys;
use crate::link::Link;
use error::AuthError;
use session::Session;
use user::{Change, User};

/// What all requests share.
#[derive(Debug)]
pub(crate) struct Auth {
    keys: Arc<ProjectKeys>,
    link: Link,
}

type Answer = Result<Response, AuthError>;

impl Auth {
    pub(crate) fn new(keys: Arc<ProjectKeys>, link: Link) -> Arc<Self> {
        Arc::new(Self { keys, link })
    }
}

/// The routes, to be nested under `/auth/v1`.
pub(crate) fn router(auth: Arc<Auth>) -> Router {
    Router::new()
        .route("/health", get(|| async { Json(json!({ "name": "supabase-local" })) }))
        .route("/signup", post(sign_up))
        .route("/token", post(token))
        .route("/user", get(who).put(change))
        .route("/logout", post(sign_out))
        .merge(admin::router())
        .fallback(async |uri: Uri| AuthError::NotHere(uri.path().to_owned()))
        .with_state(auth)
}

/// Somebody with an address and a password, or nobody in particular: without either it is an anonymous sign-in.
async fn sign_up(State(auth): State<Arc<Auth>>, body: Bytes) -> Answer {
    let body = object(&body)?;
    let change = Change::read(&body, "data")?;
    let given =
        |name: &str| body.get(name).is_some_and(|value| value.as_str().is_some_and(|text| !text.is_empty()));
    let anonymous = !["email", "phone", "password"].into_iter().any(given);
    if !anonymous {
        credentials(&body)?;
    }
    let user = User::create(&auth.link, &change.hashed().await?).await?;
    open(&auth, user, None).await
}

async fn token(State(auth): State<Arc<Auth>>, RawQuery(query): RawQuery, body: Bytes) -> Answer {
    let body = object(&body)?;
    match query.and_then(|query| query_value(&query, "grant_type")).as_deref() {
        Some("password") => {
            let (email, password) = credentials(&body)?;
            let found = User::by_email(&auth.link, &email).await?;
            let (user, hash) = found.ok_or(AuthError::WrongCredentials)?;
            if !password::fits(password, hash).await? {
                return Err(AuthError::WrongCredentials);
            }
            open(&auth, user, None).await
        }
        Some("refresh_token") => {
            let token = body.get("refresh_token").and_then(Value::as_str).unwrap_or_default();
            let spent = session::spend(&auth.link, token).await?.ok_or(AuthError::NoRefreshToken)?;
            let user = User::by_id(&auth.link, spent.user).await?.ok_or(AuthError::NoUser)?;
            open(&auth, user, Some(spent.session)).await
        }
        _ => Err(AuthError::UnknownGrant),
    }
}

async fn who(State(auth): State<Arc<Auth>>, headers: HeaderMap) -> Answer {
    let (user, _) = signed_in(&auth, &headers).await?;
    Ok(Json(user.to_json()).into_response())
}

/// Another address, another password, other metadata.
async fn change(State(auth): State<Arc<Auth>>, headers: HeaderMap, body: Bytes) -> Answer {
    let (user, _) = signed_in(&auth, &headers).await?;
    let change = Change::read(&object(&body)?, "data")?;
    let user = User::change(&auth.link, user.id, &change.hashed().await?).await?;
    Ok(Json(user.ok_or(AuthError::NoUser)?.to_json()).into_response())
}

async fn sign_out(State(auth): State<Arc<Auth>>, RawQuery(query): RawQuery, headers: HeaderMap) -> Answer {
    let (user, session) = signed_in(&auth, &headers).await?;
    let scope = query.and_then(|query| query_value(&query, "scope"));
    session::end(&auth.link, user.id, session, scope.as_deref().unwrap_or("global")).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Begins a session, or continues one, and answers with its tokens.
async fn open(auth: &Auth, user: User, session: Option<Uuid>) -> Answer {
    let session = Session::open(&auth.link, &user, session).await?;
    Ok(Json(session.to_json(&user, auth.keys.jwt())).into_response())
}

/// The user of the bearer token, and the session it belongs to.
async fn signed_in(auth: &Auth, headers: &HeaderMap) -> Result<(User, Uuid), AuthError> {
    let token = bearer(headers).ok_or(AuthError::NoToken)?;
    let claims = auth.keys.jwt().verify(token).map_err(AuthError::BadToken)?;
    let id = |name: &str| uuid_claim(&claims, name);
    let user = id("sub").ok_or(AuthError::NoSubject)?;
    let user = User::by_id(&auth.link, user).await?.ok_or(AuthError::NoUser)?;
    let session = id("session_id").unwrap_or_default();
    // Tokens minted for tests belong to no session and are believed.
    if !session.is_nil() && !session::is_open(&auth.link, session).await? {
        return Err(AuthError::NoSession);
    }
    Ok((user, session))
}

fn uuid_claim(claims: &Claims, name: &str) -> Option<Uuid> {
    claims.get(name)?.as_str()?.parse().ok()
}

fn object(body: &[u8]) -> Result<Map<String, Value>, AuthError> {
    serde_json::from_slice(body).map_err(|_| AuthError::BadJson)
}

/// The address, which does not depend on case, and the password.
fn credentials(body: &Map<String, Value>) -> Result<(String, String), AuthError> {
    let text = |name: &str| body.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    let email = text("email").filter(|email| email.contains('@')).ok_or(AuthError::NoEmail)?;
    let password = text("password").ok_or(AuthError::NoPassword)?;
    Ok((email.to_lowercase(), password.to_owned()))
}
