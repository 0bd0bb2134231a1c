//! The names of a schema's keywords: one that constrains a value and is not enforced is refused, and so is one that looks like a
//! misspelling of one that is. What is left are annotations, for forms and readers.

use bigdecimal::{BigDecimal, Zero as _};
use strsim::osa_distance;

use super::keywords::decimal;
use crate::job::json::Json;

/// Keywords that are enforced.
const ENFORCED: &[&str] = &[
    "additionalProperties",
    "const",
    "enum",
    "exclusiveMaximum",
    "exclusiveMinimum",
    "format",
    "items",
    "maxItems",
    "maxLength",
    "maxProperties",
    "maximum",
    "minItems",
    "minLength",
    "minProperties",
    "minimum",
    "multipleOf",
    "pattern",
    "properties",
    "required",
    "sensitive",
    "type",
    "uniqueItems",
    "writeOnly",
];

/// Keywords of JSON Schema that constrain a value and are not enforced.
pub(super) const REFUSED: &[&str] = &[
    "$dynamicRef",
    "$recursiveRef",
    "$ref",
    "additionalItems",
    "allOf",
    "anyOf",
    "contains",
    "contentEncoding",
    "contentMediaType",
    "contentSchema",
    "dependencies",
    "dependentRequired",
    "dependentSchemas",
    "disallow",
    "divisibleBy",
    "else",
    "extends",
    "if",
    "maxContains",
    "minContains",
    "not",
    "oneOf",
    "patternProperties",
    "prefixItems",
    "propertyNames",
    "then",
    "unevaluatedItems",
    "unevaluatedProperties",
];

/// Annotations of JSON Schema.
const ANNOTATIONS: &[&str] = &[
    "$anchor",
    "$comment",
    "$defs",
    "$id",
    "$schema",
    "$vocabulary",
    "default",
    "definitions",
    "deprecated",
    "description",
    "examples",
    "readOnly",
    "title",
];

/// What other languages of schemas, and people who have not looked it up, call keywords that are enforced.
const OTHER_NAMES: &[(&str, &str)] = &[
    ("additionalproperty", "additionalProperties"),
    ("allowed", "enum"),
    ("allowedpattern", "pattern"),
    ("allowedvalues", "enum"),
    ("choices", "enum"),
    ("enumeration", "enum"),
    ("exclusivemax", "exclusiveMaximum"),
    ("exclusivemin", "exclusiveMinimum"),
    ("mandatory", "required"),
    ("max", "maximum"),
    ("maximumitems", "maxItems"),
    ("maximumlength", "maxLength"),
    ("maxlen", "maxLength"),
    ("maxvalue", "maximum"),
    ("min", "minimum"),
    ("minimumitems", "minItems"),
    ("minimumlength", "minLength"),
    ("minlen", "minLength"),
    ("minvalue", "minimum"),
    ("noecho", "sensitive"),
    ("property", "properties"),
    ("regex", "pattern"),
    ("regexp", "pattern"),
    ("secret", "sensitive"),
    ("typ", "type"),
];

/// The first thing that is wrong with the names in a schema and the schemas in it: a sentence.
pub(super) fn wrong_name(schema: &Json) -> Option<String> {
    let mut schemas = vec![schema];
    while let Some(schema) = schemas.pop() {
        let keywords = match schema {
            Json::Object(keywords) => keywords,
            // It would be read as its keywords in their order.
            Json::Array(_) => return Some("a schema is an object, and not an array".to_owned()),
            // What else is no schema is reported where it is read.
            _ => continue,
        };
        let sentence = |(name, value): (&String, &Json)| wrong(name).or_else(|| unenforced(name, value));
        if let Some(sentence) = keywords.iter().find_map(sentence) {
            return Some(sentence);
        }
        if let Some(Json::Object(properties)) = keywords.get("properties") {
            schemas.extend(properties.values());
        }
        schemas.extend(["items", "additionalProperties"].into_iter().filter_map(|name| keywords.get(name)));
    }
    None
}

fn wrong(name: &str) -> Option<String> {
    if ENFORCED.contains(&name) || ANNOTATIONS.contains(&name) || name.starts_with("x-") {
        return None;
    }
    if REFUSED.contains(&name) {
        return Some(format!(
            "the keyword \"{name}\" is not enforced by the agent, and must not be relied on: take it out, and check it in the template with a validation block"
        ));
    }
    let meant = meant(name)?;
    Some(format!(
        "the keyword \"{name}\" is none of JSON Schema, and not enforced: write \"{meant}\" if that is meant, or \"x-{name}\" if it is for readers"
    ))
}

/// What is wrong with the value of a keyword that would be read as if the keyword were not there.
fn unenforced(name: &str, value: &Json) -> Option<String> {
    match value {
        Json::Null if name != "const" && ENFORCED.contains(&name) => {
            Some(format!("the keyword \"{name}\" is null, and would not be enforced: take it out"))
        }
        Json::Number(number)
            if name == "multipleOf" && decimal(number).is_some_and(|number| number <= BigDecimal::zero()) =>
        {
            Some("the keyword \"multipleOf\" must be more than 0".to_owned())
        }
        _ => None,
    }
}

/// The keyword that constrains a value and that a name looks like.
fn meant(name: &str) -> Option<&'static str> {
    let plain = |name: &str| name.replace(['_', '-', ' '], "").to_lowercase();
    let written = plain(name);
    let other = OTHER_NAMES.iter().find(|(other, _)| *other == written).map(|(_, keyword)| *keyword);
    let is_like = |keyword: &&&str| {
        let keyword = plain(keyword);
        let distance = osa_distance(&written, &keyword);
        match keyword.chars().count() {
            // A short word is too near to others: it is the plural of the keyword, or two letters have changed places.
            ..=5 => {
                let letters = |word: &str| {
                    let mut letters: Vec<char> = word.chars().collect();
                    letters.sort_unstable();
                    letters
                };
                let is_plural = written.strip_suffix('s') == Some(&keyword)
                    || keyword.strip_suffix('s') == Some(&written);
                keyword.len() > 3 && (is_plural || distance <= 1 && letters(&written) == letters(&keyword))
            }
            6..=8 => distance <= 1,
            _ => distance <= 2,
        }
    };
    other.or_else(|| ENFORCED.iter().chain(REFUSED).find(is_like).copied())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelled_keyword_is_answered_with_the_one_that_is_meant() {
        for (written, keyword) in [
            ("minimun", "minimum"),
            ("Minimum", "minimum"),
            ("maxlength", "maxLength"),
            ("max_length", "maxLength"),
            ("maxLenght", "maxLength"),
            ("require", "required"),
            ("requierd", "required"),
            ("tpye", "type"),
            ("enums", "enum"),
            ("item", "items"),
            ("patern", "pattern"),
            ("additionalProperites", "additionalProperties"),
            ("additional_properties", "additionalProperties"),
            ("senstive", "sensitive"),
            ("writeonly", "writeOnly"),
            ("anyof", "anyOf"),
            ("dependentrequired", "dependentRequired"),
            ("min", "minimum"),
            ("AllowedPattern", "pattern"),
            ("secret", "sensitive"),
            ("typ", "type"),
            ("exclusiveMin", "exclusiveMinimum"),
            ("maximumLength", "maxLength"),
            ("additionalProperty", "additionalProperties"),
            ("property", "properties"),
            ("uniqueItem", "uniqueItems"),
            ("allowed", "enum"),
        ] {
            assert_eq!(meant(written), Some(keyword), "{written}");
        }
    }

    #[test]
    fn annotations_are_free() {
        let names = [
            "advanced",
            "cost",
            "group",
            "help",
            "hidden",
            "hint",
            "icon",
            "label",
            "link",
            "note",
            "order",
            "placeholder",
            "section",
            "since",
            "step",
            "tags",
            "unit",
            "widget",
            "x-minimun",
            "ui:widget",
            "enumNames",
            "errorMessage",
            "",
        ];
        for name in names.iter().chain(ANNOTATIONS).chain(ENFORCED) {
            assert_eq!(wrong(name), None, "{name}");
        }
    }
}
