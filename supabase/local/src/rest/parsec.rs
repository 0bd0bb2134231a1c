//! Reads texts as Parsec does, the library by which PostgREST reads query strings, so that errors have its words and columns.
//!
//! What matters is when an alternative is tried (only if the one before it took nothing) and which of several errors is reported: the
//! one farthest to the right; several at one place are joined.

use super::error::RestError;
use super::haskell::{shown, shown_char, shown_text};

/// Why a text cannot be read; without messages nothing is known to be wrong.
#[derive(Debug, Clone, Default)]
pub(super) struct Misread {
    line: usize,
    column: usize,
    messages: Vec<Message>,
}

/// Ordered as they are reported.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    /// What stands there; empty at the end.
    Found,
    /// What must not stand there.
    Unexpected,
    /// What could.
    Expected,
}

#[derive(Debug, Clone)]
struct Message {
    kind: Kind,
    text: String,
}

/// Result of reading; the error is with the reader.
pub(super) type Read<T> = Result<T, Failed>;

/// The text is not what it should be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Failed;

/// A place in a text.
#[derive(Debug, Clone)]
pub(super) struct Reader<'a> {
    rest: &'a str,
    line: usize,
    column: usize,
    /// What is known to be wrong at this place, if the next part fails too.
    error: Misread,
    /// Whether the current part has taken anything.
    consumed: bool,
}

/// Reads a parameter from its beginning. What follows is left unread.
///
/// # Errors
/// PGRST100, naming the subject, such as `filter (eq.1)`.
pub(super) fn parse<'a, T>(
    subject: &str,
    text: &'a str,
    part: impl FnOnce(&mut Reader<'a>) -> Read<T>,
) -> Result<T, RestError> {
    let mut reader = Reader { rest: text, line: 1, column: 1, error: Misread::default(), consumed: false };
    part(&mut reader).map_err(|Failed| {
        let Misread { line, column, .. } = reader.error;
        let message = format!("\"failed to parse {subject}\" (line {line}, column {column})");
        RestError::bad_request("PGRST100", message).details(reader.error.message())
    })
}

impl Misread {
    fn of(reader: &Reader<'_>, messages: Vec<Message>) -> Self {
        Self { line: reader.line, column: reader.column, messages }
    }

    /// Both errors, or the one with more detail.
    fn merge(self, other: Self) -> Self {
        if other.messages.is_empty() {
            return self;
        }
        if self.messages.is_empty() {
            return other;
        }
        match (self.line, self.column).cmp(&(other.line, other.column)) {
            std::cmp::Ordering::Greater => self,
            std::cmp::Ordering::Less => other,
            std::cmp::Ordering::Equal => {
                Self { messages: self.messages.into_iter().chain(other.messages).collect(), ..self }
            }
        }
    }

    /// The same place, but this is what could stand there.
    fn expecting(mut self, label: &str) -> Self {
        self.messages.retain(|message| message.kind != Kind::Expected);
        self.messages.push(Message { kind: Kind::Expected, text: label.to_owned() });
        self
    }

    /// In PostgREST's words.
    fn message(&self) -> String {
        let of = |kind: Kind| {
            let mut texts: Vec<&str> = Vec::new();
            for message in self.messages.iter().filter(|message| message.kind == kind) {
                if !message.text.is_empty() && !texts.contains(&message.text.as_str()) {
                    texts.push(&message.text);
                }
            }
            match texts.split_last() {
                None => String::new(),
                Some((last, [])) => (*last).to_owned(),
                Some((last, others)) => format!("{} or {last}", others.join(", ")),
            }
        };
        let (unexpected, expected) = (of(Kind::Unexpected), of(Kind::Expected));
        let found = self.messages.iter().find(|message| message.kind == Kind::Found);
        let found = match found {
            _ if !unexpected.is_empty() => format!("unexpected {unexpected}"),
            None => String::new(),
            Some(Message { text, .. }) if text.is_empty() => "unexpected end of input".to_owned(),
            Some(Message { text, .. }) => format!("unexpected {text}"),
        };
        let expected = if expected.is_empty() { expected } else { format!("expecting {expected}") };
        if found.is_empty() && expected.is_empty() {
            return "unknown parse error".to_owned();
        }
        format!("{found} {expected}").replace('\n', " ").trim().to_owned()
    }
}

impl Reader<'_> {
    /// Runs a part with an error and a memory of its own. If it takes nothing, its error joins the one before it.
    fn part<T>(&mut self, part: impl FnOnce(&mut Self) -> Read<T>) -> (Read<T>, bool) {
        let before = std::mem::take(&mut self.error);
        let consumed = std::mem::replace(&mut self.consumed, false);
        let result = part(self);
        let took = self.consumed;
        if !took {
            self.error = before.merge(std::mem::take(&mut self.error));
            self.consumed = consumed;
        }
        (result, took)
    }

    fn fail<T>(&mut self, messages: Vec<Message>) -> Read<T> {
        let error = Misread::of(self, messages);
        self.error = std::mem::take(&mut self.error).merge(error);
        Err(Failed)
    }

    fn advance(&mut self, c: char) {
        self.rest = &self.rest[c.len_utf8()..];
        match c {
            '\n' => (self.line, self.column) = (self.line + 1, 1),
            '\t' => self.column += 8 - (self.column - 1) % 8,
            _ => self.column += 1,
        }
        self.consumed = true;
        self.error = Misread::default();
    }

    /// One character that fits.
    pub(super) fn satisfy(&mut self, fits: impl Fn(char) -> bool) -> Read<char> {
        match self.rest.chars().next() {
            Some(c) if fits(c) => {
                self.advance(c);
                Ok(c)
            }
            found => {
                let text = found.map(shown_text).unwrap_or_default();
                self.fail(vec![Message { kind: Kind::Found, text }])
            }
        }
    }

    /// This character.
    pub(super) fn char(&mut self, wanted: char) -> Read<char> {
        self.label(&shown_text(wanted), |r| r.satisfy(|c| c == wanted))
    }

    /// This text. Its first character alone counts as taken.
    pub(super) fn string(&mut self, wanted: &str) -> Read<()> {
        let mut rest = self.rest.chars();
        for (index, c) in wanted.chars().enumerate() {
            let found = rest.next();
            if found != Some(c) {
                let text = found.map(shown_text).unwrap_or_default();
                let expected = Message { kind: Kind::Expected, text: shown(wanted) };
                let result = if index == 0 {
                    self.fail(vec![Message { kind: Kind::Found, text }, expected])
                } else {
                    self.error = Misread::of(self, vec![Message { kind: Kind::Found, text }, expected]);
                    self.consumed = true;
                    Err(Failed)
                };
                return result;
            }
        }
        wanted.chars().for_each(|c| self.advance(c));
        Ok(())
    }

    /// The end of the text.
    pub(super) fn eof(&mut self) -> Read<()> {
        self.label("end of input", |r| match r.rest.chars().next() {
            None => Ok(()),
            Some(c) => r.fail(vec![Message { kind: Kind::Unexpected, text: shown_char(c) }]),
        })
    }

    /// Succeeds if this character does not come next; takes nothing.
    pub(super) fn not_followed_by(&mut self, fits: impl Fn(char) -> bool) -> Read<()> {
        let found = self.rest.chars().next().filter(|c| fits(*c));
        let Some(c) = found else { return Ok(()) };
        // The error stands behind the character.
        let mut behind = self.clone();
        behind.advance(c);
        let error = Misread::of(&behind, vec![Message { kind: Kind::Unexpected, text: shown_char(c) }]);
        self.error = std::mem::take(&mut self.error).merge(error);
        Err(Failed)
    }

    /// A part by another name: what it expects is reported as this, if it has taken nothing.
    pub(super) fn label<T>(&mut self, label: &str, part: impl FnOnce(&mut Self) -> Read<T>) -> Read<T> {
        self.part(|r| {
            let (result, took) = r.part(part);
            if !took && (result.is_err() || !r.error.messages.is_empty()) {
                // An error without a place is one of this place.
                if r.error.messages.is_empty() {
                    r.error = Misread::of(r, Vec::new());
                }
                r.error = std::mem::take(&mut r.error).expecting(label);
            }
            r.consumed = took;
            result
        })
        .0
    }

    /// A part that takes nothing if it fails.
    pub(super) fn attempt<T>(&mut self, part: impl FnOnce(&mut Self) -> Read<T>) -> Read<T> {
        let (rest, line, column) = (self.rest, self.line, self.column);
        self.part(|r| {
            let result = part(r);
            if result.is_err() {
                (r.rest, r.line, r.column, r.consumed) = (rest, line, column, false);
            }
            result
        })
        .0
    }

    /// The first part, or the second if the first fails and has taken nothing.
    pub(super) fn either<T>(
        &mut self,
        first: impl FnOnce(&mut Self) -> Read<T>,
        second: impl FnOnce(&mut Self) -> Read<T>,
    ) -> Read<T> {
        match self.part(first) {
            (Err(Failed), false) => self.part(second).0,
            (result, _) => result,
        }
    }

    /// A part, or nothing if it fails and has taken nothing.
    pub(super) fn optional<T>(&mut self, part: impl FnOnce(&mut Self) -> Read<T>) -> Read<Option<T>> {
        self.either(|r| part(r).map(Some), |_| Ok(None))
    }

    /// A part as often as it comes.
    pub(super) fn many<T>(&mut self, mut part: impl FnMut(&mut Self) -> Read<T>) -> Read<Vec<T>> {
        let mut found = Vec::new();
        loop {
            match self.part(&mut part) {
                (Ok(one), true) => found.push(one),
                // Something that takes nothing would come for ever.
                (Ok(_) | Err(Failed), false) => return Ok(found),
                (Err(Failed), true) => return Err(Failed),
            }
        }
    }

    /// A part at least once.
    pub(super) fn many1<T>(&mut self, mut part: impl FnMut(&mut Self) -> Read<T>) -> Read<Vec<T>> {
        let first = part(self)?;
        let mut found = vec![first];
        found.extend(self.many(part)?);
        Ok(found)
    }

    /// Parts with separators between them, at least one.
    pub(super) fn sep_by1<T, S>(
        &mut self,
        mut part: impl FnMut(&mut Self) -> Read<T>,
        mut separator: impl FnMut(&mut Self) -> Read<S>,
    ) -> Read<Vec<T>> {
        let mut found = vec![part(self)?];
        found.extend(self.many(|r| {
            separator(r)?;
            part(r)
        })?);
        Ok(found)
    }

    /// Succeeds if this text comes next; takes nothing either way.
    pub(super) fn ahead(&mut self, wanted: &str) -> Read<()> {
        let (rest, line, column) = (self.rest, self.line, self.column);
        self.attempt(|r| {
            r.string(wanted)?;
            (r.rest, r.line, r.column, r.consumed) = (rest, line, column, false);
            r.error = Misread::default();
            Ok(())
        })
    }

    /// A part with blanks around it.
    pub(super) fn lexeme<T>(&mut self, part: impl FnOnce(&mut Self) -> Read<T>) -> Read<T> {
        self.blanks()?;
        let found = part(self)?;
        self.blanks()?;
        Ok(found)
    }

    fn blanks(&mut self) -> Read<()> {
        self.many(|r| r.satisfy(|c| matches!(c, ' ' | '\t'))).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::super::query::Query;

    /// Column and details of the refusal of a query string.
    fn refusal(query: &str) -> (usize, String) {
        let error = Query::parse(query, false).unwrap_err().to_json();
        let error: serde_json::Value = serde_json::from_str(&error).unwrap();
        let message = error["message"].as_str().unwrap();
        let column = message.rsplit_once("column ").unwrap().1.trim_end_matches(')').parse().unwrap();
        (column, error["details"].as_str().unwrap().to_owned())
    }

    /// As PostgREST's own documentation of its parsers has them.
    #[test]
    fn errors_have_the_words_and_columns_of_postgrest() {
        for (query, column, details) in [
            (
                "select=id,clients(name[])",
                16,
                r#"unexpected '[' expecting letter, digit, "-", "->>", "->", "::", ".", ")", "," or end of input"#,
            ),
            (
                "select=data->>-78xy",
                11,
                r#"unexpected 'x' expecting digit, "->", "::", ".", "," or end of input"#,
            ),
            ("order=id.ac", 4, r#"unexpected "c" expecting "asc", "desc", "nullsfirst" or "nullslast""#),
            (
                "order=id.nulsfist",
                4,
                r#"unexpected "n" expecting "asc", "desc", "nullsfirst" or "nullslast""#,
            ),
            (
                "order=clients(name,id)",
                8,
                r#"unexpected '(' expecting letter, digit, "-", "->>", "->", delimiter (.), "," or end of input"#,
            ),
            ("order=id.descc", 8, r#"unexpected 'c' expecting delimiter (.), "," or end of input"#),
            ("order=id.nullslasttt", 13, r#"unexpected 't' expecting "," or end of input"#),
            ("order=id.asc.nlsfst", 8, r#"unexpected "l" expecting "nullsfirst" or "nullslast""#),
            (
                "or=()",
                4,
                "unexpected \")\" expecting field name (* or [a..z0..9_$]), negation operator (not) or logic operator \
                 (and, or)",
            ),
            ("or=(id.in.1,2,id.eq.3)", 10, r#"unexpected "1" expecting "(""#),
            ("or=)(", 3, r#"unexpected ")" expecting "(""#),
            ("and=(ord(id.eq.1,id.eq.1),id.eq.2)", 7, r#"unexpected "d" expecting "(""#),
            (
                "or=(id.eq.1,not.xor(id.eq.2,id.eq.3))",
                16,
                r#"unexpected "x" expecting logic operator (and, or)"#,
            ),
            ("a=fts().value", 5, r#"unexpected ")" expecting operator (eq, gt, ...)"#),
            ("a=eq().value", 4, r#"unexpected ")" expecting operator (eq, gt, ...)"#),
            ("a=is().value", 3, r#"unexpected "(" expecting operator (eq, gt, ...)"#),
            ("a=in().value", 3, r#"unexpected "(" expecting operator (eq, gt, ...)"#),
            ("on_conflict=%3A", 1, r#"unexpected ":" expecting field name (* or [a..z0..9_$])"#),
            // Characters that Haskell escapes when it shows them.
            ("on_conflict=%00", 1, r#"unexpected "\NUL" expecting field name (* or [a..z0..9_$])"#),
            ("on_conflict=%5C", 1, r#"unexpected "\\" expecting field name (* or [a..z0..9_$])"#),
            ("on_conflict=%22a", 3, r#"unexpected end of input expecting "\\" or "\"""#),
        ] {
            assert_eq!(refusal(query), (column, details.to_owned()), "{query}");
        }
    }
}
