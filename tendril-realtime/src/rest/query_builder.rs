//! One request, built step by step.

use std::{fmt, sync::Arc, time::Duration};

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde::Serialize;

use super::{
    media::{Explain, Media},
    preference::{Count, Preferences, Resolution, Return},
    transport::Transport,
};
use crate::{
    error::Error,
    filter::{Column, identifiers},
};

/// A request that has not been sent; one of the methods that [send](QueryBuilder#sending) sends it.
///
/// Names of columns are names, whatever characters they have: see [`Column`]. Only [`select`](Self::select) takes `PostgREST`'s
/// notation. Filters are joined by AND. Wrong arguments are returned by the method that sends.
///
/// ```no_run
/// # use tendril_realtime::{col, rest::Rest};
/// # #[derive(serde::Deserialize)] struct Todo { id: i64 }
/// # async fn run(rest: Rest) -> Result<(), tendril_realtime::Error> {
/// let todos: Vec<Todo> = rest
///     .from("todos")
///     .select("id,title,owner:people(name)")
///     .eq("done", false)
///     .or([col("priority").gt(3), col("due").lt("2026-04-01")])
///     .order(col("created_at").desc())
///     .limit(20)
///     .rows()
///     .await?;
/// # Ok(()) }
/// ```
#[must_use = "a request does nothing until it is sent"]
pub struct QueryBuilder {
    pub(super) operation: Operation,
    pub(super) transport: Arc<Transport>,
    /// The table's or the function's name, for messages.
    pub(super) target: String,
    pub(super) schema: Option<String>,
    pub(super) select: Vec<String>,
    pub(super) filters: Vec<(String, String)>,
    /// Whether a filter chooses rows of the table itself.
    pub(super) chooses_rows: bool,
    pub(super) all_rows: bool,
    /// Parameters with a fixed place, such as `order` and `posts.limit`; a repeated one is extended or replaced.
    pub(super) parameters: Vec<(String, String)>,
    pub(super) preferences: Preferences,
    pub(super) media: Media,
    pub(super) strip_nulls: bool,
    pub(super) headers: HeaderMap,
    pub(super) idempotent: Option<bool>,
    pub(super) timeout: Option<Duration>,
    pub(super) error: Option<Error>,
}

/// What a request does; the `postgrest` crate builds it.
#[derive(Clone)]
pub(super) enum Operation {
    /// Of a table or a view.
    Table(Box<postgrest::Builder>, Action),
    /// A call of a function, with its arguments as a JSON object.
    Call { builder: Box<postgrest::Builder>, arguments: String, by_get: bool, head: bool },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    Read { head: bool },
    Insert(String),
    Update(String),
    Delete,
}

impl QueryBuilder {
    pub(super) fn new(operation: Operation, transport: Arc<Transport>, target: &str) -> Self {
        Self {
            operation,
            transport,
            target: target.to_owned(),
            schema: None,
            select: Vec::new(),
            filters: Vec::new(),
            chooses_rows: false,
            all_rows: false,
            parameters: Vec::new(),
            preferences: Preferences::default(),
            media: Media::default(),
            strip_nulls: false,
            headers: HeaderMap::new(),
            idempotent: None,
            timeout: None,
            error: None,
        }
    }

    /// Records the first error.
    pub(super) fn fail_with(&mut self, error: Error) {
        self.error.get_or_insert(error);
    }

    fn act(mut self, action: Action) -> Self {
        match &mut self.operation {
            Operation::Table(_, current) => *current = action,
            Operation::Call { .. } => {
                self.fail_with(Error::invalid("request", "a function is called, not written to"));
            }
        }
        self
    }

    fn write<B: Serialize + ?Sized>(
        mut self,
        what: &'static str,
        body: &B,
        action: fn(String) -> Action,
    ) -> Self {
        match serde_json::to_string(body) {
            Ok(body) => self.act(action(body)),
            Err(error) => {
                self.fail_with(Error::unserializable(what, &error));
                self
            }
        }
    }

    /// Adds to the parameter, after a comma if it is there already.
    pub(super) fn extend(&mut self, name: String, value: &str) {
        match self.parameters.iter_mut().find(|(known, _)| *known == name) {
            Some((_, list)) => {
                list.push(',');
                list.push_str(value);
            }
            None => self.parameters.push((name, value.to_owned())),
        }
    }

    /// Sets the parameter.
    pub(super) fn replace(&mut self, name: String, value: String) {
        self.parameters.retain(|(known, _)| *known != name);
        self.parameters.push((name, value));
    }

    fn names<C: Into<Column>>(mut self, parameter: &'static str, names: impl IntoIterator<Item = C>) -> Self {
        let columns: Vec<Column> = names.into_iter().map(Into::into).collect();
        match identifiers(&columns) {
            Ok(list) => self.extend(parameter.to_owned(), &list),
            Err(error) => self.fail_with(error),
        }
        self
    }
}

/// # What to do
impl QueryBuilder {
    /// The columns to return, in `PostgREST`'s notation: `id,name:full_name,posts(title)`. A second call adds to the first. Needed
    /// with writes wherever the role may not read every column.
    pub fn select(mut self, columns: &str) -> Self {
        if columns.contains('\0') {
            // `PostgREST` would read what stands before it.
            self.fail_with(Error::invalid("select", "it contains a NUL character"));
        }
        self.select.push(columns.to_owned());
        self
    }

    /// The columns to return, by their names, whatever characters these have.
    pub fn select_columns<C: Into<Column>>(mut self, columns: impl IntoIterator<Item = C>) -> Self {
        let columns: Vec<Column> = columns.into_iter().map(Into::into).collect();
        match identifiers(&columns) {
            Ok(list) => self.select.push(list),
            Err(error) => self.fail_with(error),
        }
        self
    }

    /// Inserts one row (an object) or many (an array of objects).
    pub fn insert<B: Serialize + ?Sized>(self, rows: &B) -> Self {
        self.write("rows", rows, Action::Insert)
    }

    /// Inserts rows, and updates those whose key exists already.
    pub fn upsert<B: Serialize + ?Sized>(mut self, rows: &B) -> Self {
        self.preferences.resolution = Some(Resolution::Merge);
        self.insert(rows)
    }

    /// Updates the rows that the filters choose. Without a filter it is refused, unless [`all_rows`](Self::all_rows) is called.
    pub fn update<B: Serialize + ?Sized>(self, changes: &B) -> Self {
        self.write("changes", changes, Action::Update)
    }

    /// Deletes the rows that the filters choose. Without a filter it is refused, unless [`all_rows`](Self::all_rows) is called.
    pub fn delete(self) -> Self {
        self.act(Action::Delete)
    }

    /// Confirms an update or a delete without a filter: of every row that the role may change.
    ///
    /// Hosted Supabase refuses such a request (`21000`, "requires a WHERE clause"). There, name a column that always has a value:
    /// `not_null("id")`.
    pub fn all_rows(mut self) -> Self {
        self.all_rows = true;
        self
    }

    /// The columns whose unique constraint decides what a duplicate is.
    #[doc(alias = "onConflict")]
    pub fn on_conflict<C: Into<Column>>(self, columns: impl IntoIterator<Item = C>) -> Self {
        self.names("on_conflict", columns)
    }

    /// Leaves rows alone whose key exists already. The insert may then be repeated safely.
    #[doc(alias = "ignoreDuplicates")]
    pub fn ignore_duplicates(mut self) -> Self {
        self.preferences.resolution = Some(Resolution::Ignore);
        self
    }

    /// The keys to take from each row. Needed when the rows of a bulk insert differ in their keys.
    pub fn columns<C: Into<Column>>(self, columns: impl IntoIterator<Item = C>) -> Self {
        self.names("columns", columns)
    }

    /// Missing keys get the column's default instead of NULL; goes with [`columns`](Self::columns).
    #[doc(alias = "defaultToNull")]
    pub fn missing_default(mut self) -> Self {
        self.preferences.missing_default = true;
        self
    }

    /// Fails (`PGRST124`), changing nothing, if the write would affect more rows than this.
    #[doc(alias = "maxAffected")]
    pub fn max_affected(mut self, rows: u64) -> Self {
        self.preferences.max_affected = Some(rows);
        self
    }

    /// Makes the server refuse (`PGRST122`) unknown preferences, instead of ignoring them.
    pub fn strict(mut self) -> Self {
        self.preferences.strict = true;
        self
    }

    /// Of a write, only the headers come back, with [`Response::location`](super::Response::location) for a single inserted row.
    pub fn headers_only(mut self) -> Self {
        self.preferences.returning = Some(Return::HeadersOnly);
        self
    }

    /// Executes the request and takes everything back: a dry run. The server must allow it (`db-tx-end`).
    #[doc(alias = "dryRun")]
    pub fn rollback(mut self) -> Self {
        self.preferences.rollback = true;
        self
    }

    /// Requests the number of all matching rows: see [`Response::count`](super::Response::count).
    pub fn count(mut self, how: Count) -> Self {
        self.preferences.count = Some(how);
        self
    }

    /// Reads the headers only, such as the [count](Self::count): no rows come back. To be sent by [`execute`](Self::execute).
    pub fn head(mut self) -> Self {
        match &mut self.operation {
            Operation::Table(_, Action::Read { head }) => *head = true,
            Operation::Call { by_get, head, .. } => (*by_get, *head) = (true, true),
            Operation::Table(..) => {
                self.fail_with(Error::invalid(
                    "head",
                    "a write has no form without an answer: see `headers_only`",
                ));
            }
        }
        self
    }

    /// Calls a function by GET: in a read-only transaction, and cacheable.
    ///
    /// Arguments go into the URL. Those that a URL cannot carry as what they are, such as NULL, are refused.
    pub fn get(mut self) -> Self {
        match &mut self.operation {
            Operation::Call { by_get, .. } => *by_get = true,
            Operation::Table(..) => {
                self.fail_with(Error::invalid("get", "it is for functions: a table is read by GET anyway"));
            }
        }
        self
    }
}

/// # How
impl QueryBuilder {
    /// The longest one attempt may take; instead of the handle's own limit.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Declares that a repetition does no harm, so that failures with an unknown outcome are tried again too. Reads, deletes
    /// and inserts that ignore duplicates are known to be so.
    pub fn idempotent(mut self, yes: bool) -> Self {
        self.idempotent = Some(yes);
        self
    }

    /// Leaves keys with NULL out of the answer.
    #[doc(alias = "stripNulls")]
    pub fn strip_nulls(mut self) -> Self {
        self.strip_nulls = true;
        self
    }

    /// A header of your own, such as `traceparent` or `x-client-info`. Headers that the client sets itself are refused.
    #[doc(alias = "setHeader")]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        const OWN: [&str; 10] = [
            "apikey",
            "authorization",
            "prefer",
            "accept",
            "accept-profile",
            "content-profile",
            "content-type",
            "content-length",
            "transfer-encoding",
            "host",
        ];
        let parsed = (HeaderName::try_from(name), HeaderValue::try_from(value));
        match parsed {
            (Ok(name), Ok(_)) if OWN.contains(&name.as_str()) => {
                self.fail_with(Error::invalid("header", format!("`{name}` is set by the client")));
            }
            (Ok(name), Ok(mut value)) => {
                value.set_sensitive(true);
                self.headers.insert(name, value);
            }
            _ => self.fail_with(Error::invalid("header", "no HTTP header has this name and value")),
        }
        self
    }

    pub(super) fn with_schema(mut self, schema: Option<&str>) -> Self {
        self.schema = schema.map(str::to_owned);
        self
    }

    pub(super) fn with_plan(mut self, explain: Explain) -> Self {
        self.media = Media::Plan(explain);
        self
    }
}

impl fmt::Debug for QueryBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueryBuilder").field("target", &self.target).finish_non_exhaustive()
    }
}
