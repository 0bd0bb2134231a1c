//! Where a text may be cut.

/// The last position up to `limit` at which no character is cut apart.
pub(crate) fn char_floor(text: &str, limit: usize) -> usize {
    (0..=limit.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

/// The whole lines of a text whose beginning was cut off: everything after the first line, which must not be shown, as the
/// redactor does not recognize a part of a secret. Empty where there is one line only.
pub(crate) fn without_torn_line(text: &str) -> &str {
    text.split_once('\n').map_or("", |(_torn, whole)| whole)
}

/// The beginning of a text, cut at a blank: tokens have none, so no part of one is left, which the redactor would not recognize.
pub(crate) fn whole_words(text: &str, limit: usize) -> &str {
    if text.len() <= limit {
        return text;
    }
    let head = &text[..char_floor(text, limit)];
    head.rsplit_once(char::is_whitespace).map_or("", |(whole, _torn)| whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_half_word_and_no_half_line_is_left() {
        assert_eq!(["", "torn", "torn\nwhole\nlast"].map(without_torn_line), ["", "", "whole\nlast"]);
        assert_eq!(
            [0, 3, 5, 7, 8, 99].map(|limit| whole_words("one two", limit)),
            ["", "", "one", "one two", "one two", "one two"]
        );
        assert_eq!(whole_words("secret", 3), "");
    }

    #[test]
    fn no_character_is_cut_apart() {
        assert_eq!([0, 1, 2, 3, 9].map(|limit| char_floor("aé€", limit)), [0, 1, 1, 3, 6]);
    }
}
