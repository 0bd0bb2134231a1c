//! A row change read as the user's type, in one pass over its text.

use std::{fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, Visitor},
    forward_to_deserialize_any,
};
use serde_json::value::RawValue;

use crate::wire::{
    change::{ChangeKind, Kind},
    ids::Length,
    name::{Name, is_name},
};

/// What one pass finds.
pub(super) struct Typed<'a, T> {
    pub(super) kind: Option<ChangeKind>,
    /// The row, unless it was deleted.
    pub(super) record: Option<T>,
    schema: Option<&'a RawValue>,
    table: Option<&'a RawValue>,
    errors: Option<&'a RawValue>,
    /// How many columns the role may see.
    columns: usize,
    /// How many of them came, if they were counted.
    keys: Option<usize>,
}

/// Reads the payload of a row change. `None` if it is not what the pass expects, a row of another type among the reasons: read it part
/// by part then. Of a struct the columns are counted.
pub(super) fn read<'de, T: Deserialize<'de>>(payload: &'de str, is_struct: bool) -> Option<Typed<'de, T>> {
    let mut found =
        Typed { kind: None, record: None, schema: None, table: None, errors: None, columns: 0, keys: None };
    let mut deserializer = serde_json::Deserializer::from_str(payload);
    Payload { into: &mut found, is_struct }.deserialize(&mut deserializer).ok()?;
    deserializer.end().ok()?;
    Some(found)
}

impl<T> Typed<'_, T> {
    /// Whether it is of the table that was asked for: the server matches names as patterns.
    pub(super) fn is_of(&self, schema: Option<&str>, table: Option<&str>) -> bool {
        let same = |part: Option<&RawValue>, name: Option<&str>| {
            name.is_none_or(|name| part.is_some_and(|part| is_name(part.get(), name)))
        };
        same(self.schema, schema) && same(self.table, table)
    }

    /// Whether the server had nothing to say against it, and left out no column.
    pub(super) fn is_sound(&self) -> bool {
        self.errors.is_none_or(|errors| matches!(errors.get(), "null" | "[]"))
            && self.keys.is_none_or(|keys| keys >= self.columns)
    }
}

/// `{"data":{…},"ids":[…]}`, and the `data` in it.
struct Payload<'a, 'de, T> {
    into: &'a mut Typed<'de, T>,
    is_struct: bool,
}

struct Data<'a, 'de, T>(Payload<'a, 'de, T>);

impl<'de, T: Deserialize<'de>> DeserializeSeed<'de> for Payload<'_, 'de, T> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for Payload<'_, 'de, T> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the payload of a change")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(Name(key)) = map.next_key()? {
            if key == "data" {
                map.next_value_seed(Data(Payload { into: &mut *self.into, is_struct: self.is_struct }))?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

impl<'de, T: Deserialize<'de>> DeserializeSeed<'de> for Data<'_, 'de, T> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for Data<'_, 'de, T> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the data of a change")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Payload { into, is_struct } = self.0;
        while let Some(Name(key)) = map.next_key()? {
            match key.as_ref() {
                "type" => into.kind = map.next_value::<Kind>()?.0,
                "schema" => into.schema = Some(map.next_value()?),
                "table" => into.table = Some(map.next_value()?),
                "errors" => into.errors = Some(map.next_value()?),
                "record" => match into.kind {
                    Some(ChangeKind::Insert) => into.record = Some(map.next_value()?),
                    // An update may leave out large values that did not change.
                    Some(ChangeKind::Update) if is_struct => {
                        let keys = into.keys.insert(0);
                        into.record = Some(map.next_value_seed(Counted(keys, PhantomData))?);
                    }
                    Some(ChangeKind::Update) => into.record = Some(map.next_value()?),
                    Some(ChangeKind::Delete) => drop(map.next_value::<IgnoredAny>()?),
                    None => return Err(A::Error::custom("a row without a kind")),
                },
                "columns" => into.columns = map.next_value::<Length>()?.0,
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }
}

/// A struct whose keys are counted while it is read.
struct Counted<'a, T>(&'a mut usize, PhantomData<fn() -> T>);

impl<'de, T: Deserialize<'de>> DeserializeSeed<'de> for Counted<'_, T> {
    type Value = T;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<T, D::Error> {
        T::deserialize(Counting { inner: deserializer, keys: self.0 })
    }
}

/// Counts the keys that go through it: around a deserializer, a visitor, and the access to a map.
struct Counting<'a, I> {
    inner: I,
    keys: &'a mut usize,
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Counting<'_, D> {
    type Error = D::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.inner.deserialize_any(visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        self.inner.deserialize_struct(name, fields, Counting { inner: visitor, keys: self.keys })
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        visitor.visit_newtype_struct(self)
    }

    // A type that declares fields asks for nothing else: see `fields_of`.
    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct seq
        tuple tuple_struct map enum identifier ignored_any
    }
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Counting<'_, V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.expecting(f)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<V::Value, A::Error> {
        self.inner.visit_map(Counting { inner: map, keys: self.keys })
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Counting<'_, A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, A::Error> {
        let key = self.inner.next_key_seed(seed)?;
        *self.keys += usize::from(key.is_some());
        Ok(key)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        self.inner.next_value_seed(seed)
    }

    fn size_hint(&self) -> Option<usize> {
        self.inner.size_hint()
    }
}
