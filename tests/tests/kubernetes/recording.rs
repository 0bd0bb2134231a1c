//! Reads a recorded case.

use std::{collections::BTreeMap, fs, path::PathBuf};

use serde_json::{Value, json};
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

impl Case {
    /// The Jobs that were there before, which no recorded request made: of these cases the answers show them.
    pub(crate) fn made_before(&self) -> Vec<Value> {
        let named = |name: &str, uid: &Value| json!({"kind": "Job", "apiVersion": "batch/v1", "metadata": {"name": name, "namespace": "tendril", "uid": uid, "labels": {}}, "spec": {"suspend": true}, "status": {}});
        let answers =
            self.exchanges.iter().filter_map(|exchange| serde_json::from_str::<Value>(&exchange.body).ok());
        let mut made: BTreeMap<String, Value> = BTreeMap::new();
        match self.number.as_str() {
            // Another case's, which the quota counts.
            "011" => return vec![named("run-before", &"00000000-0000-4000-8000-000000000011".into())],
            // It is there until it is deleted, and the answer to that names it.
            "017" | "071" => {
                let deleted = answers
                    .filter(|answer| answer["status"] == "Success" && answer["details"]["kind"] == "jobs");
                let made = deleted.filter(|answer| self.posted(&answer["details"]["name"]).is_none());
                return made
                    .map(|answer| {
                        named(
                            answer["details"]["name"].as_str().unwrap_or_default(),
                            &answer["details"]["uid"],
                        )
                    })
                    .collect();
            }
            "020" | "022" | "025" => {
                let listed =
                    answers.flat_map(|answer| answer["items"].as_array().cloned().unwrap_or_default());
                let lines = self.exchanges.iter().flat_map(|exchange| &exchange.lines);
                let watched = lines.filter(|line| line["type"] == "ADDED").map(|line| line["object"].clone());
                for mut job in listed.chain(watched) {
                    (job["kind"], job["apiVersion"]) = ("Job".into(), "batch/v1".into());
                    made.entry(job["metadata"]["name"].as_str().unwrap_or_default().to_owned())
                        .or_insert(job);
                }
            }
            _ => {}
        }
        made.into_values().collect()
    }

    /// The request that made an object of this name.
    fn posted(&self, name: &Value) -> Option<&Exchange> {
        let made = |exchange: &&Exchange| {
            exchange.method == "POST"
                && serde_json::from_str::<Value>(&exchange.request)
                    .is_ok_and(|object| object["metadata"]["name"] == *name)
        };
        self.exchanges.iter().find(made)
    }
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
