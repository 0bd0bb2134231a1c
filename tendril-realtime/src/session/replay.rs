//! Every recorded exchange with the real server, played through `wire` and `session`.
//!
//! What the recorded client sent is turned into commands and what the server sent goes in as it came. The outcome, which is
//! what the user of the library would receive, is written down line by line: the files beside this one are the reviewed
//! result, and the tests at the end say in words what matters most about it.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    time::{Duration, Instant},
};

use bytes::Bytes;
use serde_json::Value;
use tokio_tungstenite::tungstenite::Utf8Bytes;

use self::description::described;
use super::*;
use crate::wire::{
    self, Payload, TOPIC_PREFIX,
    event::name,
    join::{Binding, BroadcastConfig, JoinConfig, PostgresEvent, PresenceConfig, Replay},
};

mod description;

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
                let mut session = Session::new(settings, false, Renewal::Never, now, 1_000_000);
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
                self.server(conn, now, |session, out| session.on_text(text, now, out).map(drop));
            }
            ("server", "binary") => {
                self.server_frames += 1;
                let frame = bytes_of(line["hex"].as_str().unwrap());
                self.server(conn, now, |session, out| {
                    wire::binary::decode(&frame).map(|message| session.on_message(message, now, out))
                });
            }
            ("server", "close") => {
                self.say(&format!("{conn}: closed {}", line["code"]));
                let mut out = Vec::new();
                if let Some(session) = self.sessions.get_mut(&conn) {
                    session.on_closed(now, &mut out);
                }
                self.note(conn, out);
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
                session.connection.as_mut().unwrap().heartbeat.on_sent(reference.to_owned(), now, None);
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
                timeout: Duration::from_secs(10),
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
        self.note(conn, out);
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
            return self.note(conn, out);
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
        // The recorded client decides when to join again; our own attempts would come at random times.
        if let Some(topic) = self.sessions.get_mut(&conn).unwrap().topics.get_mut(&topic) {
            let day = Duration::from_secs(86_400);
            topic.backoff = crate::backoff::Backoff::new(day, day);
        }
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

    fn server(
        &mut self,
        conn: u64,
        now: Instant,
        receive: impl FnOnce(&mut Session, &mut Vec<Action>) -> Result<(), wire::FrameError>,
    ) {
        let mut out = Vec::new();
        let session = self.sessions.get_mut(&conn).expect("a frame on a connection that was opened");
        if let Err(error) = receive(session, &mut out) {
            session.on_sign_of_life(now);
            self.malformed += 1;
            self.say(&format!("{conn}: passed over: {error}"));
        }
        self.note(conn, out);
    }

    fn say(&mut self, text: &str) {
        self.outcome.push_str(text);
        self.outcome.push('\n');
    }

    fn note(&mut self, conn: u64, actions: Vec<Action>) {
        for action in actions {
            // It repeats what the other lines say.
            if matches!(
                action,
                Action::Channel(..) | Action::HeartbeatAnswered(_) | Action::Deliver(_, Delivery::Finish)
            ) {
                continue;
            }
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

/// What the recorded join asks for. Wrong types, of which the recordings hold many, are what our builder cannot make.
fn config_of(config: &Value) -> JoinConfig {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let binding = |value: &Value| Binding {
        event: match value["event"].as_str() {
            Some("INSERT") => PostgresEvent::Insert,
            Some("UPDATE") => PostgresEvent::Update,
            Some("DELETE") => PostgresEvent::Delete,
            _ => PostgresEvent::All,
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

/// The lines of an outcome that hold all of these words.
fn lines_with<'a>(player: &'a Player, words: &[&str]) -> Vec<&'a str> {
    player.outcome.lines().filter(|line| words.iter().all(|word| line.contains(word))).collect()
}

#[test]
fn a_wrong_binding_fails_its_subscription_with_the_servers_words_and_others_live_on() {
    for version in ["1.0.0", "2.0.0"] {
        let player = play(version, "pg_bad_config");
        assert!(lines_with(&player, &["bad1[0]: END PostgresChanges", "table: nosuch"]).len() == 1);
        assert!(lines_with(&player, &["answer to ready bad1:", "[Never]"]).len() == 1);
        // One bad binding disables all of its channel; its broadcasts go on.
        assert_eq!(lines_with(&player, &["goodbad[0]: END"]).len(), 1);
        assert_eq!(lines_with(&player, &["goodbad[1]: END"]).len(), 1);
        assert_eq!(lines_with(&player, &["goodbad broadcast: END"]).len(), 0);
    }
}

#[test]
fn a_token_that_ran_out_says_so_and_leaves_other_channels_alone() {
    for version in ["1.0.0", "2.0.0"] {
        let player = play(version, "auth_token_expires_live");
        assert_eq!(lines_with(&player, &["exp[0]: END InvalidJWTToken", "has expired"]).len(), 1);
        assert_eq!(lines_with(&player, &["other", "END"]).len(), 0);
    }
}

#[test]
fn the_close_of_an_old_incarnation_does_not_touch_the_new_one() {
    for version in ["1.0.0", "2.0.0"] {
        let player = play(version, "join_refs");
        assert_eq!(lines_with(&player, &["END"]).len(), 0, "{}", player.outcome);
        assert_eq!(lines_with(&player, &["INTERRUPTED"]).len(), 0, "{}", player.outcome);
    }
}

#[test]
fn a_renewed_token_is_a_possible_gap_for_rows_and_for_nothing_else() {
    for version in ["1.0.0", "2.0.0"] {
        let player = play(version, "auth_access_token_push");
        assert_eq!(lines_with(&player, &["at[0]: RESYNC TokenRenewed"]).len(), 1);
        assert_eq!(lines_with(&player, &["broadcast: RESYNC"]).len(), 0);
    }
}

#[test]
fn refused_joins_are_reported_with_their_code_and_class() {
    for version in ["1.0.0", "2.0.0"] {
        let tokens = play(version, "auth_join_tokens");
        for code in ["InvalidJWTToken", "MalformedJWT", "JwtSignatureError"] {
            assert!(!lines_with(&tokens, &["answer to ready", code]).is_empty(), "{code}");
        }
        let private = play(version, "private_channels");
        assert!(!lines_with(&private, &["answer to ready secret: Unauthorized", "[Never]"]).is_empty());
        let limited = play(version, "limit_joins_per_second");
        assert!(!lines_with(&limited, &["ClientJoinRateLimitReached", "[After(30s)]"]).is_empty());
    }
}

#[test]
fn acknowledgements_that_never_come_end_in_a_timeout_and_large_messages_in_their_reason() {
    for version in ["1.0.0", "2.0.0"] {
        let private = play(version, "private_channels");
        assert!(!lines_with(&private, &["private:ro: Timeout"]).is_empty());
        let large = play(version, "limit_payload_size");
        assert!(!lines_with(&large, &["payload_size_exceeded"]).is_empty());
    }
}

#[test]
fn a_binary_broadcast_reaches_version_2_only() {
    // Connections 1 and 2 speak the version of the transcript, connection 3 the other one.
    let two = play("2.0.0", "broadcast_binary");
    assert!(!lines_with(&two, &["1: bin broadcast", "bytes [00, ff, 10, de, ad, be, ef]"]).is_empty());
    assert!(lines_with(&two, &["3: bin broadcast", "bytes ["]).is_empty());
    let one = play("1.0.0", "broadcast_binary");
    assert!(lines_with(&one, &["2: bin broadcast", "bytes ["]).is_empty());
    assert!(!lines_with(&one, &["2: bin broadcast", r#""payload":{"a":1}"#]).is_empty());
}
