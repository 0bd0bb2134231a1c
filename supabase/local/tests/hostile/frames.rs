//! Frames: some are pieces thrown together, some are nearly right, in both versions of the protocol.

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::random::Random;

const FRAMES: [&str; 34] = [
    "[",
    "]",
    "{",
    "}",
    ",",
    "null",
    "\"1\"",
    "1",
    "\"phoenix\"",
    "\"heartbeat\"",
    "\"realtime:a\"",
    "\"realtime:b\"",
    "\"phx_join\"",
    "\"phx_leave\"",
    "\"broadcast\"",
    "\"presence\"",
    "\"access_token\"",
    ":",
    "\"config\"",
    "\"postgres_changes\"",
    "{\"event\":\"*\",\"schema\":\"public\",\"table\":\"notes\"}",
    "\"filter\":\"id=gt.0\"",
    "true",
    "\"é\"",
    "\\",
    "\"",
    "-1e999",
    "{\"config\":{\"postgres_changes\":[{\"event\":\"*\",\"schema\":\"public\"}]}}",
    "{\"type\":\"broadcast\",\"event\":\"e\",\"payload\":{}}",
    "[null,\"1\",\"phoenix\",\"heartbeat\",{}]",
    "[\"1\",\"1\",\"realtime:a\",\"phx_join\",{\"config\":{\"postgres_changes\":[{\"event\":\"*\",\"schema\":\"public\",\"table\":\"notes\"}]}}]",
    "[\"1\",\"2\",\"realtime:a\",\"broadcast\",{\"type\":\"broadcast\",\"event\":\"e\",\"payload\":{}}]",
    "[\"1\",\"3\",\"realtime:a\",\"presence\",{\"type\":\"presence\",\"event\":\"track\",\"payload\":{}}]",
    "[\"1\",\"4\",\"realtime:a\",\"phx_leave\",{}]",
];

const TOPICS: [&str; 9] = [
    "realtime:a",
    "realtime:a",
    "realtime:b",
    "phoenix",
    "realtime:",
    "a",
    "realtime:\u{0}",
    "realtime:é{}\"'",
    "realtime:x'; drop table notes; --",
];

const EVENTS: [&str; 9] = [
    "phx_join",
    "phx_join",
    "phx_join",
    "phx_leave",
    "broadcast",
    "presence",
    "access_token",
    "heartbeat",
    "nothing",
];

/// Filters of row changes: `room=eq.1` and what is not quite one.
const FILTERS: [&str; 22] = [
    "id=gt.0",
    "body=eq.mine",
    "body=like.%",
    "body=match.(",
    "body=imatch..*",
    "id=in.(1,2)",
    "id=in.({})",
    "meta=eq.{}",
    "owner=is.null",
    "owner=not.is.null",
    "id=eq.x",
    "nothing=eq.1",
    "",
    ",",
    "id=gt.0,body=neq.x",
    "id=eq.'; drop table notes; --",
    "body=eq.\u{0}",
    "id=eq.99999999999999",
    "body=isdistinct.null",
    "=",
    "id=not.not.eq.1",
    "body=match.(a+)+$",
];

const NAMES: [&str; 8] =
    ["notes", "*", "%", "links", "no_tes", "hidden_view", "'; drop table notes; --", "\u{0}"];

/// One frame.
pub(crate) fn frame(random: &mut Random, version: u8, token: &str) -> Message {
    match random.below(8) {
        0 => Message::binary(
            (0..random.below(40)).map(|_| u8::try_from(random.below(256)).unwrap()).collect::<Vec<_>>(),
        ),
        1 => Message::binary(binary(random)),
        2 => {
            let whole = random.below(3) > 0;
            Message::text(if whole { random.one_of(&FRAMES[29..]).to_owned() } else { random.text(&FRAMES) })
        }
        3 if random.once_in(10) => Message::Ping(vec![0; random.below(125)].into()),
        _ => Message::text(text(random, version, token)),
    }
}

/// A user's broadcast in binary, whose header may announce anything.
fn binary(random: &mut Random) -> Vec<u8> {
    let fields = ["1", "2", "realtime:a", "e", ""];
    let mut frame = vec![if random.once_in(6) { u8::try_from(random.below(256)).unwrap() } else { 3 }];
    for field in fields {
        let length = if random.once_in(8) { random.below(256) } else { field.len() };
        frame.push(u8::try_from(length).unwrap());
    }
    frame.push(u8::try_from(random.below(3)).unwrap());
    frame.extend(fields.concat().into_bytes());
    frame.extend(random.one_of(&[r#"{"a":1}"#, "", "not json", "\u{0}"]).as_bytes());
    if random.once_in(5) {
        frame.truncate(random.below(frame.len()));
    }
    frame
}

/// A frame in the version's own language, or in the other's.
fn text(random: &mut Random, version: u8, token: &str) -> String {
    let (topic, event) = (random.one_of(&TOPICS), random.one_of(&EVENTS));
    let refs = [json!("1"), json!("2"), json!(null), json!(1), json!({"a": 1}), json!("\u{0}")];
    let (join_ref, reference) = (&refs[random.below(refs.len())], &refs[random.below(refs.len())]);
    let payload = match event {
        "phx_join" => join(random, token),
        "broadcast" => {
            json!({"type": "broadcast", "event": random.one_of(&["e", "", "\u{0}"]), "payload": odd(random)})
        }
        "presence" => {
            json!({"type": "presence", "event": random.one_of(&["track", "untrack", "x"]), "payload": odd(random)})
        }
        "access_token" => json!({"access_token": random.one_of(&[token, "", "a.b.c", "sb_x", &token[1..]])}),
        _ => odd(random),
    };
    let language = if random.once_in(20) { 3 - version } else { version };
    if language == 2 {
        json!([join_ref, reference, topic, event, payload]).to_string()
    } else {
        json!({"join_ref": join_ref, "ref": reference, "topic": topic, "event": event, "payload": payload})
            .to_string()
    }
}

fn join(random: &mut Random, token: &str) -> Value {
    let bindings: Vec<Value> = (0..random.below(4))
        .map(|_| {
            let mut binding = json!({"event": random.one_of(&["*", "INSERT", "UPDATE", "DELETE", "x"]), "schema": "public"});
            binding["table"] = random.one_of(&NAMES).into();
            if random.below(2) == 0 {
                binding["filter"] = random.one_of(&FILTERS).into();
            }
            if random.once_in(4) {
                binding["select"] = [json!(["id", "body"]), json!(["nothing"]), json!("x"), json!([])][random.below(4)].clone();
            }
            if random.once_in(6) {
                binding["schema"] = random.one_of(&["*", "auth", "realtime", "pg_catalog", "%"]).into();
            }
            binding
        })
        .collect();
    let mut payload = json!({"config": {"postgres_changes": bindings, "private": random.once_in(4)}});
    payload["config"]["broadcast"] =
        [json!({"ack": true, "self": true}), json!(1), json!({"replay": {"since": -1, "limit": 99}})]
            [random.below(3)]
        .clone();
    payload["config"]["presence"] =
        [json!({"enabled": true, "key": "k"}), json!([]), json!({"key": 5})][random.below(3)].clone();
    match random.below(4) {
        0 => {}
        1 => {
            payload["access_token"] =
                random.one_of(&["", "a.b.c", "eyJhbGciOiJub25lIn0.eyJyb2xlIjoic2VydmljZV9yb2xlIn0."]).into();
        }
        _ => payload["access_token"] = token.into(),
    }
    payload
}

fn odd(random: &mut Random) -> Value {
    let odds = [
        json!({}),
        json!(null),
        json!([]),
        json!("x"),
        json!({"a": {"b": [1, 2.5, "\u{0}"]}}),
        json!(-1),
        json!({"payload": "y".repeat(5000)}),
    ];
    odds[random.below(odds.len())].clone()
}
