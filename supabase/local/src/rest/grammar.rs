//! Reads the small language of query strings: names, quoted names, JSON paths.

use super::error::RestError;

/// A place in a text that is being read.
#[derive(Debug, Clone)]
pub(super) struct Cursor<'a> {
    rest: &'a str,
    /// Characters read so far, plus one.
    column: usize,
}

/// Why a text cannot be read: what stands there, and what should.
#[derive(Debug)]
pub(super) struct Misread {
    column: usize,
    details: String,
}

impl Misread {
    /// The error that names the parameter, as `filter (eq.1)`.
    pub(super) fn of(self, subject: &str) -> RestError {
        let message = format!("\"failed to parse {subject}\" (line 1, column {})", self.column);
        RestError::bad_request("PGRST100", message).details(self.details)
    }
}

/// Result of reading.
pub(super) type Read<T> = Result<T, Misread>;

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

impl<'a> Cursor<'a> {
    /// A cursor at the start of the text.
    pub(super) fn new(text: &'a str) -> Self {
        Self { rest: text, column: 1 }
    }

    /// The next character.
    pub(super) fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    /// What is not read yet.
    pub(super) fn rest(&self) -> &'a str {
        self.rest
    }

    /// Takes this text if it comes next.
    pub(super) fn eat(&mut self, text: &str) -> bool {
        let Some(rest) = self.rest.strip_prefix(text) else { return false };
        self.rest = rest;
        self.column += text.chars().count();
        true
    }

    /// Takes characters as long as they fit.
    pub(super) fn take_while(&mut self, fits: impl Fn(char) -> bool) -> &'a str {
        let end = self.rest.find(|c| !fits(c)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at(end);
        self.rest = rest;
        self.column += taken.chars().count();
        taken
    }

    /// Skips blanks.
    pub(super) fn blanks(&mut self) {
        self.take_while(|c| matches!(c, ' ' | '\t'));
    }

    /// Takes this text or fails.
    pub(super) fn expect(&mut self, text: &str) -> Read<()> {
        if self.eat(text) { Ok(()) } else { Err(self.misread(&format!("\"{text}\""))) }
    }

    /// An error at this place.
    pub(super) fn misread(&self, expected: &str) -> Misread {
        let found = self.peek().map_or_else(|| "end of input".to_owned(), |c| format!("\"{c}\""));
        Misread { column: self.column, details: format!("unexpected {found} expecting {expected}") }
    }

    /// A name, quoted or made of letters, digits, `_`, `$`, blanks and single dashes.
    pub(super) fn name(&mut self) -> Read<String> {
        if self.peek() == Some('"') {
            return self.quoted();
        }
        let mut name = String::new();
        loop {
            let part = self.take_while(|c| c.is_alphanumeric() || matches!(c, '_' | ' ' | '$')).trim();
            if part.is_empty() && name.is_empty() {
                return Err(self.misread("field name (* or [a..z0..9_$])"));
            }
            name.push_str(part);
            if self.rest.starts_with("->") || !self.eat("-") {
                return Ok(name);
            }
            name.push('-');
        }
    }

    /// A text in double quotes, with backslashes before quotes and backslashes.
    pub(super) fn quoted(&mut self) -> Read<String> {
        self.expect("\"")?;
        let mut text = String::new();
        loop {
            text.push_str(self.take_while(|c| c != '"' && c != '\\'));
            if self.eat("\"") {
                return Ok(text);
            }
            self.eat("\\");
            let Some(escaped) = self.peek() else { return Err(self.misread("\"\\\"\"")) };
            self.eat(escaped.encode_utf8(&mut [0; 4]));
            text.push(escaped);
        }
    }

    /// A quoted text that a separator or the end follows; otherwise nothing is read.
    pub(super) fn quoted_item(&mut self) -> Option<String> {
        let mut ahead = self.clone();
        let text = ahead.quoted().ok()?;
        if !matches!(ahead.peek(), None | Some(',' | ')')) {
            return None;
        }
        *self = ahead;
        Some(text)
    }

    /// A name with steps into JSON.
    pub(super) fn field(&mut self) -> Read<Field> {
        self.blanks();
        let name = self.name()?;
        let path = self.json_path()?;
        self.blanks();
        Ok(Field { name, path })
    }

    /// Any number of `->step` and `->>step`.
    pub(super) fn json_path(&mut self) -> Read<Vec<JsonStep>> {
        let mut path = Vec::new();
        loop {
            let as_text = self.eat("->>");
            if !as_text && !self.eat("->") {
                return Ok(path);
            }
            path.push(JsonStep { as_text, key: self.json_key()? });
        }
    }

    fn json_key(&mut self) -> Read<JsonKey> {
        let mut ahead = self.clone();
        let sign = if ahead.eat("-") { '-' } else { '+' };
        let digits = ahead.take_while(|c| c.is_ascii_digit());
        let ends = ahead.rest.is_empty()
            || ["->", "::", ".", ",", ")"].iter().any(|end| ahead.rest.starts_with(end));
        if digits.is_empty() || !ends {
            return self.name().map(JsonKey::Name);
        }
        *self = ahead;
        Ok(JsonKey::Index(format!("{sign}{digits}")))
    }
}

/// Reads a whole list of names: the value of `columns` and `on_conflict`.
pub(super) fn names(text: &str, parameter: &str) -> Result<Vec<String>, RestError> {
    let mut cursor = Cursor::new(text);
    let mut read = || {
        let mut names = vec![cursor.name()?];
        loop {
            cursor.blanks();
            if !cursor.eat(",") {
                return Ok(names);
            }
            cursor.blanks();
            names.push(cursor.name()?);
        }
    };
    read().map_err(|error: Misread| error.of(&format!("{parameter} parameter ({text})")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_may_be_quoted_dashed_and_spaced() {
        assert_eq!(names(r#""a","b, c",d-e"#, "columns").unwrap(), ["a", "b, c", "d-e"]);
        assert_eq!(Cursor::new("with space ,x").name().unwrap(), "with space");
    }

    #[test]
    fn a_json_path_has_keys_and_indexes() {
        let field = Cursor::new("meta->a->>-1").field().unwrap();
        assert_eq!(field.name, "meta");
        let steps = [
            JsonStep { as_text: false, key: JsonKey::Name("a".into()) },
            JsonStep { as_text: true, key: JsonKey::Index("-1".into()) },
        ];
        assert_eq!(field.path, steps);
    }
}
