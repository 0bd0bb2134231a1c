//! Which rows to watch, and whether a row that an event brings is one of them.

use std::{fmt, time::Duration};

use serde_json::value::RawValue;

use super::record::{Key, Record};
use crate::{
    channel::filter::Filter,
    error::Error,
    rest::{Request, Rest},
};

/// The rows of a table to [`watch`](crate::Client::watch).
///
/// ```
/// use tendril_realtime::watch::Query;
///
/// let queue = Query::table("jobs").select("id,status,payload").scope_eq("tenant", 7).eq("status", "QUEUED").order("id.asc");
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct Query {
    pub(super) table: String,
    select: Option<String>,
    pub(super) key: Vec<String>,
    scope: Vec<Condition>,
    conditions: Vec<Condition>,
    order: Option<String>,
    page: u64,
    pub(super) private: bool,
    /// The topic and the event of the broadcasts that tell of changes, instead of row changes.
    pub(super) hints: Option<(String, String)>,
    pub(super) poll: Duration,
    pub(super) safety_poll: Duration,
}

#[derive(Debug, Clone)]
struct Condition {
    column: String,
    test: Test,
}

#[derive(Debug, Clone)]
enum Test {
    Eq(String),
    Neq(String),
    In(Vec<String>),
    IsNull,
    /// Comparisons depend on the column's type: the server decides.
    Other(&'static str, String),
}

/// What can be said of a row from its event alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Belongs,
    DoesNot,
    /// Only the server can tell.
    Unknown,
}

impl Query {
    /// All rows of a table (of schema `public`) that the role may see. The table needs a primary key; unless
    /// [`key`](Self::key) says otherwise, it is the column `id`.
    pub fn table(table: impl Into<String>) -> Self {
        Self {
            table: table.into(),
            select: None,
            key: vec!["id".to_owned()],
            scope: Vec::new(),
            conditions: Vec::new(),
            order: None,
            page: 500,
            private: false,
            hints: None,
            poll: Duration::from_secs(10),
            safety_poll: Duration::from_secs(60),
        }
    }

    /// The columns to read, in `PostgREST`'s notation; the key must be among them. With plain column names, events are
    /// used as they come; with embeddings, casts or aliases, each event makes one request.
    pub fn select(mut self, columns: impl Into<String>) -> Self {
        self.select = Some(columns.into());
        self
    }

    /// The columns of the primary key.
    pub fn key<C: Into<String>>(mut self, columns: impl IntoIterator<Item = C>) -> Self {
        self.key = columns.into_iter().map(Into::into).collect();
        self
    }

    /// Only rows with this value in a column that never changes, such as an owner or a tenant. The Realtime server filters by it
    /// too, which saves its work and ours.
    pub fn scope_eq(mut self, column: impl Into<String>, value: impl fmt::Display) -> Self {
        self.scope.push(Condition { column: column.into(), test: Test::Eq(value.to_string()) });
        self
    }

    /// Only rows with this value. A row that changes so that it does not fulfil this any more is
    /// [`Deleted`](super::WatchEvent::Deleted) from the watch.
    pub fn eq(self, column: impl Into<String>, value: impl fmt::Display) -> Self {
        self.condition(column, Test::Eq(value.to_string()))
    }

    /// Only rows with another value that is not NULL.
    pub fn neq(self, column: impl Into<String>, value: impl fmt::Display) -> Self {
        self.condition(column, Test::Neq(value.to_string()))
    }

    /// Only rows with one of these values.
    pub fn in_list<V: fmt::Display>(
        self,
        column: impl Into<String>,
        values: impl IntoIterator<Item = V>,
    ) -> Self {
        self.condition(column, Test::In(values.into_iter().map(|value| value.to_string()).collect()))
    }

    /// Only rows without a value.
    pub fn is_null(self, column: impl Into<String>) -> Self {
        self.condition(column, Test::IsNull)
    }

    /// Only rows with a greater value.
    pub fn gt(self, column: impl Into<String>, value: impl fmt::Display) -> Self {
        self.condition(column, Test::Other("gt", value.to_string()))
    }

    /// Only rows with a lesser value.
    pub fn lt(self, column: impl Into<String>, value: impl fmt::Display) -> Self {
        self.condition(column, Test::Other("lt", value.to_string()))
    }

    fn condition(mut self, column: impl Into<String>, test: Test) -> Self {
        self.conditions.push(Condition { column: column.into(), test });
        self
    }

    /// The order of the rows in the first list. Default: by key, which reads large tables more cheaply and more surely.
    pub fn order(mut self, columns: impl Into<String>) -> Self {
        self.order = Some(columns.into());
        self
    }

    /// Listens on a private channel: for projects that allow no others. Needs a policy on `realtime.messages` that lets this
    /// role read topics beginning with `watch:`.
    pub fn private(mut self, private: bool) -> Self {
        self.private = private;
        self
    }

    /// Follows broadcasts instead of row changes: each one with this event on this private channel is a hint to read again
    /// what it tells of. That is the row whose key stands in the payload (`{"id": 7}`), or in its `record` or `old_record`, as
    /// `realtime.broadcast_changes` writes them; a payload without a key tells of the whole table. Hints that come together
    /// are one request. Everything else stays as it is: the list at the beginning, after each gap, and from time to time.
    ///
    /// For a table with very many watchers: the server checks each row change against the policies once per watcher, one
    /// after the other, and a private channel once, at the join. The hints are up to the database; a trigger is the
    /// place, and runs with the rights to write messages:
    ///
    /// ```sql
    /// create function public.tell_of_job() returns trigger language plpgsql security definer set search_path = '' as $$
    /// begin
    ///   perform realtime.send(jsonb_build_object('id', new.id), 'job', 'tenant:' || new.tenant);
    ///   return null;
    /// end $$;
    /// create trigger tell_of_job after insert or update on public.jobs for each row execute function public.tell_of_job();
    /// create policy "Tenants hear of their jobs" on realtime.messages for select to authenticated
    ///   using (realtime.topic() = 'tenant:' || (auth.jwt() ->> 'tenant'));
    /// ```
    ///
    /// ```
    /// use tendril_realtime::watch::Query;
    ///
    /// let queue = Query::table("jobs").scope_eq("tenant", 7).eq("status", "QUEUED").hinted_by("tenant:7", "job");
    /// ```
    ///
    /// A client can have one watch per topic: a socket holds each topic once.
    pub fn hinted_by(mut self, topic: impl Into<String>, event: impl Into<String>) -> Self {
        self.hints = Some((topic.into(), event.into()));
        self
    }

    /// How many rows one request of a list asks for. Default: 500; must not exceed the server's own limit (1000 on
    /// Supabase), which would cut the list short.
    pub fn page(mut self, rows: u64) -> Self {
        self.page = rows.max(1);
        self
    }

    /// How often the table is read while events do not flow (default: 10 s), and while they do (default: 60 s; a safety net
    /// against losses that the server does not tell of).
    pub fn poll(mut self, without_events: Duration, with_events: Duration) -> Self {
        // Zero would be a loop without a pause, and a century overflows the clock.
        let bounds = (Duration::from_millis(50), Duration::from_secs(86_400));
        self.poll = without_events.clamp(bounds.0, bounds.1);
        self.safety_poll = with_events.clamp(bounds.0, bounds.1);
        self
    }

    /// Refuses what cannot work.
    pub(super) fn check(&self) -> Result<(), Error> {
        if self.table.is_empty() {
            return Err(Error::invalid("table", "it is empty"));
        }
        if self.key.is_empty() || self.key.iter().any(String::is_empty) {
            return Err(Error::invalid("key", "a watch needs the names of the primary key's columns"));
        }
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
        if let Some((topic, event)) = &self.hints
            && (topic.is_empty() || event.is_empty())
        {
            return Err(Error::invalid("hinted_by", "a hint needs the names of a topic and of an event"));
        }
        self.server_filter().map(drop)
    }

    /// The selected columns, if they are nothing but names. `None`: all columns, or something only `PostgREST` can make.
    pub(super) fn plain_columns(&self) -> Option<Vec<&str>> {
        let select = self.select.as_deref()?;
        (!select.contains(['(', ')', ':', '-', '*', '"'])).then(|| select.split(',').map(str::trim).collect())
    }

    /// Whether rows have to be read from the server to have the selected shape.
    pub(super) fn needs_server(&self) -> bool {
        self.select.as_deref().is_some_and(|select| select != "*") && self.plain_columns().is_none()
    }

    /// The filter for the Realtime server.
    pub(super) fn server_filter(&self) -> Result<Option<Filter>, Error> {
        let mut whole: Option<Filter> = None;
        for condition in &self.scope {
            let Test::Eq(value) = &condition.test else { continue };
            let filter = Filter::eq(&condition.column, value)?;
            whole = Some(match whole {
                Some(before) => before.and(filter),
                None => filter,
            });
        }
        Ok(whole)
    }

    /// Whether pages follow the key: then no row is skipped because another one came or went between two pages.
    pub(super) fn pages_by_key(&self) -> bool {
        self.order.is_none() && self.key.len() == 1
    }

    /// One page of the list, after this last row of the page before, which is the `offset`-th.
    pub(super) fn page_request(&self, rest: &Rest, last: Option<&Record>, offset: u64) -> (Request, u64) {
        // The key last: rows that are equal in the wished order must not change places between two pages.
        let mut order: Vec<String> = self.order.iter().cloned().collect();
        order.extend(self.key.iter().map(|column| format!("{column}.asc")));
        let mut request = self.request(rest).order(&order.join(",")).limit(self.page);
        match (&self.key[..], last.and_then(|record| record.text_of(&self.key[0]))) {
            ([column], Some(value)) if self.pages_by_key() => request = request.gt(column, value),
            _ if offset > 0 => request = request.offset(offset),
            _ => {}
        }
        (request, self.page)
    }

    /// The rows with these keys, as far as they belong to the watch: one request if the key is one column.
    pub(super) fn key_requests(&self, rest: &Rest, keys: &[&Key]) -> Vec<Request> {
        if let ([column], [_, _, ..]) = (&self.key[..], keys) {
            return vec![self.request(rest).in_list(column, keys.iter().flat_map(|key| key.values()))];
        }
        let one = |key: &&Key| {
            let columns = self.key.iter().zip(key.values());
            columns.fold(self.request(rest), |request, (column, value)| request.eq(column, value))
        };
        keys.iter().map(one).collect()
    }

    fn request(&self, rest: &Rest) -> Request {
        let mut request = rest.from(&self.table).select(self.select.as_deref().unwrap_or("*"));
        for Condition { column, test } in self.scope.iter().chain(&self.conditions) {
            request = match test {
                Test::Eq(value) => request.eq(column, value),
                Test::Neq(value) => request.neq(column, value),
                Test::In(values) => request.in_list(column, values),
                Test::IsNull => request.is(column, "null"),
                Test::Other("gt", value) => request.gt(column, value),
                Test::Other(_, value) => request.lt(column, value),
            };
        }
        request
    }

    /// Whether a row belongs to the watch, as far as its event tells.
    pub(super) fn judge(&self, record: &Record) -> Verdict {
        let mut verdict = Verdict::Belongs;
        for condition in self.scope.iter().chain(&self.conditions) {
            match condition.judge(record) {
                Verdict::DoesNot => return Verdict::DoesNot,
                Verdict::Unknown => verdict = Verdict::Unknown,
                Verdict::Belongs => {}
            }
        }
        verdict
    }
}

impl Condition {
    fn judge(&self, record: &Record) -> Verdict {
        let Some(raw) = record.column(&self.column) else { return Verdict::Unknown };
        let is_null = raw.get() == "null";
        let certainly = |yes: bool| if yes { Verdict::Belongs } else { Verdict::DoesNot };
        match &self.test {
            Test::IsNull => certainly(is_null),
            Test::Eq(_) | Test::Neq(_) | Test::In(_) if is_null => Verdict::DoesNot,
            Test::Eq(value) => equals(raw, value).map_or(Verdict::Unknown, certainly),
            Test::Neq(value) => equals(raw, value).map_or(Verdict::Unknown, |equal| certainly(!equal)),
            Test::In(values) => {
                let answers: Vec<_> = values.iter().map(|value| equals(raw, value)).collect();
                if answers.contains(&Some(true)) {
                    Verdict::Belongs
                } else if answers.contains(&None) {
                    Verdict::Unknown
                } else {
                    Verdict::DoesNot
                }
            }
            Test::Other(..) => Verdict::Unknown,
        }
    }
}

/// Whether a column's JSON equals a filter's text; `None` where that depends on the column's type.
fn equals(raw: &RawValue, text: &str) -> Option<bool> {
    let json = raw.get();
    if let Ok(string) = serde_json::from_str::<String>(json) {
        if string == text {
            return Some(true);
        }
        // Words are what they are; times, dates, numbers in strings and uuids can be written in several ways.
        let is_word =
            |text: &str| !text.starts_with(|first: char| first.is_ascii_digit() || "-+{[(".contains(first));
        let is_uuid = |text: &str| text.len() == 36 && text.bytes().filter(|byte| *byte == b'-').count() == 4;
        if is_uuid(&string) && is_uuid(text) {
            return Some(string.eq_ignore_ascii_case(text));
        }
        return (is_word(&string) && is_word(text)).then_some(false);
    }
    if json == text {
        return Some(true);
    }
    match (json.parse::<i128>(), text.parse::<i128>()) {
        (Ok(one), Ok(other)) => Some(one == other),
        _ if json == "true" || json == "false" => (text == "true" || text == "false").then_some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(query: &Query, json: &str) -> Verdict {
        query.judge(&Record::parse(json).unwrap())
    }

    #[test]
    fn a_row_is_judged_by_its_event_where_that_is_certain() {
        let query = Query::table("t").scope_eq("cluster", "C1").eq("status", "QUEUED");
        assert_eq!(judged(&query, r#"{"cluster":"C1","status":"QUEUED"}"#), Verdict::Belongs);
        assert_eq!(judged(&query, r#"{"cluster":"C1","status":"SUCCESS"}"#), Verdict::DoesNot);
        assert_eq!(judged(&query, r#"{"cluster":"C1","status":null}"#), Verdict::DoesNot);
        assert_eq!(judged(&query, r#"{"cluster":"C1"}"#), Verdict::Unknown);
        let numbers = Query::table("t").in_list("n", [1, 2]);
        assert_eq!(judged(&numbers, r#"{"n":2}"#), Verdict::Belongs);
        assert_eq!(judged(&numbers, r#"{"n":3}"#), Verdict::DoesNot);
        assert_eq!(judged(&numbers, r#"{"n":2.0}"#), Verdict::Unknown);
    }

    #[test]
    fn what_depends_on_the_columns_type_is_left_to_the_server() {
        let times = Query::table("t").eq("at", "2026-01-01T00:00:00Z");
        assert_eq!(judged(&times, r#"{"at":"2026-01-01T00:00:00+00:00"}"#), Verdict::Unknown);
        assert_eq!(judged(&Query::table("t").gt("n", 5), r#"{"n":7}"#), Verdict::Unknown);
        let uuid = Query::table("t").eq("id", "AAAAAAAA-0000-4000-8000-000000000001");
        assert_eq!(judged(&uuid, r#"{"id":"aaaaaaaa-0000-4000-8000-000000000001"}"#), Verdict::Belongs);
    }

    #[test]
    fn a_watch_without_its_key_is_refused() {
        assert!(Query::table("t").select("name").check().is_err());
        assert!(Query::table("t").select("id,name").check().is_ok());
        assert!(Query::table("").check().is_err());
        assert!(Query::table("t").hinted_by("", "job").check().is_err());
        assert!(Query::table("t").hinted_by("tenant:7", "job").check().is_ok());
        assert!(Query::table("t").select("id,owner:people(name)").needs_server());
    }
}
