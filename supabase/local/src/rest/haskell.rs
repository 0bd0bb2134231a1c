//! Texts and characters as Haskell prints them, in quotes: PostgREST's messages have them.

/// A character as Haskell prints a text of it.
pub(super) fn shown_text(c: char) -> String {
    shown(c.encode_utf8(&mut [0; 4]))
}

/// A text as Haskell prints it.
pub(super) fn shown(text: &str) -> String {
    let mut out = String::from("\"");
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c == '"' {
            out.push_str("\\\"");
            continue;
        }
        let code = escaped(c);
        // Digits after a number, and an H after SO, would be read as part of it.
        let next = chars.peek();
        let ambiguous = code.ends_with(|c: char| c.is_ascii_digit())
            && code.len() > 1
            && next.is_some_and(char::is_ascii_digit)
            || code == "\\SO" && next == Some(&'H');
        out.push_str(&code);
        if ambiguous {
            out.push_str("\\&");
        }
    }
    out.push('"');
    out
}

/// A character as Haskell prints it.
pub(super) fn shown_char(c: char) -> String {
    if c == '\'' { "'\\''".to_owned() } else { format!("'{}'", escaped(c)) }
}

/// A character inside of quotes, as Haskell escapes it.
fn escaped(c: char) -> String {
    const CONTROLS: [&str; 32] = [
        "NUL", "SOH", "STX", "ETX", "EOT", "ENQ", "ACK", "a", "b", "t", "n", "v", "f", "r", "SO", "SI",
        "DLE", "DC1", "DC2", "DC3", "DC4", "NAK", "SYN", "ETB", "CAN", "EM", "SUB", "ESC", "FS", "GS", "RS",
        "US",
    ];
    let code = u32::from(c);
    match (c, CONTROLS.get(code as usize)) {
        (_, Some(name)) => format!("\\{name}"),
        ('\\', _) => "\\\\".to_owned(),
        ('\u{7f}', _) => "\\DEL".to_owned(),
        (' '..='~', _) => c.to_string(),
        _ => format!("\\{code}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_are_printed_as_by_haskell() {
        assert_eq!(shown("a\"\\\n\u{e9}1\u{0e}H\u{7f}"), r#""a\"\\\n\233\&1\SO\&H\DEL""#);
        assert_eq!((shown_char('\''), shown_char('"')), (r"'\''".to_owned(), "'\"'".to_owned()));
    }
}
