//! Terraform's language, as far as it must be read without Terraform: tokens, and the arguments of the blocks of a file.
//!
//! A parser of the whole language would refuse what is newer than itself. Here nothing is refused.

/// Most words of a line that are kept.
const MOST_WORDS: usize = 3;

/// Visits each argument that stands directly in a block of the file: the block's head (its type and labels, three of them at
/// most), the argument's name, and the first token of its value.
pub(crate) fn arguments<'a>(text: &'a str, mut visit: impl FnMut(&[Token<'a>], &'a str, Option<Token<'a>>)) {
    let mut scanner = Scanner::new(text);
    let mut depth = 0_usize;
    // The words and strings since the line began; at the top level they are a block's head.
    let (mut line, mut block) = (Vec::new(), Vec::new());
    while let Some(token) = scanner.next_token() {
        match token {
            Token::Sign('{' | '[' | '(') => {
                if depth == 0 {
                    block.clone_from(&line);
                }
                depth += 1;
                line.clear();
            }
            Token::Sign('}' | ']' | ')') => {
                depth = depth.saturating_sub(1);
                line.clear();
            }
            Token::Newline => line.clear(),
            Token::Sign('=') if depth == 1 => {
                if let [Token::Word(name)] = line.as_slice() {
                    visit(&block, name, scanner.peek());
                }
                line.clear();
            }
            token if line.len() < MOST_WORDS => line.push(token),
            _ => {}
        }
    }
}

/// A word, a string or a sign of the language.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Token<'a> {
    /// A word: a name, a keyword, a number.
    Word(&'a str),
    /// What is between the quotes.
    Text(&'a str),
    Sign(char),
    Newline,
}

/// Cuts a file into tokens: comments, strings with `${…}` inside them, heredocs and blocks are distinguished.
struct Scanner<'a> {
    rest: &'a str,
}

impl<'a> Scanner<'a> {
    fn new(text: &'a str) -> Self {
        Self { rest: text.strip_prefix('\u{feff}').unwrap_or(text) }
    }

    fn peek(&self) -> Option<Token<'a>> {
        Self { rest: self.rest }.next_token()
    }

    fn next_token(&mut self) -> Option<Token<'a>> {
        loop {
            self.rest = self.rest.trim_start_matches([' ', '\t', '\r']);
            let first = self.rest.chars().next()?;
            if first == '#' || self.rest.starts_with("//") {
                self.skip(self.rest.find('\n').unwrap_or(self.rest.len()));
            } else if self.rest.starts_with("/*") {
                self.skip(self.rest.find("*/").map_or(self.rest.len(), |at| at + 2));
            } else if self.rest.starts_with("<<") && self.skip_heredoc() {
                return Some(Token::Sign('"'));
            } else if first == '"' {
                let length = text_length(&self.rest[1..]);
                let text = &self.rest[1..=length];
                self.skip((length + 2).min(self.rest.len()));
                return Some(Token::Text(text));
            } else if is_of_word(first) {
                let length = self.rest.find(|c| !is_of_word(c)).unwrap_or(self.rest.len());
                let word = &self.rest[..length];
                self.skip(length);
                return Some(Token::Word(word));
            } else {
                self.skip(first.len_utf8());
                return Some(if first == '\n' { Token::Newline } else { Token::Sign(first) });
            }
        }
    }

    fn skip(&mut self, bytes: usize) {
        self.rest = &self.rest[bytes..];
    }

    /// Skips `<<NAME` or `<<-NAME` to the end of the line that is nothing but the name. Answers whether it was one.
    fn skip_heredoc(&mut self) -> bool {
        let head = self.rest.strip_prefix("<<").unwrap_or_default();
        let head = head.strip_prefix('-').unwrap_or(head);
        let name = &head[..head.find(|c| !is_of_word(c)).unwrap_or(head.len())];
        let after = head[name.len()..].trim_start_matches([' ', '\t', '\r']);
        let Some(body) = after.strip_prefix('\n').filter(|_| !name.is_empty()) else { return false };
        let mut length = 0;
        for line in body.split_inclusive('\n') {
            if line.trim() == name {
                // Its newline ends the argument as well.
                self.rest = &body[length + line.trim_end().len()..];
                return true;
            }
            length += line.len();
        }
        self.rest = "";
        true
    }
}

pub(crate) fn is_of_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '-'
}

/// Length of a string up to its closing quote; quotes inside `${…}` and `%{…}` are not its own.
fn text_length(text: &str) -> usize {
    let bytes = text.as_bytes();
    // Where we are: in a string, or within so many braces of a template in one; a stack, since a file may nest them a million deep.
    let mut inside = vec![None];
    let mut at = 0;
    while let Some(place) = inside.last_mut().filter(|_| at < bytes.len()) {
        let pair = bytes.get(at + 1) == Some(&b'{');
        match (place, bytes[at]) {
            (None, b'"') => {
                inside.pop();
                if inside.is_empty() {
                    return at;
                }
            }
            (None, b'\\') => at += 1,
            // `$${` is no beginning of anything.
            (None, mark @ (b'$' | b'%')) if bytes[at + 1..].starts_with(&[mark, b'{']) => at += 2,
            (None, b'$' | b'%') if pair => {
                inside.push(Some(1_usize));
                at += 1;
            }
            (Some(_), b'"') => inside.push(None),
            (Some(braces), b'{') => *braces += 1,
            (Some(1), b'}') => {
                inside.pop();
            }
            (Some(braces), b'}') => *braces -= 1,
            _ => {}
        }
        at += 1;
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<String> {
        let mut found = Vec::new();
        arguments(text, |block, name, value| found.push(format!("{block:?} {name} {value:?}")));
        found
    }

    #[test]
    fn arguments_are_visited_with_the_head_of_their_block_and_their_first_token() {
        let text = "a = 1\nterraform {\n  required_version = \">= 1.9\" # yes\n  required_providers {\n    x = \"no\"\n  }\n}\n\
                    credentials \"app.terraform.io\" { token = \"t0ken\" }\n";
        assert_eq!(
            found(text),
            [
                r#"[Word("terraform")] required_version Some(Text(">= 1.9"))"#,
                r#"[Word("credentials"), Text("app.terraform.io")] token Some(Text("t0ken"))"#,
            ]
        );
    }
}
