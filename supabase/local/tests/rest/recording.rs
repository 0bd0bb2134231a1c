//! One recorded exchange: a file with a request and the answer of the real server.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use jiff::Timestamp;
use jiff::fmt::rfc2822;

/// Headers in which answers must agree.
const COMPARED: [&str; 16] = [
    "content-range",
    "content-location",
    "content-type",
    "preference-applied",
    "location",
    "proxy-status",
    "www-authenticate",
    "retry-after",
    "vary",
    "allow",
    "x-foo",
    "access-control-allow-origin",
    "access-control-allow-headers",
    "access-control-allow-methods",
    "access-control-max-age",
    "access-control-expose-headers",
];

/// A recorded exchange.
#[derive(Debug)]
pub struct Exchange {
    /// The file's name without its ending.
    pub name: String,
    pub method: String,
    pub path: String,
    pub headers: Vec<(String, String)>,
    pub body: String,
    /// What the real server answered; `None` if it did not.
    pub answer: Option<Answer>,
}

/// An answer, recorded or not.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    /// The reason phrase after the status.
    pub reason: String,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Exchange {
    pub fn read(file: &Path) -> Self {
        let text = std::fs::read_to_string(file).unwrap();
        let (_, rest) = text.split_once("=== REQUEST\n").unwrap();
        let (request, response) = rest.split_once("\n=== RESPONSE\n").unwrap();
        let (head, body) = request.split_once("\n\n").unwrap_or((request, ""));
        let (first, headers) = head.split_once('\n').unwrap_or((head, ""));
        let mut words = first.split(' ');
        let name = file.file_stem().unwrap().to_str().unwrap().to_owned();
        Self {
            name,
            method: words.next().unwrap().into(),
            path: words.next().unwrap().into(),
            headers: header_lines(headers),
            body: body.into(),
            answer: response.starts_with("HTTP/").then(|| Answer::read(response)),
        }
    }

    /// When it was recorded, in seconds since 1970.
    pub fn recorded_at(&self) -> Timestamp {
        let date = self.answer.as_ref().and_then(|answer| answer.header("date")).unwrap();
        rfc2822::parse(date).unwrap().timestamp()
    }

    /// Compares an answer with the recorded one; a difference is described.
    pub fn compare(&self, found: &Answer, known: &BTreeSet<String>) -> Result<(), String> {
        let Some(recorded) = &self.answer else { return Err("the real server did not answer".into()) };
        let mut difference = String::new();
        let (there, here) = ((recorded.status, &recorded.reason), (found.status, &found.reason));
        if there != here {
            writeln!(difference, "  status: {there:?}, found {here:?}").unwrap();
        }
        for name in COMPARED {
            let (there, here) = (recorded.header(name), found.header(name));
            if there != here {
                writeln!(difference, "  {name}: {there:?}, found {here:?}").unwrap();
            }
        }
        if recorded.header("content-type").is_some_and(|media| media.starts_with("application/openapi+json"))
        {
            // Its objects are in the order of a hash table there.
            let (there, here) = (hostless(recorded.json()), hostless(found.json()));
            if there != here {
                writeln!(difference, "  body:  {there}\n  found: {here}").unwrap();
            }
            return if difference.is_empty() { Ok(()) } else { Err(difference) };
        }
        let there = normalised(recorded.body.trim_end_matches('\n'), self.recorded_at(), known);
        let here = normalised(found.body.trim_end_matches('\n'), Timestamp::now(), known);
        if there != here {
            writeln!(difference, "  body:  {there}\n  found: {here}").unwrap();
        }
        if difference.is_empty() { Ok(()) } else { Err(difference) }
    }
}

impl Answer {
    /// Reads an answer as it came over the wire, with plain line ends.
    pub fn read(text: &str) -> Self {
        let (head, body) = text.split_once("\n\n").unwrap_or((text, ""));
        let (first, headers) = head.split_once('\n').unwrap_or((head, ""));
        let mut words = first.splitn(3, ' ').skip(1);
        let status = words.next().unwrap().parse().unwrap();
        let reason = words.next().unwrap_or_default().to_owned();
        Self { status, reason, headers: header_lines(headers), body: body.into() }
    }

    /// The body as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// An `OpenAPI` document without the address of its server, and without the default that the test itself has changed.
fn hostless(mut document: serde_json::Value) -> serde_json::Value {
    document["host"].take();
    document["definitions"]["todos"]["properties"]["id"]["default"].take();
    document
}

fn header_lines(text: &str) -> Vec<(String, String)> {
    let pair = |line: &str| {
        let (name, value) = line.split_once(':').unwrap();
        (name.to_ascii_lowercase(), value.strip_prefix(' ').unwrap_or(value).to_owned())
    };
    text.lines().map(pair).collect()
}

/// The uuids that requests name; all others are the database's own and differ from run to run.
pub fn known_uuids(exchanges: &[Exchange]) -> BTreeSet<String> {
    let texts = exchanges.iter().flat_map(|exchange| [exchange.path.as_str(), exchange.body.as_str()]);
    let mut known: BTreeSet<String> = texts.flat_map(uuids).map(str::to_owned).collect();
    known.insert("11111111-1111-1111-1111-111111111111".into());
    known
}

fn uuids(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_ascii_hexdigit() && c != '-').filter(|word| is_uuid(word))
}

fn is_uuid(word: &str) -> bool {
    word.len() == 36 && uuid::Uuid::try_parse(word).is_ok()
}

/// The body with what differs from run to run replaced: uuids of the database's own, and times near `now`.
fn normalised(body: &str, now: Timestamp, known: &BTreeSet<String>) -> String {
    let separates = |c: char| matches!(c, '"' | ',' | '\n' | ' ' | '(' | ')' | '=' | '{' | '}');
    let mut out = String::new();
    for word in body.split_inclusive(separates) {
        let (word, end) = word.strip_suffix(separates).map_or((word, ""), |rest| (rest, &word[rest.len()..]));
        let near = |time: Timestamp| time.duration_since(now).abs().as_hours() < 24;
        if is_uuid(word) && !known.contains(word) {
            out.push_str("<uuid>");
        } else if word.parse::<Timestamp>().is_ok_and(near) {
            let zone = &word[word.len() - 6..];
            write!(out, "<now{zone}>").unwrap();
        } else if let Some(claim) = time_claim(word, now) {
            out.push_str(&claim);
        } else {
            out.push_str(word);
        }
        out.push_str(end);
    }
    out
}

/// `:1795481833`, the end of a time claim in JSON, as seconds from now to the minute.
fn time_claim(word: &str, now: Timestamp) -> Option<String> {
    let seconds: i64 = word.strip_prefix(':')?.parse().ok()?;
    let away = seconds - now.as_second();
    (away.abs() < 86_400).then(|| format!(":<now{:+} min>", (away + 30).div_euclid(60)))
}
