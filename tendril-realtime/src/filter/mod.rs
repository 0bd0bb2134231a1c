//! Which rows: one vocabulary for REST requests, row changes and watches.
//!
//! [`col`] names a column, its methods make a [`Filter`], and filters are joined by [`and`](Filter::and), [`or`](Filter::or) and
//! `!`. Names and values are quoted here and nowhere else, so that neither is ever read as syntax.

mod column;
mod condition;
mod literal;
#[cfg(feature = "rest")]
mod methods;
mod operand;
mod operators;
#[cfg(feature = "rest")]
mod postgrest;
mod realtime;

use std::ops::Not;

pub(crate) use self::condition::Condition;
#[cfg(feature = "rest")]
pub(crate) use self::condition::Operator;
pub use self::{
    column::{Column, col},
    operand::{Operand, TextSearch},
};
#[cfg(feature = "rest")]
pub(crate) use self::{
    column::{check_name, identifiers, prefix},
    literal::quoted,
    methods::filter_methods,
};
use crate::error::Error;

/// A condition on rows, or several of them joined by AND, OR and NOT.
///
/// SQL's three-valued logic applies: where a column is NULL, a comparison excludes the row, also under `!`. Wrong arguments are
/// returned as [`InvalidInput`](crate::ErrorKind::InvalidInput) by whatever sends the filter.
///
/// ```
/// use tendril_realtime::col;
///
/// let filter = col("cluster_id").eq("c1").and(col("status").in_list(["QUEUED", "a,b"]).or(col("age").gt(5)));
/// ```
///
/// Row changes have fewer operators than REST: see [`PostgresChanges::filter`](crate::PostgresChanges::filter).
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Filter(Expression);

/// The tree of a filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Expression {
    One(Condition),
    All(Vec<Expression>),
    Any(Vec<Expression>),
    Not(Box<Expression>),
}

impl Filter {
    /// Both this and the other.
    pub fn and(self, other: impl Into<Self>) -> Self {
        let mut members = match self.0 {
            Expression::All(members) => members,
            one => vec![one],
        };
        match other.into().0 {
            Expression::All(more) => members.extend(more),
            one => members.push(one),
        }
        Self(Expression::All(members))
    }

    /// This or the other, or both.
    pub fn or(self, other: impl Into<Self>) -> Self {
        let mut members = match self.0 {
            Expression::Any(members) => members,
            one => vec![one],
        };
        match other.into().0 {
            Expression::Any(more) => members.extend(more),
            one => members.push(one),
        }
        Self(Expression::Any(members))
    }

    /// All of these. No filters are an error.
    pub fn all<F: Into<Self>>(filters: impl IntoIterator<Item = F>) -> Self {
        Self(Expression::All(filters.into_iter().map(|filter| filter.into().0).collect()))
    }

    /// At least one of these. No filters are an error.
    pub fn any<F: Into<Self>>(filters: impl IntoIterator<Item = F>) -> Self {
        Self(Expression::Any(filters.into_iter().map(|filter| filter.into().0).collect()))
    }

    pub(crate) fn expression(&self) -> &Expression {
        &self.0
    }

    /// Refuses what no server would read as it is meant.
    pub(crate) fn check(&self) -> Result<(), Error> {
        self.0.check()
    }

    /// Whether it chooses rows of the table itself, and not only rows of an embedded one.
    pub(crate) fn chooses_rows(&self) -> bool {
        self.0.conditions().iter().any(|condition| !condition.column.is_embedded())
    }
}

impl Expression {
    fn check(&self) -> Result<(), Error> {
        match self {
            Self::One(condition) => condition.check(),
            Self::Not(inner) => inner.check(),
            Self::All(members) | Self::Any(members) => {
                if members.is_empty() {
                    return Err(Error::invalid("filter", "a group needs at least one filter"));
                }
                members.iter().try_for_each(Self::check)
            }
        }
    }

    /// Every comparison in it.
    pub(crate) fn conditions(&self) -> Vec<&Condition> {
        match self {
            Self::One(condition) => vec![condition],
            Self::Not(inner) => inner.conditions(),
            Self::All(members) | Self::Any(members) => members.iter().flat_map(Self::conditions).collect(),
        }
    }

    /// The opposite, with NOT as far inside as it can be without changing AND and OR.
    fn negated(self) -> Self {
        match self {
            Self::One(condition) => Self::One(Condition { negated: !condition.negated, ..condition }),
            Self::Not(inner) => *inner,
            group => Self::Not(Box::new(group)),
        }
    }
}

/// The opposite, as SQL's NOT: of a group, the group as a whole.
impl Not for Filter {
    type Output = Self;

    fn not(self) -> Self {
        Self(self.0.negated())
    }
}

impl From<Condition> for Filter {
    fn from(condition: Condition) -> Self {
        Self(Expression::One(condition))
    }
}

/// `(column, operator, value)`: any operator by its name in `PostgREST`, as [`Column::op`].
impl<C: Into<Column>, O: Into<String>, V: std::fmt::Display> From<(C, O, V)> for Filter {
    fn from((column, operator, value): (C, O, V)) -> Self {
        column.into().op(operator, value)
    }
}
