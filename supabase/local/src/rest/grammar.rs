//! What all parameters are made of: names, quoted texts, steps into JSON.

use super::error::RestError;
use super::parsec::{Read, Reader, parse};

/// A column, or a value inside a JSON column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Field {
    /// The column's name.
    pub(super) name: String,
    /// Steps into its JSON value.
    pub(super) path: Vec<JsonStep>,
}

/// One step into a JSON value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct JsonStep {
    /// `->>` instead of `->`.
    pub(super) as_text: bool,
    /// A key, or an index with its sign.
    pub(super) key: JsonKey,
}

/// Where a JSON step leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum JsonKey {
    /// To a key of an object.
    Name(String),
    /// To an element of an array.
    Index(String),
}

/// A name: quoted, or of letters, digits, `_`, `$`, blanks and single dashes.
pub(super) fn field_name(r: &mut Reader<'_>) -> Read<String> {
    r.label("field name (* or [a..z0..9_$])", |r| {
        r.either(quoted, |r| r.sep_by1(identifier, dash).map(|parts| parts.join("-")))
    })
}

/// Letters, digits, `_`, `$` and blanks, without the blanks around them.
pub(super) fn identifier(r: &mut Reader<'_>) -> Read<String> {
    let character = |r: &mut Reader<'_>| {
        r.either(
            |r| r.label("letter", |r| r.satisfy(char::is_alphabetic)),
            |r| {
                r.either(
                    |r| r.label("digit", |r| r.satisfy(|c| c.is_ascii_digit())),
                    |r| r.satisfy(|c| matches!(c, '_' | ' ' | '$')),
                )
            },
        )
    };
    r.many1(character).map(trimmed)
}

/// A dash that begins no arrow.
fn dash(r: &mut Reader<'_>) -> Read<()> {
    r.attempt(|r| {
        r.char('-')?;
        r.not_followed_by(|c| c == '>')
    })
}

/// A text in double quotes; a backslash takes the next character as it is.
pub(super) fn quoted(r: &mut Reader<'_>) -> Read<String> {
    r.char('"')?;
    let text = r.many(|r| {
        r.either(
            |r| r.satisfy(|c| !matches!(c, '\\' | '"')),
            |r| {
                r.char('\\')?;
                r.satisfy(|_| true)
            },
        )
    })?;
    r.char('"')?;
    Ok(text.into_iter().collect())
}

/// A quoted text that a separator or the end follows.
pub(super) fn quoted_item(r: &mut Reader<'_>) -> Read<String> {
    r.attempt(|r| {
        let text = quoted(r)?;
        r.not_followed_by(|c| !matches!(c, ',' | ')'))?;
        Ok(text)
    })
}

/// Everything up to a separator.
pub(super) fn unquoted_item(r: &mut Reader<'_>) -> Read<String> {
    r.many(|r| r.satisfy(|c| !matches!(c, ',' | ')'))).map(|text| text.into_iter().collect())
}

/// The point between parts.
pub(super) fn delimiter(r: &mut Reader<'_>) -> Read<()> {
    r.label("delimiter (.)", |r| r.char('.')).map(drop)
}

/// A name with steps into JSON.
pub(super) fn field(r: &mut Reader<'_>) -> Read<Field> {
    r.lexeme(|r| Ok(Field { name: field_name(r)?, path: r.optional(json_path)?.unwrap_or_default() }))
}

/// Any number of `->step` and `->>step`.
pub(super) fn json_path(r: &mut Reader<'_>) -> Read<Vec<JsonStep>> {
    r.many(|r| {
        let as_text = r.either(
            |r| r.attempt(|r| r.string("->>").map(|()| true)),
            |r| r.attempt(|r| r.string("->").map(|()| false)),
        )?;
        let key = r.either(|r| r.attempt(json_index), |r| r.attempt(json_key))?;
        Ok(JsonStep { as_text, key })
    })
}

fn json_index(r: &mut Reader<'_>) -> Read<JsonKey> {
    let sign = r.optional(|r| r.char('-'))?.unwrap_or('+');
    let digits = r.many1(|r| r.label("digit", |r| r.satisfy(|c| c.is_ascii_digit())))?;
    r.either(
        |r| r.ahead("->"),
        |r| {
            r.either(
                |r| r.ahead("::"),
                |r| r.either(|r| r.ahead("."), |r| r.either(|r| r.ahead(","), |r| r.attempt(Reader::eof))),
            )
        },
    )?;
    Ok(JsonKey::Index(std::iter::once(sign).chain(digits).collect()))
}

fn json_key(r: &mut Reader<'_>) -> Read<JsonKey> {
    let plain = |r: &mut Reader<'_>| {
        let reserved = |c| matches!(c, '(' | '-' | ':' | '.' | ',' | '>' | ')');
        r.many1(|r| r.satisfy(|c| !reserved(c))).map(trimmed)
    };
    r.label("any non reserved character different from: .,>()", |r| {
        r.either(quoted, |r| r.sep_by1(plain, dash).map(|parts| parts.join("-")))
    })
    .map(JsonKey::Name)
}

fn trimmed(text: Vec<char>) -> String {
    text.into_iter().collect::<String>().trim().to_owned()
}

/// Reads a list of names: the value of `columns` and `on_conflict`.
pub(super) fn names(text: &str, parameter: &str) -> Result<Vec<String>, RestError> {
    let subject = format!("{parameter} parameter ({text})");
    parse(&subject, text, |r| r.sep_by1(field_name, |r| r.lexeme(|r| r.char(','))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_may_be_quoted_dashed_and_spaced() {
        assert_eq!(names(r#""a","b, c",d-e"#, "columns").unwrap(), ["a", "b, c", "d-e"]);
        assert_eq!(parse("", "with space ,x", field_name).unwrap(), "with space");
    }

    #[test]
    fn a_json_path_has_keys_and_indexes() {
        let field = parse("", "meta->a->>-1", field).unwrap();
        assert_eq!(field.name, "meta");
        let steps = [
            JsonStep { as_text: false, key: JsonKey::Name("a".into()) },
            JsonStep { as_text: true, key: JsonKey::Index("-1".into()) },
        ];
        assert_eq!(field.path, steps);
    }
}
