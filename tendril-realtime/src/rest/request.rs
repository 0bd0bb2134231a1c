//! One request, built step by step. The `postgrest` crate builds it; this file guards what goes in and mends what comes out.

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use reqwest::{
    Method,
    header::{ACCEPT, HeaderMap, HeaderName, HeaderValue},
};
use serde::{Serialize, de::DeserializeOwned};
use url::Url;

use super::{
    preference::{Count, Preferences, Resolution, Return},
    response::Response,
    transport::{Parts, Transport},
};
use crate::error::{Error, ErrorKind, PostgrestError};

/// A request that has not been sent; one of the methods at the end of the list sends it.
///
/// Wrong arguments are remembered and returned by that last method.
#[must_use = "a request does nothing until it is sent"]
pub struct Request {
    builder: Box<postgrest::Builder>,
    transport: Arc<Transport>,
    target: String,
    preferences: Preferences,
    /// Query parameters that the builder has no method for.
    extra: Vec<(&'static str, String)>,
    object: bool,
    idempotent: Option<bool>,
    timeout: Option<Duration>,
    error: Option<Error>,
}

/// A value in double quotes, for the places of a query where commas and parentheses have a meaning: `in.(…)`, `or=(…)`.
#[derive(Debug, Clone)]
pub struct Quoted<T>(pub T);

impl<T: fmt::Display> fmt::Display for Quoted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.to_string().replace('\\', r"\\").replace('"', "\\\"");
        write!(f, "\"{text}\"")
    }
}

impl Request {
    pub(super) fn new(builder: postgrest::Builder, transport: Arc<Transport>, target: &str) -> Self {
        let error = target.is_empty().then(|| Error::invalid("table", "it is empty"));
        Self {
            builder: Box::new(builder),
            transport,
            target: target.to_owned(),
            preferences: Preferences::default(),
            extra: Vec::new(),
            object: false,
            idempotent: None,
            timeout: None,
            error,
        }
    }

    fn map(mut self, step: impl FnOnce(postgrest::Builder) -> postgrest::Builder) -> Self {
        *self.builder = step(*self.builder);
        self
    }

    /// Remembers the first thing that was wrong.
    pub(super) fn fail_with(&mut self, error: Option<Error>) {
        if self.error.is_none() {
            self.error = error;
        }
    }

    fn json<B: Serialize + ?Sized>(&mut self, what: &'static str, body: &B) -> String {
        serde_json::to_string(body).unwrap_or_else(|error| {
            self.fail_with(Some(Error::decode(what, &error)));
            String::new()
        })
    }

    // --- what to do -------------------------------------------------------------------------------------------------

    /// The columns to return, in `PostgREST`'s notation: `id,name:full_name,posts(title)`. Needed with writes wherever the
    /// role may not read every column.
    pub fn select(self, columns: &str) -> Self {
        self.map(|builder| builder.select(columns))
    }

    /// Inserts one row (an object) or many (an array of objects).
    pub fn insert<B: Serialize + ?Sized>(mut self, rows: &B) -> Self {
        let body = self.json("the rows", rows);
        self.map(|builder| builder.insert(body))
    }

    /// Inserts rows, and updates those whose key exists already.
    pub fn upsert<B: Serialize + ?Sized>(mut self, rows: &B) -> Self {
        self.preferences.resolution = Some(Resolution::Merge);
        self.insert(rows)
    }

    /// Updates the rows that the filters choose: without a filter, all of them.
    pub fn update<B: Serialize + ?Sized>(mut self, changes: &B) -> Self {
        let body = self.json("the changes", changes);
        self.map(|builder| builder.update(body))
    }

    /// Deletes the rows that the filters choose: without a filter, all of them.
    pub fn delete(self) -> Self {
        self.map(postgrest::Builder::delete)
    }

    /// The columns (comma-separated) whose unique constraint decides what a duplicate is.
    pub fn on_conflict(mut self, columns: &str) -> Self {
        self.extra.push(("on_conflict", columns.to_owned()));
        self
    }

    /// Leaves rows alone whose key exists already. The insert may then be repeated safely.
    pub fn ignore_duplicates(mut self) -> Self {
        self.preferences.resolution = Some(Resolution::Ignore);
        self
    }

    /// The keys to take from each row (comma-separated). Needed when the rows of a bulk insert differ in their keys.
    pub fn columns(mut self, columns: &str) -> Self {
        self.extra.push(("columns", columns.to_owned()));
        self
    }

    /// Missing keys get the column's default instead of NULL; goes with [`columns`](Self::columns).
    pub fn missing_default(mut self) -> Self {
        self.preferences.missing_default = true;
        self
    }

    /// Fails (`PGRST124`), changing nothing, if the write would affect more rows than this.
    pub fn max_affected(mut self, rows: u64) -> Self {
        self.preferences.max_affected = Some(rows);
        self
    }

    /// Makes the server refuse (`PGRST122`) preferences it does not know, instead of passing them over.
    pub fn strict(mut self) -> Self {
        self.preferences.strict = true;
        self
    }

    /// Of a write, only the headers come back, with [`Response::location`] for a single inserted row.
    pub fn headers_only(mut self) -> Self {
        self.preferences.returning = Some(Return::HeadersOnly);
        self
    }

    /// Asks for the number of all matching rows: see [`Response::count`].
    pub fn count(mut self, how: Count) -> Self {
        self.preferences.count = Some(how);
        self
    }

    // --- which rows -------------------------------------------------------------------------------------------------

    /// Rows whose column equals the value.
    pub fn eq(self, column: &str, value: impl fmt::Display) -> Self {
        self.map(|builder| builder.eq(column, value.to_string()))
    }

    /// Rows whose column differs from the value (and is not NULL).
    pub fn neq(self, column: &str, value: impl fmt::Display) -> Self {
        self.map(|builder| builder.neq(column, value.to_string()))
    }

    /// Rows whose column is greater than the value.
    pub fn gt(self, column: &str, value: impl fmt::Display) -> Self {
        self.map(|builder| builder.gt(column, value.to_string()))
    }

    /// Rows whose column is greater than or equal to the value.
    pub fn gte(self, column: &str, value: impl fmt::Display) -> Self {
        self.map(|builder| builder.gte(column, value.to_string()))
    }

    /// Rows whose column is less than the value.
    pub fn lt(self, column: &str, value: impl fmt::Display) -> Self {
        self.map(|builder| builder.lt(column, value.to_string()))
    }

    /// Rows whose column is less than or equal to the value.
    pub fn lte(self, column: &str, value: impl fmt::Display) -> Self {
        self.map(|builder| builder.lte(column, value.to_string()))
    }

    /// Rows whose column matches an SQL pattern (`%`, `_`).
    pub fn like(self, column: &str, pattern: impl fmt::Display) -> Self {
        self.map(|builder| builder.like(column, pattern.to_string()))
    }

    /// [`like`](Self::like) without regard to case.
    pub fn ilike(self, column: &str, pattern: impl fmt::Display) -> Self {
        self.map(|builder| builder.ilike(column, pattern.to_string()))
    }

    /// Rows whose column is `null`, `true`, `false` or `unknown`.
    pub fn is(self, column: &str, value: &str) -> Self {
        self.map(|builder| builder.is(column, value))
    }

    /// Rows whose column is one of the values. Values are quoted here; an empty list chooses nothing.
    pub fn in_list<V: fmt::Display>(self, column: &str, values: impl IntoIterator<Item = V>) -> Self {
        let quoted: Vec<_> = values.into_iter().map(|value| Quoted(value).to_string()).collect();
        self.map(|builder| builder.in_(column, quoted))
    }

    /// Rows for which `column=operator.value` does not hold.
    pub fn not(self, column: &str, operator: &str, value: impl fmt::Display) -> Self {
        self.map(|builder| builder.not(operator, column, value.to_string()))
    }

    /// Rows for which at least one of the comma-separated filters holds: `id.eq.1,name.like.a*`. Values with commas,
    /// parentheses or quotes go through [`Quoted`].
    pub fn or(self, filters: &str) -> Self {
        self.map(|builder| builder.or(filters))
    }

    /// Sorts by `column.asc`, `column.desc.nullslast` and so on, comma-separated.
    pub fn order(self, columns: &str) -> Self {
        self.map(|builder| builder.order(columns))
    }

    /// At most so many rows.
    pub fn limit(mut self, rows: u64) -> Self {
        self.extra.push(("limit", rows.to_string()));
        self
    }

    /// Leaves out so many rows at the start.
    pub fn offset(mut self, rows: u64) -> Self {
        self.extra.push(("offset", rows.to_string()));
        self
    }

    // --- how --------------------------------------------------------------------------------------------------------

    /// The longest one attempt may take; instead of the handle's own limit.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Says that a repetition does no harm, so that failures with an unknown outcome are tried again too. Reads, deletes
    /// and inserts that ignore duplicates are known to be so.
    pub fn idempotent(mut self, yes: bool) -> Self {
        self.idempotent = Some(yes);
        self
    }

    // --- sending ----------------------------------------------------------------------------------------------------

    /// Sends it; returns the rows: those read, or those written as they now are.
    pub async fn rows<T: DeserializeOwned>(mut self) -> Result<Vec<T>, Error> {
        self.preferences.returning = Some(Return::Representation);
        self.send().await?.json()
    }

    /// Sends it; returns the one row. Any other number of rows is an error (`PGRST116`) and, for a write, changes nothing.
    pub async fn one<T: DeserializeOwned>(mut self) -> Result<T, Error> {
        self.preferences.returning = Some(Return::Representation);
        self.object = true;
        self.send().await?.json()
    }

    /// Sends it; returns the one row, or `None` where there is none. Several rows are an error.
    pub async fn maybe_one<T: DeserializeOwned>(self) -> Result<Option<T>, Error> {
        let mut rows: Vec<T> = self.rows().await?;
        if rows.len() > 1 {
            let message = format!("{} rows where at most one was expected", rows.len());
            let api = PostgrestError {
                status: 406,
                code: "PGRST116".to_owned(),
                message,
                ..PostgrestError::default()
            };
            return Err(Error::new(ErrorKind::Postgrest(api)));
        }
        Ok(rows.pop())
    }

    /// Sends it; returns the answer's JSON as it is: for functions.
    pub async fn value<T: DeserializeOwned>(self) -> Result<T, Error> {
        self.send().await?.json()
    }

    /// Sends it; of a write, nothing but the headers comes back.
    pub async fn execute(mut self) -> Result<Response, Error> {
        self.preferences.returning.get_or_insert(Return::Minimal);
        self.send().await
    }

    async fn send(mut self) -> Result<Response, Error> {
        if let Some(error) = self.error.take() {
            return Err(error);
        }
        let transport = Arc::clone(&self.transport);
        let timeout = self.timeout;
        let parts = self.into_parts()?;
        transport.send(parts, timeout).await
    }

    /// The builder's request, copied into our own types: its HTTP stack is not used.
    fn into_parts(self) -> Result<Parts, Error> {
        let Self { builder, preferences, extra, object, idempotent, target, .. } = self;
        let built = builder.build().build().map_err(|error| {
            Error::with_source(
                ErrorKind::InvalidInput {
                    field: "request",
                    reason: format!("`{target}` cannot be asked for"),
                },
                error.to_string(),
            )
        })?;
        let unusable = |what: &str| Error::invalid("request", format!("the {what} cannot be sent"));
        let method =
            Method::from_bytes(built.method().as_str().as_bytes()).map_err(|_| unusable("method"))?;
        let mut url = Url::parse(built.url().as_str()).map_err(|_| unusable("address"))?;
        if !extra.is_empty() {
            url.query_pairs_mut().extend_pairs(&extra);
        }
        if url.query() == Some("") {
            url.set_query(None);
        }
        let mut headers = HeaderMap::new();
        for (name, value) in built.headers() {
            let name = HeaderName::from_bytes(name.as_str().as_bytes()).map_err(|_| unusable("header"))?;
            let value = HeaderValue::from_bytes(value.as_bytes()).map_err(|_| unusable("header"))?;
            headers.insert(name, value);
        }
        // The builder asks for every written row; a batch of logs would come back whole.
        headers.remove("prefer");
        let mut preferences = preferences;
        if method == Method::GET {
            preferences.returning = None;
        }
        if let Some(value) = preferences.header() {
            headers.insert("prefer", HeaderValue::try_from(value).map_err(|_| unusable("preference"))?);
        }
        if object {
            headers.insert(ACCEPT, HeaderValue::from_static("application/vnd.pgrst.object+json"));
        }
        let body = built.body().and_then(|body| body.as_bytes()).unwrap_or_default();
        // A repeated write does no harm, but it returns other rows than the first: none.
        let wants_rows = preferences.returning == Some(Return::Representation);
        let harmless = method == Method::DELETE || preferences.resolution == Some(Resolution::Ignore);
        let repeatable = method == Method::GET || (harmless && !wants_rows);
        Ok(Parts {
            method,
            url,
            headers,
            body: Bytes::copy_from_slice(body),
            idempotent: idempotent.unwrap_or(repeatable),
        })
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request").field("target", &self.target).finish_non_exhaustive()
    }
}
