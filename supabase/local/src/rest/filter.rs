//! Filters: `column=operator.value`, and trees of them in `and=(…)` and `or=(…)`.

use super::grammar::{Cursor, Field, Read};

/// A condition on one field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Filter {
    /// What is looked at.
    pub(super) field: Field,
    /// `not.` stood before the operator.
    pub(super) negated: bool,
    /// The operator and what it compares with.
    pub(super) test: Test,
}

/// An operator with its operand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Test {
    /// An operator of SQL.
    Compare {
        /// The operator as SQL.
        operator: &'static str,
        /// `(any)` or `(all)`: the operand is an array.
        quantifier: Option<&'static str>,
        /// The operand.
        value: String,
    },
    /// One of a list.
    In(Vec<String>),
    /// `null`, `true` and so on, as SQL.
    Is(&'static str),
    /// Different, with null as a value.
    Distinct(String),
    /// Text search.
    Search {
        /// The function that makes the query.
        function: &'static str,
        /// The configuration.
        language: Option<String>,
        /// The words.
        words: String,
    },
}

/// A filter or a group of filters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Logic {
    /// One condition.
    One(Filter),
    /// Several of them.
    Group {
        /// `not.` stood before it.
        negated: bool,
        /// Whether one is enough.
        any: bool,
        /// The members.
        members: Vec<Logic>,
    },
}

/// How an operand ends: at the end of the parameter, or inside a group at `,` and `)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// A parameter of its own.
    Alone,
    /// Within `and=(…)` or `or=(…)`.
    Grouped,
}

/// What stands where an operator should.
const OPERATOR: &str = "\"not\" or operator (eq, gt, ...)";

/// Operators that may be quantified.
const QUANTIFIABLE: [(&str, &str); 9] = [
    ("eq", "="),
    ("gte", ">="),
    ("gt", ">"),
    ("lte", "<="),
    ("lt", "<"),
    ("like", "like"),
    ("ilike", "ilike"),
    ("match", "~"),
    ("imatch", "~*"),
];

/// The other operators.
const PLAIN: [(&str, &str); 9] = [
    ("neq", "<>"),
    ("cs", "@>"),
    ("cd", "<@"),
    ("ov", "&&"),
    ("sl", "<<"),
    ("sr", ">>"),
    ("nxr", "&<"),
    ("nxl", "&>"),
    ("adj", "-|-"),
];

/// Text search.
const SEARCH: [(&str, &str); 4] = [
    ("fts", "to_tsquery"),
    ("plfts", "plainto_tsquery"),
    ("phfts", "phraseto_tsquery"),
    ("wfts", "websearch_to_tsquery"),
];

/// What `is` compares with.
const IS: [(&str, &str); 5] = [
    ("not_null", "NOT NULL"),
    ("null", "NULL"),
    ("true", "TRUE"),
    ("false", "FALSE"),
    ("unknown", "UNKNOWN"),
];

/// Whether a value begins as a filter does; tells filters from arguments of a function.
pub(super) fn looks_like_filter(value: &str) -> bool {
    let value = value.strip_prefix("not.").unwrap_or(value);
    let word = value.split(['.', '(']).next().unwrap_or_default();
    word.len() < value.len()
        && (matches!(word, "is" | "in" | "isdistinct")
            || [&QUANTIFIABLE[..], &PLAIN, &SEARCH].concat().iter().any(|(name, _)| *name == word))
}

/// Reads `not.operator.value`.
pub(super) fn test(cursor: &mut Cursor<'_>, place: Place) -> Read<(bool, Test)> {
    let negated = cursor.eat("not.");
    let start = cursor.clone();
    let word = cursor.take_while(|c| c.is_ascii_alphabetic());
    let find =
        |list: &[(&str, &'static str)]| list.iter().find(|(name, _)| *name == word).map(|(_, sql)| *sql);
    let test = if let Some(operator) = find(&QUANTIFIABLE) {
        let quantifier = if cursor.eat("(any)") {
            Some("ANY")
        } else if cursor.eat("(all)") {
            Some("ALL")
        } else {
            None
        };
        delimiter(cursor, &start)?;
        let mut value = operand(cursor, place);
        if matches!(operator, "like" | "ilike") {
            value = value.replace('*', "%");
        }
        Test::Compare { operator, quantifier, value }
    } else if let Some(operator) = find(&PLAIN) {
        delimiter(cursor, &start)?;
        Test::Compare { operator, quantifier: None, value: operand(cursor, place) }
    } else if let Some(function) = find(&SEARCH) {
        let language = cursor.eat("(").then(|| cursor.take_while(|c| c != ')').to_owned());
        if language.is_some() {
            cursor.expect(")")?;
        }
        delimiter(cursor, &start)?;
        Test::Search { function, language, words: operand(cursor, place) }
    } else {
        match word {
            "in" => {
                delimiter(cursor, &start)?;
                Test::In(list(cursor)?)
            }
            "is" => {
                delimiter(cursor, &start)?;
                Test::Is(is(cursor)?)
            }
            "isdistinct" => {
                delimiter(cursor, &start)?;
                Test::Distinct(operand(cursor, place))
            }
            _ => return Err(start.misread(OPERATOR)),
        }
    };
    Ok((negated, test))
}

/// The point after an operator; without it the word before was none.
fn delimiter(cursor: &mut Cursor<'_>, start: &Cursor<'_>) -> Read<()> {
    if cursor.eat(".") { Ok(()) } else { Err(start.misread(OPERATOR)) }
}

fn is(cursor: &mut Cursor<'_>) -> Read<&'static str> {
    let lower = cursor.rest().to_ascii_lowercase();
    for (name, sql) in IS {
        if lower.starts_with(name) {
            let word = &cursor.rest()[..name.len()];
            cursor.eat(word);
            return Ok(sql);
        }
    }
    Err(cursor.misread("isVal: (null, not_null, true, false, unknown)"))
}

fn operand(cursor: &mut Cursor<'_>, place: Place) -> String {
    if place == Place::Alone {
        return cursor.take_while(|_| true).to_owned();
    }
    if cursor.peek() == Some('"')
        && let Some(text) = cursor.quoted_item()
    {
        return text;
    }
    if cursor.peek() == Some('{') {
        let mut ahead = cursor.clone();
        ahead.eat("{");
        let inner = ahead.take_while(|c| c != '{' && c != '}');
        if ahead.eat("}") {
            *cursor = ahead;
            return format!("{{{inner}}}");
        }
    }
    cursor.take_while(|c| c != ',' && c != ')').to_owned()
}

fn list(cursor: &mut Cursor<'_>) -> Read<Vec<String>> {
    cursor.blanks();
    cursor.expect("(")?;
    cursor.blanks();
    let mut items = Vec::new();
    loop {
        let quoted = if cursor.peek() == Some('"') { cursor.quoted_item() } else { None };
        items.push(quoted.unwrap_or_else(|| cursor.take_while(|c| c != ',' && c != ')').to_owned()));
        if !cursor.eat(",") {
            break;
        }
    }
    cursor.blanks();
    cursor.expect(")")?;
    cursor.blanks();
    Ok(items)
}

/// Reads `(member,member)` after `and` or `or`.
pub(super) fn group(cursor: &mut Cursor<'_>, negated: bool, any: bool) -> Read<Logic> {
    cursor.blanks();
    cursor.expect("(")?;
    let mut members = Vec::new();
    loop {
        cursor.blanks();
        members.push(member(cursor)?);
        cursor.blanks();
        if !cursor.eat(",") {
            break;
        }
    }
    cursor.expect(")")?;
    Ok(Logic::Group { negated, any, members })
}

fn member(cursor: &mut Cursor<'_>) -> Read<Logic> {
    let mut ahead = cursor.clone();
    let negated = ahead.eat("not.");
    for (word, any) in [("and", false), ("or", true)] {
        let mut inside = ahead.clone();
        if inside.eat(word) && inside.peek() == Some('(') {
            *cursor = inside;
            return group(cursor, negated, any);
        }
    }
    let field = cursor.field()?;
    cursor.expect(".")?;
    let (negated, test) = test(cursor, Place::Grouped)?;
    Ok(Logic::One(Filter { field, negated, test }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alone(text: &str) -> (bool, Test) {
        test(&mut Cursor::new(text), Place::Alone).unwrap()
    }

    #[test]
    fn a_lone_value_is_taken_as_it_is() {
        let (negated, test) = alone(r#"not.eq."a,b")"#);
        assert!(negated);
        assert_eq!(test, Test::Compare { operator: "=", quantifier: None, value: r#""a,b")"#.into() });
    }

    #[test]
    fn a_list_has_quoted_and_plain_items() {
        assert_eq!(
            alone(r#"in.("a,b",c d,"q\"x")"#).1,
            Test::In(vec!["a,b".into(), "c d".into(), "q\"x".into()])
        );
        assert_eq!(alone("in.()").1, Test::In(vec![String::new()]));
    }

    #[test]
    fn groups_nest() {
        let mut cursor = Cursor::new("(a.eq.1,not.and(b.gt.2,c.in.(x,y)))");
        let Logic::Group { any: true, members, .. } = group(&mut cursor, false, true).unwrap() else {
            panic!()
        };
        assert_eq!(members.len(), 2);
        assert!(
            matches!(&members[1], Logic::Group { negated: true, any: false, members } if members.len() == 2)
        );
    }

    #[test]
    fn filters_are_told_from_arguments() {
        assert!(looks_like_filter("eq.1"));
        assert!(looks_like_filter("not.in.(1)"));
        assert!(looks_like_filter("fts(english).x"));
        assert!(!looks_like_filter("eq"));
        assert!(!looks_like_filter("2020-01-01"));
    }
}
