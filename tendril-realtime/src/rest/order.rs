//! The order of rows.

use crate::{
    error::Error,
    filter::{Column, col},
};

/// Sorts by one column: made by [`Column::asc`] and [`Column::desc`], or from a column's name, which means ascending.
///
/// ```
/// use tendril_realtime::{col, rest::OrderBy};
///
/// let newest_first = col("created_at").desc().nulls_last();
/// let by_name: OrderBy = "name".into();
/// let posts_of_each_user = col("title").of("posts").asc();
/// let users_by_city = col("name").of("city").asc().of_outer_rows();
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct OrderBy {
    column: Column,
    descending: bool,
    nulls_first: Option<bool>,
    outer: bool,
    /// A text that looks as if it were meant as syntax.
    suspicious: Option<String>,
}

impl Column {
    /// Sorts by this column, least first.
    pub fn asc(self) -> OrderBy {
        OrderBy { column: self, descending: false, nulls_first: None, outer: false, suspicious: None }
    }

    /// Sorts by this column, greatest first.
    pub fn desc(self) -> OrderBy {
        OrderBy { descending: true, ..self.asc() }
    }
}

impl OrderBy {
    /// NULL comes first; the default when descending.
    #[doc(alias = "nullsFirst")]
    pub fn nulls_first(mut self) -> Self {
        self.nulls_first = Some(true);
        self
    }

    /// NULL comes last; the default when ascending.
    pub fn nulls_last(mut self) -> Self {
        self.nulls_first = Some(false);
        self
    }

    /// With a column [of](Column::of) an embedded table to which each row belongs: sorts the outer rows by it, not the embedded
    /// ones.
    pub fn of_outer_rows(mut self) -> Self {
        self.outer = true;
        self
    }

    /// The parameter it belongs to, and what it adds to its value.
    pub(crate) fn parameter(&self) -> Result<(String, String), Error> {
        self.column.check()?;
        if let Some(text) = &self.suspicious {
            return Err(Error::invalid(
                "order",
                format!(
                    "`{text}` is taken for the name of a column: write `col(\"name\").desc()` for a direction"
                ),
            ));
        }
        let (prefix, mut term) = (self.column.prefix(), self.column.local());
        let name = if self.outer && self.column.is_embedded() {
            let table = prefix.trim_end_matches('.');
            term = format!("{table}({term})");
            "order".to_owned()
        } else {
            format!("{prefix}order")
        };
        term.push_str(if self.descending { ".desc" } else { ".asc" });
        match self.nulls_first {
            Some(true) => term.push_str(".nullsfirst"),
            Some(false) => term.push_str(".nullslast"),
            None => {}
        }
        Ok((name, term))
    }
}

/// Ascending, by a column of this name.
impl From<&str> for OrderBy {
    fn from(name: &str) -> Self {
        let directions = [".asc", ".desc", ".nullsfirst", ".nullslast"];
        let suspicious = directions.iter().any(|end| name.ends_with(end)).then(|| name.to_owned());
        Self { suspicious, ..col(name).asc() }
    }
}

impl From<String> for OrderBy {
    fn from(name: String) -> Self {
        name.as_str().into()
    }
}

/// Ascending.
impl From<Column> for OrderBy {
    fn from(column: Column) -> Self {
        column.asc()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_written_as_the_server_reads_it() {
        for (order, name, term) in [
            (OrderBy::from("id"), "order", "id.asc"),
            (col("id").desc(), "order", "id.desc"),
            (col("limit").asc().nulls_first(), "order", r#""limit".asc.nullsfirst"#),
            (col("a.asc").desc().nulls_last(), "order", r#""a.asc".desc.nullslast"#),
            (col("data").key("k").text().asc(), "order", r#"data->>"k".asc"#),
            (col("title").of("posts").desc(), "posts.order", "title.desc"),
            (col("name").of("city").asc().of_outer_rows(), "order", "city(name).asc"),
            (OrderBy::from("a,b"), "order", r#""a,b".asc"#),
        ] {
            assert_eq!(order.parameter().unwrap(), (name.to_owned(), term.to_owned()));
        }
    }

    #[test]
    fn a_direction_in_a_name_is_refused_with_what_to_write() {
        let error = OrderBy::from("id.desc").parameter().unwrap_err();
        assert!(error.to_string().contains(".desc()"), "{error}");
    }
}
