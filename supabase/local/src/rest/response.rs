//! The answer: status and headers from what the database gave.

use axum::body::Body;
use axum::response::Response;
use http::header::{CONTENT_LOCATION, CONTENT_RANGE, CONTENT_TYPE, HeaderName, HeaderValue, LOCATION, VARY};
use http::{HeaderMap, StatusCode};

use super::error::RestError;
use super::media::Media;
use super::query::encode;
use super::transaction::Answer;

/// Adds the preferences that were applied.
const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// An answer being put together.
#[derive(Debug)]
pub(super) struct Reply {
    status: StatusCode,
    headers: HeaderMap,
    body: String,
}

impl Reply {
    /// An answer without a body.
    pub(super) fn new(status: StatusCode) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert(VARY, HeaderValue::from_static("Accept, Prefer, Range"));
        Self { status, headers, body: String::new() }
    }

    /// Gives it a body.
    pub(super) fn body(mut self, media: Media, body: String) -> Self {
        self.headers.insert(CONTENT_TYPE, media.content_type());
        self.body = body;
        self
    }

    /// Adds which rows of how many it has.
    pub(super) fn content_range(self, range: &str) -> Self {
        self.header(CONTENT_RANGE, range)
    }

    /// Adds which preferences were applied.
    pub(super) fn applied(self, preferences: Option<String>) -> Self {
        match preferences {
            Some(preferences) => self.header(PREFERENCE_APPLIED, &preferences),
            None => self,
        }
    }

    /// Adds its content type.
    pub(super) fn content_location(self, path: &str, query: &str) -> Self {
        let separator = if query.is_empty() { "" } else { "?" };
        self.header(CONTENT_LOCATION, &format!("{path}{separator}{query}"))
    }

    /// Adds where the new row is.
    pub(super) fn location(self, table: &str, key: &[String]) -> Self {
        if key.is_empty() {
            return self;
        }
        let mut location = format!("/{table}?");
        for (index, pair) in key.iter().enumerate() {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            if index > 0 {
                location.push('&');
            }
            encode(&mut location, name);
            location.push('=');
            encode(&mut location, value);
        }
        self.header(LOCATION, &location)
    }

    /// Adds what a function has set in `response.headers` and `response.status`; a plan takes the place of everything.
    ///
    /// # Errors
    /// PGRST111 or PGRST112 if it has set something else.
    pub(super) fn overridden(mut self, answer: &Answer) -> Result<Self, RestError> {
        if let Some((explain, plan)) = &answer.plan {
            let mut reply = Self::new(StatusCode::OK);
            reply.headers.extend(explain.content_type().map(|value| (CONTENT_TYPE, value)));
            reply.body.clone_from(plan);
            return Ok(reply);
        }
        if let Some(headers) = &answer.headers {
            let wrong = || {
                let message = "response.headers guc must be a JSON array composed of objects with a single key and a \
                               string value";
                RestError::new(StatusCode::INTERNAL_SERVER_ERROR, "PGRST111", message)
            };
            let list: Vec<std::collections::BTreeMap<String, String>> =
                serde_json::from_str(headers).map_err(|_| wrong())?;
            for (name, value) in list.into_iter().flatten() {
                let name = HeaderName::try_from(name).map_err(|_| wrong())?;
                self.headers.insert(name, HeaderValue::try_from(value).map_err(|_| wrong())?);
            }
        }
        if let Some(status) = &answer.status {
            self.status = status.parse().map_err(|_| {
                let message = "response.status guc must be a valid status code";
                RestError::new(StatusCode::INTERNAL_SERVER_ERROR, "PGRST112", message)
            })?;
        }
        Ok(self)
    }

    /// Adds a header, unless its value cannot be one.
    pub(super) fn header(mut self, name: HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.insert(name, value);
        }
        self
    }

    /// The finished answer; `HEAD` gets no body.
    pub(super) fn finish(self, head: bool) -> Response {
        let mut response = Response::new(if head { Body::empty() } else { Body::from(self.body) });
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        response
    }
}

/// `first-last/total`, with `*` for what is not there.
pub(super) fn content_range(offset: i64, rows: i64, total: Option<i64>) -> String {
    let total = total.map_or_else(|| "*".to_owned(), |total| total.to_string());
    if rows == 0 { format!("*/{total}") } else { format!("{offset}-{}/{total}", offset + rows - 1) }
}

/// The status of a page: 206 if there is more than it, 416 if it begins beyond the end.
pub(super) fn page_status(offset: i64, rows: i64, total: Option<i64>) -> StatusCode {
    match total {
        Some(total) if offset > total => StatusCode::RANGE_NOT_SATISFIABLE,
        Some(total) if rows < total => StatusCode::PARTIAL_CONTENT,
        _ => StatusCode::OK,
    }
}
