//! Errors, with the codes and messages that Supabase clients expect.

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde_json::json;

use crate::error::StackError;
use crate::jwt::JwtError;

/// Why a request is refused.
#[derive(Debug, thiserror::Error)]
pub(super) enum AuthError {
    #[error("Could not parse request body as JSON")]
    BadJson,
    #[error("Unable to validate email address: invalid format")]
    NoEmail,
    #[error("Signup requires a valid password")]
    NoPassword,
    #[error("Password should be at least 6 characters.")]
    WeakPassword,
    #[error("User already registered")]
    Registered,
    #[error("Invalid login credentials")]
    WrongCredentials,
    #[error("unsupported_grant_type")]
    UnknownGrant,
    #[error("Invalid Refresh Token: Refresh Token Not Found")]
    NoRefreshToken,
    #[error("This endpoint requires a valid Bearer token")]
    NoToken,
    #[error("invalid JWT: {0}")]
    BadToken(JwtError),
    #[error("invalid claim: missing sub claim")]
    NoSubject,
    #[error("User from sub claim in JWT does not exist")]
    NoUser,
    #[error("Session from session_id claim in JWT does not exist")]
    NoSession,
    #[error("User not allowed")]
    NotAdmin,
    #[error("User not found")]
    UnknownUser,
    /// An endpoint of Supabase Auth that this stack lacks, or none at all.
    #[error(
        "supabase-local has no {0}: its Auth has signup, token, user, logout and admin/users, with passwords and anonymous users"
    )]
    NotHere(String),
    /// The database, or this machine.
    #[error("Database error: {0}")]
    Internal(String),
}

impl AuthError {
    fn status_and_code(&self) -> (StatusCode, &'static str) {
        match self {
            Self::BadJson => (StatusCode::BAD_REQUEST, "bad_json"),
            Self::NoEmail | Self::NoPassword => (StatusCode::BAD_REQUEST, "validation_failed"),
            Self::WeakPassword => (StatusCode::UNPROCESSABLE_ENTITY, "weak_password"),
            Self::Registered => (StatusCode::UNPROCESSABLE_ENTITY, "user_already_exists"),
            Self::WrongCredentials => (StatusCode::BAD_REQUEST, "invalid_credentials"),
            Self::UnknownGrant => (StatusCode::BAD_REQUEST, "validation_failed"),
            Self::NoRefreshToken => (StatusCode::BAD_REQUEST, "refresh_token_not_found"),
            Self::NoToken => (StatusCode::UNAUTHORIZED, "no_authorization"),
            Self::BadToken(_) | Self::NoSubject => (StatusCode::FORBIDDEN, "bad_jwt"),
            Self::NoUser => (StatusCode::FORBIDDEN, "user_not_found"),
            Self::NoSession => (StatusCode::FORBIDDEN, "session_not_found"),
            Self::NotAdmin => (StatusCode::FORBIDDEN, "not_admin"),
            Self::UnknownUser => (StatusCode::NOT_FOUND, "user_not_found"),
            Self::NotHere(_) => (StatusCode::NOT_FOUND, "not_found"),
            Self::Internal(_) => (StatusCode::INTERNAL_SERVER_ERROR, "unexpected_failure"),
        }
    }
}

impl IntoResponse for AuthError {
    fn into_response(self) -> Response {
        let (status, code) = self.status_and_code();
        let mut body = json!({ "code": status.as_u16(), "error_code": code, "msg": self.to_string() });
        if let Self::WeakPassword = self {
            body["weak_password"] = json!({ "reasons": ["length"] });
        }
        (status, Json(body)).into_response()
    }
}

impl From<StackError> for AuthError {
    fn from(error: StackError) -> Self {
        Self::Internal(error.to_string())
    }
}

impl From<tokio_postgres::Error> for AuthError {
    fn from(error: tokio_postgres::Error) -> Self {
        StackError::from(error).into()
    }
}
