//! A row read in place as the user's type, without a search for its end first.

use std::{fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, IgnoredAny, MapAccess, Visitor},
    forward_to_deserialize_any,
};

/// A row at the beginning of a text.
pub(super) struct TypedRow<'a, T> {
    pub(super) value: T,
    /// Its JSON text.
    pub(super) json: &'a str,
    /// What comes after it.
    pub(super) rest: &'a str,
    /// How many keys it has, if they were counted.
    pub(super) keys: Option<usize>,
}

/// Reads the row at the beginning of this text. `None` if there is no row of this type. The keys of a struct can be counted.
pub(super) fn read<'de, T: Deserialize<'de>>(text: &'de str, counts_keys: bool) -> Option<TypedRow<'de, T>> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let mut keys = counts_keys.then_some(0);
    let value = match &mut keys {
        Some(keys) => Counted(keys, PhantomData).deserialize(&mut deserializer),
        None => T::deserialize(&mut deserializer),
    };
    let value = value.ok()?;
    let (json, rest) = text.split_at_checked(deserializer.into_iter::<IgnoredAny>().byte_offset())?;
    Some(TypedRow { value, json, rest, keys })
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

    // A type that declares fields reads nothing else: see `fields_of`.
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
