//! Which rows a request is about, in which order, and how many of them.

use super::{order::OrderBy, query_builder::QueryBuilder};
use crate::{
    error::Error,
    filter::{Filter, check_name, filter_methods, prefix},
};

/// # Which rows
///
/// These methods name one column each and are joined by AND. [`filter`](QueryBuilder::filter) takes any [`Filter`], which may
/// have OR and NOT in it.
impl QueryBuilder {
    /// Only rows that fulfil this: a [`Filter`], or a column, an operator and a value.
    ///
    /// ```no_run
    /// # use tendril_realtime::{col, rest::QueryBuilder};
    /// # fn run(request: QueryBuilder) -> QueryBuilder {
    /// request.filter(col("age").gte(18).or(col("guardian").not_null())).filter(("tags", "cs", "{urgent}"))
    /// # }
    /// ```
    pub fn filter(mut self, filter: impl Into<Filter>) -> Self {
        let filter = filter.into();
        self.chooses_rows |= filter.chooses_rows();
        match filter.parameters() {
            Ok(parameters) => self.filters.extend(parameters),
            Err(error) => self.fail_with(error),
        }
        self
    }

    filter_methods!();

    /// Sorts the rows; a second call sorts rows that are equal by the first. With a column [of](crate::Column::of) an embedded table,
    /// sorts its rows.
    pub fn order(mut self, by: impl Into<OrderBy>) -> Self {
        match by.into().parameter() {
            Ok((name, term)) => self.extend(name, &term),
            Err(error) => self.fail_with(error),
        }
        self
    }

    /// At most so many rows.
    pub fn limit(mut self, rows: u64) -> Self {
        self.replace("limit".to_owned(), rows.to_string());
        self
    }

    /// Leaves out so many rows at the start.
    pub fn offset(mut self, rows: u64) -> Self {
        self.replace("offset".to_owned(), rows.to_string());
        self
    }

    /// The rows from this one to that one, counted from 0, both included.
    pub fn range(mut self, from: u64, to: u64) -> Self {
        let Some(rows) = to.checked_sub(from).and_then(|rows| rows.checked_add(1)) else {
            self.fail_with(Error::invalid("range", format!("{from} to {to} contains no rows")));
            return self;
        };
        self.offset(from).limit(rows)
    }

    /// At most so many rows of an embedded table for each outer row. The tables are named from the outside in: `["posts",
    /// "comments"]`.
    pub fn limit_of<T: Into<String>>(self, tables: impl IntoIterator<Item = T>, rows: u64) -> Self {
        self.of_embedded(tables, "limit", rows)
    }

    /// Leaves out so many rows of an embedded table at the start, for each outer row.
    pub fn offset_of<T: Into<String>>(self, tables: impl IntoIterator<Item = T>, rows: u64) -> Self {
        self.of_embedded(tables, "offset", rows)
    }

    fn of_embedded<T: Into<String>>(
        mut self,
        tables: impl IntoIterator<Item = T>,
        what: &str,
        rows: u64,
    ) -> Self {
        let tables: Vec<String> = tables.into_iter().map(Into::into).collect();
        let names = tables.iter().try_for_each(|table| check_name("embedded table", table));
        match names {
            Ok(()) if tables.is_empty() => {
                self.fail_with(Error::invalid("embedded table", "it needs a name"));
            }
            Ok(()) => self.replace(format!("{}{what}", prefix(&tables)), rows.to_string()),
            Err(error) => self.fail_with(error),
        }
        self
    }
}
