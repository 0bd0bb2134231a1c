//! Rows as they came.

use std::{fmt, ops::Deref};

use serde::Deserialize;
use serde_json::value::RawValue;

use super::fields::Names;
use crate::{
    error::Error,
    wire::{Part, Slice, change::ChangeParts},
};

/// A row of the table's type, with what came with it. Dereferences to the type.
pub struct Row<T> {
    value: T,
    raw: RawRow,
}

/// A row as JSON: possibly not all of its columns. A column that is not there is not the same as one that is `null`: an
/// update leaves out large values that did not change, and a change over 1 MiB keeps only small ones.
#[derive(Clone)]
pub struct RawRow {
    /// The payload of the change.
    payload: Slice,
    /// Where the row is in the payload's frame; empty if there is none.
    row: Part,
}

impl<T> Row<T> {
    pub(crate) fn new(value: T, raw: RawRow) -> Self {
        Self { value, raw }
    }

    /// The row as the type that was asked for.
    pub fn into_inner(self) -> T {
        self.value
    }

    /// The row as it came: distinguishes a missing column from a null one, and has every digit of every number.
    pub fn raw(&self) -> &RawRow {
        &self.raw
    }
}

impl<T> Deref for Row<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl RawRow {
    pub(crate) fn new(payload: Slice, row: Part) -> Self {
        Self { payload, row }
    }

    fn parts(&self) -> ChangeParts<'_> {
        ChangeParts::of(self.payload.as_str())
    }

    /// The row's JSON text; `{}` where the server sent none.
    pub fn json(&self) -> &str {
        match self.payload.text(self.row) {
            "" => "{}",
            text => text,
        }
    }

    /// Reads the row as a type whose missing columns have defaults, such as the key of a deleted row. The type may borrow from
    /// the row: with [`serde::de::IgnoredAny`] as the type of a stream, rows are read once, by this call, without a copy of their
    /// text.
    ///
    /// ```no_run
    /// use serde::{Deserialize, de::IgnoredAny};
    /// use tendril_realtime::{ChangeEvent, ChangeStream, Error};
    ///
    /// #[derive(Deserialize)]
    /// struct Todo<'a> {
    ///     id: i64,
    ///     title: &'a str,
    /// }
    ///
    /// fn show(event: &ChangeEvent<IgnoredAny>) -> Result<(), Error> {
    ///     if let ChangeEvent::Insert(row) = event {
    ///         let todo: Todo<'_> = row.raw().read()?;
    ///         println!("{}: {}", todo.id, todo.title);
    ///     }
    ///     Ok(())
    /// }
    /// ```
    ///
    /// A `&str` can borrow only text without escapes; [`std::borrow::Cow`] with `#[serde(borrow)]` takes both.
    ///
    /// # Errors
    /// [`Decode`](crate::ErrorKind::Decode) if it is not of that type.
    pub fn read<'a, T: Deserialize<'a>>(&'a self) -> Result<T, Error> {
        serde_json::from_str(self.json()).map_err(|error| Error::decode("a row", &error))
    }

    /// One column's JSON text, such as `12345678901234567890.5`, `"text"` or `null`; `None` if the column is not there.
    pub fn column(&self, name: &str) -> Option<String> {
        let columns: std::collections::HashMap<String, &RawValue> = serde_json::from_str(self.json()).ok()?;
        columns.get(name).map(|raw| raw.get().to_owned())
    }

    /// Whether every column that this role may see is there. An update leaves out large values that did not change.
    pub fn is_complete(&self) -> bool {
        match (Names::of_columns(self.columns()), Names::of_object(self.json())) {
            (Some(columns), Some(there)) => columns.are_within(&there),
            _ => false,
        }
    }

    /// The table's schema.
    pub fn schema(&self) -> String {
        self.parts().schema()
    }

    /// The table.
    pub fn table(&self) -> String {
        self.parts().table()
    }

    /// When the change was committed: ISO 8601, UTC, milliseconds. The same for all rows of a transaction.
    pub fn commit_timestamp(&self) -> Option<String> {
        self.parts().commit_timestamp()
    }

    /// The columns that this role may see, as JSON: `[{"name":"id","type":"int8"}, …]`.
    pub fn columns(&self) -> &str {
        self.parts().columns().unwrap_or("[]")
    }
}

impl<T: fmt::Debug> fmt::Debug for Row<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value.fmt(f)
    }
}

impl fmt::Debug for RawRow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.json())
    }
}
