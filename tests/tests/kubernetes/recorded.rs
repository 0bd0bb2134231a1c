//! The stand-in is asked what the real server was asked, and its answers are compared: status, warning, body.
//!
//! What the server makes up, such as times, uids and versions, must be there and of the same type. Requests name the uids and
//! versions that the stand-in made up, in the place of the recorded ones.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use serde_json::Value;
use tendril_tests::kubernetes::ApiServer;
use tokio::time::sleep;

use crate::{
    http::client,
    ledger::{ALIKE, Excused, LEDGER, MOMENTS, NUMBERS, is_left_out},
    recording::{Case, Exchange, cases},
};

/// What the recorder's Role allowed.
const RUNNER: &[(&str, &str, &[&str])] = &[
    ("batch", "jobs", &["create", "get", "list", "watch", "delete", "patch"]),
    ("", "pods", &["get", "list", "watch", "delete"]),
    ("", "pods/log", &["get"]),
    ("", "secrets", &["create", "get", "update", "patch", "delete"]),
    ("", "events", &["list", "watch"]),
    ("", "serviceaccounts/token", &["create"]),
    ("coordination.k8s.io", "leases", &["create", "get", "update", "delete"]),
];

/// The Role of case 081.
const MINIMAL: &[(&str, &str, &[&str])] = &[
    ("batch", "jobs", &["create", "get", "list", "watch", "delete"]),
    ("", "pods", &["list", "watch"]),
    ("", "pods/log", &["get"]),
    ("", "secrets", &["create"]),
];

/// In case 082 another right is missing each time.
const MISSING: &[(&str, &str, &str)] = &[
    ("batch", "jobs", "create"),
    ("batch", "jobs", "get"),
    ("batch", "jobs", "list"),
    ("batch", "jobs", "watch"),
    ("batch", "jobs", "delete"),
    ("", "pods", "list"),
    ("", "pods", "watch"),
    ("", "pods/log", "get"),
    ("", "secrets", "create"),
];

/// Cases that go on where another one ended.
const AFTER: &[(&str, &str)] = &[("002", "001")];

/// What the stand-in made up for what the server made up.
#[derive(Default)]
struct Names(BTreeMap<String, String>);

impl Names {
    fn translate(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (recorded, ours) in &self.0 {
            text = text.replace(recorded, ours);
        }
        text
    }

    /// Learns from two answers to the same request.
    fn learn(&mut self, recorded: &Value, ours: &Value) {
        match (recorded, ours) {
            (Value::Object(recorded), Value::Object(ours)) => {
                for (field, recorded) in recorded {
                    let Some(ours) = ours.get(field) else { continue };
                    match (field.as_str(), recorded, ours) {
                        ("uid", Value::String(recorded), Value::String(ours)) => {
                            self.0.insert(recorded.clone(), ours.clone());
                        }
                        ("resourceVersion", Value::String(recorded), Value::String(ours)) => {
                            self.0.insert(
                                format!("\"resourceVersion\": \"{recorded}\""),
                                format!("\"resourceVersion\": \"{ours}\""),
                            );
                            self.0.insert(format!("({recorded})"), format!("({ours})"));
                        }
                        ("continue", Value::String(recorded), Value::String(ours)) => {
                            self.0.insert(recorded.clone(), ours.clone());
                        }
                        _ => self.learn(recorded, ours),
                    }
                }
            }
            (Value::Array(recorded), Value::Array(ours)) => {
                recorded.iter().zip(ours).for_each(|(recorded, ours)| self.learn(recorded, ours));
            }
            _ => {}
        }
    }
}

/// What the server makes up.
fn is_made_up(field: &str) -> bool {
    matches!(
        field,
        "uid"
            | "resourceVersion"
            | "continue"
            | "token"
            | "controller-uid"
            | "batch.kubernetes.io/controller-uid"
    ) || field.ends_with("Time")
        || field.ends_with("Timestamp")
}

/// The first difference, as a path and both values.
fn difference(path: &str, recorded: &Value, ours: &Value) -> Option<String> {
    match (recorded, ours) {
        (Value::Object(recorded), Value::Object(ours)) => {
            let mut fields: Vec<&String> = recorded.keys().chain(ours.keys()).collect();
            fields.sort_unstable();
            fields.dedup();
            fields.into_iter().filter(|field| *field != "managedFields").find_map(|field| {
                let here = format!("{path}.{field}");
                match (recorded.get(field), ours.get(field)) {
                    (Some(recorded), Some(ours)) if is_made_up(field) => (recorded.is_string()
                        != ours.is_string())
                    .then(|| format!("{here}: {recorded} against {ours}")),
                    (Some(recorded), Some(ours)) => difference(&here, recorded, ours),
                    (Some(recorded), None) => Some(format!("{here}: {recorded} is missing")),
                    (None, Some(ours)) => Some(format!("{here}: {ours} is ours alone")),
                    (None, None) => None,
                }
            })
        }
        (Value::Array(recorded), Value::Array(ours)) if recorded.len() == ours.len() => recorded
            .iter()
            .zip(ours)
            .enumerate()
            .find_map(|(at, (recorded, ours))| difference(&format!("{path}[{at}]"), recorded, ours)),
        (recorded, ours) => (recorded != ours).then(|| format!("{path}: {recorded} against {ours}")),
    }
}

/// Without the numbers in its messages.
fn without_numbers(answer: &mut Value) {
    match answer {
        Value::Object(fields) => {
            for (field, value) in fields {
                match value {
                    Value::String(text) if field == "message" => {
                        text.retain(|letter| !letter.is_ascii_digit());
                    }
                    value => without_numbers(value),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(without_numbers),
        _ => {}
    }
}

struct Replay {
    case: String,
    server: ApiServer,
    client: reqwest::Client,
    names: Names,
}

impl Replay {
    async fn start(case: &Case) -> Self {
        let server = ApiServer::start().await;
        server.add_image("localhost/busybox:1", &["/bin/sh"]);
        server.add_account("runner", "tendril-agent", RUNNER);
        server.add_account("minimal", "minimal", MINIMAL);
        server.add_account("nobody", "nobody", &[]);
        server.add_account("gone", "gone", &[]);
        server.add_admin("admin");
        // What the recorder's administrator had made, which was not recorded: as the answers show it.
        let made = case.made_before();
        server.set_controller_down(made.iter().any(|job| job["spec"]["suspend"] != true));
        for object in &made {
            server.seed(object);
        }
        match case.number.as_str() {
            "011" => server.set_quota(Some(0), None),
            "018" => server.set_policy(Some(("no-latest", "images must come from registry.example.com"))),
            _ => {}
        }
        let client = client();
        Self { case: case.number.clone(), server, client, names: Names::default() }
    }

    /// Asks, and answers with status, warning and body.
    async fn ask(&self, exchange: &Exchange) -> (u16, Option<String>, String) {
        let url = format!("{}{}", self.server.url(), self.names.translate(&exchange.path));
        let method = exchange.method.parse().expect("a method");
        let mut request = self.client.request(method, url).timeout(Duration::from_secs(20));
        if exchange.user != "anonymous" {
            request = request.bearer_auth(&exchange.user);
        }
        if let Some(kind) = exchange.request_headers.get("content-type") {
            request = request.header("content-type", kind);
        }
        let response = request.body(self.names.translate(&exchange.request)).send().await.expect("an answer");
        let status = response.status().as_u16();
        let warning = response.headers().get("warning").map(|value| value.to_str().expect("text").to_owned());
        (status, warning, response.text().await.expect("a body"))
    }

    /// Plays an exchange; none, if the answers are alike. `expected` is how the difference begins that the ledger names: a read that
    /// shows it need not wait for another one.
    async fn play(&mut self, exchange: &Exchange, expected: Option<&str>) -> Option<String> {
        // A read may have to wait until what it is about has happened.
        let patience = if exchange.method == "GET" { Duration::from_secs(15) } else { Duration::ZERO };
        let begun = Instant::now();
        loop {
            let (status, warning, body) = self.ask(exchange).await;
            let different = self.compare(exchange, status, warning.as_deref(), &body);
            let is_expected = match (&different, expected) {
                (None, None) => true,
                (Some(different), Some(expected)) => different.starts_with(expected),
                _ => false,
            };
            if is_expected || begun.elapsed() >= patience {
                return different;
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    fn compare(
        &mut self,
        exchange: &Exchange,
        status: u16,
        warning: Option<&str>,
        body: &str,
    ) -> Option<String> {
        if status != exchange.status {
            return Some(format!("status {} against {status}: {body}", exchange.status));
        }
        let expected = exchange.headers.get("warning").map(String::as_str);
        if expected != warning {
            return Some(format!("warning {expected:?} against {warning:?}"));
        }
        let are_compared = !NUMBERS.contains(&(self.case.as_str(), exchange.number));
        let alike = |mut recorded: Value, mut ours: Value| {
            if !are_compared {
                without_numbers(&mut recorded);
                without_numbers(&mut ours);
            }
            difference("", &recorded, &ours)
        };
        if !exchange.lines.is_empty() {
            let ours: Vec<Value> = body.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
            let recorded: Vec<Value> = exchange
                .lines
                .iter()
                .filter_map(|line| serde_json::from_str(&self.names.translate(&line.to_string())).ok())
                .collect();
            return alike(Value::Array(recorded), Value::Array(ours));
        }
        let recorded = serde_json::from_str::<Value>(&exchange.body);
        let ours = serde_json::from_str::<Value>(body);
        match (recorded, ours) {
            (Ok(recorded), Ok(ours)) => {
                self.names.learn(&recorded, &ours);
                let recorded =
                    serde_json::from_str(&self.names.translate(&recorded.to_string())).expect("JSON");
                alike(recorded, ours)
            }
            _ => (exchange.body.trim() != body.trim()).then(|| format!("{} against {body}", exchange.body)),
        }
    }

    /// What the recorder did to the cluster between two exchanges.
    fn prepare(&self, case: &str, exchange: &Exchange) {
        match (case, exchange.number) {
            ("018", 2) => {
                self.server.set_policy(None);
                self.server.set_webhook_down(Some("failed calling webhook \"policy.example.com\": failed to call webhook: Post \"https://127.0.0.1:1/validate?timeout=2s\": dial tcp 127.0.0.1:1: connect: connection refused"));
            }
            ("082", number) => {
                if number > 1 {
                    self.server.allow("minimal", MISSING[number - 2]);
                }
                self.server.deny("minimal", MISSING[number - 1]);
            }
            _ => {}
        }
    }
}

/// What became of a case.
#[derive(Default)]
struct Tally {
    alike: usize,
    left_out: usize,
    excused: Vec<&'static Excused>,
    different: Vec<String>,
}

async fn replay(case: Case, before: Vec<Exchange>) -> Tally {
    let mut replay = Replay::start(&case).await;
    for exchange in &before {
        replay.play(exchange, None).await;
    }
    let mut tally = Tally::default();
    for exchange in &case.exchanges {
        replay.prepare(&case.number, exchange);
        let is_moment = MOMENTS.contains(&(case.number.as_str(), exchange.number));
        if is_moment || is_left_out(exchange) {
            tally.left_out += 1;
            continue;
        }
        let reason = LEDGER.iter().find(|(number, at, ..)| *number == case.number && *at == exchange.number);
        let expected = reason.map(|(_, _, difference, _)| *difference);
        match (replay.play(exchange, expected).await, reason) {
            (None, None) => tally.alike += 1,
            (None, Some(_)) => {
                tally
                    .different
                    .push(format!("{} {} is in the ledger, and alike", case.number, exchange.number));
            }
            (Some(why), Some(reason)) if why.starts_with(reason.2) => tally.excused.push(reason),
            (Some(why), _) => tally.different.push(format!(
                "{} {}: {} {}\n    {}",
                case.number,
                exchange.number,
                exchange.method,
                exchange.path,
                why.chars().take(600).collect::<String>()
            )),
        }
    }
    tally
}

#[tokio::test]
async fn the_stand_in_answers_as_the_real_server_did() {
    let all = cases();
    assert!(all.len() > 40, "the recordings are there");
    let mut replays = tokio::task::JoinSet::new();
    for case in cases() {
        let before = AFTER.iter().filter(|(number, _)| *number == case.number).flat_map(|(_, before)| {
            all.iter().find(|case| case.number == *before).expect("the case before").exchanges.clone()
        });
        let before = before.collect();
        replays.spawn(replay(case, before));
    }
    let mut all = Tally::default();
    for tally in replays.join_all().await {
        all.alike += tally.alike;
        all.left_out += tally.left_out;
        all.excused.extend(tally.excused);
        all.different.extend(tally.different);
    }
    all.different.sort();
    let asked = all.alike + all.excused.len() + all.different.len();
    println!(
        "{} of {asked} answers are alike; {} recorded requests are not made by the agent",
        all.alike, all.left_out
    );
    for (case, exchange, _, why) in &all.excused {
        println!("  {case} {exchange}: {why}");
    }
    assert!(
        all.different.is_empty(),
        "{} answers differ:\n{}",
        all.different.len(),
        all.different.join("\n")
    );
    assert_eq!(
        (all.alike, all.excused.len()),
        (ALIKE, LEDGER.len()),
        "answers that are alike, and that are not"
    );
}
