//! Whether a row that an event brings belongs to a watch.

use super::{column_type::ColumnTypes, record::Record};
use crate::filter::{Condition, Expression, Operand, Operator};

/// What is known of a row from its event alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FilterMatch {
    Match,
    NoMatch,
    /// Only the server can decide.
    Unknown,
}

impl FilterMatch {
    fn certain(yes: bool) -> Self {
        if yes { Self::Match } else { Self::NoMatch }
    }

    /// Of several that must all match.
    pub(super) fn all(answers: impl IntoIterator<Item = Self>) -> Self {
        let mut whole = Self::Match;
        for answer in answers {
            match answer {
                Self::NoMatch => return Self::NoMatch,
                Self::Unknown => whole = Self::Unknown,
                Self::Match => {}
            }
        }
        whole
    }

    /// Of several of which one is enough.
    fn any(answers: impl IntoIterator<Item = Self>) -> Self {
        let mut whole = Self::NoMatch;
        for answer in answers {
            match answer {
                Self::Match => return Self::Match,
                Self::Unknown => whole = Self::Unknown,
                Self::NoMatch => {}
            }
        }
        whole
    }
}

/// The answer for a whole filter.
pub(super) fn judge(filter: &Expression, record: &Record, types: &ColumnTypes) -> FilterMatch {
    match filter {
        Expression::One(condition) => one(condition, record, types),
        Expression::All(members) => {
            FilterMatch::all(members.iter().map(|member| judge(member, record, types)))
        }
        Expression::Any(members) => {
            FilterMatch::any(members.iter().map(|member| judge(member, record, types)))
        }
        // The opposite of a group is not known where a NULL made it unknown.
        Expression::Not(_) => FilterMatch::Unknown,
    }
}

fn one(condition: &Condition, record: &Record, types: &ColumnTypes) -> FilterMatch {
    let Condition { column, negated, operator, operand } = condition;
    let value = column.plain_name().and_then(|name| Some((record.column(name)?, types.of(name))));
    let Some((value, kind)) = value else { return FilterMatch::Unknown };
    let is_null = value.get() == "null";
    if is_null && !kind.null_is_null() {
        return FilterMatch::Unknown;
    }
    let equals = |text: &String| kind.equals(value, text);
    let equal = match (operator, operand) {
        (Operator::Is, Operand::Text(word)) if word == "null" => {
            // A composite value of nothing but NULLs is NULL too.
            return if is_null || !value.get().starts_with('{') {
                FilterMatch::certain(is_null != *negated)
            } else {
                FilterMatch::Unknown
            };
        }
        // A comparison with NULL is not true, nor is its opposite.
        (Operator::Eq | Operator::Neq | Operator::In, _) if is_null => return FilterMatch::NoMatch,
        (Operator::Eq, Operand::Text(text)) => equals(text),
        (Operator::Neq, Operand::Text(text)) => equals(text).map(|equal| !equal),
        (Operator::In, Operand::List(texts)) => {
            let answers: Vec<_> = texts.iter().map(equals).collect();
            if answers.contains(&Some(true)) {
                Some(true)
            } else if answers.contains(&None) {
                None
            } else {
                Some(false)
            }
        }
        _ => None,
    };
    equal.map_or(FilterMatch::Unknown, |equal| FilterMatch::certain(equal != *negated))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::filter::{Filter, col};

    const COLUMNS: &str = r#"[{"name":"s","type":"text"},{"name":"n","type":"int4"},{"name":"e","type":"citext"},
        {"name":"f","type":"float8"},{"name":"c","type":"bpchar"},{"name":"j","type":"jsonb"}]"#;

    fn judged(filter: &Filter, json: &str) -> FilterMatch {
        judge(filter.expression(), &Record::parse(json).unwrap(), &ColumnTypes::parse(COLUMNS))
    }

    #[test]
    fn a_row_is_judged_by_its_event_where_that_is_certain() {
        use FilterMatch::{Match, NoMatch, Unknown};
        for (filter, json, answer) in [
            (col("s").eq("QUEUED"), r#"{"s":"QUEUED"}"#, Match),
            (col("s").eq("QUEUED"), r#"{"s":"DONE"}"#, NoMatch),
            (col("s").eq("QUEUED"), r#"{"s":"Queued"}"#, Unknown),
            (col("s").eq("QUEUED"), r#"{"s":null}"#, NoMatch),
            (!col("s").eq("QUEUED"), r#"{"s":null}"#, NoMatch),
            (col("s").eq("QUEUED"), "{}", Unknown),
            (col("s").neq("QUEUED"), r#"{"s":"DONE"}"#, Match),
            (!col("s").neq("QUEUED"), r#"{"s":"DONE"}"#, NoMatch),
            (col("n").in_list([1, 2]), r#"{"n":2}"#, Match),
            (col("n").in_list([1, 2]), r#"{"n":3}"#, NoMatch),
            (col("n").not_in([1, 2]), r#"{"n":3}"#, Match),
            (col("n").not_in([1, 2]), r#"{"n":null}"#, NoMatch),
            (col("n").in_list(["1", "0x2"]), r#"{"n":2}"#, Unknown),
            (col("n").gt(5), r#"{"n":7}"#, Unknown),
            (col("e").eq("bob"), r#"{"e":"Bob"}"#, Unknown),
            (col("e").neq("bob"), r#"{"e":"Bob"}"#, Unknown),
            (col("s").is_null(), r#"{"s":null}"#, Match),
            (col("s").not_null(), r#"{"s":null}"#, NoMatch),
            (col("f").is_null(), r#"{"f":null}"#, Unknown),
            (col("f").is_null(), r#"{"f":1.5}"#, NoMatch),
            (col("j").is_null(), r#"{"j":null}"#, Unknown),
            (col("c").eq("a"), r#"{"c":"a"}"#, Unknown),
            (col("s").eq("A").or(col("n").eq(1)), r#"{"s":"B","n":1}"#, Match),
            (col("s").eq("A").or(col("n").eq(1)), r#"{"s":"B","n":2}"#, NoMatch),
            (col("s").eq("A").and(col("n").gt(1)), r#"{"s":"B","n":2}"#, NoMatch),
            (!(col("s").eq("A").and(col("n").eq(1))), r#"{"s":"B","n":2}"#, Unknown),
            (col("j").key("k").eq(1), r#"{"j":{"k":1}}"#, Unknown),
            (col("x").eq(1), r#"{"x":1}"#, Unknown),
        ] {
            assert_eq!(judged(&filter, json), answer, "{filter:?} {json}");
        }
    }
}
