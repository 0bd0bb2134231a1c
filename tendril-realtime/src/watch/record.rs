//! A row as a map from columns to their JSON text, comparable whether PostgREST or Realtime wrote it.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash as _, Hasher as _},
};

use serde_json::value::RawValue;

use super::column_type::ColumnTypes;
use crate::filter::quoted;

/// One row. Values stay text: numbers have all their digits.
#[derive(Debug, Clone)]
pub(super) struct Record {
    columns: BTreeMap<String, Box<RawValue>>,
}

/// The values of the key's columns.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Key(Vec<String>);

impl Key {
    pub(super) fn new(values: Vec<String>) -> Self {
        Self(values)
    }

    /// In the order of the key's columns.
    pub(super) fn values(&self) -> &[String] {
        &self.0
    }
}

impl Record {
    pub(super) fn parse(json: &str) -> Option<Self> {
        serde_json::from_str(json).ok().map(|columns| Self { columns })
    }

    pub(super) fn column(&self, name: &str) -> Option<&RawValue> {
        self.columns.get(name).map(AsRef::as_ref)
    }

    /// The names of its columns, sorted.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.columns.keys().map(String::as_str)
    }

    /// A column's value as a filter writes it: strings without their quotes, arrays in the notation of SQL.
    pub(super) fn text_of(&self, name: &str) -> Option<String> {
        let json = self.column(name)?.get();
        match json.as_bytes().first()? {
            b'n' => None,
            b'"' => serde_json::from_str(json).ok(),
            b'[' => array_text(json),
            _ => String::from_utf8(without_spaces(json).collect()).ok(),
        }
    }

    /// The key as it came from a server whose values are what they are; `None` if a column of the key is missing.
    pub(super) fn key(&self, columns: &[String]) -> Option<Key> {
        columns.iter().map(|column| self.text_of(column)).collect::<Option<_>>().map(Key)
    }

    /// The key of an event; `None` if a column is missing, or may not be written as a read returns it.
    pub(super) fn key_of_event(&self, columns: &[String], types: &ColumnTypes) -> Option<Key> {
        columns
            .iter()
            .all(|column| self.column(column).is_some_and(|value| types.of(column).is_sound_key(value)))
            .then(|| self.key(columns))
            .flatten()
    }

    /// Whether all these columns are there, as a read would return them.
    pub(super) fn is_whole<'a>(
        &self,
        mut columns: impl Iterator<Item = &'a str>,
        types: &ColumnTypes,
    ) -> bool {
        columns
            .all(|column| self.column(column).is_some_and(|value| types.of(column).is_written_alike(value)))
    }

    /// Retains only these columns: events bring all that the role may see.
    pub(super) fn narrowed(mut self, columns: Option<&[&str]>) -> Self {
        if let Some(columns) = columns {
            self.columns.retain(|name, _| columns.contains(&name.as_str()));
        }
        self
    }

    /// The same for the same values, however they are spaced.
    pub(super) fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        for (name, value) in &self.columns {
            name.hash(&mut hasher);
            // Minus zero is zero, and not everybody writes its sign.
            let json = if value.get() == "-0" { "0" } else { value.get() };
            without_spaces(json).for_each(|byte| hasher.write_u8(byte));
            hasher.write_u8(0xff);
        }
        hasher.finish()
    }

    pub(super) fn json(&self) -> String {
        // A map of texts that came out of JSON.
        serde_json::to_string(&self.columns).unwrap_or_default()
    }
}

/// A JSON array in the notation of an SQL array: `[[1,null],["a"]]` is `{{1,NULL},{"a"}}`.
fn array_text(json: &str) -> Option<String> {
    let items: Vec<Box<RawValue>> = serde_json::from_str(json).ok()?;
    let mut texts = Vec::with_capacity(items.len());
    for item in &items {
        texts.push(match item.get().as_bytes().first()? {
            b'n' => "NULL".to_owned(),
            b'[' => array_text(item.get())?,
            b'"' => quoted(&serde_json::from_str::<String>(item.get()).ok()?),
            _ => quoted(item.get()),
        });
    }
    Some(format!("{{{}}}", texts.join(",")))
}

/// The bytes of a JSON text outside of which only white space differs.
fn without_spaces(json: &str) -> impl Iterator<Item = u8> + '_ {
    let mut in_string = false;
    let mut escaped = false;
    json.bytes().filter(move |byte| {
        if in_string {
            if escaped {
                escaped = false;
            } else if *byte == b'\\' {
                escaped = true;
            } else if *byte == b'"' {
                in_string = false;
            }
            return true;
        }
        in_string = *byte == b'"';
        !byte.is_ascii_whitespace()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_row_from_both_servers_has_one_fingerprint() {
        let realtime =
            Record::parse(r#"{"id": 7, "j": {"a": [1, 2.50]}, "n": 12345678901234567890.5}"#).unwrap();
        let rest = Record::parse(r#"{"n":12345678901234567890.5,"id":7,"j":{"a":[1,2.50]}}"#).unwrap();
        assert_eq!(realtime.fingerprint(), rest.fingerprint());
        let other = Record::parse(r#"{"n":12345678901234567890.6,"id":7,"j":{"a":[1,2.50]}}"#).unwrap();
        assert_ne!(other.fingerprint(), rest.fingerprint(), "every digit counts");
        let spaced = Record::parse(r#"{"t":"a b"}"#).unwrap();
        assert_ne!(spaced.fingerprint(), Record::parse(r#"{"t":"ab"}"#).unwrap().fingerprint());
    }

    #[test]
    fn a_key_is_the_text_of_its_columns() {
        let record = Record::parse(r#"{"a":"x","b":7}"#).unwrap();
        assert_eq!(
            record.key(&["a".to_owned(), "b".to_owned()]),
            Some(Key(vec!["x".to_owned(), "7".to_owned()]))
        );
        assert_eq!(record.key(&["c".to_owned()]), None);
        let record = Record::parse(r#"{"a": [[1, null], ["x\"", "y"]], "b": {"k": 1}}"#).unwrap();
        assert_eq!(record.text_of("a").unwrap(), r#"{{"1",NULL},{"x\"","y"}}"#);
        assert_eq!(record.text_of("b").unwrap(), r#"{"k":1}"#);
    }
}
