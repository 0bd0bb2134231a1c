//! Bytes to lines. The result is text that a database row can hold, whatever a program writes.

use std::borrow::Cow;

/// Longest fragment of a line that is held in memory. Longer lines go on in further fragments.
pub(crate) const FRAGMENT_LIMIT: usize = 1024 * 1024;

/// A line, or a part of one that is longer than [`FRAGMENT_LIMIT`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fragment<'a> {
    /// The text, without the line's end; invalid UTF-8 is replaced by `U+FFFD`.
    pub(crate) text: Cow<'a, str>,
    /// Whether the next fragment belongs to the same line.
    pub(crate) goes_on: bool,
}

/// Cuts one stream of bytes into lines.
#[derive(Debug, Default)]
pub(crate) struct LinePipe {
    /// The line that has not ended yet.
    rest: Vec<u8>,
}

impl LinePipe {
    /// Takes bytes in any portions, and gives each line as soon as it is complete.
    pub(crate) fn push(&mut self, mut bytes: &[u8], mut each: impl FnMut(Fragment<'_>)) {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            let (line, after) = (&bytes[..end], &bytes[end + 1..]);
            if self.rest.is_empty() {
                give(line, &mut each);
            } else {
                self.rest.extend_from_slice(line);
                give(&self.rest, &mut each);
                self.rest.clear();
            }
            bytes = after;
        }
        self.rest.extend_from_slice(bytes);
        while self.rest.len() > FRAGMENT_LIMIT {
            let cut = boundary(&self.rest, FRAGMENT_LIMIT);
            each(Fragment { text: String::from_utf8_lossy(&self.rest[..cut]), goes_on: true });
            self.rest.drain(..cut);
        }
    }

    /// Whether the next byte begins a line.
    pub(crate) fn is_at_a_beginning(&self) -> bool {
        self.rest.is_empty()
    }

    /// How many bytes of a line it holds that has not ended.
    pub(crate) fn open(&self) -> usize {
        self.rest.len()
    }

    /// Gives what is left of a stream that ended without a line end.
    pub(crate) fn finish(&mut self, mut each: impl FnMut(Fragment<'_>)) {
        if !self.rest.is_empty() {
            give(&std::mem::take(&mut self.rest), &mut each);
        }
    }
}

/// One complete line, in as many fragments as it needs.
fn give(mut line: &[u8], each: &mut impl FnMut(Fragment<'_>)) {
    while line.len() > FRAGMENT_LIMIT {
        let (fragment, after) = line.split_at(boundary(line, FRAGMENT_LIMIT));
        each(Fragment { text: String::from_utf8_lossy(fragment), goes_on: true });
        line = after;
    }
    each(Fragment { text: String::from_utf8_lossy(line), goes_on: false });
}

/// The last place at or before `at` that does not cut a UTF-8 sequence, of which no one is longer than four bytes.
fn boundary(bytes: &[u8], at: usize) -> usize {
    let is_start = |byte: u8| byte & 0xC0 != 0x80;
    (at.saturating_sub(3)..=at).rev().find(|i| bytes.get(*i).is_none_or(|byte| is_start(*byte))).unwrap_or(at)
}

/// What a terminal would have left visible of a line: of parts that overwrite each other (`\r`, progress bars) the last
/// one, no colours, no control characters. A NUL, which no text column can hold, becomes `U+FFFD`.
pub(crate) fn visible(line: &str) -> Cow<'_, str> {
    if is_plain(line.as_bytes()) {
        return Cow::Borrowed(line);
    }
    let line = line.trim_end_matches('\r');
    let last = line.rsplit('\r').find(|part| !part.is_empty()).unwrap_or("");
    let mut text = String::with_capacity(last.len());
    let mut chars = last.chars();
    while let Some(char) = chars.next() {
        match char {
            '\u{1B}' => skip_escape(&mut chars),
            '\0' => text.push('\u{FFFD}'),
            '\t' | '\n' => text.push(char),
            char if char.is_ascii_control() => {}
            char => text.push(char),
        }
    }
    Cow::Owned(text)
}

/// Whether a terminal would show all of this: no control characters but tabs and the ends of lines.
pub(crate) fn is_plain(text: &[u8]) -> bool {
    let plain = |byte: u8| byte >= 0x20 && byte != 0x7F || byte == b'\t' || byte == b'\n';
    // Without a branch per byte, so that the compiler can vectorize it.
    text.chunks(64).all(|part| part.iter().fold(true, |all, byte| all & plain(*byte)))
}

/// Skips the rest of an ANSI escape sequence: CSI (`[ … letter`), OSC (`] … BEL` or `] … ESC \`), or one character.
fn skip_escape(chars: &mut std::str::Chars<'_>) {
    match chars.next() {
        Some('[') => {
            let _final = chars.find(|char| ('\u{40}'..='\u{7E}').contains(char));
        }
        Some(']') => {
            let end = chars.find(|char| matches!(char, '\u{07}' | '\u{1B}'));
            if end == Some('\u{1B}') {
                chars.next();
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lines(portions: &[&[u8]]) -> Vec<(String, bool)> {
        let (mut pipe, mut out) = (LinePipe::default(), Vec::new());
        for portion in portions {
            pipe.push(portion, |fragment| out.push((fragment.text.into_owned(), fragment.goes_on)));
        }
        pipe.finish(|fragment| out.push((fragment.text.into_owned(), fragment.goes_on)));
        out
    }

    #[test]
    fn a_line_may_arrive_in_portions_and_end_without_a_line_end() {
        let expected: Vec<_> = ["one", "", "two", "three"].map(|line| (line.to_owned(), false)).into();
        assert_eq!(lines(&[b"o", b"ne\n\ntw", b"o\nthree"]), expected);
    }

    #[test]
    fn a_very_long_line_comes_in_pieces_that_cut_no_character() {
        let line = "é".repeat(FRAGMENT_LIMIT);
        let fragments = lines(&[b"x", line.as_bytes(), b"\n"]);
        assert!(fragments.len() >= 2);
        assert!(fragments.iter().all(|(text, _)| text.len() <= FRAGMENT_LIMIT && !text.contains('\u{FFFD}')));
        assert_eq!(fragments.iter().filter(|(_, goes_on)| !goes_on).count(), 1);
        assert_eq!(fragments.into_iter().map(|(text, _)| text).collect::<String>(), format!("x{line}"));
    }

    #[test]
    fn what_a_terminal_would_show_is_kept() {
        for (raw, shown) in [
            ("plain", "plain"),
            ("10%\r50%\r100%", "100%"),
            ("windows\r", "windows"),
            ("\u{1b}[1;31mred\u{1b}[0m", "red"),
            ("\u{1b}]0;title\u{7}text", "text"),
            ("\u{1b}]8;;http://x\u{1b}\\link\u{1b}]8;;\u{1b}\\", "link"),
            ("nul\0here", "nul\u{FFFD}here"),
            ("bell\u{7}\ttab", "bell\ttab"),
            ("\r\r", ""),
        ] {
            assert_eq!(visible(raw), shown);
        }
    }

    proptest! {
        #[test]
        fn portions_do_not_matter(bytes in proptest::collection::vec(any::<u8>(), 0..400), cut in 0..400_usize) {
            let cut = cut.min(bytes.len());
            prop_assert_eq!(lines(&[&bytes]), lines(&[&bytes[..cut], &bytes[cut..]]));
        }

        #[test]
        fn text_comes_back_whole(text in "[^\\r]{0,300}") {
            let whole: Vec<_> = lines(&[text.as_bytes()]).into_iter().map(|(line, _)| line).collect();
            prop_assert_eq!(whole.join("\n"), text.strip_suffix('\n').unwrap_or(&text));
        }

        #[test]
        fn no_control_character_is_visible(line in ".{0,100}") {
            prop_assert!(!visible(&line).chars().any(|char| char.is_ascii_control() && char != '\t'));
        }
    }
}
