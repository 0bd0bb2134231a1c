//! What came back.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use reqwest::header::{HeaderMap, RETRY_AFTER};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::error::{Error, ErrorKind, PostgrestError};

/// A successful answer.
#[derive(Debug, Clone)]
pub struct Response {
    status: u16,
    content_range: Option<String>,
    location: Option<String>,
    body: Bytes,
}

impl Response {
    pub(super) fn new(status: u16, headers: &HeaderMap, body: Bytes) -> Self {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        Self { status, content_range: text("content-range"), location: text("location"), body }
    }

    /// HTTP status: 200, 201, 204 or 206.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The number of all matching rows, if it was asked for with [`QueryBuilder::count`](super::QueryBuilder::count).
    pub fn count(&self) -> Option<u64> {
        self.content_range.as_deref()?.rsplit_once('/')?.1.parse().ok()
    }

    /// How many rows the answer is about, where the server gives their number (for an update it does, for an insert it does not).
    pub fn affected(&self) -> Option<u64> {
        let range = self.content_range.as_deref()?.split_once('/')?.0;
        let (first, last) = range.split_once('-')?;
        last.parse::<u64>().ok()?.checked_sub(first.parse().ok()?)?.checked_add(1)
    }

    /// Where a single inserted row is, such as `/jobs?id=eq.7`; if [`headers_only`](super::QueryBuilder::headers_only) asked for it.
    pub fn location(&self) -> Option<&str> {
        self.location.as_deref()
    }

    /// The body as it came.
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    pub(super) fn is_list(&self) -> bool {
        self.body.trim_ascii_start().starts_with(b"[")
    }

    pub(super) fn into_text(self) -> Result<String, Error> {
        String::from_utf8(self.body.into()).map_err(|_| {
            Error::new(ErrorKind::Decode { what: "the answer", message: "it is not UTF-8".to_owned() })
        })
    }

    /// The body, read as JSON. An empty body reads as `null`.
    ///
    /// # Errors
    /// [`Decode`](crate::ErrorKind::Decode) if it is not of that type.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Error> {
        let body = if self.body.is_empty() { b"null".as_slice() } else { &self.body };
        serde_json::from_slice(body).map_err(|error| Error::decode("the answer", &error))
    }
}

/// Reads an error answer; whatever a gateway in between may have sent instead of JSON is kept, shortened.
pub(super) fn api_error(status: u16, headers: &HeaderMap, body: &[u8]) -> PostgrestError {
    let mut parsed: Map<String, Value> = serde_json::from_slice(body).unwrap_or_default();
    // Some gateways and functions put the same fields one level deeper.
    if let Some(Value::Object(inner)) = parsed.get("error").cloned() {
        parsed.remove("error");
        for (name, value) in inner {
            parsed.entry(name).or_insert(value);
        }
    }
    let text = |name: &str| parsed.get(name).and_then(Value::as_str).map(str::to_owned);
    // A field that is no text costs the others nothing.
    let any = |name: &str| match parsed.get(name)? {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    };
    // The first of the names that PostgREST, gateways and Supabase Auth have for it.
    let names = ["message", "msg", "error_description", "error"];
    let message = names.iter().find_map(|name| any(name)).unwrap_or_else(|| {
        let text: String = String::from_utf8_lossy(body).chars().take(200).collect();
        let text = text.trim();
        if text.is_empty() { "no explanation was given".to_owned() } else { text.to_owned() }
    });
    PostgrestError {
        status,
        // A gateway repeats the status here, as a number: that is no code.
        code: text("code").or_else(|| text("error_code")).unwrap_or_default(),
        message,
        details: any("details"),
        hint: any("hint"),
        retry_after: headers
            .get(RETRY_AFTER)
            .and_then(|value| retry_after(value.to_str().ok()?.trim(), SystemTime::now())),
    }
}

/// `Retry-After` in either of its forms: seconds, or a date, which may have passed.
fn retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    let seconds = value.parse().ok().map(Duration::from_secs);
    let until = |date: SystemTime| date.duration_since(now).unwrap_or_default();
    seconds.or_else(|| httpdate::parse_http_date(value).ok().map(until))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_range(range: &str) -> Response {
        let mut headers = HeaderMap::new();
        headers.insert("content-range", range.parse().unwrap());
        Response::new(200, &headers, Bytes::new())
    }

    #[test]
    fn the_content_range_tells_rows_and_total() {
        assert_eq!((with_range("0-10/11").affected(), with_range("0-10/11").count()), (Some(11), Some(11)));
        assert_eq!((with_range("*/0").affected(), with_range("*/0").count()), (None, Some(0)));
        assert_eq!((with_range("0-0/*").affected(), with_range("0-0/*").count()), (Some(1), None));
        assert_eq!((with_range("*/*").affected(), with_range("nonsense").count()), (None, None));
        assert_eq!(with_range("0-18446744073709551615/*").affected(), None);
    }

    #[test]
    fn a_server_may_say_when_to_come_again_in_seconds_or_as_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        let pause = |value| retry_after(value, now).map(|pause| pause.as_secs());
        assert_eq!(pause("120"), Some(120));
        assert_eq!(pause("Sun, 06 Nov 1994 08:51:37 GMT"), Some(120));
        assert_eq!(pause("Sun, 06 Nov 1994 08:00:00 GMT"), Some(0), "it has passed");
        assert_eq!((pause("soon"), pause("-1")), (None, None));
    }

    #[test]
    fn an_error_page_of_a_gateway_is_an_error_too() {
        let error = api_error(502, &HeaderMap::new(), b"<html>Bad Gateway</html>");
        assert_eq!((error.status, error.code.as_str()), (502, ""));
        assert_eq!(error.message, "<html>Bad Gateway</html>");
        let error = api_error(401, &HeaderMap::new(), br#"{"code":401,"message":"Invalid JWT"}"#);
        assert_eq!((error.code.as_str(), error.message.as_str()), ("", "Invalid JWT"));
    }

    #[test]
    fn an_error_of_an_odd_shape_keeps_what_can_be_read() {
        for (body, code, message, details, hint) in [
            (
                r#"{"code":"42501","message":"no","hint":["a"],"details":{"b":1}}"#,
                "42501",
                "no",
                r#"{"b":1}"#,
                r#"["a"]"#,
            ),
            (r#"{"code":"P0001","message":{"reason":"no"}}"#, "P0001", r#"{"reason":"no"}"#, "", ""),
            (r#"{"error":{"code":"x","message":"no","hint":"h"}}"#, "x", "no", "", "h"),
            (r#"{"error":"invalid_grant","error_description":"no"}"#, "", "no", "", ""),
            (r#"{"error":"no"}"#, "", "no", "", ""),
            (r#"{"code":"x","message":null,"msg":"no"}"#, "x", "no", "", ""),
            (r#"["a","b"]"#, "", r#"["a","b"]"#, "", ""),
            (r#""no""#, "", r#""no""#, "", ""),
            ("{}", "", "{}", "", ""),
            ("", "", "no explanation was given", "", ""),
        ] {
            let error = api_error(400, &HeaderMap::new(), body.as_bytes());
            let shown = |text: Option<String>| text.unwrap_or_default();
            assert_eq!(
                (
                    error.code.as_str(),
                    error.message.as_str(),
                    shown(error.details).as_str(),
                    shown(error.hint).as_str()
                ),
                (code, message, details, hint),
                "{body}"
            );
        }
    }
}
