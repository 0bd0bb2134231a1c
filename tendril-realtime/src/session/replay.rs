//! Every recorded exchange with the real server, played through `wire` and `session`.
//!
//! What the recorded client sent is turned into commands and what the server sent goes in as it came. The outcome, which is
//! what the user of the library would be told, is written down line by line: the files beside this one are the reviewed
//! result, and the tests at the end say in words what matters most about it.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    path::Path,
    time::{Duration, Instant},
};

use bytes::Bytes;
use serde_json::Value;
use tokio_tungstenite::tungstenite::Utf8Bytes;

use super::*;
use crate::wire::{
    self,
    join::{Binding, BroadcastConfig, EventFilter, PresenceConfig, Replay},
};

/// One transcript, and what became of it.
struct Player {
    start: Instant,
    sessions: BTreeMap<u64, Session>,
    next_id: u64,
    /// Who a subscriber is, in the outcome's words.
    names: BTreeMap<u64, String>,
    outcome: String,
    server_frames: usize,
    malformed: usize,
}

fn recorded(version: &str, case: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/recorded/{version}/{case}.jsonl"));
    fs::read_to_string(path).unwrap()
}

fn play(version: &str, case: &str) -> Player {
    let mut player = Player {
        start: Instant::now(),
        sessions: BTreeMap::new(),
        next_id: 1,
        names: BTreeMap::new(),
        outcome: String::new(),
        server_frames: 0,
        malformed: 0,
    };
    for line in recorded(version, case).lines() {
        player.line(&serde_json::from_str(line).unwrap());
    }
    player
}

impl Player {
    fn line(&mut self, line: &Value) {
        let now = self.start + Duration::from_millis(line["t"].as_u64().unwrap_or_default());
        let conn = line["conn"].as_u64().unwrap_or_default();
        let kind = line["type"].as_str().unwrap_or_default();
        match (line["dir"].as_str().unwrap(), kind) {
            ("note", _) => self.say(&format!("# {}", line["text"].as_str().unwrap_or_default())),
            ("server", "upgrade") => {
                // Beats and pacing have tests of their own; here they would only put numbers into the way.
                let settings = Settings {
                    heartbeat_interval: Duration::from_secs(86_400),
                    joins_at_once: 1000,
                    join_spacing: Duration::ZERO,
                    ..Settings::default()
                };
                let mut session = Session::new(settings, false, false, now);
                session.on_open(now, &mut Vec::new());
                self.sessions.insert(conn, session);
                self.say(&format!("{conn}: open"));
            }
            ("client", "text") => {
                if let Ok(message) = serde_json::from_str::<Value>(line["data"].as_str().unwrap_or_default())
                {
                    self.client(conn, &message, now);
                }
            }
            ("server", "text") => {
                self.server_frames += 1;
                let text = Utf8Bytes::from(line["data"].as_str().unwrap());
                self.server(conn, wire::text::decode(&text), now);
            }
            ("server", "binary") => {
                self.server_frames += 1;
                let frame = bytes_of(line["hex"].as_str().unwrap());
                self.server(conn, wire::binary::decode(&frame), now);
            }
            ("server", "close") => {
                self.say(&format!("{conn}: closed {}", line["code"]));
                let mut out = Vec::new();
                if let Some(session) = self.sessions.get_mut(&conn) {
                    session.on_closed(now, &mut out);
                }
                self.tell(conn, out);
            }
            _ => {}
        }
    }

    /// What the recorded client sent, as far as our own client would send such a thing.
    fn client(&mut self, conn: u64, message: &Value, now: Instant) {
        let part = |place: usize, name: &str| {
            message.get(place).or_else(|| message.get(name)).cloned().unwrap_or_default()
        };
        let (reference, topic, event) = (part(1, "ref"), part(2, "topic"), part(3, "event"));
        let payload = part(4, "payload");
        let (Some(reference), Some(topic), Some(event)) =
            (reference.as_str(), topic.as_str(), event.as_str())
        else {
            return;
        };
        let (Ok(number), Some(name)) = (reference.parse::<u64>(), topic.strip_prefix(TOPIC_PREFIX)) else {
            if let (Ok(_), "heartbeat", Some(session)) =
                (reference.parse::<u64>(), event, self.sessions.get_mut(&conn))
            {
                session.link.as_mut().unwrap().heartbeat.on_sent(reference.to_owned(), now);
            }
            return;
        };
        if !self.sessions.contains_key(&conn) || !payload.is_object() {
            return;
        }
        let command = match event {
            "phx_join" => return self.join(conn, number, name, &payload, now),
            "phx_leave" => self.topic(conn, topic).map(|topic| Command::Leave { topic }),
            "access_token" => {
                let id = self.topic(conn, topic);
                let topic = id.and_then(|id| self.sessions.get_mut(&conn).unwrap().topics.get_mut(&id));
                if let Some(topic) = topic {
                    topic.token_pushed = !topic.config.bindings.is_empty();
                }
                None
            }
            "presence" | "broadcast" => self.topic(conn, topic).map(|topic| Command::Push {
                topic,
                request: Some(self.request(&format!("{event} {reference} on {name}"))),
                event: if event == "presence" { name::PRESENCE } else { name::BROADCAST },
                payload: Payload::Json(payload.to_string()),
                patience: Duration::from_secs(10),
            }),
            _ => None,
        };
        if let Some(command) = command {
            self.command(conn, number, command, now);
        }
    }

    fn command(&mut self, conn: u64, reference: u64, command: Command, now: Instant) {
        let session = self.sessions.get_mut(&conn).unwrap();
        session.next_ref = reference;
        let mut out = Vec::new();
        session.on_command(command, now, &mut out);
        self.tell(conn, out);
    }

    fn join(&mut self, conn: u64, reference: u64, name: &str, payload: &Value, now: Instant) {
        let config = config_of(&payload["config"]);
        if let Some(id) = self.topic(conn, &format!("{TOPIC_PREFIX}{name}")) {
            // A second join of a topic: our client makes one when it gives up the first.
            let session = self.sessions.get_mut(&conn).unwrap();
            session.next_ref = reference;
            let topic = session.topics.get_mut(&id).unwrap();
            topic.config = config;
            topic.interrupt(ResyncReason::Rejoined, now);
            let mut out = Vec::new();
            session.tick(now, &mut out);
            return self.tell(conn, out);
        }
        let mut subscribers = Vec::new();
        for place in 0..config.bindings.len() {
            subscribers.push(self.subscriber(&format!("{name}[{place}]"), Interest::Changes(place)));
        }
        subscribers.push(self.subscriber(&format!("{name} broadcast"), Interest::Broadcast));
        subscribers.push(self.subscriber(&format!("{name} presence"), Interest::Presence));
        let ready = self.request(&format!("ready {name}"));
        self.next_id += 1;
        let topic = TopicId(self.next_id);
        let command = Command::Open { topic, name: name.to_owned(), config, subscribers, ready };
        self.command(conn, reference, command, now);
    }

    fn subscriber(&mut self, who: &str, interest: Interest) -> Subscriber {
        self.next_id += 1;
        self.names.insert(self.next_id, who.to_owned());
        Subscriber { id: SubscriberId(self.next_id), interest }
    }

    fn request(&mut self, what: &str) -> RequestId {
        self.next_id += 1;
        self.names.insert(self.next_id, what.to_owned());
        RequestId(self.next_id)
    }

    fn topic(&self, conn: u64, name: &str) -> Option<TopicId> {
        self.sessions.get(&conn)?.names.get(name).copied()
    }

    fn server(&mut self, conn: u64, message: Result<wire::Inbound, wire::FrameError>, now: Instant) {
        let mut out = Vec::new();
        match (message, self.sessions.get_mut(&conn)) {
            (Ok(message), Some(session)) => session.on_message(message, now, &mut out),
            (Err(error), Some(session)) => {
                session.on_sign_of_life(now);
                self.malformed += 1;
                self.say(&format!("{conn}: passed over: {error}"));
            }
            (_, None) => panic!("a frame on a connection that was never opened"),
        }
        self.tell(conn, out);
    }

    fn say(&mut self, text: &str) {
        self.outcome.push_str(text);
        self.outcome.push('\n');
    }

    fn tell(&mut self, conn: u64, actions: Vec<Action>) {
        for action in actions {
            let line = match action {
                Action::Send(message) => format!("-> {} {}", message.event, message.topic),
                Action::Deliver(SubscriberId(id), delivery) => {
                    format!("{}: {}", self.names[&id], described(&delivery))
                }
                Action::Answer(RequestId(id), answer) => match answer {
                    Ok(text) => format!("answer to {}: ok {}", self.names[&id], text.as_str()),
                    Err(error) => format!(
                        "answer to {}: {}: {error} [{:?}]",
                        self.names[&id],
                        error.code(),
                        error.retry()
                    ),
                },
                other => format!("{other:?}"),
            };
            self.say(&format!("{conn}: {line}"));
        }
    }
}

fn described(delivery: &Delivery) -> String {
    let short = |text: &str| {
        let mut short: String = text.chars().take(160).collect();
        if short.len() < text.len() {
            let _ = write!(short, "… ({} bytes)", text.len());
        }
        short
    };
    match delivery {
        Delivery::Change(change) => {
            let mut text = format!("{:?} {}.{}", change.kind, change.schema(), change.table());
            for (what, row) in [("new", change.record()), ("old", change.old_record())] {
                if let Some(row) = row {
                    let _ = write!(text, " {what} {}", short(row));
                }
            }
            if !change.errors().is_empty() {
                let _ = write!(text, " errors {:?}", change.errors());
            }
            text
        }
        Delivery::Resync(reason) => format!("RESYNC {reason:?}"),
        Delivery::BroadcastText(text) => format!("broadcast {}", short(text.as_str())),
        Delivery::Broadcast { event, metadata, payload } => {
            let payload = match payload {
                BroadcastPayload::Json(text) => format!("json {}", short(text.as_str())),
                BroadcastPayload::Binary(bytes) => format!("bytes {}", short(&format!("{bytes:02x?}"))),
            };
            format!("broadcast `{event}` {} {payload}", metadata.as_deref().unwrap_or("-"))
        }
        Delivery::PresenceState(text) => format!("presence state {}", short(text.as_str())),
        Delivery::PresenceDiff(text) => format!("presence diff {}", short(text.as_str())),
        Delivery::PresenceReset => "presence reset".to_owned(),
        Delivery::Trouble(error) => format!("TROUBLE {}: {error} [{:?}]", error.code(), error.retry()),
        Delivery::End(error) => format!("END {}: {error}", error.code()),
    }
}

/// The recorded join's wishes. Wrong types, of which the recordings hold many, are what our builder cannot make.
fn config_of(config: &Value) -> JoinConfig {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let binding = |value: &Value| Binding {
        event: match value["event"].as_str() {
            Some("INSERT") => EventFilter::Insert,
            Some("UPDATE") => EventFilter::Update,
            Some("DELETE") => EventFilter::Delete,
            _ => EventFilter::All,
        },
        schema: text(&value["schema"]).unwrap_or_default(),
        table: text(&value["table"]),
        filter: text(&value["filter"]),
        select: Vec::new(),
    };
    let bindings = config["postgres_changes"].as_array().map(|list| list.iter().map(binding).collect());
    JoinConfig {
        private: config["private"] == true,
        broadcast: BroadcastConfig {
            ack: config["broadcast"]["ack"] == true,
            own: config["broadcast"]["self"] == true,
            replay: config["broadcast"]["replay"]["since"]
                .as_u64()
                .map(|since| Replay { since, limit: None }),
            replication_ready: config["broadcast"]["replication_ready"] == true,
        },
        presence: PresenceConfig {
            key: text(&config["presence"]["key"]).unwrap_or_default(),
            enabled: config["presence"]["enabled"] == true,
        },
        bindings: bindings.unwrap_or_default(),
    }
}

fn bytes_of(hex: &str) -> Bytes {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

fn cases() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recorded");
    let mut cases = Vec::new();
    for version in ["1.0.0", "2.0.0"] {
        for entry in fs::read_dir(root.join(version)).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            cases.push((version.to_owned(), name.strip_suffix(".jsonl").unwrap().to_owned()));
        }
    }
    cases.sort();
    cases
}

#[test]
fn every_recorded_frame_has_its_reviewed_outcome() {
    let cases = cases();
    assert_eq!(cases.len(), 86);
    let mut frames = 0;
    for (version, case) in cases {
        let player = play(&version, &case);
        frames += player.server_frames;
        insta::with_settings!({ omit_expression => true, prepend_module_to_snapshot => false }, {
            insta::assert_snapshot!(format!("{case}-{version}"), player.outcome);
        });
    }
    assert_eq!(frames, 1609 + 38);
}
