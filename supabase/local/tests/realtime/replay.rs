//! Plays the client's part of a recording, and compares what our server answers with what the real one did.
//!
//! Times, generated keys and binding ids cannot be the same, so they are replaced on both sides before the comparison.
//! Frames of one socket may arrive in another order than recorded where the protocol does not fix it.

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use supabase_local::{JwtSecret, Stack};
use tokio_tungstenite::tungstenite::Message;

use crate::client::{Client, admin};

/// Notes at which the playing of a recording ends.
const NOT_PLAYED: [&str; 2] = [
    // The deletion that follows was not recorded, and its race is with the real server's polling.
    "deleted before the poll",
    // Phoenix's own binary frames, which no Supabase client sends.
    "kind 0 push",
];

/// Rows that the recordings before had left in the database.
const LEFT_BEHIND: [(&str, &str, &str); 1] =
    [("2.0.0", "pg_scope_and_duplicates", "insert into public.events (cluster_id) values ('sc')")];

/// Plays a recording of one protocol version.
pub(crate) async fn play(version: &str, case: &str) {
    let path = format!("{}/tests/realtime/recorded/{version}/{case}.jsonl", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).expect("the recording");
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let not_played = |line: &Value| {
        let note = line["text"].as_str().unwrap_or_default();
        line["dir"] == "note" && NOT_PLAYED.iter().any(|begin| note.starts_with(begin))
    };
    let end = lines.iter().position(not_played).unwrap_or(lines.len());
    let stack = crate::stack().await;
    let player = Player::new(&stack, &lines).await;
    for (_, _, sql) in LEFT_BEHIND.iter().filter(|(v, c, _)| (*v, *c) == (version, case)) {
        player.database.batch_execute(sql).await.expect("the SQL runs");
    }
    player.play(&lines[..end]).await;
    stack.stop().await.expect("the stack stops");
}

struct Player<'a> {
    stack: &'a Stack,
    database: tokio_postgres::Client,
    sockets: HashMap<u64, Peer>,
    /// Everything that was sent and run in the recording: a UUID in it is no generated one.
    spoken: String,
}

/// A socket of the recording and ours beside it.
struct Peer {
    client: Client,
    /// Frames of ours that no recorded frame has claimed yet.
    pending: Vec<Value>,
    recorded_ids: HashMap<u64, String>,
    our_ids: HashMap<u64, String>,
}

impl<'a> Player<'a> {
    async fn new(stack: &'a Stack, lines: &[Value]) -> Self {
        let spoken = lines.iter().filter(|line| line["dir"] != "server").map(Value::to_string).collect();
        Self { stack, database: admin(stack).await, sockets: HashMap::new(), spoken }
    }

    async fn play(mut self, lines: &[Value]) {
        for line in lines {
            let connection = line["conn"].as_u64().unwrap_or_default();
            match (line["dir"].as_str().unwrap(), line["type"].as_str().unwrap_or_default()) {
                ("sql", _) => {
                    // One transaction per statement, as psql does it.
                    self.database.batch_execute(line["text"].as_str().unwrap()).await.expect("the SQL runs");
                }
                ("client", "open") => {
                    let url = line["url"].as_str().unwrap().split_once("/socket/").unwrap().1;
                    let base = self.stack.api_url().replacen("http", "ws", 1);
                    let client =
                        Client::open(&format!("{base}/socket/{url}")).await.expect("the socket opens");
                    let (recorded_ids, our_ids) = (HashMap::new(), HashMap::new());
                    let peer = Peer { client, pending: Vec::new(), recorded_ids, our_ids };
                    self.sockets.insert(connection, peer);
                }
                ("client", "text") => {
                    let text = fresh_tokens(line["data"].as_str().unwrap(), line["at"].as_str().unwrap());
                    self.peer(connection).client.send(Message::text(text)).await;
                }
                ("client", "binary") => {
                    let bytes = bytes(line["hex"].as_str().unwrap());
                    self.peer(connection).client.send(Message::binary(bytes)).await;
                }
                ("server", "text" | "binary") => self.expect(connection, line).await,
                ("server", "close") => self.finish(connection).await,
                _ => {}
            }
        }
        let rest: Vec<u64> = self.sockets.keys().copied().collect();
        for connection in rest {
            self.finish(connection).await;
        }
    }

    fn peer(&mut self, connection: u64) -> &mut Peer {
        self.sockets.get_mut(&connection).expect("a socket that was opened")
    }

    /// Waits for the recorded frame.
    async fn expect(&mut self, connection: u64, line: &Value) {
        let spoken = std::mem::take(&mut self.spoken);
        let peer = self.peer(connection);
        let wanted = normal(&frame(line), &mut peer.recorded_ids, &spoken);
        let found = peer.pending.iter().position(|frame| *frame == wanted);
        if let Some(found) = found {
            peer.pending.remove(found);
        } else {
            loop {
                let heard = tokio::time::timeout(Duration::from_secs(12), peer.client.hear()).await;
                let Ok(heard) = heard else {
                    panic!("never came:\n{wanted}\nbut there were:\n{:#?}", peer.pending);
                };
                let heard = normal(&message(&heard), &mut peer.our_ids, &spoken);
                if heard == wanted {
                    break;
                }
                peer.pending.push(heard);
            }
        }
        self.spoken = spoken;
    }

    /// Nothing may have come that was not recorded.
    async fn finish(&mut self, connection: u64) {
        let Some(mut peer) = self.sockets.remove(&connection) else { return };
        let beat = json!({"topic": "phoenix", "event": "heartbeat", "payload": {}, "ref": "fence"});
        peer.client.say(beat).await;
        peer.client.say(json!([null, "fence", "phoenix", "heartbeat", {}])).await;
        loop {
            let heard = message(&peer.client.hear().await);
            if heard["ref"] == "fence" || heard[1] == "fence" {
                break;
            }
            peer.pending.push(heard);
        }
        assert_eq!(peer.pending, Vec::<Value>::new(), "frames that the real server did not send");
    }
}

/// A recorded frame as JSON; what is none stays text.
fn frame(line: &Value) -> Value {
    match line["data"].as_str() {
        Some(text) => serde_json::from_str(text).unwrap_or_else(|_| text.into()),
        None => json!({"bytes": bytes(line["hex"].as_str().expect("bytes"))}),
    }
}

fn message(message: &Message) -> Value {
    match message {
        Message::Binary(bytes) => json!({"bytes": bytes.as_ref()}),
        other => {
            let text = other.to_text().expect("UTF-8");
            serde_json::from_str(text).unwrap_or_else(|_| text.into())
        }
    }
}

/// A frame without what cannot be the same twice.
fn normal(value: &Value, ids: &mut HashMap<u64, String>, spoken: &str) -> Value {
    match value {
        Value::Object(object) => object
            .iter()
            .map(|(key, value)| {
                let value = match (key.as_str(), value) {
                    ("commit_timestamp", Value::String(_)) => "a time".into(),
                    ("ids", Value::Array(list)) => {
                        list.iter().map(|id| ids[&id.as_u64().unwrap()].clone()).collect()
                    }
                    ("postgres_changes", Value::Array(list)) => {
                        list.iter().map(|binding| named(binding, ids)).collect()
                    }
                    // Of a sequence that other recordings also used.
                    ("id" | "Id", Value::Number(_)) => "a number".into(),
                    ("message" | "reason", Value::String(text)) => without_seconds(text).into(),
                    (_, value) => normal(value, ids, spoken),
                };
                (key.clone(), value)
            })
            .collect(),
        Value::Array(list) => list.iter().map(|value| normal(value, ids, spoken)).collect(),
        Value::String(text) if is_uuid(text) && !spoken.contains(text.as_str()) => "a uuid".into(),
        other => other.clone(),
    }
}

/// A binding of a join reply: its id is noted under the rest of it.
fn named(binding: &Value, ids: &mut HashMap<u64, String>) -> Value {
    let mut rest = binding.as_object().expect("a binding").clone();
    let id = rest.remove("id").and_then(|id| id.as_u64()).expect("an id");
    ids.insert(id, Value::Object(rest.clone()).to_string());
    rest.into()
}

fn without_seconds(text: &str) -> String {
    match text.split_once("expired ") {
        Some((before, after)) => {
            let digits = after.chars().take_while(char::is_ascii_digit).count();
            let class = if &after[..digits] == "0" { "0" } else { "many" };
            format!("{before}expired {class}{}", &after[digits..])
        }
        None => text.to_owned(),
    }
}

fn is_uuid(text: &str) -> bool {
    text.len() == 36 && text.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-')
}

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len() / 2).map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).expect("hex")).collect()
}

/// The text with each genuine token signed anew, its times moved from the recording's day to now.
fn fresh_tokens(text: &str, recorded_at: &str) -> String {
    let secret = JwtSecret::default();
    let then = recorded_at.parse::<jiff::Timestamp>().expect("a time").as_second();
    let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap();
    let mut fresh = text.to_owned();
    for word in text.split('"').map(|word| word.trim_end_matches('\\')).filter(|word| word.starts_with("eyJ"))
    {
        let Ok(claims) = secret.decode(word) else { continue };
        let mut claims: Value = serde_json::from_str(&claims.to_json()).unwrap();
        let Some(exp) = claims["exp"].as_i64().filter(|exp| (exp - then).abs() < 100_000) else { continue };
        claims["exp"] = (exp - then + now).into();
        fresh = fresh.replace(word, &secret.sign(&claims));
    }
    fresh
}
