//! The bindings that a row change is for, and lists that are only counted.

use std::ops::Deref;

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

/// The bindings that a change is for. Nearly always one, which needs no memory of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ids {
    One([u64; 1]),
    Many(Vec<u64>),
}

impl Ids {
    /// The ids of a payload that ends with them, as the server writes it: `…,"ids":[113767180]}`. `None` for any other form.
    ///
    /// The bracket and brace at the end are structure. So is what comes before numbers and a bracket: a quote inside of a
    /// string has a backslash before it, not a comma.
    pub(super) fn at_end_of(payload: &str) -> Option<Self> {
        let list = payload.strip_suffix("]}")?;
        let (before, list) = list.split_at(list.rfind('[')?);
        let before = before.strip_suffix("\"ids\":")?;
        if !before.ends_with([',', '{']) {
            return None;
        }
        let mut ids = Self::default();
        for id in list.strip_prefix('[')?.split(',') {
            ids.push(id.parse().ok()?);
        }
        Some(ids)
    }

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

/// How long a list is; 0 for anything else. Its elements are passed over one by one, which needs no memory where they are flat, as columns
/// are.
pub(crate) struct Length(pub(crate) usize);

impl<'de> Deserialize<'de> for Length {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List;
        impl<'de> Visitor<'de> for List {
            type Value = Length;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a list")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Length, A::Error> {
                let mut length = 0;
                while seq.next_element::<IgnoredAny>()?.is_some() {
                    length += 1;
                }
                Ok(Length(length))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Length, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Length(0))
            }

            fn visit_unit<E>(self) -> Result<Length, E> {
                Ok(Length(0))
            }

            fn visit_bool<E>(self, _: bool) -> Result<Length, E> {
                Ok(Length(0))
            }

            fn visit_u64<E>(self, _: u64) -> Result<Length, E> {
                Ok(Length(0))
            }

            fn visit_i64<E>(self, _: i64) -> Result<Length, E> {
                Ok(Length(0))
            }

            fn visit_f64<E>(self, _: f64) -> Result<Length, E> {
                Ok(Length(0))
            }

            fn visit_str<E>(self, _: &str) -> Result<Length, E> {
                Ok(Length(0))
            }
        }
        deserializer.deserialize_any(List)
    }
}
