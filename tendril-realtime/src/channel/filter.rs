//! Row filters of `postgres_changes`, written so that the server reads them as they are meant.

use std::fmt;

use crate::error::Error;

/// The server takes no longer lists.
const IN_AT_MOST: usize = 100;

/// A condition on the new row (of a DELETE: on what the replica identity keeps). Conditions are joined by AND; there is no OR.
///
/// SQL's three-valued logic applies: where a column is NULL, a comparison excludes the row, also under `!`.
///
/// ```
/// use tendril_realtime::Filter;
///
/// let filter = Filter::eq("cluster_id", "c1")?.and(Filter::in_list("status", ["QUEUED", "a,b"])?);
/// assert_eq!(filter.to_string(), r#"cluster_id=eq.c1,status=in.(QUEUED,"a,b")"#);
/// # Ok::<(), tendril_realtime::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    segments: Vec<Segment>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Segment {
    column: String,
    negated: bool,
    operator: &'static str,
    /// As it goes on the wire, quoted where needed.
    value: String,
}

macro_rules! comparisons {
    ($($(#[$doc:meta])* $name:ident = $operator:literal)*) => {
        $(
            $(#[$doc])*
            ///
            /// # Errors
            /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for a column name that the grammar cannot carry.
            pub fn $name(column: &str, value: impl fmt::Display) -> Result<Self, Error> {
                Self::segment(column, $operator, quoted(&value.to_string()))
            }
        )*
    };
}

impl Filter {
    comparisons! {
        /// Equal.
        eq = "eq"
        /// Not equal.
        neq = "neq"
        /// Less than.
        lt = "lt"
        /// Less than or equal.
        lte = "lte"
        /// Greater than.
        gt = "gt"
        /// Greater than or equal.
        gte = "gte"
        /// Matches an SQL pattern with `%` and `_`; text columns only.
        like = "like"
        /// [`like`](Self::like) without regard to case.
        ilike = "ilike"
        /// Matches a POSIX regular expression.
        #[doc(alias = "match")]
        regex = "match"
        /// [`regex`](Self::regex) without regard to case.
        imatch = "imatch"
        /// Not equal, taking NULL for a value like others.
        #[doc(alias = "isDistinct")]
        is_distinct = "isdistinct"
    }

    /// Is `null`, `true`, `false` or `unknown`.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for any other word.
    pub fn is(column: &str, word: &str) -> Result<Self, Error> {
        if !matches!(word, "null" | "true" | "false" | "unknown") {
            return Err(Error::invalid(
                "filter",
                format!("`is` takes null, true, false or unknown, not `{word}`"),
            ));
        }
        Self::segment(column, "is", word.to_owned())
    }

    /// Is one of these.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for an empty list or one of more than 100 values.
    pub fn in_list<V: fmt::Display>(
        column: &str,
        values: impl IntoIterator<Item = V>,
    ) -> Result<Self, Error> {
        let values: Vec<_> = values.into_iter().map(|value| quoted_item(&value.to_string())).collect();
        if values.is_empty() {
            return Err(Error::invalid("filter", "`in` needs at least one value"));
        }
        if values.len() > IN_AT_MOST {
            let count = values.len();
            return Err(Error::invalid(
                "filter",
                format!("`in` takes at most {IN_AT_MOST} values, not {count}"),
            ));
        }
        Self::segment(column, "in", format!("({})", values.join(",")))
    }

    fn segment(column: &str, operator: &'static str, value: String) -> Result<Self, Error> {
        // A column ends at the first `=`, and there is no quoting for it.
        if column.trim().is_empty() || column.contains(['=', ',']) || column.trim() != column {
            return Err(Error::invalid("filter", format!("`{column}`: invalid column name for a filter")));
        }
        let operator = operator.strip_prefix("r#").unwrap_or(operator);
        Ok(Self { segments: vec![Segment { column: column.to_owned(), negated: false, operator, value }] })
    }

    /// Both this and the other.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.segments.extend(other.segments);
        self
    }
}

/// Turns every condition of the filter into its opposite: `!Filter::eq("status", "DONE")?`.
impl std::ops::Not for Filter {
    type Output = Self;

    fn not(mut self) -> Self {
        for segment in &mut self.segments {
            segment.negated = !segment.negated;
        }
        self
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, Segment { column, negated, operator, value }) in self.segments.iter().enumerate() {
            let separator = if place == 0 { "" } else { "," };
            let not = if *negated { "not." } else { "" };
            write!(f, "{separator}{column}={not}{operator}.{value}")?;
        }
        Ok(())
    }
}

/// Values are taken literally up to the next top-level comma; what would end or change them is put in quotes.
fn quoted(value: &str) -> String {
    let plain = !value.contains([',', '(', ')', '"', '\\']) && value.trim() == value && !value.is_empty();
    if plain {
        return value.to_owned();
    }
    format!("\"{}\"", value.replace('\\', r"\\").replace('"', "\\\""))
}

/// An item of a list becomes one of an array literal, where braces and an unquoted NULL have a meaning too.
fn quoted_item(value: &str) -> String {
    if value.contains(['{', '}']) || value.eq_ignore_ascii_case("null") {
        return format!("\"{}\"", value.replace('\\', r"\\").replace('"', "\\\""));
    }
    quoted(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operator_is_written_as_the_server_reads_it() {
        for (filter, text) in [
            (Filter::eq("t", "abc"), "t=eq.abc"),
            (Filter::neq("t", "abc"), "t=neq.abc"),
            (Filter::lt("i4", 5), "i4=lt.5"),
            (Filter::lte("i4", 5), "i4=lte.5"),
            (Filter::gt("i4", 5), "i4=gt.5"),
            (Filter::gte("i4", 5), "i4=gte.5"),
            (Filter::in_list("i4", [1, 2, 5]), "i4=in.(1,2,5)"),
            (Filter::in_list("t", ["abc", "d,e"]), "t=in.(abc,\"d,e\")"),
            (Filter::in_list("t", ["null", "{a}"]), "t=in.(\"null\",\"{a}\")"),
            (Filter::like("t", "ab%"), "t=like.ab%"),
            (Filter::ilike("t", "AB%"), "t=ilike.AB%"),
            (Filter::is("t", "null"), "t=is.null"),
            (Filter::regex("t", "^a.c$"), "t=match.^a.c$"),
            (Filter::imatch("t", "^A"), "t=imatch.^A"),
            (Filter::is_distinct("t", "abc"), "t=isdistinct.abc"),
            (Filter::eq("t", "abc").map(|filter| !filter), "t=not.eq.abc"),
        ] {
            assert_eq!(filter.unwrap().to_string(), text);
        }
        let both = Filter::gt("i4", 0).unwrap().and(Filter::lt("i4", 10).unwrap());
        assert_eq!(both.to_string(), "i4=gt.0,i4=lt.10");
    }

    #[test]
    fn what_would_end_a_value_is_quoted() {
        for (value, text) in [
            ("a,b", r#"t=eq."a,b""#),
            (" a", r#"t=eq." a""#),
            (r#"say "hi""#, r#"t=eq."say \"hi\"""#),
            (r"a\b", r#"t=eq."a\\b""#),
            ("(x)", r#"t=eq."(x)""#),
        ] {
            assert_eq!(Filter::eq("t", value).unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_the_server_would_misread_is_refused() {
        assert!(Filter::eq("", 1).is_err());
        assert!(Filter::eq("a=b", 1).is_err());
        assert!(Filter::in_list("a", Vec::<i32>::new()).is_err());
        assert!(Filter::in_list("a", 0..101).is_err());
        assert!(Filter::is("a", "maybe").is_err());
    }
}
