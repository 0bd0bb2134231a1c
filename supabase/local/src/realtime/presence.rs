//! Who is present in one room: each channel at most once, under a key that several may share.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value, json};

use crate::changes::ChannelId;

/// The members of a room that are tracked, the oldest first.
#[derive(Debug, Default)]
pub(crate) struct Presence {
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    channel: ChannelId,
    key: String,
    /// Unique for each payload that was tracked.
    phx_ref: String,
    /// The one before, if the payload was changed.
    previous: Option<String>,
    payload: Map<String, Value>,
}

impl Entry {
    fn meta(&self) -> Value {
        let mut meta = self.payload.clone();
        meta.insert("phx_ref".into(), self.phx_ref.as_str().into());
        if let Some(previous) = &self.previous {
            meta.insert("phx_ref_prev".into(), previous.as_str().into());
        }
        meta.into()
    }

    /// The entry alone, as a state.
    fn shown(&self) -> Value {
        json!({ &self.key: { "metas": [self.meta()] } })
    }
}

impl Presence {
    /// Tracks a channel, or changes its payload. The payload of `presence_diff`, unless nothing changed.
    pub(crate) fn track(
        &mut self,
        channel: ChannelId,
        key: &str,
        payload: Map<String, Value>,
    ) -> Option<String> {
        let Some(entry) = self.entries.iter_mut().find(|entry| entry.channel == channel) else {
            let entry =
                Entry { channel, key: key.to_owned(), phx_ref: unique_ref(), previous: None, payload };
            let diff = diff(&entry.shown(), &json!({}));
            self.entries.push(entry);
            return Some(diff);
        };
        if entry.payload == payload {
            return None;
        }
        let before = entry.shown();
        entry.previous = Some(std::mem::replace(&mut entry.phx_ref, unique_ref()));
        entry.payload = payload;
        Some(diff(&entry.shown(), &before))
    }

    /// Removes a channel. The payload of `presence_diff`, if the channel was there.
    pub(crate) fn untrack(&mut self, channel: ChannelId) -> Option<String> {
        let position = self.entries.iter().position(|entry| entry.channel == channel)?;
        Some(diff(&json!({}), &self.entries.remove(position).shown()))
    }

    /// The payload of `presence_state`.
    pub(crate) fn state(&self) -> String {
        let mut state = Map::new();
        for entry in &self.entries {
            let shown = state.entry(entry.key.clone()).or_insert_with(|| json!({ "metas": [] }));
            if let Some(metas) = shown["metas"].as_array_mut() {
                metas.push(entry.meta());
            }
        }
        Value::from(state).to_string()
    }
}

fn diff(joins: &Value, leaves: &Value) -> String {
    json!({ "joins": joins, "leaves": leaves }).to_string()
}

/// A reference of 16 characters that no other call gives.
fn unique_ref() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut bytes = [0; 12];
    bytes[..8].copy_from_slice(&u64::try_from(now.as_nanos()).unwrap_or_default().to_be_bytes());
    bytes[8..].copy_from_slice(&COUNT.fetch_add(1, Ordering::Relaxed).to_be_bytes());
    URL_SAFE_NO_PAD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(value: &Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    fn parsed(diff: Option<String>) -> Value {
        serde_json::from_str(&diff.unwrap()).unwrap()
    }

    #[test]
    fn a_changed_payload_joins_and_leaves_and_the_same_one_does_nothing() {
        let mut presence = Presence::default();
        let channel = ChannelId::next();
        let first = parsed(presence.track(channel, "a", payload(&json!({"n": 1}))));
        assert_eq!(first["leaves"], json!({}));
        let first = &first["joins"]["a"]["metas"][0];
        assert_eq!(presence.track(channel, "a", payload(&json!({"n": 1}))), None);
        let second = parsed(presence.track(channel, "a", payload(&json!({"n": 2}))));
        assert_eq!(&second["leaves"]["a"]["metas"][0], first);
        let joined = &second["joins"]["a"]["metas"][0];
        assert_eq!(joined["phx_ref_prev"], first["phx_ref"]);
        assert_ne!(joined["phx_ref"], first["phx_ref"]);
    }

    #[test]
    fn two_channels_of_one_key_are_two_metas() {
        let mut presence = Presence::default();
        let (one, two) = (ChannelId::next(), ChannelId::next());
        presence.track(one, "a", payload(&json!({"n": 1})));
        presence.track(two, "a", payload(&json!({"n": 2})));
        let state: Value = serde_json::from_str(&presence.state()).unwrap();
        assert_eq!(state["a"]["metas"].as_array().unwrap().len(), 2);
        let left = parsed(presence.untrack(one));
        assert_eq!(left["leaves"]["a"]["metas"][0]["n"], 1);
        assert_eq!(presence.untrack(one), None);
        let state: Value = serde_json::from_str(&presence.state()).unwrap();
        assert_eq!(state["a"]["metas"][0]["n"], 2);
    }
}
