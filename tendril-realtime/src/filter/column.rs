//! Names of columns, and paths into their JSON values.

use std::fmt;

use super::literal::{is_plain_word, quoted};
use crate::error::Error;

/// Names that `PostgREST` reads as its own parameters when a column has them.
const RESERVED: [&str; 9] =
    ["select", "columns", "on_conflict", "order", "limit", "offset", "and", "or", "not"];

/// A column: its name, and where a filter looks inside its JSON value.
///
/// A name is never syntax. `col("a.b")`, `col("limit")` and `col("data->>x")` are columns with these names; nothing in them is
/// read as an operator, a path or a parameter. Paths and columns of embedded tables have methods of their own:
///
/// ```
/// use tendril_realtime::col;
///
/// assert_eq!(col("config").key("owner").key("name").text().to_string(), r#"config->"owner"->>"name""#);
/// assert_eq!(col("title").of("posts").to_string(), "posts.title");
/// assert_eq!(col("limit").to_string(), r#""limit""#);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[must_use]
pub struct Column {
    /// The embedded tables that lead to the column, from the outside in.
    embedded: Vec<String>,
    name: String,
    path: Vec<Step>,
    /// Whether the last step yields text (`->>`).
    as_text: bool,
}

/// One step into a JSON value.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Step {
    Key(String),
    Index(i32),
}

/// A column of this name.
pub fn col(name: impl Into<String>) -> Column {
    Column { embedded: Vec::new(), name: name.into(), path: Vec::new(), as_text: false }
}

impl Column {
    /// The column of an embedded table, by its name or alias in `select`. Called twice, the second table is the outer one.
    ///
    /// A filter on such a column chooses rows of the embedded table, not of the outer one.
    pub fn of(mut self, table: impl Into<String>) -> Self {
        self.embedded.insert(0, table.into());
        self
    }

    /// The value of this key of a JSON object (`->`).
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.path.push(Step::Key(key.into()));
        self
    }

    /// This element of a JSON array (`->`); negative numbers count from the end.
    pub fn index(mut self, index: i32) -> Self {
        self.path.push(Step::Index(index));
        self
    }

    /// The JSON value as text (`->>`), which comparisons with text need.
    pub fn text(mut self) -> Self {
        self.as_text = true;
        self
    }

    /// The name, if it is nothing but a column of the table itself.
    pub(crate) fn plain_name(&self) -> Option<&str> {
        (self.embedded.is_empty() && self.path.is_empty()).then_some(self.name.as_str())
    }

    /// The embedded tables before the column, each with a point after it.
    pub(crate) fn prefix(&self) -> String {
        prefix(&self.embedded)
    }

    pub(crate) fn is_embedded(&self) -> bool {
        !self.embedded.is_empty()
    }

    /// The column and its path without the embedded tables.
    pub(crate) fn local(&self) -> String {
        let mut text = identifier(&self.name);
        for (place, step) in self.path.iter().enumerate() {
            let is_last = place + 1 == self.path.len();
            text.push_str(if is_last && self.as_text { "->>" } else { "->" });
            match step {
                Step::Key(key) => text.push_str(&quoted(key)),
                Step::Index(index) => text.push_str(&index.to_string()),
            }
        }
        text
    }

    /// Refuses names that no server has.
    pub(crate) fn check(&self) -> Result<(), Error> {
        check_name("column", &self.name)?;
        if self.name == "*" {
            // In quotes too.
            return Err(Error::invalid(
                "column",
                "`PostgREST` reads `*` as all columns, so that no column can be named so",
            ));
        }
        for table in &self.embedded {
            check_name("embedded table", table)?;
            if table == "not" {
                // `PostgREST` drops the name from the path of a group.
                return Err(Error::invalid("embedded table", "`not` needs an alias in `select`"));
            }
        }
        for step in &self.path {
            if let Step::Key(key) = step
                && key.contains('\0')
            {
                return Err(Error::invalid("column", "a key of a JSON path contains a NUL character"));
            }
        }
        if self.as_text && self.path.is_empty() {
            return Err(Error::invalid(
                "column",
                format!("`{}` has `text()` without a path into its JSON value", self.name),
            ));
        }
        Ok(())
    }
}

/// PostgreSQL has no empty names and no NUL characters.
pub(crate) fn check_name(what: &'static str, name: &str) -> Result<(), Error> {
    if name.is_empty() {
        return Err(Error::invalid(what, "the name is empty"));
    }
    if name.contains('\0') {
        return Err(Error::invalid(what, "the name contains a NUL character"));
    }
    Ok(())
}

/// A name as `PostgREST` reads it back: in double quotes unless it is a plain name without another meaning.
pub(crate) fn identifier(name: &str) -> String {
    if is_plain_word(name) && !RESERVED.contains(&name) { name.to_owned() } else { quoted(name) }
}

/// Embedded tables, from the outside in, with a point after each.
pub(crate) fn prefix(tables: &[String]) -> String {
    let mut prefix = String::new();
    for table in tables {
        prefix.push_str(&identifier(table));
        prefix.push('.');
    }
    prefix
}

/// The comma-separated list of names that `columns` and `on_conflict` take.
pub(crate) fn identifiers(names: &[Column]) -> Result<String, Error> {
    if names.is_empty() {
        return Err(Error::invalid("columns", "the list of columns is empty"));
    }
    let mut list = Vec::with_capacity(names.len());
    for column in names {
        column.check()?;
        let name = column
            .plain_name()
            .ok_or_else(|| Error::invalid("columns", format!("`{column}` is a path, not a column")))?;
        list.push(identifier(name));
    }
    Ok(list.join(","))
}

/// As `PostgREST` reads it.
impl fmt::Display for Column {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.prefix(), self.local())
    }
}

impl From<&str> for Column {
    fn from(name: &str) -> Self {
        col(name)
    }
}

impl From<String> for Column {
    fn from(name: String) -> Self {
        col(name)
    }
}

impl From<&String> for Column {
    fn from(name: &String) -> Self {
        col(name)
    }
}

impl From<&Self> for Column {
    fn from(column: &Self) -> Self {
        column.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_quoted_unless_it_is_a_plain_word_without_another_meaning() {
        for (name, text) in [
            ("id", "id"),
            ("created_at", "created_at"),
            ("limit", r#""limit""#),
            ("or", r#""or""#),
            ("on_conflict", r#""on_conflict""#),
            ("a.b", r#""a.b""#),
            ("not.eq", r#""not.eq""#),
            ("a,b", r#""a,b""#),
            ("a->b", r#""a->b""#),
            (" id", r#"" id""#),
            (r#"a"b"#, r#""a\"b""#),
            (r"a\b", r#""a\\b""#),
            ("größe", r#""größe""#),
        ] {
            assert_eq!(col(name).to_string(), text);
        }
    }

    #[test]
    fn names_that_no_table_has_are_refused() {
        assert!(col("").check().is_err());
        assert!(col("a\0b").check().is_err());
        assert!(col("*").check().is_err());
        assert!(col("id").of("").check().is_err());
        assert!(col("id").of("not").check().is_err());
        assert!(col("data").text().check().is_err());
        assert!(col("data").key("a\0").check().is_err());
        assert!(col("data").key("").text().check().is_ok(), "JSON has empty keys");
    }
}
