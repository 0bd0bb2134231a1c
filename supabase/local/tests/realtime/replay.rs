//! Plays the client's part of a recording, and compares what our server answers with what the real one did.
//!
//! Times, generated keys and binding ids cannot be the same, so they are replaced on both sides before the comparison.
//! Frames of one socket may arrive in another order than recorded where the protocol does not fix it.

mod by_hand;

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use serde_json::{Value, json};
use supabase_local::{Cut, RealtimeOptions, Stack, Target};
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::client::{Client, End, admin};
use crate::freshness::{fresh, whole};
use crate::http::{Answer, send};
use crate::likeness::{bytes, frame, message, normal};

/// Notes at which the playing of a recording ends.
const NOT_PLAYED: [&str; 2] = [
    // The deletion that follows was not recorded, and its race is with the real server's polling.
    "deleted before the poll",
    // Phoenix's own binary frames, which no Supabase client sends.
    "kind 0 push",
];

/// Requests whose answers differ on purpose: the stack answers browsers before any service does.
const ANSWERED_OTHERWISE: [(&str, &str); 1] = [("Access-Control-Request-Method", "POST")];

/// What the recordings before had left in the database: rows, and numbers that were given out.
const LEFT_BEHIND: [(&str, &str, &str); 3] = [
    ("2.0.0", "pg_scope_and_duplicates", "insert into public.events (cluster_id) values ('sc')"),
    ("1.0.0", "broadcast_from_database", "alter table public.full_rows alter id restart with 9"),
    ("2.0.0", "broadcast_from_database", "alter table public.full_rows alter id restart with 10"),
];

/// How long a recorded frame is waited for.
const TIME_LIMIT: Duration = Duration::from_secs(12);

/// Where the recordings are.
const RECORDED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tendril-realtime/tests/recorded");

/// All recordings: `2.0.0/<case>`.
pub(crate) fn recordings() -> Vec<String> {
    let files = |version: &'static str| {
        let files = std::fs::read_dir(format!("{RECORDED}/{version}")).expect("recordings");
        files.filter_map(move |file| {
            Some(format!("{version}/{}", file.ok()?.file_name().to_str()?.strip_suffix(".jsonl")?))
        })
    };
    files("1.0.0").chain(files("2.0.0")).collect()
}

/// Plays a recording of one protocol version.
pub(crate) async fn play(version: &str, case: &str) {
    play_within(version, case, TIME_LIMIT).await;
}

/// Plays a recording, and waits no longer than that for a frame.
pub(crate) async fn play_within(version: &str, case: &str, time_limit: Duration) {
    let path = format!("{RECORDED}/{version}/{case}.jsonl");
    let text = std::fs::read_to_string(&path).expect("the recording");
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let not_played = |line: &Value| {
        let note = line["text"].as_str().unwrap_or_default();
        line["dir"] == "note" && NOT_PLAYED.iter().any(|begin| note.starts_with(begin))
    };
    let end = lines.iter().position(not_played).unwrap_or(lines.len());
    let end = lines[..end].iter().rposition(|line| !is_aftermath(line)).map_or(0, |last| last + 1);
    let stack = crate::stack_with(options(case, &lines)).await;
    let player = Player::new(&stack, &lines, time_limit).await;
    for (_, _, sql) in LEFT_BEHIND.iter().filter(|(v, c, _)| (*v, *c) == (version, case)) {
        player.database.batch_execute(sql).await.expect("the SQL runs");
    }
    player.play(&lines[..end]).await;
    stack.stop().await.expect("the stack stops");
}

/// The settings of the project that was recorded, as they were set through its administration.
fn options(case: &str, lines: &[Value]) -> RealtimeOptions {
    let mut options = RealtimeOptions::default();
    if case == "no_heartbeat" {
        options.idle_timeout = Duration::from_millis(300);
    }
    let settings = lines.iter().find(|line| line["method"] == "PUT").and_then(|line| line["data"].as_str());
    let settings: Value = serde_json::from_str(settings.unwrap_or("{}")).expect("JSON");
    let number = |name: &str| settings["tenant"][name].as_u64().map(|n| usize::try_from(n).expect("a size"));
    options.max_channels = number("max_channels_per_client").unwrap_or(options.max_channels);
    options.max_payload_kb = number("max_payload_size_in_kb").unwrap_or(options.max_payload_kb);
    options.max_users = number("max_concurrent_users");
    let rate = |name: &str| settings["tenant"][name].as_u64().map(|n| u32::try_from(n).expect("a limit"));
    options.max_joins_per_second = rate("max_joins_per_second");
    options.max_events_per_second = rate("max_events_per_second");
    options.tenant = Some("realtime-dev".to_owned());
    if case == "database_down" {
        // The recorded server polls for changes ten times a second: one that is committed just before a verdict is still delivered.
        options.poll_interval = Duration::from_millis(500);
    }
    options.private_only = settings["tenant"]["private_only"] == true;
    options
}

/// Whether a line at the end of a recording shows nothing but the recorder's sockets being closed.
fn is_aftermath(line: &Value) -> bool {
    let closed = line["type"] == "close" && line["code"] == 1005;
    closed || line["data"].as_str().is_some_and(|data| data.contains(r#"{"joins":{},"leaves""#))
}

struct Player<'a> {
    stack: &'a Stack,
    database: tokio_postgres::Client,
    sockets: HashMap<u64, Peer>,
    /// Answers that no recorded one was compared with yet, by connection; 0 is no websocket.
    answers: HashMap<u64, Answer>,
    /// Whether any channel was joined.
    joined: bool,
    /// Whether the answer to the latest request is of no interest.
    unasked: bool,
    /// Whether the server is about to break a connection.
    breaking: bool,
    /// When the next averages were taken in the recording, in milliseconds, once there is a connection.
    next_tick: Option<u64>,
    /// What was inserted beside the recording: the values of column `t`.
    inserted: HashSet<String>,
    /// Everything that was sent and run in the recording: a UUID in it is no generated one.
    sent: String,
    /// How long a recorded frame is waited for.
    time_limit: Duration,
}

/// A socket of the recording and ours beside it.
struct Peer {
    client: Client,
    /// Frames of ours that no recorded frame has claimed yet.
    pending: Vec<Value>,
    recorded_ids: HashMap<u64, String>,
    our_ids: HashMap<u64, String>,
    /// How many frames were sent.
    sent: u64,
}

impl Peer {
    fn new(client: Client) -> Self {
        Self { client, pending: Vec::new(), recorded_ids: HashMap::new(), our_ids: HashMap::new(), sent: 0 }
    }
}

impl<'a> Player<'a> {
    async fn new(stack: &'a Stack, lines: &[Value], time_limit: Duration) -> Self {
        let sent = lines.iter().filter(|line| line["dir"] != "server").map(Value::to_string).collect();
        let database = admin(stack).await;
        let (sockets, answers) = (HashMap::new(), HashMap::new());
        let (joined, unasked, breaking) = (false, false, false);
        stack.faults().hold_rates(true);
        Self {
            stack,
            database,
            sockets,
            answers,
            joined,
            unasked,
            breaking,
            next_tick: None,
            inserted: HashSet::new(),
            sent,
            time_limit,
        }
    }

    async fn play(mut self, lines: &[Value]) {
        for line in lines {
            let connection = line["conn"].as_u64().unwrap_or_default();
            if line["dir"] == "client" {
                self.tick(line);
            }
            match (line["dir"].as_str().unwrap(), line["type"].as_str().unwrap_or_default()) {
                // The note before describes it.
                ("sql", _) if line["text"].as_str().unwrap().contains("pg_terminate_backend") => {}
                ("sql", _) => self.run(line["text"].as_str().unwrap()).await,
                ("note", _) => self.obey(line["text"].as_str().unwrap()).await,
                ("client", "open") => self.open(connection, line).await,
                ("client", "text") => {
                    let text = fresh(line["data"].as_str().unwrap(), line["at"].as_str().unwrap());
                    let peer = self.peer(connection);
                    peer.sent += 1;
                    let text = whole(&text, peer.sent);
                    self.breaking |= text.len() > 5_000_000;
                    self.joined |= text.contains("phx_join");
                    self.peer(connection).client.send_unchecked(text).await;
                }
                ("client", "binary") => {
                    let bytes = bytes(line["hex"].as_str().unwrap());
                    self.peer(connection).client.send(Message::binary(bytes)).await;
                }
                ("client", "http") => self.request(line).await,
                ("server", "http") => self.compare(connection, line),
                ("server", "text" | "binary") => self.expect(connection, line).await,
                ("server", "close") => self.end(connection, line["code"].as_u64().unwrap()).await,
                _ => {}
            }
        }
        // All are read before the first leaves, which the others would receive.
        for peer in self.sockets.values_mut() {
            peer.finish().await;
        }
    }

    /// Runs SQL as psql does it, one transaction per statement.
    async fn run(&mut self, sql: &str) {
        if sql.contains("realtime.") && self.joined {
            self.wait_for_messages().await;
        }
        self.database.batch_execute(sql).await.expect("the SQL runs");
    }

    /// In the recording seconds had passed since the first join, and messages of the database arrived live.
    async fn wait_for_messages(&self) {
        let joined = "select count(*) from pg_replication_slots where slot_name like '%messages%' \
                      and confirmed_flush_lsn is not null";
        let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
        while self.database.query_one(joined, &[]).await.unwrap().get::<_, i64>(0) == 0 {
            assert!(tokio::time::Instant::now() < deadline, "nobody follows the messages");
            tokio::task::yield_now().await;
        }
    }

    /// Does to our server what was done to the real one according to the note.
    async fn obey(&mut self, note: &str) {
        if note.starts_with("the database backends of the tenant connections are terminated") {
            return self.fail_over().await;
        }
        let faults = self.stack.faults();
        if note.starts_with("every channel process of the server is killed") {
            faults.crash(Target::all());
        } else if note.starts_with("the process of the socket itself")
            || note.starts_with("and killed with SIGKILL")
        {
            self.breaking = true;
            faults.cut_sockets(Cut::Abrupt);
        } else if note.starts_with("SIGTERM") {
            faults.close_port(true);
            faults.cut_sockets(Cut::Close(1012));
        } else if note.starts_with("server is started again") {
            faults.close_port(false);
            while send(self.stack, "GET", "/healthcheck", &[], b"").await.is_none() {}
        } else if note.starts_with("PostgreSQL is stopped") {
            self.stack.refuse_database(true).await.expect("the database goes down");
        } else if note.starts_with("PostgreSQL is started") {
            self.stack.refuse_database(false).await.expect("the database comes back");
            self.database = admin(self.stack).await;
        } else if note == "client closes 1000" {
            self.peer(1).client.close(1000).await;
        } else if note.starts_with("conn 4 drops the connection") {
            self.end(4, 1006).await;
        }
    }

    async fn open(&mut self, connection: u64, line: &Value) {
        let url = line["url"].as_str().unwrap();
        let (host, path) = url.split_once("://").and_then(|(_, rest)| rest.split_once('/')).unwrap();
        let url = format!("{}/{path}", self.stack.api_url().replacen("http", "ws", 1));
        let headers: HashMap<String, String> = serde_json::from_value(line["headers"].clone()).unwrap();
        let mut headers: Vec<(&str, &str)> =
            headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        headers.push(("host", host));
        match Client::dial_with(&url, &headers).await {
            Ok(client) => {
                self.sockets.insert(connection, Peer::new(client));
            }
            Err(Error::Http(response)) => {
                let (head, body) = response.into_parts();
                let body = String::from_utf8(body.unwrap_or_default()).unwrap();
                let status = head.status.as_u16();
                self.answers.insert(connection, Answer { status, head: String::new(), body });
            }
            // As the recording must show, or the next line finds no socket.
            Err(_) => {}
        }
    }

    async fn request(&mut self, line: &Value) {
        let (method, path) = (line["method"].as_str().unwrap(), line["path"].as_str().unwrap());
        let headers: HashMap<String, String> = serde_json::from_value(line["headers"].clone()).unwrap();
        let otherwise = |(name, value): &(&str, &str)| headers.get(*name).is_some_and(|sent| sent == value);
        self.unasked = path.starts_with("/api/tenants") || ANSWERED_OTHERWISE.iter().any(otherwise);
        if path.starts_with("/api/tenants") {
            let settings = line["data"].as_str().unwrap_or_default();
            if settings.contains(r#""suspend":"#) {
                self.stack.faults().suspend(settings.contains(r#""suspend":true"#));
            }
            if path.ends_with("/reload") || settings.contains(r#""private_only":false"#) {
                self.stack.faults().request_disconnect();
            }
            return;
        }
        let at = line["at"].as_str().unwrap();
        let headers: Vec<(String, String)> =
            headers.into_iter().map(|(name, value)| (name, fresh(&value, at))).collect();
        let headers: Vec<(&str, &str)> = headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        let body = match line["hex"].as_str() {
            Some(hex) => bytes(hex),
            None => line["data"].as_str().unwrap_or_default().as_bytes().to_vec(),
        };
        let answer = send(self.stack, method, path, &headers, &body).await.expect("an answer");
        self.answers.insert(0, answer);
    }

    fn compare(&mut self, connection: u64, line: &Value) {
        if std::mem::take(&mut self.unasked) {
            return;
        }
        let ours = self.answers.remove(&connection).expect("an answer");
        let body = line["data"].as_str().unwrap_or_default();
        assert_eq!((u64::from(ours.status), ours.body.as_str()), (line["status"].as_u64().unwrap(), body));
        if !body.is_empty() && !ours.head.is_empty() {
            let media = |text: &str| text.split(';').next().unwrap().to_owned();
            let recorded = line["headers"]["content-type"].as_str().map(media);
            assert_eq!(ours.header("content-type").map(media), recorded);
        }
    }

    fn peer(&mut self, connection: u64) -> &mut Peer {
        self.sockets.get_mut(&connection).expect("a socket that was opened")
    }

    /// Waits for the recorded frame.
    async fn expect(&mut self, connection: u64, line: &Value) {
        let recorded = frame(line);
        let payload = recorded.get("payload").or_else(|| recorded.get(4));
        let record = payload.map_or(&Value::Null, |payload| &payload["data"]["record"]);
        if let (Some(cluster), Some(value)) = (record["cluster_id"].as_str(), record["t"].as_str()) {
            self.insert(cluster, value).await;
        }
        let (sent, time_limit) = (std::mem::take(&mut self.sent), self.time_limit);
        let peer = self.peer(connection);
        let wanted = normal(&frame(line), &mut peer.recorded_ids, &sent);
        let found = peer.pending.iter().position(|frame| *frame == wanted);
        if let Some(found) = found {
            peer.pending.remove(found);
        } else {
            loop {
                let received = tokio::time::timeout(time_limit, peer.client.receive()).await;
                let Ok(received) = received else {
                    panic!("never came:\n{wanted}\nbut there were:\n{:#?}", peer.pending);
                };
                let received = normal(&message(&received), &mut peer.our_ids, &sent);
                if received == wanted {
                    break;
                }
                peer.pending.push(received);
            }
        }
        self.sent = sent;
    }

    /// The end of a socket: by the server if the code is one of its own, or if it was made to break.
    async fn end(&mut self, connection: u64, code: u64) {
        let Some(mut peer) = self.sockets.remove(&connection) else { return };
        match (code, self.breaking) {
            (1006, true) => assert_eq!(peer.client.end().await, End::Broken),
            (1005 | 1006, _) => peer.finish().await,
            (code, _) => assert_eq!(peer.client.end().await, End::Closed(u16::try_from(code).unwrap())),
        }
    }
}

impl Peer {
    /// Nothing may have come that was not recorded.
    async fn finish(&mut self) {
        let beat = json!({"topic": "phoenix", "event": "heartbeat", "payload": {}, "ref": "fence"});
        self.client.send_json(beat).await;
        self.client.send_json(json!([null, "fence", "phoenix", "heartbeat", {}])).await;
        loop {
            let received = message(&self.client.receive().await);
            if received["ref"] == "fence" || received[1] == "fence" {
                break;
            }
            self.pending.push(received);
        }
        assert_eq!(self.pending, Vec::<Value>::new(), "frames that the real server did not send");
    }
}
