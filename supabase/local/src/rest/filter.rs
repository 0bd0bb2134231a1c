//! Filters: `column=operator.value`, and trees of them in `and=(…)` and `or=(…)`.

use super::grammar::{Field, delimiter, field, identifier, quoted_item, unquoted_item};
use super::parsec::{Failed, Read, Reader};

/// A condition on one field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Filter {
    /// What is compared.
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
    ("null", "NULL"),
    ("not_null", "NOT NULL"),
    ("true", "TRUE"),
    ("false", "FALSE"),
    ("unknown", "UNKNOWN"),
];

/// Whether a value begins as a filter does; distinguishes filters from arguments of a function.
pub(super) fn looks_like_filter(value: &str) -> bool {
    let value = value.strip_prefix("not.").unwrap_or(value);
    let word = value.split(['.', '(']).next().unwrap_or_default();
    word.len() < value.len()
        && (matches!(word, "is" | "in" | "isdistinct")
            || [&QUANTIFIABLE[..], &PLAIN, &SEARCH].concat().iter().any(|(name, _)| *name == word))
}

/// Reads `not.operator.value`.
pub(super) fn test(r: &mut Reader<'_>, place: Place) -> Read<(bool, Test)> {
    let negated = r.either(not, |_| Ok(false))?;
    let test = r.label("operator (eq, gt, ...)", |r| {
        r.either(
            |r| {
                operator(r, "in")?;
                list(r).map(Test::In)
            },
            |r| {
                r.either(
                    |r| {
                        operator(r, "is")?;
                        is(r).map(Test::Is)
                    },
                    |r| {
                        r.either(
                            |r| {
                                operator(r, "isdistinct")?;
                                operand(r, place).map(Test::Distinct)
                            },
                            |r| compared(r, place),
                        )
                    },
                )
            },
        )
    })?;
    Ok((negated, test))
}

/// `not.`
fn not(r: &mut Reader<'_>) -> Read<bool> {
    r.attempt(|r| {
        r.string("not")?;
        delimiter(r)?;
        Ok(true)
    })
}

/// An operator and the point after it.
fn operator(r: &mut Reader<'_>, name: &str) -> Read<()> {
    r.attempt(|r| {
        r.string(name)?;
        delimiter(r)
    })
}

/// Text search, or an operator of SQL.
fn compared(r: &mut Reader<'_>, place: Place) -> Read<Test> {
    let search = |r: &mut Reader<'_>| {
        let function = one_of(r, &SEARCH)?;
        let language = r.optional(|r| {
            r.attempt(|r| {
                r.char('(')?;
                let language = identifier(r)?;
                r.char(')')?;
                Ok(language)
            })
        })?;
        delimiter(r)?;
        Ok(Test::Search { function, language, words: operand(r, place)? })
    };
    let plain = |r: &mut Reader<'_>| {
        let operator = one_of(r, &PLAIN)?;
        delimiter(r)?;
        Ok(Test::Compare { operator, quantifier: None, value: operand(r, place)? })
    };
    let quantified = |r: &mut Reader<'_>| {
        let operator = one_of(r, &QUANTIFIABLE)?;
        let quantifier = r.optional(|r| {
            r.attempt(|r| {
                r.char('(')?;
                let quantifier = r.either(
                    |r| r.attempt(|r| r.string("any").map(|()| "ANY")),
                    |r| r.string("all").map(|()| "ALL"),
                )?;
                r.char(')')?;
                Ok(quantifier)
            })
        })?;
        delimiter(r)?;
        let mut value = operand(r, place)?;
        if matches!(operator, "like" | "ilike") {
            value = value.replace('*', "%");
        }
        Ok(Test::Compare { operator, quantifier, value })
    };
    r.either(|r| r.attempt(search), |r| r.either(|r| r.attempt(plain), |r| r.attempt(quantified)))
}

/// The first of these that comes next, as SQL.
fn one_of(r: &mut Reader<'_>, names: &[(&str, &'static str)]) -> Read<&'static str> {
    match names {
        [] => Err(Failed),
        [(name, sql), others @ ..] => {
            r.either(|r| r.attempt(|r| r.string(name).map(|()| *sql)), |r| one_of(r, others))
        }
    }
}

fn is(r: &mut Reader<'_>) -> Read<&'static str> {
    fn word(r: &mut Reader<'_>, words: &[(&str, &'static str)]) -> Read<&'static str> {
        match words {
            [] => Err(Failed),
            [(name, sql), others @ ..] => r.either(
                |r| {
                    r.attempt(|r| {
                        name.chars().try_for_each(|c| {
                            r.either(|r| r.char(c), |r| r.char(c.to_ascii_uppercase())).map(drop)
                        })?;
                        Ok(*sql)
                    })
                },
                |r| word(r, others),
            ),
        }
    }
    r.label("isVal: (null, not_null, true, false, unknown)", |r| word(r, &IS))
}

fn operand(r: &mut Reader<'_>, place: Place) -> Read<String> {
    if place == Place::Alone {
        return r.many(|r| r.satisfy(|_| true)).map(|text| text.into_iter().collect());
    }
    let array = |r: &mut Reader<'_>| {
        r.string("{")?;
        let inner: String = r.many(|r| r.satisfy(|c| !matches!(c, '{' | '}')))?.into_iter().collect();
        r.string("}")?;
        Ok(format!("{{{inner}}}"))
    };
    r.either(quoted_item, |r| r.either(|r| r.attempt(array), unquoted_item))
}

fn list(r: &mut Reader<'_>) -> Read<Vec<String>> {
    r.lexeme(|r| r.char('('))?;
    let items = r.sep_by1(|r| r.either(quoted_item, unquoted_item), |r| r.char(','))?;
    r.lexeme(|r| r.char(')'))?;
    Ok(items)
}

/// Reads a filter, or `and(member,member)`, `or(…)` and their negations.
pub(super) fn tree(r: &mut Reader<'_>) -> Read<Logic> {
    let filter = |r: &mut Reader<'_>| {
        let field = field(r)?;
        delimiter(r)?;
        let (negated, test) = test(r, Place::Grouped)?;
        Ok(Logic::One(Filter { field, negated, test }))
    };
    let group = |r: &mut Reader<'_>| {
        let negated = r.label("negation operator (not)", |r| r.either(not, |_| Ok(false)))?;
        let any = r.label("logic operator (and, or)", |r| {
            r.either(|r| r.attempt(|r| r.string("and").map(|()| false)), |r| r.string("or").map(|()| true))
        })?;
        r.lexeme(|r| r.char('('))?;
        let members = r.sep_by1(tree, |r| r.lexeme(|r| r.char(',')))?;
        r.lexeme(|r| r.char(')'))?;
        Ok(Logic::Group { negated, any, members })
    };
    r.either(|r| r.attempt(filter), group)
}

#[cfg(test)]
mod tests {
    use super::super::parsec::parse;
    use super::*;

    fn alone(text: &str) -> (bool, Test) {
        parse("", text, |r| test(r, Place::Alone)).unwrap()
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
        let text = "or(a.eq.1,not.and(b.gt.2,c.in.(x,y)))";
        let Logic::Group { any: true, members, .. } = parse("", text, tree).unwrap() else { panic!() };
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
