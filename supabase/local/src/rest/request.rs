//! A request, understood as far as that goes without the database.

use bytes::Bytes;
use http::header::{COOKIE, HeaderName, RANGE};
use http::{HeaderMap, Method, StatusCode};
use percent_encoding::percent_decode_str;
use serde_json::{Map, Value};

use super::accept::negotiate;
use super::auth::Identity;
use super::error::RestError;
use super::explain::Explain;
use super::media::Media;
use super::prefer::Prefer;
use super::query::{Query, Range};
use super::schema::{Name, Schema};
use super::settings::Settings;
use super::transaction::Session;

/// Names the schema of a read.
const ACCEPT_PROFILE: HeaderName = HeaderName::from_static("accept-profile");

/// Names the schema of a write.
const CONTENT_PROFILE: HeaderName = HeaderName::from_static("content-profile");

/// What a path means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    /// The description of everything.
    Root,
    /// A table or view.
    Table(String),
    /// A function.
    Function(String),
}

impl Target {
    /// Reads a path.
    ///
    /// # Errors
    /// PGRST125 if it has too many parts, or empty ones.
    pub(super) fn of(path: &str) -> Result<Self, RestError> {
        let decoded = |part: &str| percent_decode_str(part).decode_utf8_lossy().into_owned();
        // One slash begins a path; every other one separates parts, which may be empty.
        let parts: Vec<String> = path.strip_prefix('/').unwrap_or(path).split('/').map(decoded).collect();
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        match parts.as_slice() {
            [""] => Ok(Self::Root),
            ["rpc", function] => Ok(Self::Function((*function).to_owned())),
            [table] => Ok(Self::Table((*table).to_owned())),
            _ => {
                let message = "Invalid path specified in request URL";
                Err(RestError::new(StatusCode::NOT_FOUND, "PGRST125", message))
            }
        }
    }
}

/// A request.
#[derive(Debug)]
pub(super) struct Request {
    /// Its method.
    pub(super) method: Method,
    /// Its path below the server's root.
    pub(super) path: String,
    /// The table or function, with its schema.
    pub(super) name: Name,
    /// The query string.
    pub(super) query: Query,
    /// The preferences.
    pub(super) prefer: Prefer,
    /// The form of the body that is wanted.
    pub(super) media: Media,
    /// What of its plan is wanted instead.
    explain: Option<Explain>,
    /// The page that `Range` and the query string ask for.
    pub(super) range: Range,
    /// All headers.
    pub(super) headers: HeaderMap,
    /// The body.
    pub(super) body: Bytes,
    identity: Identity,
}

impl Request {
    /// Reads a request for a table or function.
    pub(super) fn read(
        (method, (path, query), headers, body): (Method, (&str, Option<&str>), HeaderMap, Bytes),
        (name, call): (&str, bool),
        identity: Identity,
        settings: &Settings,
    ) -> Result<Self, RestError> {
        let reads = matches!(method, Method::GET | Method::HEAD);
        let schema = profile(&headers, reads, &settings.schemas)?;
        let query = Query::parse(query.unwrap_or_default(), call)?;
        let mut range = query.top_range();
        if reads {
            range = range.and(header_range(&headers)?);
        }
        let prefer = Prefer::read(&headers, settings.transaction_override)?;
        let (media, explain) = negotiate(&headers, settings.plan_enabled)?;
        let (path, name) = (path.to_owned(), Name::new(schema, name));
        Ok(Self { method, path, name, query, prefer, media, explain, range, headers, body, identity })
    }

    /// Whether only the headers of the answer are wanted.
    pub(super) fn is_head(&self) -> bool {
        self.method == Method::HEAD
    }

    /// The transaction it runs in.
    pub(super) fn session(&self, schema: &Schema, read_only: bool) -> Session {
        // `extensions` is where Supabase installs them.
        let search_path =
            format!("\"{}\", \"public\", \"extensions\"", self.name.schema.replace('"', "\"\""));
        let mut settings = vec![
            ("search_path".to_owned(), search_path),
            ("role".to_owned(), self.identity.role.clone()),
            ("request.jwt.claims".to_owned(), self.identity.claims.clone()),
            ("request.method".to_owned(), self.method.to_string()),
            ("request.path".to_owned(), self.path.clone()),
            ("request.headers".to_owned(), self.headers_json()),
            ("request.cookies".to_owned(), self.cookies_json()),
        ];
        settings.extend(schema.role_settings.get(&self.identity.role).into_iter().flatten().cloned());
        if let Some(timezone) = self.prefer.timezone() {
            settings.push(("timezone".to_owned(), timezone.to_owned()));
        }
        Session {
            read_only,
            identified: self.identity.identified,
            settings,
            rollback: self.prefer.rollback(),
            explain: self.explain.clone(),
        }
    }

    fn headers_json(&self) -> String {
        let text = |value: &http::HeaderValue| Value::from(String::from_utf8_lossy(value.as_bytes()));
        let object: Map<String, Value> =
            self.headers.iter().map(|(name, value)| (name.as_str().to_owned(), text(value))).collect();
        Value::Object(object).to_string()
    }

    fn cookies_json(&self) -> String {
        let cookies = self.headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
        let pairs = cookies.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
        let object: Map<String, Value> = pairs.map(|(name, value)| (name.to_owned(), value.into())).collect();
        Value::Object(object).to_string()
    }
}

/// The schema that the profile header names, or the default one.
fn profile<'a>(headers: &HeaderMap, reads: bool, schemas: &'a [String]) -> Result<&'a str, RestError> {
    let header = headers.get(if reads { ACCEPT_PROFILE } else { CONTENT_PROFILE });
    let wanted = header.and_then(|value| value.to_str().ok());
    let found = schemas.iter().find(|schema| wanted.is_none_or(|wanted| *schema == wanted));
    found.map(String::as_str).ok_or_else(|| {
        let message = format!("Invalid schema: {}", wanted.unwrap_or_default());
        RestError::new(StatusCode::NOT_ACCEPTABLE, "PGRST106", message)
            .hint(format!("Only the following schemas are exposed: {}", schemas.join(", ")))
    })
}

/// The page that the `Range` header requests; an invalid header requests everything.
fn header_range(headers: &HeaderMap) -> Result<Range, RestError> {
    let header = headers.get(RANGE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let Some((first, last)) = header.trim_start_matches("items=").split_once('-') else {
        return Ok(Range::default());
    };
    let Ok(offset) = first.trim().parse::<u64>() else { return Ok(Range::default()) };
    if last.trim().is_empty() {
        return Ok(Range { offset, limit: None });
    }
    match last.trim().parse::<u64>() {
        Ok(last) if last < offset => Err(RestError::bad_range(
            "The lower boundary must be lower than or equal to the upper boundary in the Range header.",
        )),
        Ok(last) => Ok(Range { offset, limit: Some(last - offset + 1) }),
        Err(_) => Ok(Range::default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_taken_to_its_last_slash() {
        let table = |name: &str| Target::Table(name.to_owned());
        let function = |name: &str| Target::Function(name.to_owned());
        for (path, target) in [
            ("", Target::Root),
            ("/", Target::Root),
            ("/jobs", table("jobs")),
            ("/a+b%20c&d=e", table("a+b c&d=e")),
            ("/rpc", table("rpc")),
            ("/rpc/", function("")),
            ("/rpc/add", function("add")),
            ("/%72pc/add", function("add")),
        ] {
            assert_eq!(Target::of(path).unwrap(), target, "{path}");
        }
        for path in ["//", "//jobs", "/jobs/", "/jobs//", "/rpc/add/", "/rpc//add", "//rpc/add", "/a/b"] {
            assert!(Target::of(path).is_err(), "{path}");
        }
    }
}
