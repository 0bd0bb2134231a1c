//! A statement under construction: text with quoted names, and values that travel beside it.

use std::fmt::Write as _;

use bytes::BytesMut;
use postgres_types::{Format, IsNull, ToSql, Type, to_sql_checked};

/// A statement and its values. Nothing that a client sent becomes part of the text unless it is quoted here.
#[derive(Debug, Default, Clone)]
pub(super) struct Sql {
    text: String,
    values: Vec<Text>,
}

/// A value sent as text; PostgreSQL finds its type from the place where it stands, as with a literal in
/// quotes.
#[derive(Debug, Clone)]
pub(super) struct Text(String);

impl Text {
    /// The value.
    pub(super) fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }
}

impl ToSql for Text {
    fn to_sql(
        &self,
        _: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        out.extend_from_slice(self.0.as_bytes());
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn encode_format(&self, _: &Type) -> Format {
        Format::Text
    }

    to_sql_checked!();
}

impl Sql {
    /// Appends text of our own.
    pub(super) fn push(&mut self, text: &str) -> &mut Self {
        self.text.push_str(text);
        self
    }

    /// Appends a quoted name.
    pub(super) fn name(&mut self, name: &str) -> &mut Self {
        let name = until_nul(name);
        let _ = write!(self.text, "\"{}\"", name.replace('"', "\"\""));
        self
    }

    /// Appends a value as a parameter.
    pub(super) fn value(&mut self, value: impl AsRef<str>) -> &mut Self {
        self.whole_value(until_nul(value.as_ref()))
    }

    /// Appends a value that PostgREST sends with its length, so that PostgreSQL sees a zero byte and refuses it.
    pub(super) fn whole_value(&mut self, value: impl Into<String>) -> &mut Self {
        self.values.push(Text(value.into()));
        let _ = write!(self.text, "${}", self.values.len());
        self
    }

    /// Appends each item, with a separator between them.
    pub(super) fn join<T>(
        &mut self,
        items: impl IntoIterator<Item = T>,
        separator: &str,
        mut each: impl FnMut(&mut Self, T),
    ) -> &mut Self {
        for (index, item) in items.into_iter().enumerate() {
            if index > 0 {
                self.push(separator);
            }
            each(self, item);
        }
        self
    }

    /// The same statement behind a text of our own.
    pub(super) fn prefixed(&self, text: &str) -> Self {
        Self { text: format!("{text}{}", self.text), values: self.values.clone() }
    }

    /// The text, with `$1` and so on for the values.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// The values with a type that lets PostgreSQL infer the real one.
    pub(super) fn typed_values(&self) -> Vec<(&(dyn ToSql + Sync), Type)> {
        self.values.iter().map(|value| (value as &(dyn ToSql + Sync), Type::UNKNOWN)).collect()
    }
}

/// The text up to a zero byte. PostgREST hands names and values over as C strings, so nothing after one counts.
fn until_nul(text: &str) -> &str {
    text.split('\0').next().unwrap_or_default()
}

/// A text as a literal, for text that comes from the database's own catalog.
pub(super) fn literal(text: &str) -> String {
    let quoted = text.replace('\'', "''");
    if quoted.contains('\\') { format!("E'{}'", quoted.replace('\\', "\\\\")) } else { format!("'{quoted}'") }
}

/// An array literal of texts, to be sent as one value.
pub(super) fn array_literal(items: &[String]) -> String {
    let quoted: Vec<String> =
        items.iter().map(|item| format!("\"{}\"", item.replace('\\', "\\\\").replace('"', "\\\""))).collect();
    format!("{{{}}}", quoted.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_quoted_and_values_stay_outside_the_text() {
        let mut sql = Sql::default();
        sql.push("select ").name("a\"; drop table x; --").push(" = ").value("1' or true");
        assert_eq!(sql.text(), "select \"a\"\"; drop table x; --\" = $1");
        assert_eq!(sql.typed_values().len(), 1);
    }

    #[test]
    fn names_and_values_end_at_a_zero_byte() {
        let mut sql = Sql::default();
        sql.name("a\0b").push(" = ").value("1\0x").push(" or ").whole_value("3\0x");
        assert_eq!(sql.text(), "\"a\" = $1 or $2");
        let values: Vec<&str> = sql.values.iter().map(|Text(value)| value.as_str()).collect();
        assert_eq!(values, ["1", "3\0x"]);
    }

    #[test]
    fn an_array_literal_escapes_quotes_and_backslashes() {
        assert_eq!(array_literal(&["a,b".into(), "q\"x\\".into()]), r#"{"a,b","q\"x\\"}"#);
    }
}
