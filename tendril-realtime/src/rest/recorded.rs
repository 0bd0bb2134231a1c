//! Every recorded answer of two real `PostgREST` versions is read as what it is.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::value::RawValue;

use super::response::{Response, api_error};
use crate::error::Retry;

struct Answer {
    case: String,
    status: u16,
    headers: HeaderMap,
    body: String,
}

/// The local stack is held to these recordings too, and keeps them: a crate that was downloaded alone has none.
fn recordings() -> Option<PathBuf> {
    let stack = Path::new(env!("CARGO_MANIFEST_DIR")).join("../supabase/local");
    stack.join("Cargo.toml").exists().then(|| stack.join("tests/recorded/postgrest"))
}

fn answers(root: &Path) -> Vec<Answer> {
    let mut answers = Vec::new();
    for folder in ["v14.17", "v14.17-extra", "v16.2", "v16.2-extra"] {
        for entry in fs::read_dir(root.join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "txt") {
                let text = fs::read_to_string(&path).unwrap();
                let case = format!("{folder}/{}", path.file_stem().unwrap().to_str().unwrap());
                answers.extend(parsed(&case, &text));
            }
        }
    }
    answers
}

/// `None` for an exchange that ended without an answer.
fn parsed(case: &str, text: &str) -> Option<Answer> {
    let (_, response) = text.split_once("=== RESPONSE\n")?;
    let (head, body) = response.split_once("\n\n").unwrap_or((response, ""));
    let mut lines = head.lines();
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let mut headers = HeaderMap::new();
    for (name, value) in lines.filter_map(|line| line.split_once(": ")) {
        headers.append(
            HeaderName::try_from(name.to_lowercase()).unwrap(),
            HeaderValue::from_bytes(value.as_bytes()).unwrap(),
        );
    }
    // The recorder ended each file with a line break of its own.
    let body = body.strip_suffix('\n').unwrap_or(body).to_owned();
    Some(Answer { case: case.to_owned(), status, headers, body })
}

#[test]
fn every_recorded_answer_is_read_as_what_it_is() {
    let Some(root) = recordings() else { return };
    let answers = answers(&root);
    assert!(answers.len() >= 580, "{} answers", answers.len());
    let mut codes = BTreeMap::new();
    for Answer { case, status, headers, body } in answers {
        if (200..300).contains(&status) {
            let response = Response::new(status, &headers, Bytes::from(body.clone()));
            let is_json =
                headers.get("content-type").is_some_and(|kind| kind.to_str().unwrap().contains("json"));
            if is_json && !body.is_empty() {
                response.json::<Box<RawValue>>().unwrap_or_else(|error| panic!("{case}: {error}"));
            }
            let range = headers.get("content-range").map(|range| range.to_str().unwrap());
            if let Some((rows, total)) = range.and_then(|range| range.split_once('/')) {
                assert_eq!(response.count(), total.parse().ok(), "{case}");
                assert_eq!(response.affected().is_some(), rows != "*", "{case}");
            }
            continue;
        }
        if status < 400 {
            continue;
        }
        let error = api_error(status, &headers, body.as_bytes());
        assert_eq!(error.status, status, "{case}");
        assert!(!error.message.is_empty(), "{case}");
        // A HEAD request's answer has no body that names the code.
        if !body.is_empty() {
            let code =
                headers.get("proxy-status").and_then(|value| value.to_str().unwrap().split("error=").nth(1));
            if let Some(code) = code {
                assert_eq!(error.code, code, "{case}");
            }
        }
        codes.insert((status, error.code.clone()), error.retry());
    }
    // The classes that matter most, as the real servers answered them.
    for ((status, code), retry) in [
        ((401, "PGRST303"), Retry::RefreshToken),
        ((401, "PGRST301"), Retry::Never),
        ((403, "42501"), Retry::Never),
        ((409, "23505"), Retry::Never),
        ((400, "PGRST102"), Retry::Never),
        ((406, "PGRST116"), Retry::Never),
        ((500, "57014"), Retry::Backoff),
        ((504, "PGRST003"), Retry::Backoff),
        ((503, "PGRST002"), Retry::Backoff),
        ((503, "PGRST001"), Retry::Backoff),
    ] {
        assert_eq!(codes.get(&(status, code.to_owned())), Some(&retry), "{status} {code} of {codes:?}");
    }
}

#[test]
fn a_pause_that_the_server_asks_for_is_read() {
    let mut headers = HeaderMap::new();
    headers.insert("retry-after", HeaderValue::from_static("7"));
    assert_eq!(api_error(429, &headers, b"").retry(), Retry::After(Duration::from_secs(7)));
}
