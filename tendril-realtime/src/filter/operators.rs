//! The operators: methods of a column that make a filter.

use std::fmt;

use super::{
    Filter,
    column::Column,
    condition::{Condition, Operator},
    operand::{Operand, TextSearch},
};

/// Conditions on one column.
impl Column {
    fn condition(self, operator: Operator, operand: Operand) -> Filter {
        Filter::from(Condition { column: self, negated: false, operator, operand })
    }

    /// Equal.
    pub fn eq(self, value: impl fmt::Display) -> Filter {
        self.condition(Operator::Eq, Operand::Text(value.to_string()))
    }

    /// Not equal, and not NULL.
    #[doc(alias = "ne")]
    pub fn neq(self, value: impl fmt::Display) -> Filter {
        self.condition(Operator::Neq, Operand::Text(value.to_string()))
    }

    /// Greater than the value.
    pub fn gt(self, value: impl fmt::Display) -> Filter {
        self.condition(Operator::Gt, Operand::Text(value.to_string()))
    }

    /// Greater than the value, or equal.
    #[doc(alias = "ge")]
    pub fn gte(self, value: impl fmt::Display) -> Filter {
        self.condition(Operator::Gte, Operand::Text(value.to_string()))
    }

    /// Less than the value.
    pub fn lt(self, value: impl fmt::Display) -> Filter {
        self.condition(Operator::Lt, Operand::Text(value.to_string()))
    }

    /// Less than the value, or equal.
    #[doc(alias = "le")]
    pub fn lte(self, value: impl fmt::Display) -> Filter {
        self.condition(Operator::Lte, Operand::Text(value.to_string()))
    }

    /// Matches an SQL pattern with `%` and `_`. `PostgREST` reads `*` as `%` too.
    pub fn like(self, pattern: impl fmt::Display) -> Filter {
        self.condition(Operator::Like, Operand::Text(pattern.to_string()))
    }

    /// [`like`](Self::like) without regard to case.
    pub fn ilike(self, pattern: impl fmt::Display) -> Filter {
        self.condition(Operator::Ilike, Operand::Text(pattern.to_string()))
    }

    /// Matches all of these SQL patterns.
    #[doc(alias = "likeAllOf")]
    pub fn like_all<V: fmt::Display>(self, patterns: impl IntoIterator<Item = V>) -> Filter {
        self.condition(Operator::LikeAll, Operand::list(patterns))
    }

    /// Matches at least one of these SQL patterns.
    #[doc(alias = "likeAnyOf")]
    pub fn like_any<V: fmt::Display>(self, patterns: impl IntoIterator<Item = V>) -> Filter {
        self.condition(Operator::LikeAny, Operand::list(patterns))
    }

    /// [`like_all`](Self::like_all) without regard to case.
    #[doc(alias = "ilikeAllOf")]
    pub fn ilike_all<V: fmt::Display>(self, patterns: impl IntoIterator<Item = V>) -> Filter {
        self.condition(Operator::IlikeAll, Operand::list(patterns))
    }

    /// [`like_any`](Self::like_any) without regard to case.
    #[doc(alias = "ilikeAnyOf")]
    pub fn ilike_any<V: fmt::Display>(self, patterns: impl IntoIterator<Item = V>) -> Filter {
        self.condition(Operator::IlikeAny, Operand::list(patterns))
    }

    /// Matches a POSIX regular expression.
    #[doc(alias = "match")]
    #[doc(alias = "regexMatch")]
    pub fn regex(self, pattern: impl fmt::Display) -> Filter {
        self.condition(Operator::Regex, Operand::Text(pattern.to_string()))
    }

    /// [`regex`](Self::regex) without regard to case.
    #[doc(alias = "imatch")]
    #[doc(alias = "regexIMatch")]
    pub fn iregex(self, pattern: impl fmt::Display) -> Filter {
        self.condition(Operator::Iregex, Operand::Text(pattern.to_string()))
    }

    /// Not equal, where NULL is a value like others.
    #[doc(alias = "isdistinct")]
    pub fn is_distinct(self, value: impl fmt::Display) -> Filter {
        self.condition(Operator::IsDistinct, Operand::Text(value.to_string()))
    }

    /// Is `null`, `true`, `false` or `unknown`.
    pub fn is(self, word: impl fmt::Display) -> Filter {
        self.condition(Operator::Is, Operand::Text(word.to_string()))
    }

    /// Has no value.
    pub fn is_null(self) -> Filter {
        self.is("null")
    }

    /// Has a value.
    pub fn not_null(self) -> Filter {
        !self.is_null()
    }

    /// Is one of the values. No values choose no rows.
    #[doc(alias = "in")]
    pub fn in_list<V: fmt::Display>(self, values: impl IntoIterator<Item = V>) -> Filter {
        self.condition(Operator::In, Operand::list(values))
    }

    /// Is none of the values, and not NULL.
    #[doc(alias = "notIn")]
    pub fn not_in<V: fmt::Display>(self, values: impl IntoIterator<Item = V>) -> Filter {
        !self.in_list(values)
    }

    /// Contains every element of an array, every key and value of a JSON object, or a range: see [`Operand`].
    #[doc(alias = "cs")]
    pub fn contains(self, value: impl Into<Operand>) -> Filter {
        self.condition(Operator::Contains, value.into())
    }

    /// Is contained in an array, a JSON object or a range: see [`Operand`].
    #[doc(alias = "cd")]
    #[doc(alias = "containedBy")]
    pub fn contained_by(self, value: impl Into<Operand>) -> Filter {
        self.condition(Operator::ContainedBy, value.into())
    }

    /// Has an element in common with an array, or a point with a range: see [`Operand`].
    #[doc(alias = "ov")]
    pub fn overlaps(self, value: impl Into<Operand>) -> Filter {
        self.condition(Operator::Overlaps, value.into())
    }

    /// The whole range is before this one (`<<`), such as `[1,5)`.
    #[doc(alias = "sl")]
    pub fn range_lt(self, range: impl fmt::Display) -> Filter {
        self.condition(Operator::RangeLt, Operand::Text(range.to_string()))
    }

    /// The whole range is after this one (`>>`).
    #[doc(alias = "sr")]
    pub fn range_gt(self, range: impl fmt::Display) -> Filter {
        self.condition(Operator::RangeGt, Operand::Text(range.to_string()))
    }

    /// No point of the range is before this one (`&>`).
    #[doc(alias = "nxl")]
    pub fn range_gte(self, range: impl fmt::Display) -> Filter {
        self.condition(Operator::RangeGte, Operand::Text(range.to_string()))
    }

    /// No point of the range is after this one (`&<`).
    #[doc(alias = "nxr")]
    pub fn range_lte(self, range: impl fmt::Display) -> Filter {
        self.condition(Operator::RangeLte, Operand::Text(range.to_string()))
    }

    /// The range begins where this one ends, or ends where this one begins (`-|-`).
    #[doc(alias = "adj")]
    pub fn range_adjacent(self, range: impl fmt::Display) -> Filter {
        self.condition(Operator::RangeAdjacent, Operand::Text(range.to_string()))
    }

    /// Matches a full-text query. A plain string is a query in the syntax of `to_tsquery`; see [`TextSearch`] for others.
    #[doc(alias = "fts")]
    #[doc(alias = "plfts")]
    #[doc(alias = "phfts")]
    #[doc(alias = "wfts")]
    #[doc(alias = "textSearch")]
    pub fn text_search(self, query: impl Into<TextSearch>) -> Filter {
        let TextSearch { kind, config, query } = query.into();
        self.condition(Operator::TextSearch { kind, config }, Operand::Text(query))
    }

    /// Any operator by its name in `PostgREST`, such as `gt`, `not.eq`, `fts(english)` or `eq(any)`. The value goes out
    /// as it is.
    ///
    /// ```
    /// use tendril_realtime::col;
    ///
    /// let filter = col("tags").op("not.cs", "{urgent}");
    /// ```
    pub fn op(self, operator: impl Into<String>, value: impl fmt::Display) -> Filter {
        let operator = operator.into();
        let (negated, operator) = match operator.strip_prefix("not.") {
            Some(operator) => (true, operator.to_owned()),
            None => (false, operator),
        };
        let filter = self.condition(Operator::Named(operator), Operand::Text(value.to_string()));
        if negated { !filter } else { filter }
    }
}
