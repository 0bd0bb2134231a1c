//! How values and names are written so that they are read back as they were.

/// In double quotes, with a backslash before quotes and backslashes: how `PostgREST` and Realtime read names and values in places
/// where commas, points and parentheses have a meaning.
pub(crate) fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        if matches!(c, '"' | '\\') {
            quoted.push('\\');
        }
        quoted.push(c);
    }
    quoted.push('"');
    quoted
}

/// Values in the notation of an SQL array: `{"a","b"}`.
pub(crate) fn array<'a>(values: impl IntoIterator<Item = &'a String>) -> String {
    let items: Vec<_> = values.into_iter().map(|value| quoted(value)).collect();
    format!("{{{}}}", items.join(","))
}

/// ASCII letters, digits and `_`, not beginning with a digit.
pub(crate) fn is_plain_word(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}
