//! The query string of a request: what is selected, filtered, ordered and cut.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::error::RestError;
use super::filter::{self, Filter, Logic, Place};
use super::grammar::{Cursor, Field, Misread, Read, names};
use super::select::{self, Item};

/// The parts of a query string. A path names the related table a part is for; an empty one means the table
/// itself.
#[derive(Debug, Default)]
pub(super) struct Query {
    /// The parameters in order of their names, encoded anew.
    pub(super) canonical: String,
    /// What is returned; empty means everything.
    pub(super) select: Vec<Item>,
    /// The keys of the body that count.
    pub(super) columns: Option<BTreeSet<String>>,
    /// The columns whose equality makes a duplicate.
    pub(super) on_conflict: Option<Vec<String>>,
    /// Conditions, all of which must hold.
    pub(super) filters: Vec<(Path, Logic)>,
    /// Orders.
    pub(super) orders: Vec<(Path, Vec<OrderTerm>)>,
    /// Pages.
    pub(super) ranges: Vec<(Path, Range)>,
    /// Arguments of a function, when the request calls one.
    pub(super) arguments: Vec<(String, String)>,
}

/// Labels of related tables, from the outside in.
pub(super) type Path = Vec<String>;

/// One term of an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OrderTerm {
    /// The related table whose column it is.
    pub(super) relation: Option<String>,
    /// By what.
    pub(super) field: Field,
    /// `ASC`, `DESC` or nothing.
    pub(super) direction: &'static str,
    /// `NULLS FIRST`, `NULLS LAST` or nothing.
    pub(super) nulls: &'static str,
}

/// A page: how many rows, after how many others.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Range {
    /// Rows skipped.
    pub(super) offset: u64,
    /// Most rows taken.
    pub(super) limit: Option<u64>,
}

impl Range {
    /// Whether it is everything.
    pub(super) fn is_all(self) -> bool {
        self == Self::default()
    }

    /// What is in both.
    pub(super) fn and(self, other: Self) -> Self {
        let offset = self.offset.max(other.offset);
        let end = |range: Self| range.limit.map(|limit| range.offset.saturating_add(limit));
        let end = [end(self), end(other)].into_iter().flatten().min();
        Self { offset, limit: end.map(|end| end.saturating_sub(offset)) }
    }
}

impl Query {
    /// Reads a query string. With `call`, parameters that are not filters are arguments.
    pub(super) fn parse(raw: &str, call: bool) -> Result<Self, RestError> {
        let pairs: Vec<(String, String)> = url::form_urlencoded::parse(raw.as_bytes()).into_owned().collect();
        let mut query = Self { canonical: canonical(&pairs), ..Self::default() };
        for (key, value) in pairs {
            query.take(key, &value, call)?;
        }
        Ok(query)
    }

    fn take(&mut self, key: String, value: &str, call: bool) -> Result<(), RestError> {
        let (path, last) = match key.rsplit_once('.') {
            Some((path, last)) => (path.split('.').map(str::to_owned).collect(), last),
            None => (Path::new(), key.as_str()),
        };
        match last {
            "select" if path.is_empty() => self.select = select::parse(value)?,
            "columns" if path.is_empty() => {
                self.columns = Some(names(value, "columns")?.into_iter().collect());
            }
            "on_conflict" if path.is_empty() => self.on_conflict = Some(names(value, "on_conflict")?),
            "order" => self.orders.push((path, order(value)?)),
            "limit" => {
                if value.parse::<i64>().is_ok_and(|limit| limit < 0) {
                    return Err(RestError::bad_range("Limit should be greater than or equal to zero."));
                }
                if let Ok(limit) = value.parse() {
                    self.range(path).limit = Some(limit);
                }
            }
            "offset" => {
                if let Ok(offset) = value.parse() {
                    self.range(path).offset = offset;
                }
            }
            "and" | "or" => {
                let negated = path.iter().any(|part| part == "not");
                let path = path.into_iter().filter(|part| part != "not").collect();
                let logic = filter::group(&mut Cursor::new(value), negated, last == "or");
                self.filters.push((path, logic.map_err(|error| error.of(&format!("logic tree ({value})")))?));
            }
            _ if call && path.is_empty() && !filter::looks_like_filter(value) => {
                self.arguments.push((key, value.to_owned()));
            }
            _ => {
                let (path, field) = target(&key).map_err(|error| error.of(&format!("tree path ({key})")))?;
                let (negated, test) = filter::test(&mut Cursor::new(value), Place::Alone)
                    .map_err(|error: Misread| error.of(&format!("filter ({value})")))?;
                self.filters.push((path, Logic::One(Filter { field, negated, test })));
            }
        }
        Ok(())
    }

    fn range(&mut self, path: Path) -> &mut Range {
        let index = self.ranges.iter().position(|(known, _)| *known == path).unwrap_or_else(|| {
            self.ranges.push((path, Range::default()));
            self.ranges.len() - 1
        });
        &mut self.ranges[index].1
    }

    /// The paths that filters, orders, pages and groups name, in the order in which PostgREST applies them. Each time it takes the
    /// related table out of its list and puts it first, and the columns of the answer follow that list.
    pub(super) fn mentioned(&self) -> impl Iterator<Item = &Path> {
        let of_filters = |grouped: bool| {
            let fits = move |(_, logic): &&(Path, Logic)| matches!(logic, Logic::Group { .. }) == grouped;
            self.filters.iter().rev().filter(fits).map(|(path, _)| path)
        };
        let orders = self.orders.iter().rev().map(|(path, _)| path);
        let ranges = self.ranges.iter().rev().map(|(path, _)| path);
        of_filters(false).chain(orders).chain(ranges).chain(of_filters(true))
    }

    /// The page of the table itself.
    pub(super) fn top_range(&self) -> Range {
        self.ranges.iter().find(|(path, _)| path.is_empty()).map_or_else(Range::default, |(_, range)| *range)
    }
}

/// Reads `related.column->key`.
fn target(key: &str) -> Read<(Path, Field)> {
    let mut cursor = Cursor::new(key);
    let mut path = vec![cursor.name()?];
    while cursor.eat(".") {
        path.push(cursor.name()?);
    }
    let name = path.pop().unwrap_or_default();
    Ok((path, Field { name, path: cursor.json_path()? }))
}

/// Reads `column.desc.nullslast,related(column)`.
fn order(text: &str) -> Result<Vec<OrderTerm>, RestError> {
    let mut cursor = Cursor::new(text);
    let mut terms = || {
        let mut terms = vec![order_term(&mut cursor)?];
        while cursor.eat(",") {
            terms.push(order_term(&mut cursor)?);
        }
        if cursor.rest().is_empty() { Ok(terms) } else { Err(cursor.misread("\",\" or end of input")) }
    };
    terms().map_err(|error: Misread| error.of(&format!("order ({text})")))
}

fn order_term(cursor: &mut Cursor<'_>) -> Read<OrderTerm> {
    let mut field = cursor.field()?;
    let mut relation = None;
    if cursor.eat("(") {
        relation = Some(field.name);
        field = cursor.field()?;
        cursor.expect(")")?;
    }
    let mut term = OrderTerm { relation, field, direction: "", nulls: "" };
    while cursor.eat(".") {
        if term.direction.is_empty() && term.nulls.is_empty() && cursor.eat("asc") {
            term.direction = " ASC";
        } else if term.direction.is_empty() && term.nulls.is_empty() && cursor.eat("desc") {
            term.direction = " DESC";
        } else if term.nulls.is_empty() && cursor.eat("nullsfirst") {
            term.nulls = " NULLS FIRST";
        } else if term.nulls.is_empty() && cursor.eat("nullslast") {
            term.nulls = " NULLS LAST";
        } else if term.direction.is_empty() {
            return Err(cursor.misread("\"asc\", \"desc\", \"nullsfirst\" or \"nullslast\""));
        } else {
            return Err(cursor.misread("\"nullsfirst\" or \"nullslast\""));
        }
    }
    cursor.blanks();
    Ok(term)
}

/// The parameters sorted by name and encoded, with equal names drawn together.
fn canonical(pairs: &[(String, String)]) -> String {
    let mut sorted: Vec<&(String, String)> = pairs.iter().collect();
    sorted.sort_by(|a, b| a.0.cmp(&b.0));
    let mut text = String::new();
    let mut previous = None;
    for (key, value) in sorted {
        if previous == Some(key) {
            text.push(',');
        } else {
            if previous.is_some() {
                text.push('&');
            }
            encode(&mut text, key);
            text.push('=');
        }
        encode(&mut text, value);
        previous = Some(key);
    }
    text
}

/// Percent-encodes everything but the unreserved characters.
pub(super) fn encode(out: &mut String, text: &str) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_canonical_form_is_sorted_and_draws_equal_names_together() {
        let query = Query::parse("id=gt.1&select=a,b&id=lt.4&code=like.p*", false).unwrap();
        assert_eq!(query.canonical, "code=like.p%2A&id=gt.1,lt.4&select=a%2Cb");
        assert_eq!(query.filters.len(), 3);
    }

    #[test]
    fn a_plus_is_a_space() {
        let query = Query::parse("t=eq.a+b%2Bc", false).unwrap();
        let Logic::One(Filter { test: filter::Test::Compare { value, .. }, .. }) = &query.filters[0].1 else {
            panic!()
        };
        assert_eq!(value, "a b+c");
    }

    #[test]
    fn parts_for_related_tables_keep_their_path() {
        let query =
            Query::parse("logs.limit=2&logs.order=seq.desc&logs.seq=gt.1&logs.not.or=(a.eq.1)", false)
                .unwrap();
        assert_eq!(query.ranges[0].0, ["logs"]);
        assert_eq!(query.orders[0].1[0].direction, " DESC");
        assert_eq!(query.filters[0].0, ["logs"]);
        assert!(matches!(&query.filters[1], (path, Logic::Group { negated: true, .. }) if path == &["logs"]));
    }

    #[test]
    fn arguments_are_what_is_no_filter() {
        let query = Query::parse("a=1&b=eq.2", true).unwrap();
        assert_eq!(query.arguments, [("a".to_owned(), "1".to_owned())]);
        assert_eq!(query.filters.len(), 1);
    }

    #[test]
    fn ranges_intersect() {
        let page = Range { offset: 5, limit: Some(10) };
        assert_eq!(page.and(Range { offset: 0, limit: Some(8) }), Range { offset: 5, limit: Some(3) });
        assert_eq!(page.and(Range::default()), page);
    }
}
