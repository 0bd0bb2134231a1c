//! The payload of `postgres_changes`: `{"ids":[…],"data":{…}}`, in either order.
//!
//! The driver needs the `ids` and nothing else. `data` is read on the reader's task: in one pass as the user's type
//! (see [`stream`](crate::stream)), or part by part, when a part is requested.

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, Visitor},
};
use serde_json::value::RawValue;

use super::{
    Slice,
    ids::Ids,
    name::{Name, is_name},
};

/// What happened to the row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
#[non_exhaustive]
pub enum ChangeKind {
    /// It was inserted.
    Insert,
    /// It was updated.
    Update,
    /// It was deleted.
    Delete,
}

/// A row change in the frame it came in: the JSON text of its payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Change(Slice);

/// The parts of a change, borrowed from its payload.
#[derive(Debug, Default)]
pub(crate) struct ChangeParts<'a> {
    /// The bindings it is for, as the join reply numbered them; may repeat (OBSERVED 16).
    pub(super) ids: Ids,
    kind: Option<ChangeKind>,
    schema: Option<&'a RawValue>,
    table: Option<&'a RawValue>,
    commit_timestamp: Option<&'a RawValue>,
    columns: Option<&'a RawValue>,
    record: Option<&'a RawValue>,
    old_record: Option<&'a RawValue>,
    errors: Option<&'a RawValue>,
}

impl Change {
    pub(crate) fn new(payload: Slice) -> Self {
        Self(payload)
    }

    /// The JSON text of the payload.
    pub(crate) fn payload(&self) -> &Slice {
        &self.0
    }

    pub(crate) fn into_payload(self) -> Slice {
        self.0
    }

    /// Takes it apart. Without a kind if it makes no sense.
    pub(crate) fn parts(&self) -> ChangeParts<'_> {
        ChangeParts::of(self.0.as_str())
    }

    /// Gives it memory of its own, apart from the buffer that its frame was read into.
    pub(crate) fn detach(&mut self) {
        self.0 = Slice::from(self.0.as_str().to_owned());
    }

    /// Bytes of memory that the frame of this occupies.
    pub(crate) fn weight(&self) -> usize {
        self.0.frame_len()
    }
}

impl<'a> ChangeParts<'a> {
    pub(crate) fn of(payload: &'a str) -> Self {
        serde_json::from_str(payload).unwrap_or_default()
    }

    /// What happened to the row; `None` if the message makes no sense.
    pub(crate) fn kind(&self) -> Option<ChangeKind> {
        self.kind
    }

    pub(crate) fn schema(&self) -> String {
        string(self.schema).unwrap_or_default()
    }

    pub(crate) fn table(&self) -> String {
        string(self.table).unwrap_or_default()
    }

    /// Whether it is of the table that was asked for: the server matches names as patterns.
    pub(crate) fn is_of(&self, schema: Option<&str>, table: Option<&str>) -> bool {
        let same = |part: Option<&RawValue>, name: Option<&str>| {
            name.is_none_or(|name| part.is_some_and(|part| is_name(part.get(), name)))
        };
        same(self.schema, schema) && same(self.table, table)
    }

    /// ISO 8601 in UTC with milliseconds; `None` in changes without data.
    pub(crate) fn commit_timestamp(&self) -> Option<String> {
        string(self.commit_timestamp)
    }

    /// The JSON text of the time, its quotes included.
    pub(crate) fn commit_timestamp_json(&self) -> Option<&'a str> {
        self.commit_timestamp.map(RawValue::get)
    }

    /// JSON array of `{"name","type"}`.
    pub(crate) fn columns(&self) -> Option<&'a str> {
        self.columns.map(RawValue::get)
    }

    /// The row as it is now, as JSON; absent in a DELETE.
    pub(crate) fn record(&self) -> Option<&'a str> {
        self.record.map(RawValue::get).filter(|text| *text != "null")
    }

    /// The columns of the replica identity, of the row as it was; absent in an INSERT.
    pub(crate) fn old_record(&self) -> Option<&'a str> {
        self.old_record.map(RawValue::get).filter(|text| *text != "null")
    }

    /// `Error 400: …`, `Error 401: …`, `Error 413: …`; empty in a sound change.
    pub(crate) fn errors(&self) -> Vec<String> {
        match self.errors.map(RawValue::get) {
            None | Some("null" | "[]") => Vec::new(),
            Some(text) => serde_json::from_str(text).unwrap_or_else(|_| vec![text.to_owned()]),
        }
    }
}

fn string(json: Option<&RawValue>) -> Option<String> {
    serde_json::from_str(json?.get()).ok()
}

impl<'de: 'a, 'a> Deserialize<'de> for ChangeParts<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Outer;
        impl<'de> Visitor<'de> for Outer {
            type Value = ChangeParts<'de>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("the payload of postgres_changes")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut parts = ChangeParts::default();
                while let Some(key) = map.next_key::<Name<'_>>()? {
                    match key.0.as_ref() {
                        "ids" => parts.ids = map.next_value()?,
                        "data" => {
                            let ids = std::mem::take(&mut parts.ids);
                            parts = map.next_value::<Data<'de>>()?.0;
                            parts.ids = ids;
                        }
                        _ => drop(map.next_value::<IgnoredAny>()?),
                    }
                }
                Ok(parts)
            }
        }
        deserializer.deserialize_map(Outer)
    }
}

/// The value of `data`.
struct Data<'a>(ChangeParts<'a>);

impl<'de: 'a, 'a> Deserialize<'de> for Data<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Inner;
        impl<'de> Visitor<'de> for Inner {
            type Value = Data<'de>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("the data of a change")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut parts = ChangeParts::default();
                while let Some(key) = map.next_key::<Name<'_>>()? {
                    match key.0.as_ref() {
                        "type" => parts.kind = map.next_value::<Kind>()?.0,
                        "schema" => parts.schema = Some(map.next_value()?),
                        "table" => parts.table = Some(map.next_value()?),
                        "commit_timestamp" => parts.commit_timestamp = Some(map.next_value()?),
                        "columns" => parts.columns = Some(map.next_value()?),
                        "record" => parts.record = Some(map.next_value()?),
                        "old_record" => parts.old_record = Some(map.next_value()?),
                        "errors" => parts.errors = Some(map.next_value()?),
                        _ => drop(map.next_value::<IgnoredAny>()?),
                    }
                }
                Ok(Data(parts))
            }
        }
        deserializer.deserialize_map(Inner)
    }
}

/// The type of a change; `None` for one that is not known.
pub(crate) struct Kind(pub(crate) Option<ChangeKind>);

impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(match Name::deserialize(deserializer)?.0.as_ref() {
            "INSERT" => Some(ChangeKind::Insert),
            "UPDATE" => Some(ChangeKind::Update),
            "DELETE" => Some(ChangeKind::Delete),
            _ => None,
        }))
    }
}
