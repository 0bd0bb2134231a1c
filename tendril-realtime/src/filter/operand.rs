//! What a column is compared with.

use std::fmt;

use serde_json::Value;

use super::literal;

/// The value of [`contains`](super::Column::contains), [`contained_by`](super::Column::contained_by) and
/// [`overlaps`](super::Column::overlaps): a list of elements for an array column, a [`Value`] for a `jsonb` column, or a text in
/// PostgreSQL's own notation, such as a range.
///
/// ```
/// use serde_json::json;
/// use tendril_realtime::col;
///
/// let tagged = col("tags").contains(["urgent", "a,b"]);
/// let owned = col("meta").contains(json!({"owner": "Ada"}));
/// let in_march = col("during").overlaps("[2026-03-01,2026-04-01)");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operand {
    /// As it is.
    Text(String),
    /// Several values.
    List(Vec<String>),
}

impl Operand {
    /// Several values.
    pub fn list<V: fmt::Display>(values: impl IntoIterator<Item = V>) -> Self {
        Self::List(values.into_iter().map(|value| value.to_string()).collect())
    }

    /// As one text; several values as an SQL array.
    pub(crate) fn to_text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::List(values) => literal::array(values),
        }
    }

    pub(crate) fn contains_nul(&self) -> bool {
        match self {
            Self::Text(text) => text.contains('\0'),
            Self::List(values) => values.iter().any(|value| value.contains('\0')),
        }
    }
}

impl From<&str> for Operand {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Operand {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<Value> for Operand {
    fn from(json: Value) -> Self {
        Self::Text(json.to_string())
    }
}

impl<V: fmt::Display> From<Vec<V>> for Operand {
    fn from(values: Vec<V>) -> Self {
        Self::list(values)
    }
}

impl<V: fmt::Display> From<&[V]> for Operand {
    fn from(values: &[V]) -> Self {
        Self::list(values)
    }
}

impl<V: fmt::Display, const N: usize> From<[V; N]> for Operand {
    fn from(values: [V; N]) -> Self {
        Self::list(values)
    }
}

/// A full-text query: how its text is read, and the text search configuration.
///
/// ```
/// use tendril_realtime::{TextSearch, col};
///
/// let filter = col("body").text_search(TextSearch::websearch("\"fat cat\" -rat").config("english"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct TextSearch {
    pub(crate) kind: SearchKind,
    pub(crate) config: Option<String>,
    pub(crate) query: String,
}

/// The function of PostgreSQL that reads the query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SearchKind {
    Tsquery,
    Plain,
    Phrase,
    Websearch,
}

impl TextSearch {
    fn new(kind: SearchKind, query: impl Into<String>) -> Self {
        Self { kind, config: None, query: query.into() }
    }

    /// The operators of `to_tsquery`: `fat & !cat`.
    pub fn tsquery(query: impl Into<String>) -> Self {
        Self::new(SearchKind::Tsquery, query)
    }

    /// Words that must all occur (`plainto_tsquery`).
    pub fn plain(words: impl Into<String>) -> Self {
        Self::new(SearchKind::Plain, words)
    }

    /// Words that must follow each other (`phraseto_tsquery`).
    pub fn phrase(words: impl Into<String>) -> Self {
        Self::new(SearchKind::Phrase, words)
    }

    /// The syntax of web search engines (`websearch_to_tsquery`).
    pub fn websearch(query: impl Into<String>) -> Self {
        Self::new(SearchKind::Websearch, query)
    }

    /// The text search configuration, such as `english`. Default: the database's.
    pub fn config(mut self, name: impl Into<String>) -> Self {
        self.config = Some(name.into());
        self
    }
}

impl From<&str> for TextSearch {
    fn from(query: &str) -> Self {
        Self::tsquery(query)
    }
}

impl From<String> for TextSearch {
    fn from(query: String) -> Self {
        Self::tsquery(query)
    }
}

impl SearchKind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Tsquery => "fts",
            Self::Plain => "plfts",
            Self::Phrase => "phfts",
            Self::Websearch => "wfts",
        }
    }
}
