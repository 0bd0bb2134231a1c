//! Sends a request, and reads its answer as the type that was asked for.

use std::sync::Arc;

use bytes::Bytes;
use reqwest::{
    Method,
    header::{ACCEPT, HeaderName, HeaderValue},
};
use serde::de::DeserializeOwned;
use url::Url;

use super::{
    arguments,
    media::{Explain, Media},
    preference::{Resolution, Return},
    query_builder::{Action, Operation, QueryBuilder},
    response::Response,
    transport::Parts,
};
use crate::{
    error::{Error, ErrorKind, PostgrestError},
    filter::check_name,
};

/// Servers and gateways refuse longer addresses; most of them refuse shorter ones too.
const LONGEST_URL: usize = 64 * 1024;

/// # Sending
impl QueryBuilder {
    /// Sends it; returns the rows: those read, or those written as they now are.
    pub async fn rows<T: DeserializeOwned>(mut self) -> Result<Vec<T>, Error> {
        self.preferences.returning = Some(Return::Representation);
        self.send().await?.json()
    }

    /// Sends it; returns the one row. Any other number of rows is an error (`PGRST116`) and, for a write, changes nothing.
    #[doc(alias = "one")]
    pub async fn single<T: DeserializeOwned>(mut self) -> Result<T, Error> {
        self.preferences.returning = Some(Return::Representation);
        self.media = Media::Object;
        self.send().await?.json()
    }

    /// Sends it; returns the one row, or `None` where there is none. Several rows are an error (`PGRST116`) and, for a write,
    /// change nothing.
    #[doc(alias = "maybeSingle")]
    #[doc(alias = "maybe_one")]
    pub async fn maybe_single<T: DeserializeOwned>(mut self) -> Result<Option<T>, Error> {
        if matches!(self.operation, Operation::Table(_, Action::Read { .. })) {
            // Two rows are enough to see that there is more than one.
            let limit = self.parameters.iter().find(|(name, _)| name == "limit");
            if limit.is_none_or(|(_, rows)| rows.parse::<u64>().is_ok_and(|rows| rows > 2)) {
                self = self.limit(2);
            }
        } else if let Operation::Table(..) = self.operation {
            return match self.single().await {
                Err(error) if error.postgrest().is_some_and(is_no_row) => Ok(None),
                other => other.map(Some),
            };
        }
        let is_call = matches!(self.operation, Operation::Call { .. });
        let answer = self.read().await?;
        if is_call && !answer.is_list() {
            // A function that returns one row, and not a set of them.
            return answer.json();
        }
        let mut rows: Vec<T> = answer.json()?;
        if rows.len() > 1 {
            let message = "more than one row where at most one was expected".to_owned();
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

    /// Sends it; returns the rows as CSV, the names of the columns first.
    pub async fn csv(mut self) -> Result<String, Error> {
        self.preferences.returning = Some(Return::Representation);
        self.media = Media::Csv;
        self.send().await?.into_text()
    }

    /// Sends it; returns the rows as a `GeoJSON` feature collection. The database needs `PostGIS`.
    pub async fn geojson<T: DeserializeOwned>(mut self) -> Result<T, Error> {
        self.preferences.returning = Some(Return::Representation);
        self.media = Media::GeoJson;
        self.send().await?.json()
    }

    /// Sends it; returns how the database would execute it. The server must allow it (`db-plan-enabled`).
    pub async fn explain(self, what: Explain) -> Result<String, Error> {
        self.with_plan(what).send().await?.into_text()
    }

    /// Sends it; of a write, nothing but the headers comes back.
    pub async fn execute(mut self) -> Result<Response, Error> {
        self.preferences.returning.get_or_insert(Return::Minimal);
        self.send().await
    }

    /// Sends it; returns the rows with the headers.
    pub(crate) async fn read(mut self) -> Result<Response, Error> {
        self.preferences.returning = Some(Return::Representation);
        self.send().await
    }

    async fn send(self) -> Result<Response, Error> {
        let transport = Arc::clone(&self.transport);
        let timeout = self.timeout;
        let parts = self.into_parts()?;
        transport.send(parts, timeout).await
    }

    /// The request in our own types. The `postgrest` crate builds its line and body; its HTTP stack is not used.
    pub(super) fn into_parts(mut self) -> Result<Parts, Error> {
        if let Some(error) = self.error.take() {
            return Err(error);
        }
        self.refuse_unintended_writes()?;
        let Self { operation, mut preferences, media, .. } = self;
        let mut arguments = Vec::new();
        let (builder, head) = match operation {
            Operation::Table(builder, action) => match action {
                Action::Read { head } => (*builder, head),
                Action::Insert(body) => (builder.insert(body), false),
                Action::Update(body) => (builder.update(body), false),
                Action::Delete => (builder.delete(), false),
            },
            Operation::Call { builder, arguments: body, by_get: false, .. } => (builder.rpc(body), false),
            Operation::Call { builder, arguments: body, by_get: true, head } => {
                arguments = arguments::parameters(&body)?;
                (*builder, head)
            }
        };
        let built = builder.build().build().map_err(|error| {
            let reason = format!("`{}` cannot be requested", self.target);
            Error::with_source(ErrorKind::InvalidInput { field: "request", reason }, error.to_string())
        })?;
        let unusable = |what: &str| Error::invalid("request", format!("the {what} cannot be sent"));
        let mut method =
            Method::from_bytes(built.method().as_str().as_bytes()).map_err(|_| unusable("method"))?;
        let is_read = method == Method::GET;
        if head {
            method = Method::HEAD;
        }
        let mut url = Url::parse(built.url().as_str()).map_err(|_| unusable("address"))?;
        if !self.select.is_empty() {
            url.query_pairs_mut().append_pair("select", &self.select.join(","));
        }
        let parameters = arguments.iter().chain(&self.filters).chain(&self.parameters);
        for (name, value) in parameters {
            url.query_pairs_mut().append_pair(name, value);
        }
        if url.as_str().len() > LONGEST_URL {
            return Err(Error::invalid(
                "request",
                format!(
                    "its address has {} bytes, more than {LONGEST_URL}: send fewer values",
                    url.as_str().len()
                ),
            ));
        }
        let mut headers = self.headers;
        for name in ["content-type"] {
            if let Some(value) = built.headers().get(name) {
                let value = HeaderValue::from_bytes(value.as_bytes()).map_err(|_| unusable("header"))?;
                headers.insert(HeaderName::from_static(name), value);
            }
        }
        if let Some(schema) = &self.schema {
            headers.insert(profile_header(is_read), profile(schema)?);
        }
        if is_read {
            preferences.returning = None;
        }
        if let Some(value) = preferences.header() {
            headers.insert("prefer", HeaderValue::try_from(value).map_err(|_| unusable("preference"))?);
        }
        let accept = HeaderValue::try_from(media.accept(self.strip_nulls)).map_err(|_| unusable("form"))?;
        headers.insert(ACCEPT, accept);
        let body = built.body().and_then(|body| body.as_bytes()).unwrap_or_default();
        // A repeated write does no harm, but it returns other rows than the first: none.
        let wants_rows = preferences.returning == Some(Return::Representation);
        let harmless = method == Method::DELETE || preferences.resolution == Some(Resolution::Ignore);
        let repeatable = is_read || (harmless && !wants_rows);
        Ok(Parts {
            method,
            url,
            headers,
            body: Bytes::copy_from_slice(body),
            idempotent: self.idempotent.unwrap_or(repeatable),
        })
    }

    /// A forgotten filter must not empty a table.
    fn refuse_unintended_writes(&self) -> Result<(), Error> {
        let is_sweeping = matches!(self.operation, Operation::Table(_, Action::Update(_) | Action::Delete));
        if is_sweeping && !self.chooses_rows && !self.all_rows {
            return Err(Error::invalid(
                "filter",
                format!(
                    "an update or a delete of `{}` needs a filter on its columns; `all_rows()` says that every row is meant",
                    self.target
                ),
            ));
        }
        Ok(())
    }
}

/// No row was found; several are the same code with another number.
fn is_no_row(api: &PostgrestError) -> bool {
    api.code == "PGRST116" && api.details.as_deref().is_some_and(|details| details.contains(" 0 rows"))
}

fn profile_header(is_read: bool) -> HeaderName {
    HeaderName::from_static(if is_read { "accept-profile" } else { "content-profile" })
}

/// A schema's name in a header.
pub(super) fn profile(schema: &str) -> Result<HeaderValue, Error> {
    check_name("schema", schema)?;
    let value = HeaderValue::from_bytes(schema.as_bytes());
    value.ok().filter(|_| schema.trim() == schema).ok_or_else(|| {
        Error::invalid(
            "schema",
            "no HTTP header can carry this name (control characters, or blanks around it)",
        )
    })
}
