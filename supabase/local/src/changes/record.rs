//! The `data` of a change message, spelled as the real server spells it.
//!
//! There, rows pass through `jsonb`: keys are ordered by length and then by bytes, and a space follows each colon and
//! comma inside of rows.

use jiff::Timestamp;
use serde_json::Value;

use super::oracle::Image;
use super::table::Table;
use crate::replication::{Operation, Relation};

/// Seconds from 1970 to 2000, PostgreSQL's beginning of time.
const POSTGRES_EPOCH: i64 = 946_684_800;

/// Values of a row that is too large are sent up to this many bytes of JSON.
const SMALL_VALUE: usize = 64;

/// Which columns of a change a message shows: those the role may select and the binding selects.
#[derive(Debug, Clone)]
pub(crate) struct View {
    /// Per column of the table.
    shown: Vec<bool>,
}

impl View {
    pub(crate) fn new(table: &Table, role: &str, select: Option<&[String]>) -> Self {
        let wanted = |name: &String| select.is_none_or(|columns| columns.contains(name));
        let shown = table
            .columns
            .iter()
            .enumerate()
            .map(|(index, column)| table.may_select(role, index) && (column.is_key || wanted(&column.name)))
            .collect();
        Self { shown }
    }
}

/// Everything about one changed row that does not depend on who receives it.
#[derive(Debug)]
pub(crate) struct Change<'a> {
    pub(crate) relation: &'a Relation,
    pub(crate) table: &'a Table,
    pub(crate) operation: Operation,
    /// Microseconds since 2000-01-01 UTC.
    pub(crate) committed_at: i64,
    pub(crate) new: Option<&'a Image>,
    /// What `old_record` is made of, and whether it has all columns or only the key.
    pub(crate) old: Option<(&'a Image, OldColumns)>,
    /// The row is larger than the server sends: only small values are left.
    pub(crate) too_large: bool,
}

/// Which columns an old row has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OldColumns {
    Key,
    All,
}

impl Change<'_> {
    /// The message's data for a view.
    pub(crate) fn data(&self, view: &View) -> String {
        let record = self.new.map(|image| self.row(image, view, OldColumns::All));
        let old = self.old.map(|(image, columns)| self.row(image, view, columns));
        let errors = if self.too_large { r#"["Error 413: Payload Too Large"]"# } else { "null" };
        let at = quoted(&timestamp(self.committed_at));
        self.assemble(record.as_deref(), &self.columns(view), errors, &at, old.as_deref())
    }

    /// The message's data for a subscriber who may learn that something changed, and nothing else.
    pub(crate) fn refusal(&self, error: &str) -> String {
        let old = (self.operation == Operation::Update).then_some("{}");
        self.assemble(Some("{}"), "[]", &format!("[{}]", quoted(error)), "null", old)
    }

    fn assemble(
        &self,
        record: Option<&str>,
        columns: &str,
        errors: &str,
        committed_at: &str,
        old: Option<&str>,
    ) -> String {
        let record = record.map(|record| format!("\"record\":{record},")).unwrap_or_default();
        let old = old.map(|old| format!(",\"old_record\":{old}")).unwrap_or_default();
        format!(
            "{{\"table\":{},\"type\":\"{}\",{record}\"columns\":{columns},\"errors\":{errors},\"schema\":{},\
             \"commit_timestamp\":{committed_at}{old}}}",
            quoted(&self.relation.name),
            self.operation.name(),
            quoted(&self.relation.schema),
        )
    }

    fn columns(&self, view: &View) -> String {
        let columns = self.table.columns.iter().zip(&view.shown).filter(|(_, shown)| **shown);
        let columns: Vec<String> = columns
            .map(|(column, _)| {
                format!("{{\"name\": {}, \"type\": {}}}", quoted(&column.name), quoted(&column.type_name))
            })
            .collect();
        format!("[{}]", columns.join(", "))
    }

    fn row(&self, image: &Image, view: &View, columns: OldColumns) -> String {
        let mut pairs: Vec<(&str, &str)> = self
            .table
            .columns
            .iter()
            .zip(&view.shown)
            .zip(&image.values)
            .filter(|((column, shown), _)| **shown && (columns == OldColumns::All || column.is_key))
            .filter_map(|((column, _), value)| Some((column.name.as_str(), value.as_deref()?)))
            .filter(|(_, value)| !self.too_large || (*value != "null" && value.len() <= SMALL_VALUE))
            .collect();
        pairs.sort_unstable_by_key(|(name, _)| (name.len(), *name));
        let pairs: Vec<String> =
            pairs.into_iter().map(|(name, value)| format!("{}: {value}", quoted(name))).collect();
        format!("{{{}}}", pairs.join(", "))
    }
}

/// A JSON string.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// `2026-11-23T14:34:27.383Z`.
fn timestamp(microseconds: i64) -> String {
    Timestamp::from_microsecond(microseconds + POSTGRES_EPOCH * 1_000_000)
        .unwrap_or_default()
        .strftime("%Y-%m-%dT%H:%M:%S%.3fZ")
        .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_time_is_cut_to_milliseconds() {
        assert_eq!(timestamp(0), "2000-01-01T00:00:00.000Z");
        assert_eq!(timestamp(1_999_999), "2000-01-01T00:00:01.999Z");
    }
}
