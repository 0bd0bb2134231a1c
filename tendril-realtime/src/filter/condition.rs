//! One comparison of a column with a value.

use std::borrow::Cow;

use super::{
    column::Column,
    literal::is_plain_word,
    operand::{Operand, SearchKind},
};
use crate::error::Error;

/// What `is` compares with.
const IS_WORDS: [&str; 5] = ["null", "not_null", "true", "false", "unknown"];

/// A comparison.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Condition {
    pub(crate) column: Column,
    pub(crate) negated: bool,
    pub(crate) operator: Operator,
    pub(crate) operand: Operand,
}

/// How a column is compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Operator {
    Eq,
    Neq,
    Gt,
    Gte,
    Lt,
    Lte,
    Like,
    Ilike,
    LikeAll,
    LikeAny,
    IlikeAll,
    IlikeAny,
    Regex,
    Iregex,
    Is,
    IsDistinct,
    In,
    Contains,
    ContainedBy,
    Overlaps,
    RangeLt,
    RangeGt,
    RangeGte,
    RangeLte,
    RangeAdjacent,
    TextSearch {
        kind: SearchKind,
        config: Option<String>,
    },
    /// Whatever name the caller gives.
    Named(String),
}

impl Operator {
    /// Its name in a query.
    pub(crate) fn name(&self) -> Cow<'_, str> {
        Cow::Borrowed(match self {
            Self::Eq => "eq",
            Self::Neq => "neq",
            Self::Gt => "gt",
            Self::Gte => "gte",
            Self::Lt => "lt",
            Self::Lte => "lte",
            Self::Like => "like",
            Self::Ilike => "ilike",
            Self::LikeAll => "like(all)",
            Self::LikeAny => "like(any)",
            Self::IlikeAll => "ilike(all)",
            Self::IlikeAny => "ilike(any)",
            Self::Regex => "match",
            Self::Iregex => "imatch",
            Self::Is => "is",
            Self::IsDistinct => "isdistinct",
            Self::In => "in",
            Self::Contains => "cs",
            Self::ContainedBy => "cd",
            Self::Overlaps => "ov",
            Self::RangeLt => "sl",
            Self::RangeGt => "sr",
            Self::RangeGte => "nxl",
            Self::RangeLte => "nxr",
            Self::RangeAdjacent => "adj",
            Self::TextSearch { kind, config: None } => kind.name(),
            Self::TextSearch { kind, config: Some(config) } => {
                return Cow::Owned(format!("{}({config})", kind.name()));
            }
            Self::Named(name) => name,
        })
    }
}

impl Condition {
    /// Refuses what would be read as something else.
    pub(crate) fn check(&self) -> Result<(), Error> {
        self.column.check()?;
        if self.operand.contains_nul() {
            return Err(Error::invalid("filter", "PostgreSQL has no text with a NUL character"));
        }
        match (&self.operator, &self.operand) {
            (Operator::Is, Operand::Text(word)) if !IS_WORDS.contains(&word.as_str()) => {
                Err(Error::invalid("filter", format!("`is` takes {}, not `{word}`", IS_WORDS.join(", "))))
            }
            (Operator::TextSearch { config: Some(config), .. }, _) if !is_plain_word(config) => {
                Err(Error::invalid("filter", format!("`{config}` is not a text search configuration")))
            }
            (Operator::Named(word), _) if !is_operator(word) => Err(Error::invalid(
                "filter",
                format!(
                    "`{word}` is not an operator: write a word such as `gt`, `fts(english)` or `eq(any)`"
                ),
            )),
            _ => Ok(()),
        }
    }
}

/// A word, perhaps with another in parentheses.
fn is_operator(text: &str) -> bool {
    let (word, inner) = match text.split_once('(') {
        Some((word, rest)) => (word, rest.strip_suffix(')')),
        None => (text, Some("any")),
    };
    !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase()) && inner.is_some_and(is_plain_word)
}
