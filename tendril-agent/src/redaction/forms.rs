//! The forms in which a program may print a secret: as it is, line by line, as a JSON string, in base64, in a URL.

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE},
};
use serde_json::Value;

/// Shorter values are not hidden: they would tear ordinary words apart and give themselves away by it.
const SHORTEST: usize = 4;
/// Values that are no secrets wherever they stand, and would tear every log apart.
const COMMON: [&str; 4] = ["true", "false", "null", "none"];
/// Shorter stretches of base64 would match by chance.
const SHORTEST_BASE64: usize = 8;
/// Where programs break base64 into lines: MIME and `base64`, PEM.
const WIDTHS: [usize; 2] = [76, 64];
/// Fields of a secret that is a JSON document (a cloud's key file) that are secrets of their own.
const SECRET_FIELDS: [&str; 5] = ["key", "secret", "token", "password", "credential"];

/// All forms of a secret.
pub(super) fn forms(secret: &str) -> Vec<String> {
    if COMMON.iter().any(|common| secret.trim().eq_ignore_ascii_case(common)) {
        return Vec::new();
    }
    let mut plain = vec![secret.to_owned(), secret.trim().to_owned()];
    if secret.contains('\n') {
        plain.extend(secret.lines().map(|line| line.trim().to_owned()));
        // `set -x` and many loggers print a multi-line value on one line.
        plain.push(secret.lines().collect::<Vec<_>>().join(" "));
    }
    let mut all = Vec::new();
    for text in plain {
        let json = json_text(&text);
        // A document inside a document, such as a policy in a variable.
        all.push(json_text(&json));
        all.push(go_json_text(&json));
        all.push(json);
        let url: String = url::form_urlencoded::byte_serialize(text.as_bytes()).collect();
        // As `encodeURIComponent` writes it: a space is `%20`, not `+`.
        let percent = url.replace('+', "%20");
        all.extend([lower_escapes(&url), lower_escapes(&percent), url, percent]);
        all.extend(base64_forms(text.as_bytes()));
        all.push(text);
    }
    if let Ok(document) = serde_json::from_str::<Value>(secret) {
        secret_fields(&document, &mut |value| all.extend(forms(value)));
    }
    all.retain(|form| form.len() >= SHORTEST);
    all
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
/// `user:password`); the characters that mix with neighbours are left out. Long ones line by line too.
fn base64_forms(bytes: &[u8]) -> Vec<String> {
    let mut forms = Vec::new();
    for engine in [&STANDARD, &URL_SAFE] {
        for lead in 0..3_usize {
            let mut padded = vec![0; lead];
            padded.extend_from_slice(bytes);
            let text = engine.encode(&padded);
            let first = (lead * 8).div_ceil(6);
            let last = padded.len() * 8 / 6;
            forms.extend(text.get(first..last).map(str::to_owned));
        }
        let text = engine.encode(bytes);
        for width in WIDTHS.into_iter().filter(|width| text.len() > *width) {
            let lines = text.as_bytes().chunks(width);
            forms.extend(lines.map(|line| String::from_utf8_lossy(line).into_owned()));
        }
    }
    forms.retain(|form| form.len() >= SHORTEST_BASE64);
    forms
}

/// The strings of a document whose names say that they are secrets.
fn secret_fields(document: &Value, found: &mut impl FnMut(&str)) {
    match document {
        Value::Object(fields) => {
            for (name, field) in fields {
                let name = name.to_ascii_lowercase();
                match field {
                    Value::String(text) if SECRET_FIELDS.iter().any(|word| name.contains(word)) => {
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
    fn escapes_of_any_case_and_depth_are_forms() {
        let secret = "a/b<c>&d\"e\\f";
        assert!(has(secret, "a%2fb%3cc%3e%26d%22e%5cf"));
        assert!(has(secret, r#""a/b\u003cc\u003e\u0026d\"e\\f""#));
        let nested = serde_json::json!({"x": serde_json::json!({"y": secret}).to_string()}).to_string();
        assert!(has(secret, &nested), "{nested}");
    }

    #[test]
    fn base64_that_is_broken_into_lines_is_a_form() {
        let secret = "0123456789abcdef".repeat(10);
        let text = STANDARD.encode(&secret);
        for line in text.as_bytes().chunks(76).chain(text.as_bytes().chunks(64)) {
            let line = String::from_utf8_lossy(line);
            assert!(line.len() < SHORTEST_BASE64 || forms(&secret).contains(&line.to_string()), "{line}");
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
}
