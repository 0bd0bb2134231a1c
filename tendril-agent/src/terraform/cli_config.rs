//! Terraform's CLI configuration: the credentials in it, which no log may show.

use std::{fs, path::Path};

use serde_json::Value;

use crate::template::hcl::{self, Token};

/// The tokens in a CLI configuration (`credentials "app.terraform.io" { token = "…" }`), in either of its two languages. Of a file
/// that cannot be read there are none: Terraform cannot read it either.
pub(crate) fn credentials(file: &Path) -> Vec<String> {
    let Ok(text) = fs::read_to_string(file) else { return Vec::new() };
    let mut found = Vec::new();
    if let Ok(root) = serde_json::from_str::<Value>(&text) {
        strings(&root["credentials"], &mut found);
        return found;
    }
    hcl::arguments(&text, |block, argument, value| {
        if let ([Token::Word("credentials"), ..], "token", Some(Token::Text(token))) =
            (block, argument, value)
        {
            let plain = serde_json::from_str(&format!("\"{token}\""));
            found.extend(plain.ok().filter(|plain: &String| plain != token));
            found.push(token.to_owned());
        }
    });
    found
}

fn strings(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::String(text) => found.push(text.clone()),
        Value::Array(items) => items.iter().for_each(|item| strings(item, found)),
        Value::Object(fields) => fields.values().for_each(|field| strings(field, found)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tokens_of_a_configuration_are_found_in_both_languages() {
        let dir = tempfile::tempdir().unwrap();
        let of = |text: &str| {
            let file = dir.path().join("config");
            fs::write(&file, text).unwrap();
            credentials(&file)
        };
        let text = "# credentials \"x\" { token = \"no\" }\nplugin_cache_dir = \"/c\"\ncredentials \"app.terraform.io\" {\n  token = \"one\"\n}\n\
                    credentials \"b.example\" { token = \"t\\\"wo\" }\nprovider_installation {\n  direct { token = \"no\" }\n}\n";
        assert_eq!(of(text), ["one", "t\"wo", "t\\\"wo"]);
        assert_eq!(
            of(r#"{"credentials": {"app.terraform.io": {"token": "one"}, "b": [{"token": "two"}]}}"#),
            ["one", "two"]
        );
        assert!(of("{").is_empty() && credentials(Path::new("/no/such")).is_empty());
    }
}
