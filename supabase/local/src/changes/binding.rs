//! What a client subscribes to: one entry of `config.postgres_changes`.

use serde_json::{Map, Value};

use super::filter::{self, Filter};
use crate::replication::Operation;

/// Ids are 27 bits wide, as the real server's are.
const ID_MASK: u32 = 0x07ff_ffff;

/// One entry of the join's list, as it was sent.
#[derive(Debug, Clone)]
pub(crate) struct Binding {
    id: u32,
    sent: Map<String, Value>,
}

impl Binding {
    pub(crate) fn new(sent: Map<String, Value>) -> Self {
        Self { id: hash(&canonical(&sent)), sent }
    }

    /// The same for the same entry, on every socket and after every restart.
    pub(crate) fn id(&self) -> u32 {
        self.id
    }

    /// The entry with its id, as the join reply echoes it.
    pub(crate) fn echo(&self) -> String {
        let rest = canonical(&self.sent);
        if rest.is_empty() {
            format!("{{\"id\":{}}}", self.id)
        } else {
            format!("{{\"id\":{},{rest}}}", self.id)
        }
    }

    /// What the entry means.
    ///
    /// # Errors
    /// The text of the `system` message that refuses it.
    pub(crate) fn parameters(&self) -> Result<Parameters, String> {
        let key = |name: &str| self.sent.get(name);
        let text = |name: &str| key(name).and_then(Value::as_str);
        let (schema, table, filter) = match (key("schema"), key("table"), key("filter")) {
            (Some(Value::String(schema)), Some(Value::String(table)), Some(Value::String(filter))) => {
                (schema.as_str(), table.as_str(), filter.as_str())
            }
            (Some(Value::String(schema)), Some(Value::String(table)), None) => {
                (schema.as_str(), table.as_str(), "")
            }
            (Some(Value::String(schema)), None, None) => (schema.as_str(), "*", ""),
            (None, Some(Value::String(table)), None) => ("public", table.as_str(), ""),
            _ => {
                let sent = inspect(&Value::Object(self.sent.clone()));
                return Err(format!(
                    "No subscription params provided. Please provide at least a `schema` or `table` to subscribe to: \
                     {sent}"
                ));
            }
        };
        let filters =
            filter::parse(filter).map_err(|error| format!("Error parsing `filter` params: {error}"))?;
        let select = self.select(schema, table)?;
        let event = match text("event").map(str::to_ascii_uppercase).as_deref() {
            Some("INSERT") => Some(Operation::Insert),
            Some("UPDATE") => Some(Operation::Update),
            Some("DELETE") => Some(Operation::Delete),
            _ => None,
        };
        Ok(Parameters { event, schema: schema.to_owned(), table: table.to_owned(), filters, select })
    }

    fn select(&self, schema: &str, table: &str) -> Result<Option<Vec<String>>, String> {
        let columns = match self.sent.get("select") {
            None | Some(Value::Null) => return Ok(None),
            Some(Value::Array(columns)) => columns,
            Some(_) => return Err(select_shape()),
        };
        let columns: Option<Vec<String>> =
            columns.iter().map(|column| column.as_str().map(str::to_owned)).collect();
        let columns = columns.ok_or_else(select_shape)?;
        if columns.is_empty() {
            return Ok(None);
        }
        if schema == "*" || table == "*" {
            return Err("Column selection is not supported for wildcard subscriptions. Provide an explicit schema and \
                        table name."
                .to_owned());
        }
        Ok(Some(columns))
    }
}

fn select_shape() -> String {
    r#"Error parsing `select` params: expected a list of column name strings, e.g. select: ["col1", "col2"]"#
        .to_owned()
}

/// A binding that can be understood; whether its table exists is the database's business.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Parameters {
    /// `None` means every event.
    pub(crate) event: Option<Operation>,
    /// Name or LIKE pattern; `*` means all.
    pub(crate) schema: String,
    /// Name or LIKE pattern; `*` means all.
    pub(crate) table: String,
    pub(crate) filters: Vec<Filter>,
    /// Columns wanted besides the primary key; `None` means all.
    pub(crate) select: Option<Vec<String>>,
}

impl Parameters {
    /// The bracketed list that error messages of Realtime show.
    pub(crate) fn shown(&self) -> String {
        let select = self.select.as_ref().map_or("nil".to_owned(), |columns| format!("{columns:?}"));
        format!(
            "[event: {}, schema: {}, table: {}, filters: {}, select: {select}]",
            self.event.map_or("*", Operation::name),
            self.schema,
            self.table,
            filter::shown(&self.filters),
        )
    }
}

/// `"key":value` pairs in the order of the keys.
fn canonical(sent: &Map<String, Value>) -> String {
    let mut keys: Vec<&String> = sent.keys().collect();
    keys.sort();
    let pairs: Vec<String> =
        keys.into_iter().map(|key| format!("{}:{}", Value::from(key.as_str()), sent[key])).collect();
    pairs.join(",")
}

/// FNV-1a, folded to 27 bits.
fn hash(text: &str) -> u32 {
    let hash =
        text.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    (hash ^ (hash >> 27)) & ID_MASK
}

/// A value as Elixir prints it: what error messages of the real server contain.
pub(crate) fn inspect(value: &Value) -> String {
    match value {
        Value::Null => "nil".to_owned(),
        Value::Array(items) => format!("[{}]", items.iter().map(inspect).collect::<Vec<_>>().join(", ")),
        Value::Object(map) => {
            let mut keys: Vec<&String> = map.keys().collect();
            keys.sort();
            let pairs: Vec<String> =
                keys.into_iter().map(|key| format!("{key:?} => {}", inspect(&map[key]))).collect();
            format!("%{{{}}}", pairs.join(", "))
        }
        Value::String(text) => format!("{text:?}"),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn binding(value: &Value) -> Binding {
        Binding::new(value.as_object().unwrap().clone())
    }

    #[test]
    fn equal_entries_share_an_id_and_any_difference_makes_another() {
        let a = binding(&json!({"event": "INSERT", "schema": "public", "table": "events"}));
        let b = binding(&json!({"table": "events", "schema": "public", "event": "INSERT"}));
        let c = binding(&json!({"table": "events", "schema": "public", "event": "insert"}));
        assert_eq!(a.id(), b.id());
        assert_ne!(a.id(), c.id());
        assert!(a.id() <= ID_MASK);
    }

    #[test]
    fn the_echo_is_the_entry_with_its_id_first() {
        let a = binding(&json!({"event": "*", "schema": "public", "select": ["t", "i4"]}));
        let echo = format!(r#"{{"id":{},"event":"*","schema":"public","select":["t","i4"]}}"#, a.id());
        assert_eq!(a.echo(), echo);
    }

    #[test]
    fn what_is_left_out_has_a_meaning() {
        let only_schema = binding(&json!({"event": "INSERT", "schema": "public"})).parameters().unwrap();
        assert_eq!((only_schema.event, only_schema.table.as_str()), (Some(Operation::Insert), "*"));
        let only_table = binding(&json!({"event": "UPSERT", "table": "t"})).parameters().unwrap();
        assert_eq!((only_table.event, only_table.schema.as_str()), (None, "public"));
    }

    #[test]
    fn bad_entries_are_refused_in_the_real_servers_words() {
        let refusal = |value: Value| binding(&value).parameters().unwrap_err();
        assert_eq!(
            refusal(json!({"event": "*", "schema": "public", "table": "events", "filter": null})),
            "No subscription params provided. Please provide at least a `schema` or `table` to subscribe to: \
             %{\"event\" => \"*\", \"filter\" => nil, \"schema\" => \"public\", \"table\" => \"events\"}"
        );
        assert!(refusal(json!({})).ends_with("subscribe to: %{}"));
        assert!(
            refusal(json!({"schema": "public", "table": "*", "select": ["t"]}))
                .starts_with("Column selection")
        );
        assert!(
            refusal(json!({"table": "t", "schema": "public", "select": "t"})).contains("`select` params")
        );
    }

    #[test]
    fn parameters_are_shown_like_in_the_recordings() {
        let sent = json!({"event": "*", "schema": "public", "table": "events", "filter": "nocol=eq.1"});
        assert_eq!(
            binding(&sent).parameters().unwrap().shown(),
            r#"[event: *, schema: public, table: events, filters: [{"nocol", "eq", "1", false}], select: nil]"#
        );
    }
}
