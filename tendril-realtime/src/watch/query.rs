//! Which rows to watch.

use std::{fmt, time::Duration};

use super::{
    column_type::ColumnTypes,
    judge::{FilterMatch, judge},
    record::{Key, Record},
};
use crate::{
    error::Error,
    filter::{Column, Filter, check_name, col, filter_methods},
    rest::{OrderBy, QueryBuilder, Rest},
};

/// The rows of a table to [`watch`](crate::Client::watch). Filters are the same as of a [request](QueryBuilder).
///
/// ```
/// use tendril_realtime::{col, watch::Query};
///
/// let queue = Query::table("jobs")
///     .select("id,status,payload")
///     .immutable_eq("tenant", 7)
///     .in_list("status", ["QUEUED", "RUNNING"])
///     .filter(col("priority").gt(3).or(col("urgent").is(true)));
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct Query {
    pub(super) schema: Option<String>,
    pub(super) table: String,
    selection: Selection,
    pub(super) key: Vec<String>,
    /// Equalities of columns that never change: the Realtime server filters by them too.
    immutable: Vec<Filter>,
    filters: Vec<Filter>,
    order: Vec<OrderBy>,
    pub(super) limit: Option<u64>,
    page: u64,
    pub(super) private: bool,
    /// The topic and the event of the broadcasts that announce changes, instead of row changes.
    pub(super) broadcasts: Option<(String, String)>,
    pub(super) poll_interval: Duration,
    pub(super) resync_interval: Duration,
}

/// What is read of each row.
#[derive(Debug, Clone)]
enum Selection {
    All,
    /// Columns by their names.
    Names(Vec<String>),
    /// Something that only `PostgREST` can make.
    Notation(String),
}

impl Query {
    /// All rows of a table that the role may see. The table needs a primary key; unless [`key`](Self::key) is called, it is
    /// the column `id`.
    pub fn table(table: impl Into<String>) -> Self {
        Self {
            schema: None,
            table: table.into(),
            selection: Selection::All,
            key: vec!["id".to_owned()],
            immutable: Vec::new(),
            filters: Vec::new(),
            order: Vec::new(),
            limit: None,
            page: 500,
            private: false,
            broadcasts: None,
            poll_interval: Duration::from_secs(10),
            resync_interval: Duration::from_secs(60),
        }
    }

    /// The table's schema. Default: `public`.
    pub fn schema(mut self, name: impl Into<String>) -> Self {
        self.schema = Some(name.into());
        self
    }

    /// The columns to read, in `PostgREST`'s notation; the key must be among them. With plain column names, events are
    /// used as they come; with embeddings, casts or aliases, each event makes one request.
    pub fn select(mut self, columns: impl Into<String>) -> Self {
        let columns = columns.into();
        let is_word = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_alphanumeric() || c == '_');
        let names: Vec<_> = columns.split(',').map(str::trim).map(str::to_owned).collect();
        self.selection = if columns.trim() == "*" {
            Selection::All
        } else if names.iter().all(|name| is_word(name)) {
            Selection::Names(names)
        } else {
            Selection::Notation(columns)
        };
        self
    }

    /// The columns to read, by their names, whatever characters these have.
    pub fn select_columns<C: Into<String>>(mut self, columns: impl IntoIterator<Item = C>) -> Self {
        self.selection = Selection::Names(columns.into_iter().map(Into::into).collect());
        self
    }

    /// The columns of the primary key.
    pub fn key<C: Into<String>>(mut self, columns: impl IntoIterator<Item = C>) -> Self {
        self.key = columns.into_iter().map(Into::into).collect();
        self
    }

    /// Only rows with this value in a column that never changes, such as an owner or a tenant. The Realtime server filters by it
    /// too, which saves its work and ours.
    ///
    /// Not for columns of the types `char(n)`, `bit` and `bytea`: Realtime does not see their whole values, and would send no events.
    #[doc(alias = "scope_eq")]
    #[doc(alias = "partition_eq")]
    pub fn immutable_eq(mut self, column: impl Into<Column>, value: impl fmt::Display) -> Self {
        self.immutable.push(column.into().eq(value));
        self
    }

    /// Only rows that fulfil this. A row that changes so that it does not fulfil it any more is
    /// [deleted](super::WatchEvent::Delete) from the watch.
    ///
    /// Events of rows are judged here where that is certain: equality of text, integers, booleans and uuids, and NULL. For other
    /// operators and types an event makes the row be read, which costs a request; events that come together share one.
    pub fn filter(mut self, filter: impl Into<Filter>) -> Self {
        self.filters.push(filter.into());
        self
    }

    filter_methods!();

    /// The order of the rows in the first list; a second call orders rows that are equal by the first. Default: by key, which reads
    /// large tables more cheaply and more surely.
    pub fn order(mut self, by: impl Into<OrderBy>) -> Self {
        self.order.push(by.into());
        self
    }

    /// Only the first so many rows, in the given [`order`](Self::order). A row that others push out is
    /// [deleted](super::WatchEvent::Delete) from the watch. Each change that may concern these rows makes them be read again.
    pub fn limit(mut self, rows: u64) -> Self {
        self.limit = Some(rows);
        self
    }

    /// Listens on a private channel: for projects that allow no others. Needs a policy on `realtime.messages` that lets this
    /// role read topics beginning with `watch:`.
    pub fn private(mut self, private: bool) -> Self {
        self.private = private;
        self
    }

    /// Follows broadcasts instead of row changes: each one with this event on this private channel makes the watch read again
    /// what it names. That is the row whose key is in the payload (`{"id": 7}`), or in its `record` or `old_record`, as
    /// `realtime.broadcast_changes` writes them; a payload without a key means the whole table. Broadcasts that come together
    /// cost one request. Everything else stays as it is: the list at the beginning, after each gap, and from time to time.
    ///
    /// For a table with very many watchers: the server checks each row change against the policies once per watcher, one
    /// after the other, and a private channel once, at the join. The broadcasts come from the database; a trigger is the
    /// place, and runs with the rights to write messages:
    ///
    /// ```sql
    /// create function public.announce_job() returns trigger language plpgsql security definer set search_path = '' as $$
    /// begin
    ///   perform realtime.send(jsonb_build_object('id', new.id), 'job', 'tenant:' || new.tenant);
    ///   return null;
    /// end $$;
    /// create trigger announce_job after insert or update on public.jobs for each row execute function public.announce_job();
    /// create policy "Tenants receive their jobs" on realtime.messages for select to authenticated
    ///   using (realtime.topic() = 'tenant:' || (auth.jwt() ->> 'tenant'));
    /// ```
    ///
    /// ```
    /// use tendril_realtime::watch::Query;
    ///
    /// let queue = Query::table("jobs").immutable_eq("tenant", 7).eq("status", "QUEUED").invalidated_by_broadcast("tenant:7", "job");
    /// ```
    ///
    /// A client can have one watch per topic: a socket holds each topic once.
    pub fn invalidated_by_broadcast(mut self, topic: impl Into<String>, event: impl Into<String>) -> Self {
        self.broadcasts = Some((topic.into(), event.into()));
        self
    }

    /// How many rows one request of a list reads. Default: 500. A server that returns fewer at once gets more requests.
    pub fn page(mut self, rows: u64) -> Self {
        self.page = rows.max(1);
        self
    }

    /// How often the table is read while events do not flow. Default: 10 s.
    #[doc(alias = "poll")]
    pub fn poll_interval(mut self, interval: Duration) -> Self {
        self.poll_interval = bounded(interval);
        self
    }

    /// How often the table is read while events flow, as a safety net against losses that the server does not report. Default: 60 s.
    pub fn resync_interval(mut self, interval: Duration) -> Self {
        self.resync_interval = bounded(interval);
        self
    }

    /// Refuses what cannot work.
    pub(super) fn check(&self) -> Result<(), Error> {
        check_name("table", &self.table)?;
        if let Some(schema) = &self.schema {
            check_name("schema", schema)?;
        }
        if self.key.is_empty() || self.key.iter().any(String::is_empty) {
            return Err(Error::invalid("key", "a watch needs the names of the primary key's columns"));
        }
        self.key.iter().try_for_each(|column| col(column).check())?;
        if let Some(columns) = self.plain_columns() {
            for key in &self.key {
                if !columns.contains(&key.as_str()) {
                    return Err(Error::invalid(
                        "select",
                        format!("the key column `{key}` must be among the columns"),
                    ));
                }
            }
        }
        for filter in &self.filters {
            filter.check()?;
            if !filter.chooses_rows() {
                return Err(Error::invalid("filter", "a watch filters by columns of its own table"));
            }
        }
        self.order.iter().try_for_each(|by| by.parameter().map(drop))?;
        if self.limit == Some(0) {
            return Err(Error::invalid("limit", "a watch of no rows reports nothing"));
        }
        if let Some((topic, event)) = &self.broadcasts
            && (topic.is_empty() || event.is_empty())
        {
            return Err(Error::invalid(
                "invalidated_by_broadcast",
                "it needs the names of a topic and of an event",
            ));
        }
        self.server_filter().map(drop)
    }

    /// The selected columns, if they are nothing but names. `None`: all columns, or something only `PostgREST` can make.
    pub(super) fn plain_columns(&self) -> Option<Vec<&str>> {
        match &self.selection {
            Selection::Names(names) => Some(names.iter().map(String::as_str).collect()),
            Selection::All | Selection::Notation(_) => None,
        }
    }

    /// Whether rows have to be read from the server to have the selected shape.
    pub(super) fn needs_server(&self) -> bool {
        matches!(self.selection, Selection::Notation(_))
    }

    /// The filter for the Realtime server.
    pub(super) fn server_filter(&self) -> Result<Option<Filter>, Error> {
        if self.immutable.is_empty() {
            return Ok(None);
        }
        let filter = Filter::all(self.immutable.iter().cloned());
        filter.realtime()?;
        Ok(Some(filter))
    }

    /// Whether pages follow the key: then no row is skipped because another one came or went between two pages.
    pub(super) fn pages_by_key(&self) -> bool {
        self.order.is_empty() && self.key.len() == 1
    }

    /// One page of the list, after this last row of the page before, which is the `offset`-th.
    pub(super) fn page_request(&self, rest: &Rest, last: Option<&Record>, offset: u64) -> QueryBuilder {
        let rows = self.limit.map_or(self.page, |limit| self.page.min(limit.saturating_sub(offset)));
        let mut request = self.request(rest).limit(rows);
        for by in &self.order {
            request = request.order(by.clone());
        }
        // The key last: rows that are equal in the requested order must not change places between two pages.
        for column in &self.key {
            request = request.order(col(column));
        }
        match (&self.key[..], last.and_then(|record| record.text_of(&self.key[0]))) {
            ([column], Some(value)) if self.pages_by_key() => request.gt(column, value),
            _ if offset > 0 => request.offset(offset),
            _ => request,
        }
    }

    /// The rows with these keys, as far as they belong to the watch.
    pub(super) fn rows_request(&self, rest: &Rest, keys: &[&Key]) -> QueryBuilder {
        let request = self.request(rest);
        match (&self.key[..], keys) {
            (columns, [key]) => columns
                .iter()
                .zip(key.values())
                .fold(request, |request, (column, value)| request.eq(column, value)),
            // `in` is ANY of an array, and PostgreSQL has no arrays of arrays.
            ([column], keys) if keys.iter().all(|key| !key.values()[0].starts_with('{')) => {
                request.in_list(column, keys.iter().flat_map(|key| key.values()))
            }
            (columns, keys) => request.or(keys.iter().map(|key| {
                Filter::all(columns.iter().zip(key.values()).map(|(column, value)| col(column).eq(value)))
            })),
        }
    }

    fn request(&self, rest: &Rest) -> QueryBuilder {
        let request = match &self.schema {
            Some(schema) => rest.schema(schema).from(&self.table),
            None => rest.from(&self.table),
        };
        let request = match &self.selection {
            Selection::All => request.select("*"),
            Selection::Names(names) => request.select_columns(names),
            Selection::Notation(notation) => request.select(notation),
        };
        self.immutable.iter().chain(&self.filters).cloned().fold(request, QueryBuilder::filter)
    }

    /// Whether a row belongs to the watch, as far as its event shows.
    pub(super) fn judge(&self, record: &Record, types: &ColumnTypes) -> FilterMatch {
        let filters = self.immutable.iter().chain(&self.filters);
        FilterMatch::all(filters.map(|filter| judge(filter.expression(), record, types)))
    }
}

/// Zero would be a loop without a pause, and a century overflows the clock.
fn bounded(interval: Duration) -> Duration {
    interval.clamp(Duration::from_millis(50), Duration::from_secs(86_400))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watch_that_cannot_work_is_refused() {
        assert!(Query::table("t").select("name").check().is_err());
        assert!(Query::table("t").select("id,name").check().is_ok());
        assert!(Query::table("t").select_columns(["limit"]).key(["limit"]).check().is_ok());
        assert!(Query::table("").check().is_err());
        assert!(Query::table("t").schema("").check().is_err());
        assert!(Query::table("t").immutable_eq("a=b", 1).check().is_err());
        assert!(Query::table("t").eq("", 1).check().is_err());
        assert!(Query::table("t").eq(col("x").of("posts"), 1).check().is_err());
        assert!(Query::table("t").order("id.desc").check().is_err());
        assert!(Query::table("t").limit(0).check().is_err());
        assert!(Query::table("t").invalidated_by_broadcast("", "job").check().is_err());
        assert!(Query::table("t").invalidated_by_broadcast("tenant:7", "job").check().is_ok());
        assert!(Query::table("t").select("id,owner:people(name)").needs_server());
        assert!(!Query::table("t").select("*").needs_server());
    }
}
