//! The payload of `postgres_changes`: `{"ids":[…],"data":{…}}`, in either order.
//!
//! One pass finds the parts; the row itself is read later, once, as the user's type.

use std::ops::Deref;

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;
use tokio_tungstenite::tungstenite::Utf8Bytes;

use super::name::Name;

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

/// A row change whose parts still lie in the frame they came in.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Change {
    /// The bindings it is for, as the join reply numbered them; may repeat (OBSERVED 16).
    pub(crate) ids: Ids,
    pub(crate) kind: ChangeKind,
    frame: Utf8Bytes,
    schema: Part,
    table: Part,
    commit_timestamp: Part,
    columns: Part,
    record: Part,
    old_record: Part,
    errors: Part,
}

/// The bindings that a change is for. Nearly always one, which needs no memory of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ids {
    One([u64; 1]),
    Many(Vec<u64>),
}

/// Where in the frame a piece of JSON lies; empty if it is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Part {
    start: u32,
    end: u32,
}

/// The same with borrowed pieces, as read from JSON.
#[derive(Default)]
pub(super) struct ChangeParts<'a> {
    ids: Ids,
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
    /// `None` if the message has no type or its pieces do not lie in the frame.
    pub(super) fn new(frame: &Utf8Bytes, parts: ChangeParts<'_>) -> Option<Self> {
        let base = frame.as_str().as_ptr() as usize;
        let length = frame.as_str().len();
        let place = |raw: Option<&RawValue>| -> Option<Part> {
            let Some(raw) = raw.map(RawValue::get) else { return Some(Part::default()) };
            let start = (raw.as_ptr() as usize).checked_sub(base)?;
            let end = start.checked_add(raw.len()).filter(|end| *end <= length)?;
            Some(Part { start: u32::try_from(start).ok()?, end: u32::try_from(end).ok()? })
        };
        Some(Self {
            kind: parts.kind?,
            schema: place(parts.schema)?,
            table: place(parts.table)?,
            commit_timestamp: place(parts.commit_timestamp)?,
            columns: place(parts.columns)?,
            record: place(parts.record)?,
            old_record: place(parts.old_record)?,
            errors: place(parts.errors)?,
            ids: parts.ids,
            frame: frame.clone(),
        })
    }

    fn text(&self, part: Part) -> Option<&str> {
        (part != Part::default())
            .then(|| self.frame.as_str().get(part.start as usize..part.end as usize))
            .flatten()
    }

    fn string(&self, part: Part) -> Option<String> {
        serde_json::from_str(self.text(part)?).ok()
    }

    pub(crate) fn schema(&self) -> String {
        self.string(self.schema).unwrap_or_default()
    }

    pub(crate) fn table(&self) -> String {
        self.string(self.table).unwrap_or_default()
    }

    /// Whether the JSON text of `table` is exactly this name; without allocating where the name needs no escapes.
    pub(crate) fn is_of(&self, schema: Option<&str>, table: Option<&str>) -> bool {
        let same = |part: Part, name: Option<&str>, full: fn(&Self) -> String| match (name, self.text(part)) {
            (None, _) => true,
            (Some(name), Some(text)) => {
                text.strip_prefix('"').and_then(|text| text.strip_suffix('"')) == Some(name)
                    || full(self) == name
            }
            (Some(_), None) => false,
        };
        same(self.schema, schema, Self::schema) && same(self.table, table, Self::table)
    }

    /// ISO 8601 in UTC with milliseconds; `None` in changes without data.
    pub(crate) fn commit_timestamp(&self) -> Option<String> {
        self.string(self.commit_timestamp)
    }

    /// JSON array of `{"name","type"}`.
    pub(crate) fn columns(&self) -> Option<&str> {
        self.text(self.columns)
    }

    /// The row as it is now, as JSON; absent in a DELETE.
    pub(crate) fn record(&self) -> Option<&str> {
        self.text(self.record).filter(|text| *text != "null")
    }

    /// What the replica identity keeps of the row as it was; absent in an INSERT.
    pub(crate) fn old_record(&self) -> Option<&str> {
        self.text(self.old_record).filter(|text| *text != "null")
    }

    /// `Error 400: …`, `Error 401: …`, `Error 413: …`; empty in a sound change.
    pub(crate) fn errors(&self) -> Vec<String> {
        match self.text(self.errors) {
            None | Some("null" | "[]") => Vec::new(),
            Some(text) => serde_json::from_str(text).unwrap_or_else(|_| vec![text.to_owned()]),
        }
    }

    /// Gives it memory of its own, apart from the buffer that its frame was read into.
    pub(crate) fn detach(&mut self) {
        self.frame = Utf8Bytes::from(self.frame.as_str().to_owned());
    }

    /// Bytes of the frame this keeps in memory.
    pub(crate) fn weight(&self) -> usize {
        self.frame.as_str().len()
    }
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

impl Ids {
    fn push(&mut self, id: u64) {
        match self {
            Self::Many(ids) if ids.is_empty() => *self = Self::One([id]),
            Self::Many(ids) => ids.push(id),
            Self::One([first]) => *self = Self::Many(vec![*first, id]),
        }
    }
}

impl Default for Ids {
    fn default() -> Self {
        Self::Many(Vec::new())
    }
}

impl Deref for Ids {
    type Target = [u64];

    fn deref(&self) -> &[u64] {
        match self {
            Self::One(ids) => ids,
            Self::Many(ids) => ids,
        }
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

struct Kind(Option<ChangeKind>);

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

impl<'de> Deserialize<'de> for Ids {
    /// One that is no number is passed over rather than losing the row for the others.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List;
        impl<'de> Visitor<'de> for List {
            type Value = Ids;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a list of ids")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Ids, A::Error> {
                let mut ids = Ids::default();
                while let Some(id) = seq.next_element::<&RawValue>()? {
                    if let Ok(id) = id.get().parse() {
                        ids.push(id);
                    }
                }
                Ok(ids)
            }
        }
        deserializer.deserialize_seq(List)
    }
}
