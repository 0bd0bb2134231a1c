//! Which row changes are wanted.

use crate::{
    error::Error,
    filter::Filter,
    wire::join::{Binding, PostgresEvent},
};

/// A subscription to row changes: a table, and optionally an event, a filter and a list of columns.
///
/// The table must be in the publication `supabase_realtime`, and the role must be allowed to read it.
///
/// ```
/// use tendril_realtime::{PostgresChanges, PostgresEvent, col};
///
/// let changes =
///     PostgresChanges::on("public", "todos").event(PostgresEvent::Insert).filter(col("id").gt(5)).select(["id", "title"]);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct PostgresChanges {
    event: PostgresEvent,
    schema: String,
    table: Option<String>,
    filter: Option<RowFilter>,
    select: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum RowFilter {
    Built(Filter),
    Text(String),
}

impl PostgresChanges {
    /// Changes of one table.
    pub fn on(schema: impl Into<String>, table: impl Into<String>) -> Self {
        Self { table: Some(table.into()), ..Self::in_schema(schema) }
    }

    /// Changes of all published tables of a schema.
    pub fn in_schema(schema: impl Into<String>) -> Self {
        Self {
            event: PostgresEvent::All,
            schema: schema.into(),
            table: None,
            filter: None,
            select: Vec::new(),
        }
    }

    /// Only this kind of change.
    pub fn event(mut self, event: PostgresEvent) -> Self {
        self.event = event;
        self
    }

    /// Only rows that fulfil this. Conditions are on the new row; of a DELETE, on what the replica identity contains.
    ///
    /// Realtime joins conditions by AND only, and knows fewer operators than `PostgREST`: `eq`, `neq`, `gt`, `gte`, `lt`, `lte`, `in_list` with
    /// at most 100 values, `like`, `ilike`, `regex`, `iregex`, `is`, `is_distinct`, each of them under `!` too. Others are refused when the
    /// channel is joined, and so are columns whose names have a `=`, a `,` or blanks around them, which Realtime cannot read.
    pub fn filter(mut self, filter: impl Into<Filter>) -> Self {
        self.filter = Some(RowFilter::Built(filter.into()));
        self
    }

    /// [`filter`](Self::filter) in the server's own notation: `id=gt.5,title=like.a%`.
    pub fn filter_text(mut self, filter: impl Into<String>) -> Self {
        self.filter = Some(filter.into()).filter(|text| !text.trim().is_empty()).map(RowFilter::Text);
        self
    }

    /// Only these columns, and the primary key.
    pub fn select<C: Into<String>>(mut self, columns: impl IntoIterator<Item = C>) -> Self {
        self.select = columns.into_iter().map(Into::into).collect();
        self
    }

    /// Refuses what the server would misread.
    pub(crate) fn into_binding(self) -> Result<Binding, Error> {
        let Self { event, schema, table, filter, select } = self;
        if schema.is_empty() {
            return Err(Error::invalid("schema", "it is empty"));
        }
        if table.as_ref().is_some_and(String::is_empty) {
            return Err(Error::invalid("table", "it is empty"));
        }
        if table.is_none() && (filter.is_some() || !select.is_empty()) {
            return Err(Error::invalid("table", "a filter or a choice of columns needs one"));
        }
        let filter = match filter {
            Some(RowFilter::Built(filter)) => Some(filter.realtime()?),
            Some(RowFilter::Text(text)) => Some(text),
            None => None,
        };
        Ok(Binding { event, schema, table, filter, select })
    }

    /// The names to check each change against: the server matches them as LIKE patterns. `*` means all.
    pub(crate) fn exact_names(&self) -> (Option<String>, Option<String>) {
        let exact = |name: &String| (name != "*" && !name.contains('%')).then(|| name.clone());
        (exact(&self.schema), self.table.as_ref().and_then(exact))
    }
}
