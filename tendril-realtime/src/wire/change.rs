//! The payload of `postgres_changes`: `{"ids":[…],"data":{…}}`, in either order.
//!
//! The driver needs the `ids` and nothing else. What lies in `data` is read on the reader's task: in one pass as the user's type
//! (see [`stream`](crate::stream)), or part by part, when somebody asks for a part.

use std::sync::OnceLock;

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, Visitor},
};
use serde_json::value::RawValue;
use tokio_tungstenite::tungstenite::Utf8Bytes;

use super::{
    ids::{Ids, Length},
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

/// A row change that still lies in the frame it came in.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    /// The bindings it is for, as the join reply numbered them; may repeat (OBSERVED 16).
    pub(crate) ids: Ids,
    frame: Utf8Bytes,
    payload: Part,
    /// Where its parts lie, once somebody asked.
    parts: OnceLock<Parts>,
    /// Where its columns lie, once somebody asked.
    columns: OnceLock<Part>,
}

/// Where the parts of a change lie in its frame.
#[derive(Debug, Clone, Copy, Default)]
struct Parts {
    kind: Option<ChangeKind>,
    schema: Part,
    table: Part,
    commit_timestamp: Part,
    record: Part,
    old_record: Part,
    errors: Part,
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
    record: Option<&'a RawValue>,
    old_record: Option<&'a RawValue>,
    errors: Option<&'a RawValue>,
}

impl Change {
    /// A change of which only the bindings are known.
    pub(super) fn routed(frame: &Utf8Bytes, payload: &str, ids: Ids) -> Option<Self> {
        let payload = place(frame, payload)?;
        Some(Self { ids, frame: frame.clone(), payload, parts: OnceLock::new(), columns: OnceLock::new() })
    }

    /// A change that had to be taken apart to find its bindings. `None` if it has no known type.
    pub(super) fn taken_apart(frame: &Utf8Bytes, payload: &str, parts: ChangeParts<'_>) -> Option<Self> {
        let places = Parts::within(frame, &parts)?;
        places.kind?;
        let mut change = Self::routed(frame, payload, parts.ids)?;
        change.parts = OnceLock::from(places);
        Some(change)
    }

    /// Whether somebody asked for its parts already.
    pub(crate) fn is_taken_apart(&self) -> bool {
        self.parts.get().is_some()
    }

    /// The JSON text of the payload.
    pub(crate) fn payload(&self) -> &str {
        self.text(self.payload).unwrap_or_default()
    }

    fn parts(&self) -> &Parts {
        self.parts.get_or_init(|| {
            let parts: Option<ChangeParts<'_>> = serde_json::from_str(self.payload()).ok();
            parts.and_then(|parts| Parts::within(&self.frame, &parts)).unwrap_or_default()
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

    /// What happened to the row; `None` if the message makes no sense.
    pub(crate) fn kind(&self) -> Option<ChangeKind> {
        self.parts().kind
    }

    pub(crate) fn schema(&self) -> String {
        self.string(self.parts().schema).unwrap_or_default()
    }

    pub(crate) fn table(&self) -> String {
        self.string(self.parts().table).unwrap_or_default()
    }

    /// Whether the JSON text of `table` is exactly this name; without allocating where the name needs no escapes.
    pub(crate) fn is_of(&self, schema: Option<&str>, table: Option<&str>) -> bool {
        let same = |part: Part, name: Option<&str>| {
            name.is_none_or(|name| self.text(part).is_some_and(|text| is_name(text, name)))
        };
        same(self.parts().schema, schema) && same(self.parts().table, table)
    }

    /// ISO 8601 in UTC with milliseconds; `None` in changes without data.
    pub(crate) fn commit_timestamp(&self) -> Option<String> {
        self.string(self.parts().commit_timestamp)
    }

    /// JSON array of `{"name","type"}`.
    pub(crate) fn columns(&self) -> Option<&str> {
        #[derive(Deserialize)]
        struct Outer<'a> {
            #[serde(borrow)]
            data: Inner<'a>,
        }
        #[derive(Deserialize)]
        struct Inner<'a> {
            #[serde(borrow)]
            columns: Option<&'a RawValue>,
        }
        let columns = self.columns.get_or_init(|| {
            let outer: Option<Outer<'_>> = serde_json::from_str(self.payload()).ok();
            let columns = outer.and_then(|outer| outer.data.columns);
            columns.and_then(|columns| place(&self.frame, columns.get())).unwrap_or_default()
        });
        self.text(*columns)
    }

    /// The row as it is now, as JSON; absent in a DELETE.
    pub(crate) fn record(&self) -> Option<&str> {
        self.text(self.parts().record).filter(|text| *text != "null")
    }

    /// What the replica identity keeps of the row as it was; absent in an INSERT.
    pub(crate) fn old_record(&self) -> Option<&str> {
        self.text(self.parts().old_record).filter(|text| *text != "null")
    }

    /// `Error 400: …`, `Error 401: …`, `Error 413: …`; empty in a sound change.
    pub(crate) fn errors(&self) -> Vec<String> {
        match self.text(self.parts().errors) {
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

impl PartialEq for Change {
    fn eq(&self, other: &Self) -> bool {
        (&self.ids, self.payload()) == (&other.ids, other.payload())
    }
}

impl Parts {
    /// `None` if a piece does not lie in the frame.
    fn within(frame: &Utf8Bytes, parts: &ChangeParts<'_>) -> Option<Self> {
        let place = |raw: Option<&RawValue>| match raw {
            None => Some(Part::default()),
            Some(raw) => place(frame, raw.get()),
        };
        Some(Self {
            kind: parts.kind,
            schema: place(parts.schema)?,
            table: place(parts.table)?,
            commit_timestamp: place(parts.commit_timestamp)?,
            record: place(parts.record)?,
            old_record: place(parts.old_record)?,
            errors: place(parts.errors)?,
        })
    }
}

/// Where a piece of a frame's text lies in it.
fn place(frame: &Utf8Bytes, text: &str) -> Option<Part> {
    let start = (text.as_ptr() as usize).checked_sub(frame.as_str().as_ptr() as usize)?;
    let end = start.checked_add(text.len()).filter(|end| *end <= frame.as_str().len())?;
    Some(Part { start: u32::try_from(start).ok()?, end: u32::try_from(end).ok()? })
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
                        // Their place is found when it is asked for.
                        "columns" => {
                            let _length: Length = map.next_value()?;
                        }
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
