//! The filter of a binding: `column=operator.value`, several joined by commas (AND), and its meaning in SQL.

use std::fmt::{self, Write as _};

/// Values an `in` list may have.
const MAX_IN_VALUES: usize = 100;

/// One condition on one column.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Filter {
    pub(crate) column: String,
    pub(crate) operator: Operator,
    /// Without the quotes of the grammar; of `in`, the body of a PostgreSQL array literal with its braces.
    pub(crate) value: String,
    /// Whether `not.` stood before the operator.
    pub(crate) negated: bool,
}

/// The comparisons of Realtime.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Operator {
    Eq,
    Neq,
    Lt,
    Lte,
    Gt,
    Gte,
    In,
    Like,
    Ilike,
    Is,
    Match,
    Imatch,
    IsDistinct,
}

impl Operator {
    fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "eq" => Self::Eq,
            "neq" => Self::Neq,
            "lt" => Self::Lt,
            "lte" => Self::Lte,
            "gt" => Self::Gt,
            "gte" => Self::Gte,
            "in" => Self::In,
            "like" => Self::Like,
            "ilike" => Self::Ilike,
            "is" => Self::Is,
            "match" => Self::Match,
            "imatch" => Self::Imatch,
            "isdistinct" => Self::IsDistinct,
            _ => return None,
        })
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Eq => "eq",
            Self::Neq => "neq",
            Self::Lt => "lt",
            Self::Lte => "lte",
            Self::Gt => "gt",
            Self::Gte => "gte",
            Self::In => "in",
            Self::Like => "like",
            Self::Ilike => "ilike",
            Self::Is => "is",
            Self::Match => "match",
            Self::Imatch => "imatch",
            Self::IsDistinct => "isdistinct",
        }
    }
}

impl fmt::Display for Filter {
    /// The tuple that error messages of Realtime show: `{"column", "eq", "1", false}`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{{:?}, {:?}, {:?}, {}}}", self.column, self.operator.name(), self.value, self.negated)
    }
}

impl Filter {
    /// The type a value of this filter is cast to, given the column's type; `None` where it stays text.
    pub(crate) fn value_type(&self, column_type: &str) -> Option<String> {
        match self.operator {
            Operator::In => Some(format!("{column_type}[]")),
            Operator::Like | Operator::Ilike | Operator::Match | Operator::Imatch | Operator::Is => None,
            _ => Some(column_type.to_owned()),
        }
    }

    /// The condition in SQL. `column` is an expression of type `column_type`, `parameter` one of type text. NULL is
    /// never true, also not under `not`.
    pub(crate) fn condition(&self, column: &str, column_type: &str, parameter: &str) -> String {
        let compare = |operator: &str| format!("{column} {operator} {parameter}::{column_type}");
        let text = |operator: &str| format!("{column}::text {operator} {parameter}");
        let condition = match self.operator {
            Operator::Eq => compare("="),
            Operator::Neq => compare("<>"),
            Operator::Lt => compare("<"),
            Operator::Lte => compare("<="),
            Operator::Gt => compare(">"),
            Operator::Gte => compare(">="),
            Operator::In => format!("{column} = any({parameter}::{column_type}[])"),
            Operator::Like => text("like"),
            Operator::Ilike => text("ilike"),
            Operator::Match => text("~"),
            Operator::Imatch => text("~*"),
            Operator::IsDistinct => format!("{column} is distinct from {parameter}::{column_type}"),
            // The value was checked to be one of four words; the parameter is named so that it has a type.
            Operator::Is => format!("({column} is {} and {parameter} is not null)", self.value),
        };
        if self.negated { format!("(not ({condition})) is true") } else { format!("({condition}) is true") }
    }
}

/// Parses a whole filter; blank means none.
///
/// # Errors
/// What the real server answers after ``Error parsing `filter` params: ``.
pub(crate) fn parse(text: &str) -> Result<Vec<Filter>, String> {
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    split_top_level(text).into_iter().map(|segment| parse_segment(segment.trim())).collect()
}

fn parse_segment(segment: &str) -> Result<Filter, String> {
    if segment.is_empty() {
        return Err("filter must not contain empty segments (check for extra commas)".to_owned());
    }
    let Some((column, rest)) = segment.split_once('=') else {
        return Err(format!("[{segment:?}]"));
    };
    let (negated, rest) = rest.strip_prefix("not.").map_or((false, rest), |rest| (true, rest));
    let Some((operator, value)) = rest.split_once('.') else {
        return Err(format!("[{rest:?}]"));
    };
    let Some(operator) = Operator::parse(operator) else {
        return Err(format!("[{operator:?}, {value:?}]"));
    };
    let value = if operator == Operator::In { array_literal(value)? } else { unquote(value) };
    Ok(Filter { column: column.to_owned(), operator, value, negated })
}

/// `(a,"b,c")` as `{a,"b,c"}`: the two grammars quote alike.
fn array_literal(value: &str) -> Result<String, String> {
    let Some(body) = value.strip_prefix('(').and_then(|value| value.strip_suffix(')')) else {
        return Err("`in` filter value must be wrapped by parentheses".to_owned());
    };
    if split_top_level(body).len() > MAX_IN_VALUES {
        return Err(format!("`in` filter value must have at most {MAX_IN_VALUES} items"));
    }
    Ok(format!("{{{body}}}"))
}

/// `"a \"b\""` as `a "b"`; a value without quotes as it is.
fn unquote(value: &str) -> String {
    let Some(inner) = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')) else {
        return value.to_owned();
    };
    let mut plain = String::with_capacity(inner.len());
    let mut characters = inner.chars();
    while let Some(character) = characters.next() {
        plain.push(if character == '\\' { characters.next().unwrap_or('\\') } else { character });
    }
    plain
}

/// Splits at commas outside of parentheses and quotes. A quote opens only after `.`, `(` or `,`.
fn split_top_level(text: &str) -> Vec<&str> {
    let (mut parts, mut start, mut depth) = (Vec::new(), 0, 0_u32);
    let (mut quoted, mut escaped, mut previous) = (false, false, ',');
    for (index, character) in text.char_indices() {
        if quoted {
            if escaped {
                escaped = false;
            } else if character == '\\' {
                escaped = true;
            } else if character == '"' {
                quoted = false;
            }
        } else {
            match character {
                '"' if matches!(previous, '.' | '(' | ',') => quoted = true,
                '(' => depth += 1,
                ')' => depth = depth.saturating_sub(1),
                ',' if depth == 0 => {
                    parts.push(&text[start..index]);
                    start = index + 1;
                }
                _ => {}
            }
        }
        previous = character;
    }
    parts.push(&text[start..]);
    parts
}

/// The list of filters as error messages show it.
pub(crate) fn shown(filters: &[Filter]) -> String {
    let mut text = String::from("[");
    for (index, filter) in filters.iter().enumerate() {
        let comma = if index == 0 { "" } else { ", " };
        // Writing to a String cannot fail.
        let _ = write!(text, "{comma}{filter}");
    }
    text.push(']');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> Filter {
        let filters = parse(text).unwrap();
        assert_eq!(filters.len(), 1, "{text}");
        filters.into_iter().next().unwrap()
    }

    #[test]
    fn commas_join_conditions_outside_of_lists_and_quotes() {
        let filters = parse(r#"t=in.(abc,"d,e"),i4=gt.5,t=eq."a,b""#).unwrap();
        let shown: Vec<_> = filters.iter().map(|f| (f.column.as_str(), f.value.as_str())).collect();
        assert_eq!(shown, [("t", r#"{abc,"d,e"}"#), ("i4", "5"), ("t", "a,b")]);
    }

    #[test]
    fn not_and_quotes_are_understood() {
        let filter = one(r#"t=not.eq."say \"hi\"""#);
        assert!(filter.negated);
        assert_eq!(filter.value, r#"say "hi""#);
        assert_eq!(one(r#"t=eq.5" wide"#).value, r#"5" wide"#);
    }

    #[test]
    fn blank_means_no_filter() {
        assert_eq!(parse("  "), Ok(Vec::new()));
    }

    #[test]
    fn errors_read_like_the_real_servers() {
        assert_eq!(parse("t=foo.1").unwrap_err(), r#"["foo", "1"]"#);
        assert_eq!(parse("t").unwrap_err(), r#"["t"]"#);
        assert_eq!(parse("t=in.a,b").unwrap_err(), "`in` filter value must be wrapped by parentheses");
        let empty = "filter must not contain empty segments (check for extra commas)";
        assert_eq!(parse("t=eq.a,,t=eq.b").unwrap_err(), empty);
    }

    #[test]
    fn a_list_has_at_most_100_values() {
        let list = |count: usize| format!("t=in.({})", vec!["1"; count].join(","));
        assert!(parse(&list(100)).is_ok());
        assert!(parse(&list(101)).is_err());
    }

    #[test]
    fn values_reach_sql_only_as_parameters() {
        let filter = one("t=eq.'; drop table x --");
        assert_eq!(filter.condition("c0::text", "text", "$1"), "(c0::text = $1::text) is true");
    }
}
