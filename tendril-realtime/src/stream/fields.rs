//! Which columns a type has fields for, and which columns came.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, Error as _, IgnoredAny, MapAccess, Visitor},
    forward_to_deserialize_any,
};

/// The fields that a struct declares, under the names that it is read by. Empty for anything else: maps, raw JSON, structs with
/// flattened parts.
pub(super) fn fields_of<T: DeserializeOwned>() -> &'static [&'static str] {
    let mut found: &'static [&'static str] = &[];
    // It ends in an error always: there is nothing to read.
    let _ = T::deserialize(Probe(&mut found));
    found
}

/// Records which fields a struct requests, and gives nothing.
struct Probe<'a>(&'a mut &'static [&'static str]);

impl<'de> Deserializer<'de> for Probe<'_> {
    type Error = serde::de::value::Error;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Self::Error> {
        Err(Self::Error::custom("a probe"))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Self::Error> {
        *self.0 = fields;
        Err(Self::Error::custom("a probe"))
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        visitor.visit_newtype_struct(self)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct seq
        tuple tuple_struct map enum identifier ignored_any
    }
}

/// Names of columns, borrowed from a frame.
pub(super) struct Names<'a>(Vec<Cow<'a, str>>);

impl<'a> Names<'a> {
    /// The keys of a JSON object.
    pub(super) fn of_object(json: &'a str) -> Option<Self> {
        struct Keys;
        impl<'de> Visitor<'de> for Keys {
            type Value = Names<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut names = Vec::with_capacity(16);
                while let Some(Text(name)) = map.next_key()? {
                    names.push(name);
                    map.next_value::<IgnoredAny>()?;
                }
                Ok(Names(names))
            }
        }
        serde_json::Deserializer::from_str(json).deserialize_map(Keys).ok()
    }

    /// The names in `[{"name":"id","type":"int8"}, …]`.
    pub(super) fn of_columns(json: &'a str) -> Option<Self> {
        #[derive(Deserialize)]
        struct Column<'a> {
            #[serde(borrow)]
            name: Text<'a>,
        }
        let columns: Vec<Column<'a>> = serde_json::from_str(json).ok()?;
        Some(Self(columns.into_iter().map(|column| column.name.0).collect()))
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|known| known == name)
    }

    /// Whether all of these are among the others.
    pub(super) fn are_within(&self, others: &Self) -> bool {
        self.0.iter().all(|name| others.has(name))
    }
}

/// A string that is borrowed unless it holds escapes.
struct Text<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Borrowing;
        impl<'de> Visitor<'de> for Borrowing {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(Borrowing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(dead_code, reason = "only their names matter")]
    fn a_struct_tells_its_fields_and_a_map_has_none() {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Row {
            id: i64,
            created_at: String,
            body: Option<String>,
        }
        #[derive(Deserialize)]
        struct Wrapped(Row);
        assert_eq!(fields_of::<Row>(), ["id", "createdAt", "body"]);
        assert_eq!(fields_of::<Wrapped>(), ["id", "createdAt", "body"]);
        assert!(fields_of::<serde_json::Value>().is_empty());
        assert!(fields_of::<Box<serde_json::value::RawValue>>().is_empty());
        assert!(fields_of::<std::collections::HashMap<String, i64>>().is_empty());
    }

    #[test]
    fn names_are_read_from_rows_and_from_lists_of_columns() {
        let row = Names::of_object(r#"{"id":1,"a\"b":{"body":2}}"#).unwrap();
        assert!(row.has("id") && row.has("a\"b") && !row.has("body"));
        let columns =
            Names::of_columns(r#"[{"name":"id","type":"int8"},{"name":"body","type":"text"}]"#).unwrap();
        assert!(columns.has("body") && !columns.are_within(&row));
    }
}
