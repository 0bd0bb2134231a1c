//! Which row changes are wanted.

use crate::{
    channel::filter::Filter,
    error::Error,
    wire::join::{Binding, PostgresEvent},
};

/// A subscription to row changes: a table, and optionally an event, a filter and a list of columns.
///
/// The table must be in the publication `supabase_realtime`, and the role must be allowed to read it.
///
/// ```
/// use tendril_realtime::{PostgresChanges, PostgresEvent, Filter};
///
/// let changes = PostgresChanges::on("public", "todos").event(PostgresEvent::Insert).filter(Filter::gt("id", 5)?).select(["id", "title"]);
/// # Ok::<(), tendril_realtime::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct PostgresChanges {
    event: PostgresEvent,
    schema: String,
    table: Option<String>,
    filter: Option<String>,
    select: Vec<String>,
}

impl PostgresChanges {
    /// PostgresChanges of one table.
    pub fn on(schema: impl Into<String>, table: impl Into<String>) -> Self {
        Self { table: Some(table.into()), ..Self::in_schema(schema) }
    }

    /// PostgresChanges of all published tables of a schema.
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

    /// Only rows that fulfil this.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "a filter is made for one subscription, and written where it is used"
    )]
    pub fn filter(self, filter: Filter) -> Self {
        self.filter_text(filter.to_string())
    }

    /// [`filter`](Self::filter) in the server's own notation: `id=gt.5,title=like.a%`.
    pub fn filter_text(mut self, filter: impl Into<String>) -> Self {
        self.filter = Some(filter.into()).filter(|text| !text.trim().is_empty());
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
        Ok(Binding { event, schema, table, filter, select })
    }

    /// The names to check each change against: the server matches them as LIKE patterns. `*` means all.
    pub(crate) fn exact_names(&self) -> (Option<String>, Option<String>) {
        let exact = |name: &String| (name != "*" && !name.contains('%')).then(|| name.clone());
        (exact(&self.schema), self.table.as_ref().and_then(exact))
    }
}
