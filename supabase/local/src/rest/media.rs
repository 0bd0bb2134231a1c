//! The form of a response body.

use http::header::HeaderValue;

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
    /// A collection of features, made by `PostGIS`.
    GeoJson,
}

impl Media {
    /// Reads a media range.
    pub(super) fn of(range: &str) -> Option<Self> {
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
            ("application/geo+json", _) => Some(Self::GeoJson),
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

    /// Its name.
    pub(super) fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::JsonStripped => "application/vnd.pgrst.array+json;nulls=stripped",
            Self::Object => "application/vnd.pgrst.object+json",
            Self::ObjectStripped => "application/vnd.pgrst.object+json;nulls=stripped",
            Self::Csv => "text/csv",
            Self::GeoJson => "application/geo+json",
        }
    }

    /// The value of `Content-Type`.
    pub(super) fn content_type(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Json => "application/json; charset=utf-8",
            Self::JsonStripped => "application/vnd.pgrst.array+json;nulls=stripped; charset=utf-8",
            Self::Object => "application/vnd.pgrst.object+json; charset=utf-8",
            Self::ObjectStripped => "application/vnd.pgrst.object+json;nulls=stripped; charset=utf-8",
            Self::Csv => "text/csv; charset=utf-8",
            Self::GeoJson => "application/geo+json; charset=utf-8",
        })
    }
}
