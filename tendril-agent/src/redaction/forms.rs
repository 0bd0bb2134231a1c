//! The forms in which a program may print a secret: as it is, line by line, as a literal of a language, in base64, in hexadecimal
//! digits, in a URL, in HTML.
//!
//! Forms that differ in blanks, quotes and backslashes only are one (see [`super::normalize`]): the quoting of shells needs none of
//! its own, nor do strings in strings.

use std::fmt::Write as _;

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE},
};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

/// Shorter values are not hidden: they would hide parts of ordinary text, and so show themselves.
const SHORTEST: usize = 4;
/// Values that are no secrets wherever they stand, and would tear every log apart.
const COMMON: [&str; 4] = ["true", "false", "null", "none"];
/// Shorter stretches of base64 or hexadecimal digits would match by chance.
const SHORTEST_ENCODED: usize = 8;
/// Longest value that is looked for with each separator between its hexadecimal digits.
const LONGEST_SEPARATED: usize = 4096;
/// Of a value with more lines than this, a line by itself is looked for as it is written only.
const MOST_LINES: usize = 256;
/// Longest number that is written out.
const MOST_DIGITS: i64 = 4096;
/// Fields of a secret that is a JSON document (a cloud's key file) that are secrets of their own.
const SECRET_FIELDS: [&str; 5] = ["key", "secret", "token", "password", "credential"];

/// All forms of a secret.
pub(super) fn forms(secret: &str) -> Vec<String> {
    if COMMON.iter().any(|common| secret.trim().eq_ignore_ascii_case(common)) {
        return Vec::new();
    }
    let mut all = forms_of_text(secret.trim_end_matches('\n'));
    let lines: Vec<&str> = secret.lines().map(str::trim).filter(|line| line.len() >= SHORTEST).collect();
    if secret.contains('\n') && lines.len() <= MOST_LINES {
        all.extend(lines.iter().flat_map(|line| forms_of_text(line)));
    } else if secret.contains('\n') {
        all.extend(lines.iter().map(|line| (*line).to_owned()));
    }
    all.extend(written_out(secret));
    if let Ok(document @ (Value::Object(_) | Value::Array(_))) = serde_json::from_str::<Value>(secret) {
        secret_fields(&document, &mut |value| all.extend(forms(value)));
    }
    all.retain(|form| form.len() >= SHORTEST);
    all
}

fn forms_of_text(text: &str) -> Vec<String> {
    let json = json_text(text);
    let mut all = vec![
        go_json_text(&json),
        escaped(text, Escape::Unicode),
        escaped(text, Escape::Bytes),
        escaped(text, Escape::Octal),
        json,
    ];
    if text.chars().any(is_control) {
        let escapes = [
            Escape::Letters,
            Escape::ShellLetters,
            Escape::OctalLetters,
            Escape::ShortOctal,
            Escape::Numbers,
            Escape::LargeNumbers,
            Escape::Octal,
        ];
        all.extend(escapes.map(|how| escaped_controls(text, how)));
        all.extend(escapes.map(|how| escaped(&escaped_controls(text, how), Escape::Octal)));
    }
    if text.chars().any(|char| is_control(char) || !char.is_ascii()) {
        all.extend([code_points(text, false), code_points(text, true)]);
    }
    if text.contains("${") || text.contains("%{") {
        // As Terraform's language writes it.
        all.push(text.replace("${", "$${").replace("%{", "%%{"));
    }
    all.extend(html_forms(text));
    all.extend(url_forms(text));
    all.extend(base64_forms(text.as_bytes()));
    all.extend(hex_forms(text.as_bytes()));
    all.push(text.to_owned());
    all.sort_unstable();
    all.dedup();
    all
}

/// A number as Terraform prints it: all digits, no exponent, no superfluous zeros. And as a program does that reads it into a
/// double.
fn written_out(secret: &str) -> Vec<String> {
    let text = secret.trim();
    let (sign, digits) = text.strip_prefix('-').map_or(("", text), |digits| ("-", digits));
    let (mantissa, exponent) = digits.split_once(['e', 'E']).unwrap_or((digits, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let is_number =
        !whole.is_empty() && whole.bytes().chain(fraction.bytes()).all(|byte| byte.is_ascii_digit());
    let Some(exponent) =
        exponent.parse::<i64>().ok().filter(|exponent| is_number && exponent.abs() <= MOST_DIGITS)
    else {
        return Vec::new();
    };
    let all = format!("{whole}{fraction}");
    let point = i64::try_from(whole.len()).unwrap_or(0) + exponent;
    let (whole, fraction) = match usize::try_from(point) {
        Err(_) | Ok(0) => {
            (String::new(), format!("{}{all}", "0".repeat(usize::try_from(-point).unwrap_or(0))))
        }
        Ok(point) if point >= all.len() => (format!("{all}{}", "0".repeat(point - all.len())), String::new()),
        Ok(point) => (all[..point].to_owned(), all[point..].to_owned()),
    };
    let (whole, fraction) = (whole.trim_start_matches('0'), fraction.trim_end_matches('0'));
    let whole = if whole.is_empty() { "0" } else { whole };
    let exact =
        if fraction.is_empty() { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") };
    // A number like 0.5 is too short to be recognised as a secret.
    if exact.trim_start_matches(['-', '0', '.']).len() < SHORTEST {
        return Vec::new();
    }
    let mut forms = vec![exact];
    if let Ok(double) = text.parse::<f64>() {
        forms.push(format!("{double}"));
        let short = format!("{double:e}");
        if let Some((mantissa, exponent)) = short.split_once('e') {
            let (sign, digits) = exponent.strip_prefix('-').map_or(("+", exponent), |digits| ("-", digits));
            // As JavaScript does, and as Go, C and Python do.
            let long = [format!("{mantissa}e{sign}{digits}"), format!("{mantissa}e{sign}{digits:0>2}")];
            forms.extend(long.iter().map(|form| form.to_uppercase()));
            forms.extend(long);
        }
        forms.extend([short.to_uppercase(), short]);
    }
    forms
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Escape {
    /// Characters beyond ASCII as `\\u00e9`: JSON that is ASCII only.
    Unicode,
    /// Their bytes as `\\xc3\\xa9`, as most languages do.
    Bytes,
    /// Their bytes as `\\303\\251`, as shells do.
    Octal,
    /// Controls as `\\a` where they have a letter, otherwise as `\\x01`: Go.
    Letters,
    /// Controls as `\\a` where they have a letter, otherwise as `\\001`: shells.
    ShellLetters,
    /// The same without a letter for the escape character: `sed`, Perl's `B`.
    OctalLetters,
    /// Controls as `\\a` where they have a letter, otherwise as `\\1`, with as few digits as it takes: Perl.
    ShortOctal,
    /// Controls as `\\x07`: Python.
    Numbers,
    /// The same with large digits, and letters for two of them: Node.js.
    LargeNumbers,
}

/// A control that not every language writes alike.
fn is_control(char: char) -> bool {
    char.is_ascii_control() && !matches!(char, '\n' | '\r' | '\t')
}

/// The text as a literal has it that leaves everything but controls.
fn escaped_controls(text: &str, how: Escape) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(char) = chars.next() {
        let letter = match char {
            '\n' => Some('n'),
            '\r' => Some('r'),
            '\t' => Some('t'),
            '\u{1B}' if how == Escape::ShellLetters => Some('E'),
            '\u{1B}' if how == Escape::ShortOctal => Some('e'),
            '\u{8}' if how == Escape::LargeNumbers => Some('b'),
            '\u{C}' if how == Escape::LargeNumbers => Some('f'),
            _ if matches!(how, Escape::Numbers | Escape::LargeNumbers | Escape::Octal) => None,
            // It has no such letter.
            '\u{B}' if how == Escape::ShortOctal => None,
            '\u{7}' => Some('a'),
            '\u{8}' => Some('b'),
            '\u{B}' => Some('v'),
            '\u{C}' => Some('f'),
            _ => None,
        };
        let byte = u32::from(char);
        // Writing to a string cannot fail.
        let _written = match letter {
            Some(letter) => write!(out, "\\{letter}"),
            None if !char.is_ascii_control() => write!(out, "{char}"),
            None if how == Escape::ShortOctal && !chars.peek().is_some_and(char::is_ascii_digit) => {
                write!(out, "\\{byte:o}")
            }
            None if how == Escape::LargeNumbers => write!(out, "\\x{byte:02X}"),
            None if !matches!(how, Escape::Letters | Escape::Numbers) => {
                write!(out, "\\{byte:03o}")
            }
            None => write!(out, "\\x{byte:02x}"),
        };
    }
    out
}

/// Controls and what is not ASCII by their code points, in as many digits as it takes: `\\xe9`, `\\u20ac`, `\\U0001f600`, as
/// Python's `ascii` has it; with large digits, and a letter for the controls that have one, YAML.
fn code_points(text: &str, is_yaml: bool) -> String {
    let mut out = String::with_capacity(text.len());
    for char in text.chars() {
        let letter = match char {
            '\n' => Some('n'),
            '\r' => Some('r'),
            '\t' => Some('t'),
            _ if !is_yaml => None,
            '\0' => Some('0'),
            '\u{7}' => Some('a'),
            '\u{8}' => Some('b'),
            '\u{B}' => Some('v'),
            '\u{C}' => Some('f'),
            '\u{1B}' => Some('e'),
            _ => None,
        };
        let point = u32::from(char);
        // Writing to a string cannot fail.
        let _written = match (letter, point, is_yaml) {
            (Some(letter), ..) => write!(out, "\\{letter}"),
            (None, 0x20..=0x7E, _) => write!(out, "{char}"),
            (None, ..=0xFF, false) => write!(out, "\\x{point:02x}"),
            (None, ..=0xFF, true) => write!(out, "\\x{point:02X}"),
            (None, ..=0xFFFF, false) => write!(out, "\\u{point:04x}"),
            (None, ..=0xFFFF, true) => write!(out, "\\u{point:04X}"),
            (None, _, false) => write!(out, "\\U{point:08x}"),
            (None, _, true) => write!(out, "\\U{point:08X}"),
        };
    }
    out
}

/// As HTML has it, whichever way quotes are written.
fn html_forms(text: &str) -> Vec<String> {
    if !text.contains(['&', '<', '>', '"', '\'']) {
        return Vec::new();
    }
    let tags = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let quotes = [
        ("\"", "'"),
        ("&quot;", "'"),
        ("&quot;", "&apos;"),
        ("&quot;", "&#39;"),
        ("&quot;", "&#x27;"),
        ("&#34;", "&#39;"),
    ];
    quotes.map(|(double, single)| tags.replace('"', double).replace('\'', single)).into()
}

/// The text as a literal has it: controls by their letter, what is not ASCII by its number.
fn escaped(text: &str, how: Escape) -> String {
    let mut out = String::with_capacity(text.len());
    let mut units = [0; 2];
    for char in text.chars() {
        // Writing to a string cannot fail.
        let _written = match (char, how) {
            ('\n', _) => write!(out, "\\n"),
            ('\r', _) => write!(out, "\\r"),
            ('\t', _) => write!(out, "\\t"),
            (' '..='~', _) => write!(out, "{char}"),
            (_, Escape::Unicode) => {
                char.encode_utf16(&mut units).iter().try_for_each(|unit| write!(out, "\\u{unit:04x}"))
            }
            (_, Escape::Bytes | Escape::Letters | Escape::Numbers | Escape::LargeNumbers) => {
                bytes_of(char).iter().try_for_each(|byte| write!(out, "\\x{byte:02x}"))
            }
            (_, Escape::Octal | Escape::ShellLetters | Escape::OctalLetters | Escape::ShortOctal) => {
                bytes_of(char).iter().try_for_each(|byte| write!(out, "\\{byte:03o}"))
            }
        };
    }
    out
}

fn bytes_of(char: char) -> Vec<u8> {
    char.to_string().into_bytes()
}

/// Hexadecimal digits, small and large; with something before each pair, or between two.
fn hex_forms(bytes: &[u8]) -> Vec<String> {
    let lower: String = bytes.iter().fold(String::new(), |mut text, byte| {
        let _written = write!(text, "{byte:02x}");
        text
    });
    if lower.len() < SHORTEST_ENCODED {
        return Vec::new();
    }
    let pairs = |between: &str| -> String {
        let pairs = lower.as_bytes().chunks(2).map(|pair| String::from_utf8_lossy(pair).into_owned());
        pairs.collect::<Vec<_>>().join(between)
    };
    let mut forms = vec![pairs("\\x"), pairs(":")];
    if bytes.len() <= LONGEST_SEPARATED {
        forms.extend([pairs("-"), pairs("%"), pairs(",0x"), pairs(",")]);
    }
    let large = forms.iter().map(|form| form.to_ascii_uppercase().replace('X', "x")).collect::<Vec<_>>();
    forms.extend(large);
    forms.extend([lower.to_ascii_uppercase(), lower]);
    forms
}

/// As a JSON string, without its quotes.
fn json_text(text: &str) -> String {
    let json = Value::from(text).to_string();
    json[1..json.len() - 1].to_owned()
}

/// As Go writes JSON, and with it Terraform's `jsonencode`: safe inside HTML.
fn go_json_text(json: &str) -> String {
    json.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
}

/// What programs leave as it is in a URL, beside letters and digits: the standard's list, that of a path, those of browsers, that of
/// forms, nothing.
const URL_SETS: [&AsciiSet; 6] = [UNRESERVED, PATH, BROWSER, WHOLE, FORM, NON_ALPHANUMERIC];
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
const PATH: &AsciiSet = &UNRESERVED.remove(b'/');
/// What `encodeURIComponent` leaves.
const BROWSER: &AsciiSet = &UNRESERVED.remove(b'!').remove(b'*').remove(b'(').remove(b')').remove(b'\'');
/// What `encodeURI` leaves.
const WHOLE: &AsciiSet = &BROWSER
    .remove(b';')
    .remove(b',')
    .remove(b'/')
    .remove(b'?')
    .remove(b':')
    .remove(b'@')
    .remove(b'&')
    .remove(b'=')
    .remove(b'+')
    .remove(b'$')
    .remove(b'#');
const FORM: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'*');

/// Percent-encoded, with a space as `%20` and as `+`, and with digits of both cases.
fn url_forms(text: &str) -> Vec<String> {
    let mut forms = Vec::new();
    for set in URL_SETS {
        let url = utf8_percent_encode(text, set).to_string();
        forms.extend([
            lower_escapes(&url),
            lower_escapes(&url).replace("%20", "+"),
            url.replace("%20", "+"),
            url,
        ]);
    }
    // One URL inside another.
    forms.extend(forms.iter().map(|url| url.replace('%', "%25")).collect::<Vec<_>>());
    forms.sort_unstable();
    forms.dedup();
    forms
}

/// `%2F` as `%2f`.
fn lower_escapes(url: &str) -> String {
    let mut parts = url.split('%');
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (escape, rest) = part.split_at_checked(2).unwrap_or((part, ""));
        text.push('%');
        text.push_str(&escape.to_ascii_lowercase());
        text.push_str(rest);
    }
    text
}

/// Base64 of the value alone, and of the value at each of the three places it may have inside a longer text (such as
/// `user:password`), followed by something, by nothing or by the end of a line. The characters that mix with what is before or
/// after are left out.
fn base64_forms(bytes: &[u8]) -> Vec<String> {
    let mut forms = Vec::new();
    for engine in [&STANDARD, &URL_SAFE] {
        for lead in 0..3_usize {
            let first = (lead * 8).div_ceil(6);
            let mut padded = vec![0; lead];
            padded.extend_from_slice(bytes);
            let last = padded.len() * 8 / 6;
            let text = engine.encode(&padded);
            forms.extend(text.get(first..last).map(str::to_owned));
            forms.extend(text.get(first..).map(str::to_owned));
            padded.push(b'\n');
            forms.extend(engine.encode(&padded).get(first..).map(str::to_owned));
        }
    }
    let without_padding: Vec<String> =
        forms.iter().map(|form| form.trim_end_matches('=').to_owned()).collect();
    forms.extend(without_padding);
    forms.retain(|form| form.len() >= SHORTEST_ENCODED);
    forms
}

/// The strings of a document whose names mark them as secrets.
fn secret_fields(document: &Value, found: &mut impl FnMut(&str)) {
    match document {
        Value::Object(fields) => {
            for (name, field) in fields {
                let name = name.to_ascii_lowercase();
                match field {
                    Value::String(text) if SECRET_FIELDS.iter().any(|part| name.contains(part)) => {
                        found(text);
                    }
                    Value::String(_) => {}
                    nested => secret_fields(nested, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| secret_fields(item, found)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn has(secret: &str, form: &str) -> bool {
        forms(secret).iter().any(|known| form.contains(known.as_str()))
    }

    #[test]
    fn escapes_of_any_case_are_forms() {
        let secret = "a/b<c>&d\"e\\f";
        assert!(has(secret, "a%2fb%3cc%3e%26d%22e%5cf"));
        assert!(has(secret, r#"a/b\u003cc\u003e\u0026d\"e\\f"#));
        assert!(
            has("pässword", "p\\u00e4ssword")
                && has("pässword", "p\\xc3\\xa4ssword")
                && has("pässword", "p\\303\\244ssword")
        );
    }

    #[test]
    fn a_number_is_written_out_as_terraform_does() {
        for (number, printed) in [
            ("12345678.0", "12345678"),
            ("1234567890123456789012", "1234567890123456789012"),
            ("1e21", "1000000000000000000000"),
            ("1234.5e-6", "0.0012345"),
            ("-1234.50", "-1234.5"),
            ("0.00012345e4", "1.2345"),
            ("123456e2", "12345600"),
        ] {
            assert!(written_out(number).contains(&printed.to_owned()), "{number}: {:?}", written_out(number));
        }
        for (number, printed) in [
            ("12345678", "1.2345678e+07"),
            ("0.00001234", "1.234e-05"),
            ("1234e-9", "1.234e-06"),
            ("1234e-12", "1.234e-09"),
            ("1234567e100", "1.234567e+106"),
            ("-1234567e3", "-1.234567E+09"),
        ] {
            assert!(written_out(number).contains(&printed.to_owned()), "{number}: {:?}", written_out(number));
        }
        for none in ["", "-", "1.2.3", "12a", "e5", "1e", "1e99999999", "0x10", "0.0", "1"] {
            assert_eq!(written_out(none), [""; 0], "{none}");
        }
    }

    #[test]
    fn the_key_inside_a_key_file_is_a_secret_and_its_other_fields_are_not() {
        let file =
            serde_json::json!({"type": "service_account", "private_key": "-----BEGIN\nMIIEvQIBADAN\n"})
                .to_string();
        assert!(has(&file, "MIIEvQIBADAN"));
        assert!(!has(&file, "service_account"));
    }

    #[test]
    fn a_secret_of_240_kib_has_forms_of_a_few_megabytes() {
        for secret in ["x".repeat(240 * 1024), "0123456789abcdef\n".repeat(14_000)] {
            let bytes: usize = forms(&secret).iter().map(String::len).sum();
            assert!(bytes < 16 * 1024 * 1024, "{bytes}");
        }
    }
}
