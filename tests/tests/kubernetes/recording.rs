//! Reads a recorded case.

use std::{collections::BTreeMap, fs, path::PathBuf};

use serde_json::Value;
use tendril_tests::repository;

/// One case: a file.
#[derive(Debug)]
pub(crate) struct Case {
    /// `041`.
    pub(crate) number: String,
    pub(crate) exchanges: Vec<Exchange>,
}

/// A request and what came back.
#[derive(Clone, Debug)]
pub(crate) struct Exchange {
    pub(crate) number: usize,
    /// Who asked.
    pub(crate) user: String,
    pub(crate) method: String,
    /// Path and query.
    pub(crate) path: String,
    pub(crate) request_headers: BTreeMap<String, String>,
    pub(crate) request: String,
    /// 0 where none came.
    pub(crate) status: u16,
    pub(crate) headers: BTreeMap<String, String>,
    /// The body, where it was no stream.
    pub(crate) body: String,
    /// The lines of a stream.
    pub(crate) lines: Vec<Value>,
    /// Whether the server ended the stream.
    pub(crate) is_whole: bool,
}

/// Every case, in the order of their numbers.
pub(crate) fn cases() -> Vec<Case> {
    let dir = repository("tests/recorded/kubernetes/v1.36");
    let mut files: Vec<PathBuf> =
        fs::read_dir(dir).expect("recordings").map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    files.iter().map(|file| case(file)).collect()
}

fn case(file: &std::path::Path) -> Case {
    let name = file.file_name().expect("a name").to_string_lossy().into_owned();
    let text = fs::read_to_string(file).unwrap_or_else(|error| panic!("{name}: {error}"));
    let parts = text.split("\n=== ").skip(1).filter(|part| part.starts_with("exchange "));
    Case { number: name[..3].to_owned(), exchanges: parts.map(exchange).collect() }
}

fn exchange(text: &str) -> Exchange {
    let (head, rest) = text.split_once("\n--- request\n").expect("a request");
    // None came where the connection was lost.
    let (request, response) = rest.split_once("\n--- response").unwrap_or((rest, ""));
    let response = response.split_once('\n').map_or("", |(_, response)| response);
    let (first, request_headers, request_body) = message(request);
    let mut words = first.split(' ');
    let method = words.next().unwrap_or_default().to_owned();
    let path = words.next().unwrap_or_default().to_owned();
    // What belongs to a stream comes after the head.
    let (response, stream) = match response.find("\n--- ") {
        Some(at) => response.split_at(at),
        None => (response, ""),
    };
    let (first, headers, body) = message(response);
    let lines = stream
        .lines()
        .filter(|line| line.starts_with('{'))
        .filter_map(|line| serde_json::from_str(line).ok());
    Exchange {
        number: head.split(' ').nth(1).and_then(|number| number.parse().ok()).expect("a number"),
        user: head.rsplit("as ").next().unwrap_or_default().trim().to_owned(),
        method,
        path,
        request_headers,
        request: request_body.to_owned(),
        status: first.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0),
        headers,
        body: body.to_owned(),
        lines: lines.collect(),
        is_whole: stream.contains("clean: last chunk 0") || stream.contains("complete: Content-Length"),
    }
}

/// First line, headers, body.
fn message(text: &str) -> (&str, BTreeMap<String, String>, &str) {
    let (head, body) = text.split_once("\n\n").unwrap_or((text, ""));
    let mut lines = head.lines();
    let first = lines.next().unwrap_or_default();
    let headers = lines.filter_map(|line| line.split_once(": "));
    (first, headers.map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect(), body)
}
