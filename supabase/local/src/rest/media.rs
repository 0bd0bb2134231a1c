//! The form of a response body, chosen by `Accept`.

use http::header::{ACCEPT, HeaderValue};
use http::{HeaderMap, StatusCode};

use super::error::RestError;

/// A form of the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Media {
    /// An array of objects.
    Json,
    /// An array of objects without their nulls.
    JsonStripped,
    /// Exactly one object.
    Object,
    /// Exactly one object, without its nulls.
    ObjectStripped,
    /// Comma-separated values.
    Csv,
}

impl Media {
    /// The first acceptable form.
    ///
    /// # Errors
    /// PGRST107 if there is none.
    pub(super) fn negotiate(headers: &HeaderMap) -> Result<Self, RestError> {
        let values = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
        let ranges: Vec<&str> = values.flat_map(|value| value.split(',')).map(str::trim).collect();
        if ranges.is_empty() {
            return Ok(Self::Json);
        }
        let unavailable = || {
            let message = format!("None of these media types are available: {}", ranges.join(", "));
            RestError::new(StatusCode::NOT_ACCEPTABLE, "PGRST107", message)
        };
        ranges.iter().find_map(|range| Self::of(range)).ok_or_else(unavailable)
    }

    fn of(range: &str) -> Option<Self> {
        let mut parts = range.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default().to_ascii_lowercase();
        let stripped = parts.any(|part| part.eq_ignore_ascii_case("nulls=stripped"));
        match (name.as_str(), stripped) {
            ("*/*" | "application/*" | "application/json" | "application/openapi+json", _) => {
                Some(Self::Json)
            }
            ("application/vnd.pgrst.array+json" | "application/vnd.pgrst.array", true) => {
                Some(Self::JsonStripped)
            }
            ("application/vnd.pgrst.array+json" | "application/vnd.pgrst.array", false) => Some(Self::Json),
            ("application/vnd.pgrst.object+json" | "application/vnd.pgrst.object", true) => {
                Some(Self::ObjectStripped)
            }
            ("application/vnd.pgrst.object+json" | "application/vnd.pgrst.object", false) => {
                Some(Self::Object)
            }
            ("text/csv", _) => Some(Self::Csv),
            _ => None,
        }
    }

    /// Whether the body is one object.
    pub(super) fn is_object(self) -> bool {
        matches!(self, Self::Object | Self::ObjectStripped)
    }

    /// Whether nulls are left out.
    pub(super) fn is_stripped(self) -> bool {
        matches!(self, Self::JsonStripped | Self::ObjectStripped)
    }

    /// The value of `Content-Type`.
    pub(super) fn content_type(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Json => "application/json; charset=utf-8",
            Self::JsonStripped => "application/vnd.pgrst.array+json;nulls=stripped; charset=utf-8",
            Self::Object => "application/vnd.pgrst.object+json; charset=utf-8",
            Self::ObjectStripped => "application/vnd.pgrst.object+json;nulls=stripped; charset=utf-8",
            Self::Csv => "text/csv; charset=utf-8",
        })
    }
}
