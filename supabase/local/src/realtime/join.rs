//! The request of a `phx_join`. Wrong types mostly mean the default, without an error, as in the real server.

use serde_json::{Map, Value};

use crate::changes::{Binding, inspect};

/// A join that can be understood.
#[derive(Debug)]
pub(crate) struct Join {
    pub(crate) bindings: Vec<Binding>,
    /// Changes arrive under the names INSERT, UPDATE, DELETE: the API from before there was a `config`.
    pub(crate) legacy: bool,
    pub(crate) private: bool,
    pub(crate) broadcast: BroadcastRules,
    /// Messages of the past that are wanted.
    pub(crate) replay: Option<Replay>,
    pub(crate) presence: bool,
    /// The member's name, if it chose one.
    pub(crate) presence_key: Option<String>,
    /// The token of the payload, unless the socket's key applies.
    pub(crate) token: Option<String>,
}

/// How the channel broadcasts.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct BroadcastRules {
    /// Each push is answered.
    pub(crate) ack: bool,
    /// The channel receives its own broadcasts.
    pub(crate) echo: bool,
    /// The channel is notified when messages of the database arrive live.
    pub(crate) replication_ready: bool,
}

/// Which messages of the past.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Replay {
    /// Milliseconds since 1970.
    pub(crate) since: i64,
    /// At most so many, the newest.
    pub(crate) limit: i64,
}

/// The most that is replayed, and what is replayed by default.
const REPLAYED: i64 = 25;

impl Join {
    /// Reads the payload of a join of the topic `realtime:` + `subtopic`.
    ///
    /// # Errors
    /// The reason of the refusal.
    pub(crate) fn parse(subtopic: &str, payload: &Value) -> Result<Self, String> {
        let Some(params) = payload.as_object() else {
            let got = inspect(payload);
            return Err(format!("UnknownErrorOnChannel: expected params to be a :map, got: `{got}`"));
        };
        if subtopic.is_empty() {
            return Err("TopicNameRequired: You must provide a topic name".to_owned());
        }
        let token = token(params);
        let nothing = Map::new();
        let config = match params.get("config") {
            None => return Ok(Self::legacy(subtopic, token)),
            Some(Value::Null) => &nothing,
            Some(Value::Object(config)) => config,
            Some(_) => {
                return Err("UnknownErrorOnChannel: no function clause matching in Access.get/3".to_owned());
            }
        };
        let part = |name: &str| config.get(name).and_then(Value::as_object).unwrap_or(&nothing);
        let (broadcast, presence) = (part("broadcast"), part("presence"));
        let private = flag(config.get("private"));
        Ok(Self {
            bindings: bindings(config.get("postgres_changes"))?,
            legacy: false,
            private,
            broadcast: BroadcastRules {
                ack: flag(broadcast.get("ack")),
                echo: flag(broadcast.get("self")),
                replication_ready: flag(broadcast.get("replication_ready")),
            },
            replay: replay(broadcast.get("replay"), private)?,
            presence: flag(presence.get("enabled")),
            presence_key: key(presence.get("key")),
            token,
        })
    }

    /// The old API: the topic itself is the binding, `schema[:table[:filter]]`.
    fn legacy(subtopic: &str, token: Option<String>) -> Self {
        let mut parts = subtopic.splitn(3, ':');
        let binding = ["schema", "table", "filter"]
            .into_iter()
            .filter_map(|key| Some((key.to_owned(), Value::from(parts.next()?))))
            .collect();
        Self {
            bindings: vec![Binding::new(binding)],
            legacy: true,
            private: false,
            broadcast: BroadcastRules::default(),
            replay: None,
            presence: false,
            presence_key: None,
            token,
        }
    }
}

fn bindings(list: Option<&Value>) -> Result<Vec<Binding>, String> {
    let entries = list.and_then(Value::as_array).into_iter().flatten();
    entries
        .filter(|entry| !entry.is_null())
        .map(|entry| match entry {
            Value::Object(entry) => Ok(Binding::new(entry.clone())),
            other => {
                let got = inspect(other);
                Err(format!("UnknownErrorOnChannel: expected a map, got:\n\n    {got}\n"))
            }
        })
        .collect()
}

/// Only private channels have stored messages. What is no object requests nothing.
fn replay(value: Option<&Value>, private: bool) -> Result<Option<Replay>, String> {
    let Some(value) = value else { return Ok(None) };
    if !private {
        return Err("UnableToReplayMessages: Replay is not allowed for public channels".to_owned());
    }
    let Value::Object(params) = value else { return Ok(None) };
    let since = params.get("since").and_then(Value::as_i64);
    let limit = params.get("limit").map_or(Some(REPLAYED), Value::as_i64);
    match (since, limit) {
        (Some(since), Some(limit)) => Ok(Some(Replay { since, limit: limit.clamp(1, REPLAYED) })),
        _ => Err("UnableToReplayMessages: Replay params are not valid".to_owned()),
    }
}

/// The name under which a member is present. Anything but nothing will do.
fn key(value: Option<&Value>) -> Option<String> {
    match value? {
        Value::Null => None,
        Value::String(key) => Some(key.clone()).filter(|key| !key.is_empty()),
        other => Some(other.to_string()),
    }
}

/// A boolean, or its name in any case.
fn flag(value: Option<&Value>) -> bool {
    match value {
        Some(Value::Bool(flag)) => *flag,
        Some(Value::String(text)) => text.eq_ignore_ascii_case("true"),
        _ => false,
    }
}

/// The old name wins if it is a string; an opaque key means that the socket's key applies.
fn token(params: &Map<String, Value>) -> Option<String> {
    let text = |name: &str| params.get(name).and_then(Value::as_str);
    let first = params.get("access_token").filter(|token| !token.is_null()).or(params.get("user_token"));
    if first.and_then(Value::as_str).is_some_and(|token| token.starts_with("sb_")) {
        return None;
    }
    text("user_token").or(text("access_token")).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(payload: &Value) -> Result<Join, String> {
        Join::parse("room", payload)
    }

    #[test]
    fn wrong_types_are_defaults_and_words_are_booleans() {
        let join = parse(&json!({"config": {"broadcast": {"ack": "True", "self": 1}, "private": "yes",
            "presence": {"enabled": "true"}, "postgres_changes": {"event": "*"}}}))
        .unwrap();
        assert!(
            join.broadcast.ack
                && join.presence
                && !join.broadcast.echo
                && !join.private
                && join.bindings.is_empty()
        );
        assert!(parse(&json!({"config": null})).unwrap().bindings.is_empty());
        assert!(parse(&json!({"config": {"postgres_changes": [null]}})).unwrap().bindings.is_empty());
    }

    #[test]
    fn what_cannot_be_read_is_refused_in_the_real_servers_words() {
        let refusal = |payload: Value| parse(&payload).unwrap_err();
        assert_eq!(refusal(json!([])), "UnknownErrorOnChannel: expected params to be a :map, got: `[]`");
        assert_eq!(refusal(Value::Null), "UnknownErrorOnChannel: expected params to be a :map, got: `nil`");
        let config = "UnknownErrorOnChannel: no function clause matching in Access.get/3";
        assert_eq!(refusal(json!({"config": "x"})), config);
        let entries = "UnknownErrorOnChannel: expected a map, got:\n\n    \"x\"\n";
        assert_eq!(refusal(json!({"config": {"postgres_changes": ["x"]}})), entries);
        let empty = Join::parse("", &json!({})).unwrap_err();
        assert_eq!(empty, "TopicNameRequired: You must provide a topic name");
    }

    #[test]
    fn a_replay_needs_a_private_channel_and_whole_numbers() {
        let replay = |private: bool, replay: Value| {
            parse(&json!({"config": {"private": private, "broadcast": {"replay": replay}}}))
                .map(|join| join.replay)
        };
        assert_eq!(replay(true, json!({"since": 7})), Ok(Some(Replay { since: 7, limit: 25 })));
        assert_eq!(replay(true, json!({"since": 7, "limit": 0})), Ok(Some(Replay { since: 7, limit: 1 })));
        assert_eq!(replay(true, json!({"since": 7, "limit": 99})), Ok(Some(Replay { since: 7, limit: 25 })));
        for nothing in [json!(true), json!(null)] {
            assert_eq!(replay(true, nothing), Ok(None));
        }
        for bad in [json!({"since": 7.5}), json!({"limit": 2}), json!({"since": 7, "limit": "2"})] {
            let reason = "UnableToReplayMessages: Replay params are not valid";
            assert_eq!(replay(true, bad).unwrap_err(), reason);
        }
        let reason = "UnableToReplayMessages: Replay is not allowed for public channels";
        assert_eq!(replay(false, json!(null)).unwrap_err(), reason);
    }

    #[test]
    fn without_a_config_the_topic_is_the_binding() {
        let join = Join::parse("public:events:cluster_id=eq.a1", &json!({})).unwrap();
        assert!(join.legacy);
        let echo = join.bindings[0].echo();
        assert!(
            echo.ends_with(r#""filter":"cluster_id=eq.a1","schema":"public","table":"events"}"#),
            "{echo}"
        );
    }

    #[test]
    fn only_a_string_that_is_no_opaque_key_is_a_token() {
        let token = |payload: Value| Join::parse("room", &payload).unwrap().token;
        assert_eq!(token(json!({"config": {}, "access_token": "a"})), Some("a".into()));
        assert_eq!(token(json!({"config": {}, "user_token": "u", "access_token": "a"})), Some("u".into()));
        for none in [json!(null), json!(42), json!("sb_publishable_x")] {
            assert_eq!(token(json!({"config": {}, "access_token": none})), None);
        }
    }
}
