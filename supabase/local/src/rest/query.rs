//! The query string of a request: what is selected, filtered, ordered and cut.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::error::RestError;
use super::filter::{self, Filter, Logic, Place};
use super::grammar::{Field, delimiter, field, field_name, json_path, names};
use super::parsec::{Read, Reader, parse};
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
    /// Reads a query string. With `call`, parameters that are not filters are arguments. Of several mistakes, the one is reported that
    /// PostgREST reports.
    pub(super) fn parse(raw: &str, call: bool) -> Result<Self, RestError> {
        let pairs: Vec<(String, String)> = url::form_urlencoded::parse(raw.as_bytes()).into_owned().collect();
        let mut query = Self { canonical: canonical(&pairs), ..Self::default() };
        let last = |key: &str| key.rsplit('.').next().unwrap_or_default().to_owned();
        let first = |name: &str| pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        for (key, value) in pairs.iter().filter(|(key, _)| last(key) == "order") {
            query.orders.push((tree_path(key)?.0, order(value)?));
        }
        // Their place among the filters stays: it decides the order of conditions.
        let mut groups = Vec::new();
        for (key, value) in pairs.iter().filter(|(key, _)| matches!(last(key).as_str(), "and" | "or")) {
            groups.push(group(key, value)?);
        }
        if let Some(columns) = first("columns") {
            query.columns = Some(names(columns, "columns")?.into_iter().collect());
        }
        if let Some(select) = first("select") {
            query.select = select::parse(select)?;
        }
        for (key, value) in &pairs {
            match (key.as_str(), last(key).as_str()) {
                ("select" | "columns" | "on_conflict", _)
                | (_, "order" | "and" | "or" | "limit" | "offset") => {}
                _ if call && !key.contains('.') && !filter::looks_like_filter(value) => {
                    query.arguments.push((key.clone(), value.clone()));
                }
                _ => {
                    let (path, field) = tree_path(key)?;
                    let subject = format!("filter ({value})");
                    let (negated, test) = parse(&subject, value, |r| filter::test(r, Place::Alone))?;
                    query.filters.push((path, Logic::One(Filter { field, negated, test })));
                }
            }
        }
        query.filters.extend(groups);
        if let Some(columns) = first("on_conflict") {
            query.on_conflict = Some(names(columns, "on_conflict")?);
        }
        query.read_ranges(&pairs)?;
        Ok(query)
    }

    fn read_ranges(&mut self, pairs: &[(String, String)]) -> Result<(), RestError> {
        for (key, value) in pairs {
            let (path, last) = key.rsplit_once('.').unwrap_or(("", key));
            let path = || path.split('.').filter(|part| !part.is_empty()).map(str::to_owned).collect();
            if last == "limit" {
                if value.parse::<i64>().is_ok_and(|limit| limit < 0) {
                    return Err(RestError::bad_range("Limit should be greater than or equal to zero."));
                }
                if let Ok(limit) = value.parse() {
                    self.range(path()).limit = Some(limit);
                }
            } else if last == "offset"
                && let Ok(offset) = value.parse()
            {
                self.range(path()).offset = offset;
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
fn tree_path(key: &str) -> Result<(Path, Field), RestError> {
    parse(&format!("tree path ({key})"), key, |r| {
        let mut path = r.sep_by1(field_name, delimiter)?;
        let name = path.pop().unwrap_or_default();
        Ok((path, Field { name, path: r.optional(json_path)?.unwrap_or_default() }))
    })
}

/// Reads `related.not.or` with its members.
fn group(key: &str, value: &str) -> Result<(Path, Logic), RestError> {
    let mut path = parse(&format!("logic path ({key})"), key, |r| r.sep_by1(field_name, delimiter))?;
    let operator = path.pop().unwrap_or_default();
    let negation = if path.iter().any(|part| part == "not") { "not." } else { "" };
    path.retain(|part| part != "not");
    let text = format!("{negation}{operator}{value}");
    let logic = parse(&format!("logic tree ({value})"), &text, filter::tree)?;
    Ok((path, logic))
}

/// Reads `column.desc.nullslast,related(column)`.
fn order(text: &str) -> Result<Vec<OrderTerm>, RestError> {
    let term = |r: &mut Reader<'_>| {
        r.lexeme(|r| {
            r.either(
                |r| {
                    r.attempt(|r| {
                        let relation = field_name(r)?;
                        r.char('(')?;
                        let field = field(r)?;
                        r.char(')')?;
                        order_term(r, Some(relation), field)
                    })
                },
                |r| {
                    let field = field(r)?;
                    order_term(r, None, field)
                },
            )
        })
    };
    parse(&format!("order ({text})"), text, |r| r.sep_by1(term, |r| r.char(',')))
}

fn order_term(r: &mut Reader<'_>, relation: Option<String>, field: Field) -> Read<OrderTerm> {
    fn word(r: &mut Reader<'_>, word: &str, sql: &'static str) -> Read<&'static str> {
        r.attempt(|r| {
            delimiter(r)?;
            r.string(word)?;
            Ok(sql)
        })
    }
    let end = |r: &mut Reader<'_>| r.either(|r| r.ahead(","), |r| r.attempt(Reader::eof));
    let direction = r.optional(|r| r.either(|r| word(r, "asc", " ASC"), |r| word(r, "desc", " DESC")))?;
    let nulls = r.either(
        |r| {
            let nulls = r.optional(|r| {
                r.either(|r| word(r, "nullsfirst", " NULLS FIRST"), |r| word(r, "nullslast", " NULLS LAST"))
            })?;
            end(r)?;
            Ok(nulls)
        },
        |r| {
            end(r)?;
            Ok(None)
        },
    )?;
    Ok(OrderTerm {
        relation,
        field,
        direction: direction.unwrap_or_default(),
        nulls: nulls.unwrap_or_default(),
    })
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
