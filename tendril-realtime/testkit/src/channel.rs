//! The joined channels of all connections: who receives what.

use std::{collections::BTreeMap, fmt::Write as _};

use serde_json::{Map, Value, json};

/// One joined channel of one connection.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "the switches of a join, as the protocol has them")]
pub(crate) struct Joined {
    pub(crate) connection: u64,
    /// With the `realtime:` prefix.
    pub(crate) topic: String,
    pub(crate) join_ref: Option<String>,
    pub(crate) private: bool,
    pub(crate) ack: bool,
    pub(crate) receive_own: bool,
    pub(crate) presence_enabled: bool,
    pub(crate) presence_key: String,
    pub(crate) bindings: Vec<Binding>,
}

/// One subscription to row changes.
#[derive(Debug, Clone)]
pub(crate) struct Binding {
    pub(crate) id: u64,
    /// As the client wrote it.
    pub(crate) wanted: Value,
}

/// Who is present on a topic: its key, and what each of its devices tracks.
pub(crate) type Presences = BTreeMap<String, Vec<Meta>>;

/// One device of a presence.
#[derive(Debug, Clone)]
pub(crate) struct Meta {
    pub(crate) connection: u64,
    pub(crate) state: Value,
}

impl Joined {
    /// Reads the payload of a join; ids are counted on from `next_id`.
    pub(crate) fn new(
        connection: u64,
        topic: &str,
        join_ref: Option<&str>,
        payload: &Value,
        next_id: &mut u64,
    ) -> Self {
        let config = &payload["config"];
        let is_set = |value: &Value| value.as_bool().unwrap_or_default();
        let mut id = || {
            *next_id += 1;
            *next_id
        };
        let key = config["presence"]["key"].as_str().unwrap_or_default();
        let presence_key = if key.is_empty() { format!("anonymous-{}", id()) } else { key.to_owned() };
        let wanted = config["postgres_changes"].as_array().cloned().unwrap_or_default();
        Self {
            connection,
            topic: topic.to_owned(),
            join_ref: join_ref.map(str::to_owned),
            private: is_set(&config["private"]),
            ack: is_set(&config["broadcast"]["ack"]),
            receive_own: is_set(&config["broadcast"]["self"]),
            presence_enabled: is_set(&config["presence"]["enabled"]),
            presence_key,
            bindings: wanted.into_iter().map(|wanted| Binding { id: id(), wanted }).collect(),
        }
    }

    /// Without the `realtime:` prefix.
    pub(crate) fn sub_topic(&self) -> &str {
        self.topic.strip_prefix("realtime:").unwrap_or(&self.topic)
    }

    /// The bindings as a join reply echoes them.
    pub(crate) fn echo(&self) -> Value {
        let echoed = self.bindings.iter().map(|binding| {
            let mut echoed = binding.wanted.clone();
            echoed["id"] = json!(binding.id);
            echoed
        });
        echoed.collect()
    }

    /// Why its row changes are refused, if they are.
    pub(crate) fn refusal(&self) -> Option<String> {
        self.bindings.iter().find_map(|binding| crate::filter::refusal(binding.wanted["filter"].as_str()?))
    }

    /// The ids of the bindings that a change is for.
    pub(crate) fn ids_for(&self, data: &Value) -> Vec<u64> {
        self.bindings.iter().filter(|binding| binding.matches(data)).map(|binding| binding.id).collect()
    }
}

impl Binding {
    fn matches(&self, data: &Value) -> bool {
        let names = |key: &str, of_change: &Value| match self.wanted[key].as_str() {
            None | Some("*") => true,
            Some(name) => of_change.as_str() == Some(name),
        };
        let row = if data["type"] == "DELETE" { &data["old_record"] } else { &data["record"] };
        names("event", &data["type"])
            && names("schema", &data["schema"])
            && names("table", &data["table"])
            && self.wanted["filter"].as_str().is_none_or(|filter| crate::filter::matches(filter, row))
    }
}

/// The `data` of a row change, as the server writes it.
pub(crate) fn change(
    kind: &str,
    schema: &str,
    table: &str,
    record: Option<Value>,
    old: Option<Value>,
) -> Value {
    let row = record.as_ref().or(old.as_ref());
    let columns: Vec<Value> = row.and_then(Value::as_object).map(columns).unwrap_or_default();
    let mut data = json!({
        "schema": schema,
        "table": table,
        "type": kind,
        "commit_timestamp": "2026-01-01T00:00:00.000Z",
        "columns": columns,
        "errors": null,
    });
    if let Some(record) = record {
        data["record"] = record;
    }
    if let Some(old) = old {
        data["old_record"] = old;
    }
    data
}

/// The types that values of JSON would have in a table.
fn columns(row: &Map<String, Value>) -> Vec<Value> {
    let name = |value: &Value| match value {
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float8",
        Value::Number(_) => "int8",
        Value::Array(_) | Value::Object(_) => "jsonb",
        Value::String(_) | Value::Null => "text",
    };
    row.iter().map(|(column, value)| json!({"name": column, "type": name(value)})).collect()
}

/// A presence state or one side of a diff.
pub(crate) fn presence(entries: &Presences) -> Value {
    let entry = |metas: &Vec<Meta>| {
        let states: Vec<&Value> = metas.iter().map(|meta| &meta.state).collect();
        json!({ "metas": states })
    };
    entries.iter().map(|(key, metas)| (key.clone(), entry(metas))).collect::<Map<_, _>>().into()
}

/// A topic of a path segment.
pub(crate) fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let escaped =
            tail.get(..2).and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        if let (b'%', Some(byte)) = (first, escaped) {
            bytes.push(byte);
            rest = tail.get(2..).unwrap_or_default();
        } else {
            bytes.push(*first);
            rest = tail;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A name for a presence that stays the same as long as it is not tracked anew.
pub(crate) fn reference(number: u64) -> String {
    let mut text = String::from("F");
    let _ = write!(text, "{number:x}");
    text
}
