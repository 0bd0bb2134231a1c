//! Errors as PostgREST words them: `{"code","details","hint","message"}` with a status of their own.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use tokio_postgres::error::Severity;

use super::reason;

/// The content type of errors and of most bodies.
pub(super) const JSON: HeaderValue = HeaderValue::from_static("application/json; charset=utf-8");

/// Names the server and the code on the way, for proxies and logs.
pub(super) const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");

/// An answer that is an error. It never contains a secret: messages come from this file's callers and from
/// PostgreSQL.
#[derive(Debug, Clone)]
pub(super) struct RestError(Box<Refusal>);

/// What an error answers. Boxed, because results are passed around more often than errors.
#[derive(Debug, Clone)]
struct Refusal {
    status: StatusCode,
    /// The words beside the status, if they are not the usual ones.
    reason: Option<String>,
    headers: HeaderMap,
    body: ErrorBody,
}

/// The body; the order of the fields is PostgREST's.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct ErrorBody {
    code: String,
    details: Option<serde_json::Value>,
    hint: Option<String>,
    message: String,
}

impl RestError {
    /// An error with neither details nor hint.
    pub(super) fn new(status: StatusCode, code: &str, message: impl Into<String>) -> Self {
        let body = ErrorBody { code: code.into(), details: None, hint: None, message: message.into() };
        let mut headers = HeaderMap::new();
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("0"));
        }
        Self(Box::new(Refusal { status, reason: None, headers, body }))
    }

    /// A request that cannot be understood (400).
    pub(super) fn bad_request(code: &str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }

    /// A body that cannot be used (PGRST102).
    pub(super) fn bad_body(message: impl Into<String>) -> Self {
        Self::bad_request("PGRST102", message)
    }

    /// A range that cannot be served (PGRST103).
    pub(super) fn bad_range(details: &str) -> Self {
        Self::new(StatusCode::RANGE_NOT_SATISFIABLE, "PGRST103", "Requested range not satisfiable")
            .details(details)
    }

    /// The schema cannot be read from the database (PGRST002).
    pub(super) fn no_schema() -> Self {
        let message = "Could not query the database for the schema cache. Retrying.";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "PGRST002", message)
    }

    /// A write of all rows, which the library safeupdate refuses.
    pub(super) fn unqualified(command: &str) -> Self {
        Self::bad_request("21000", format!("{command} requires a WHERE clause"))
    }

    /// Adds `details`.
    pub(super) fn details(mut self, details: impl Into<serde_json::Value>) -> Self {
        self.0.body.details = Some(details.into());
        self
    }

    /// Sets or clears the hint.
    pub(super) fn hint(mut self, hint: impl Into<Option<String>>) -> Self {
        self.0.body.hint = hint.into();
        self
    }

    /// Adds `WWW-Authenticate`: what is wrong with the token, or only that one is required.
    pub(super) fn challenge(mut self, description: Option<&str>) -> Self {
        let value = description.map_or_else(
            || "Bearer".into(),
            |text| format!("Bearer error=\"invalid_token\", error_description=\"{text}\""),
        );
        if let Ok(value) = HeaderValue::from_str(&value) {
            self.0.headers.insert(WWW_AUTHENTICATE, value);
        }
        self
    }

    /// The error body alone, as JSON text.
    pub(super) fn to_json(&self) -> String {
        serde_json::to_string(&self.0.body).unwrap_or_default()
    }

    /// The error of PostgreSQL, or of the connection to it. `identified`: whether the request had a role of its
    /// own.
    pub(super) fn from_postgres(error: &tokio_postgres::Error, identified: bool) -> Self {
        // A fatal error is the last message on a connection: what PostgREST's driver notices of it is the
        // broken connection.
        let Some(database) =
            error.as_db_error().filter(|error| error.parsed_severity() != Some(Severity::Fatal))
        else {
            let message = "Database client error. Retrying the connection.";
            return Self::new(StatusCode::SERVICE_UNAVAILABLE, "PGRST001", message)
                .details("no connection to the server\n");
        };
        let code = database.code().code();
        if code == "PGRST" {
            return Self::from_raise(database.message(), database.detail());
        }
        let status = status_of(code, database.message(), identified);
        let mut error = Self::new(status, code, database.message()).hint(database.hint().map(str::to_owned));
        error.0.body.details = database.detail().map(Into::into);
        if code.starts_with("PT") {
            error.0.reason = Some(database.message().to_owned());
        }
        if status == StatusCode::UNAUTHORIZED { error.challenge(None) } else { error }
    }

    /// The pool gave no connection.
    pub(super) fn from_pool(error: &deadpool_postgres::PoolError) -> Self {
        match error {
            deadpool_postgres::PoolError::Timeout(_) => {
                let message = "Timed out acquiring connection from connection pool.";
                Self::new(StatusCode::GATEWAY_TIMEOUT, "PGRST003", message)
            }
            other => {
                let message = "Database connection error.";
                let cause =
                    std::error::Error::source(other).map_or_else(|| other.to_string(), ToString::to_string);
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "PGRST000", message).details(cause)
            }
        }
    }

    /// `raise sqlstate 'PGRST'`: a function that writes its whole answer itself.
    fn from_raise(message: &str, detail: Option<&str>) -> Self {
        /// What the message holds.
        #[derive(Deserialize)]
        struct Raised {
            code: String,
            message: String,
            details: Option<serde_json::Value>,
            hint: Option<String>,
        }
        /// What the detail holds.
        #[derive(Deserialize)]
        struct Detail {
            status: u16,
            status_text: Option<String>,
            headers: BTreeMap<String, String>,
        }
        let unusable = |details: String, hint: &str| {
            let message = "Could not parse JSON in the \"RAISE SQLSTATE 'PGRST'\" error";
            Self::new(StatusCode::INTERNAL_SERVER_ERROR, "PGRST121", message)
                .details(details)
                .hint(hint.to_owned())
        };
        let Ok(body) = serde_json::from_str::<Raised>(message) else {
            return unusable(
                format!("Invalid JSON value for MESSAGE: '{message}'"),
                "MESSAGE must be a JSON object with obligatory keys: 'code', 'message' and optional keys: 'details', \
                 'hint'.",
            );
        };
        let detail_hint = "DETAIL must be a JSON object with obligatory keys: 'status', 'headers' and optional key: \
                           'status_text'.";
        let Some(detail) = detail else {
            return unusable("DETAIL is missing in the RAISE statement".into(), detail_hint);
        };
        let Ok(Detail { status, status_text, headers }) = serde_json::from_str(detail) else {
            return unusable(format!("Invalid JSON value for DETAIL: '{detail}'"), detail_hint);
        };
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut error = Self::new(status, &body.code, body.message).hint(body.hint);
        error.0.body.details = body.details;
        error.0.reason = status_text;
        for (name, value) in headers {
            if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
                error.0.headers.append(name, value);
            }
        }
        error
    }
}

/// The status that goes with a SQLSTATE.
fn status_of(code: &str, message: &str, identified: bool) -> StatusCode {
    let class = code.get(..2).unwrap_or_default();
    let number = match (class, code) {
        ("PT", _) => {
            return code
                .get(2..)
                .and_then(|status| status.parse().ok())
                .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        }
        (_, "42501") if identified => 403,
        (_, "42501") => 401,
        (_, "22023") if message.starts_with("role") && message.ends_with("does not exist") => 401,
        (_, "23503" | "23505") => 409,
        (_, "25006") => 405,
        (_, "42883" | "42P01") => 404,
        (_, "21000") if message.ends_with("requires a WHERE clause") => 400,
        (_, "P0001") => 400,
        (_, "53400" | "21000" | "42P17") => 500,
        ("08" | "53", _) | (_, "57P01") => 503,
        ("0L" | "0P" | "28", _) => 403,
        (
            "09" | "25" | "2D" | "38" | "39" | "3B" | "40" | "54" | "55" | "57" | "58" | "F0" | "HV" | "P0"
            | "XX",
            _,
        ) => 500,
        _ => 400,
    };
    StatusCode::from_u16(number).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

impl IntoResponse for RestError {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.to_json()));
        *response.status_mut() = self.0.status;
        *response.headers_mut() = self.0.headers;
        response.headers_mut().insert(CONTENT_TYPE, JSON);
        if let Ok(value) = HeaderValue::try_from(format!("PostgREST; error={}", self.0.body.code)) {
            response.headers_mut().insert(PROXY_STATUS, value);
        }
        if let Some(words) = &self.0.reason {
            reason::say(&mut response, words);
        }
        response
    }
}
