//! When two frames are the same: what cannot be the same twice is replaced on both sides.

use std::collections::HashMap;

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

/// A recorded frame as JSON; what is none stays text.
pub(crate) fn frame(line: &Value) -> Value {
    match line["data"].as_str() {
        Some(text) => serde_json::from_str(text).unwrap_or_else(|_| text.into()),
        None => json!({"bytes": bytes(line["hex"].as_str().expect("bytes"))}),
    }
}

pub(crate) fn message(message: &Message) -> Value {
    match message {
        Message::Binary(bytes) => json!({"bytes": bytes.as_ref()}),
        other => {
            let text = other.to_text().expect("UTF-8");
            serde_json::from_str(text).unwrap_or_else(|_| text.into())
        }
    }
}

/// A frame without what cannot be the same twice.
pub(crate) fn normal(value: &Value, ids: &mut HashMap<u64, String>, sent: &str) -> Value {
    let is_made = |text: &str| is_uuid(text.as_bytes()) && !sent.contains(text);
    match value {
        Value::Object(object) => object
            .iter()
            .map(|(key, value)| {
                let value = match (key.as_str(), value) {
                    ("commit_timestamp", Value::String(_)) => "a time".into(),
                    ("phx_ref" | "phx_ref_prev", Value::String(_)) => "a ref".into(),
                    ("bytes", Value::Array(list)) => without_uuids(list, sent),
                    ("ids", Value::Array(list)) => {
                        list.iter().map(|id| ids[&id.as_u64().unwrap()].clone()).collect()
                    }
                    ("postgres_changes", Value::Array(list)) => {
                        list.iter().map(|binding| named(binding, ids)).collect()
                    }
                    // Of a sequence that other recordings also used.
                    ("id" | "Id", Value::Number(_)) => "a number".into(),
                    ("message" | "reason", Value::String(text)) => without_seconds(text).into(),
                    (_, value) => normal(value, ids, sent),
                };
                let key = if is_made(key) { "a uuid" } else { key };
                (key.to_owned(), value)
            })
            .collect(),
        Value::Array(list) => list.iter().map(|value| normal(value, ids, sent)).collect(),
        Value::String(text) if is_made(text) => "a uuid".into(),
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

fn is_uuid(text: &[u8]) -> bool {
    text.len() == 36
        && text.iter().enumerate().all(|(place, byte)| match place {
            8 | 13 | 18 | 23 => *byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

/// The bytes of a binary frame with each generated UUID blanked.
fn without_uuids(list: &[Value], sent: &str) -> Value {
    let mut bytes: Vec<u8> = list.iter().map(|byte| u8::try_from(byte.as_u64().unwrap()).unwrap()).collect();
    for start in 0..bytes.len().saturating_sub(35) {
        let window = &mut bytes[start..start + 36];
        if is_uuid(window) && !sent.contains(std::str::from_utf8(window).unwrap()) {
            window.fill(b'u');
        }
    }
    bytes.into()
}

pub(crate) fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len() / 2).map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).expect("hex")).collect()
}
