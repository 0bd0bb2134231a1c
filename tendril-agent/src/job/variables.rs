//! The part of JSON Schema that a `template.json` may use for its variables, with errors for people.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, Ipv6Addr},
};

use bigdecimal::{BigDecimal, Zero as _};
use serde::{Deserialize, Deserializer, de::Error as _};
use serde_json::Value;

use crate::job::json::{Fields, Json, not_exact};

/// What a value may be. Of the keywords that are not listed here, those of JSON Schema that would constrain a value are refused when
/// the file is read ([`REFUSED`]); all others are for forms and readers.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Schema {
    /// One type, or several.
    #[serde(rename = "type")]
    kinds: Kinds,
    #[serde(rename = "enum")]
    choices: Option<Vec<Json>>,
    #[serde(rename = "const", deserialize_with = "given")]
    constant: Option<Json>,
    pattern: Option<Pattern>,
    format: Option<Format>,
    minimum: Option<Bound>,
    maximum: Option<Bound>,
    exclusive_minimum: Option<Bound>,
    exclusive_maximum: Option<Bound>,
    multiple_of: Option<Bound>,
    min_length: Option<usize>,
    max_length: Option<usize>,
    min_items: Option<usize>,
    max_items: Option<usize>,
    unique_items: bool,
    min_properties: Option<usize>,
    max_properties: Option<usize>,
    items: Option<Box<Schema>>,
    properties: BTreeMap<String, Schema>,
    required: Vec<String>,
    additional_properties: Additional,
    /// The value must appear nowhere; `writeOnly` is JSON Schema's name for it.
    sensitive: bool,
    write_only: bool,
    /// Everything else.
    #[serde(flatten)]
    _others: Others,
}

/// Keywords of JSON Schema that constrain a value and are not enforced here.
const REFUSED: &[&str] = &[
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

/// Keywords that are for forms and readers.
#[derive(Debug, Default)]
struct Others;

impl<'de> Deserialize<'de> for Others {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let others = BTreeMap::<String, serde::de::IgnoredAny>::deserialize(deserializer)?;
        match others.keys().find(|name| REFUSED.contains(&name.as_str())) {
            Some(name) => Err(D::Error::custom(format!(
                "the keyword \"{name}\" is not enforced by the agent, and must not be relied on: take it out, and check it in the template with a validation block"
            ))),
            None => Ok(Self),
        }
    }
}

/// A value that stands there, `null` too.
fn given<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Json>, D::Error> {
    Json::deserialize(deserializer).map(Some)
}

/// A number to compare with, as it was written and as it is.
#[derive(Debug)]
struct Bound(String, BigDecimal);

impl<'de> Deserialize<'de> for Bound {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Json::deserialize(deserializer)? {
            Json::Number(number) => {
                decimal(&number).map(|decimal| Self(number.clone(), decimal)).ok_or_else(|| {
                    D::Error::custom(format!("the number {number:.40} is beyond what Terraform can hold"))
                })
            }
            other => Err(D::Error::custom(format!("a number belongs here, and not {}", other.kind()))),
        }
    }
}

/// None for numbers that Terraform could not hold either: a calculation with 1e1000000000 would write out all of its digits.
fn decimal(number: &str) -> Option<BigDecimal> {
    if not_exact(number).is_some() { None } else { number.parse().ok() }
}

/// The formats that are checked.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Format {
    Ipv4,
    Ipv6,
    Uuid,
    Uri,
    Date,
    DateTime,
    Email,
    Hostname,
}

impl Format {
    fn fits(self, text: &str) -> bool {
        let is_label = |label: &str| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        let is_hostname = |name: &str| name.len() <= 253 && name.split('.').all(is_label);
        match self {
            Self::Ipv4 => text.parse::<Ipv4Addr>().is_ok(),
            Self::Ipv6 => text.parse::<Ipv6Addr>().is_ok(),
            Self::Uuid => text.len() == 36 && uuid::Uuid::try_parse(text).is_ok(),
            Self::Uri => url::Url::parse(text).is_ok(),
            Self::Date => text.len() == 10 && text.parse::<jiff::civil::Date>().is_ok(),
            Self::DateTime => text.parse::<jiff::Timestamp>().is_ok(),
            Self::Email => text.split_once('@').is_some_and(|(user, host)| {
                !user.is_empty() && !user.contains(char::is_whitespace) && is_hostname(host)
            }),
            Self::Hostname => is_hostname(text),
        }
    }

    const fn with_article(self) -> &'static str {
        match self {
            Self::Ipv4 => "an IPv4 address",
            Self::Ipv6 => "an IPv6 address",
            Self::Uuid => "a UUID",
            Self::Uri => "an absolute URI",
            Self::Date => "a date such as 2026-01-31",
            Self::DateTime => "a time such as 2026-01-31T12:00:00Z",
            Self::Email => "an e-mail address",
            Self::Hostname => "a host name",
        }
    }
}

/// A wrong value.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    /// Quoted path of the value, such as `"sizes[2]"`.
    pub(crate) at: String,
    /// What it must be. Never the value itself: it may be a secret.
    pub(crate) sentence: String,
}

/// The `type` keyword: a name or a list of names.
#[derive(Debug, Default, Deserialize)]
#[serde(untagged)]
enum Kinds {
    #[default]
    Any,
    One(Kind),
    Several(Vec<Kind>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    String,
    Number,
    Integer,
    Boolean,
    Array,
    Object,
    Null,
}

impl Kind {
    const fn with_article(self) -> &'static str {
        match self {
            Self::String => "a string",
            Self::Number => "a number",
            Self::Integer => "an integer",
            Self::Boolean => "a boolean",
            Self::Array => "an array",
            Self::Object => "an object",
            Self::Null => "null",
        }
    }

    fn fits(self, value: &Json) -> bool {
        match (self, value) {
            (Self::String, Json::String(_))
            | (Self::Number, Json::Number(_))
            | (Self::Boolean, Json::Bool(_))
            | (Self::Array, Json::Array(_))
            | (Self::Object, Json::Object(_))
            | (Self::Null, Json::Null) => true,
            (Self::Integer, Json::Number(number)) => {
                decimal(number).is_some_and(|number| number.is_integer())
            }
            _ => false,
        }
    }
}

/// The `additionalProperties` keyword. Unlike in JSON Schema, names that are not declared are refused unless it says
/// otherwise: Terraform would ignore them with a warning, and a typing error would go unseen.
#[derive(Debug, Default)]
enum Additional {
    #[default]
    Unsaid,
    Allowed(bool),
    Schema(Box<Schema>),
}

impl<'de> Deserialize<'de> for Additional {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Json::deserialize(deserializer)? {
            Json::Bool(allowed) => Ok(Self::Allowed(allowed)),
            schema => serde_json::from_str(&schema.to_string()).map(Self::Schema).map_err(D::Error::custom),
        }
    }
}

/// A regular expression, compiled once when the manifest is read.
#[derive(Debug)]
struct Pattern(regex_lite::Regex);

impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        regex_lite::Regex::new(&text).map(Self).map_err(D::Error::custom)
    }
}

impl Schema {
    /// The schema of one property.
    pub(crate) fn property(&self, name: &str) -> Option<&Self> {
        self.properties.get(name)
    }

    /// Whether the value must appear nowhere.
    pub(crate) const fn is_sensitive(&self) -> bool {
        self.sensitive || self.write_only
    }

    /// Whether it names a property, at any depth.
    pub(crate) fn describes(&self, name: &str) -> bool {
        let additional = match &self.additional_properties {
            Additional::Schema(schema) => Some(&**schema),
            Additional::Unsaid | Additional::Allowed(_) => None,
        };
        let below = self.properties.values().chain(self.items.as_deref()).chain(additional);
        self.properties.contains_key(name) || below.into_iter().any(|schema| schema.describes(name))
    }

    /// Everything that is wrong with an object's properties.
    pub(crate) fn problems_of_object(&self, at: &str, object: &Fields) -> Vec<Problem> {
        let path = |name: &str| if at.is_empty() { name.to_owned() } else { format!("{at}.{name}") };
        let mut problems = Vec::new();
        for name in self.required.iter().filter(|name| !object.contains_key(*name)) {
            problems.push(Problem::new(&path(name), "is missing".to_owned()));
        }
        for (name, value) in object {
            match (self.properties.get(name), &self.additional_properties) {
                (Some(schema), _) => problems.extend(schema.problems(&path(name), value)),
                (None, Additional::Schema(schema)) => problems.extend(schema.problems(&path(name), value)),
                (None, Additional::Allowed(true)) => {}
                // A nested object that declares no properties is a map: it may hold any names.
                (None, Additional::Unsaid) if !at.is_empty() && self.properties.is_empty() => {}
                (None, _) => problems.push(Problem::new(&path(name), self.unknown_name())),
            }
        }
        problems
    }

    fn unknown_name(&self) -> String {
        let known: Vec<String> = self.properties.keys().map(|name| format!("\"{name}\"")).collect();
        if known.is_empty() {
            "is unknown; the template takes no variables".to_owned()
        } else {
            format!("is unknown; known are {}", known.join(", "))
        }
    }

    fn problems(&self, at: &str, value: &Json) -> Vec<Problem> {
        if let Some(sentence) = self.wrong_kind(value).or_else(|| self.wrong_choice(value)) {
            return vec![Problem::new(at, sentence)];
        }
        match value {
            Json::String(text) => one(at, self.wrong_text(text)),
            Json::Number(number) => one(at, decimal(number).and_then(|number| self.wrong_number(&number))),
            Json::Array(items) => {
                let length = wrong_count(items.len(), self.min_items, self.max_items, "items");
                let mut problems = one(at, length);
                let twice = |(i, item): (usize, &Json)| items[..i].iter().any(|before| same(before, item));
                if self.unique_items && items.iter().enumerate().any(twice) {
                    problems.push(Problem::new(at, "must not have the same item twice".to_owned()));
                }
                if let Some(schema) = &self.items {
                    let each = items.iter().enumerate();
                    problems.extend(each.flat_map(|(i, item)| schema.problems(&format!("{at}[{i}]"), item)));
                }
                problems
            }
            Json::Object(object) => {
                let count = wrong_count(object.len(), self.min_properties, self.max_properties, "properties");
                let mut problems = one(at, count);
                problems.extend(self.problems_of_object(at, object));
                problems
            }
            Json::Null | Json::Bool(_) => Vec::new(),
        }
    }

    fn wrong_kind(&self, value: &Json) -> Option<String> {
        let kinds = match &self.kinds {
            Kinds::Any => return None,
            Kinds::One(kind) => std::slice::from_ref(kind),
            Kinds::Several(kinds) => kinds,
        };
        if kinds.iter().any(|kind| kind.fits(value)) {
            return None;
        }
        let names: Vec<&str> = kinds.iter().map(|kind| kind.with_article()).collect();
        let is = match value {
            Json::Number(_) if kinds == [Kind::Integer] => "a number with a fraction",
            _ => value.kind(),
        };
        Some(format!("must be {}, and it is {is}", names.join(" or ")))
    }

    fn wrong_choice(&self, value: &Json) -> Option<String> {
        if let Some(constant) = self.constant.as_ref().filter(|constant| !same(constant, value)) {
            return Some(format!("must be {constant}"));
        }
        let is_one = |choices: &&Vec<Json>| choices.iter().any(|choice| same(choice, value));
        let choices = self.choices.as_ref().filter(|choices| !is_one(choices))?;
        let list: Vec<String> = choices.iter().map(Json::to_string).collect();
        Some(format!("must be one of {}", list.join(", ")))
    }

    fn wrong_text(&self, text: &str) -> Option<String> {
        let length = wrong_count(text.chars().count(), self.min_length, self.max_length, "characters");
        let format = self.format.filter(|format| !format.fits(text));
        length.or_else(|| format.map(|format| format!("must be {}", format.with_article()))).or_else(|| {
            let Pattern(regex) = self.pattern.as_ref().filter(|Pattern(regex)| !regex.is_match(text))?;
            Some(format!("must match {}", regex.as_str()))
        })
    }

    fn wrong_number(&self, number: &BigDecimal) -> Option<String> {
        type Wrong = fn(&BigDecimal, &BigDecimal) -> bool;
        let checks: [(&Option<Bound>, Wrong, &str); 5] = [
            (&self.minimum, |number, bound| number < bound, "must be at least"),
            (&self.maximum, |number, bound| number > bound, "must be at most"),
            (&self.exclusive_minimum, |number, bound| number <= bound, "must be more than"),
            (&self.exclusive_maximum, |number, bound| number >= bound, "must be less than"),
            (
                &self.multiple_of,
                |number, bound| !bound.is_zero() && !(number % bound).is_zero(),
                "must be a multiple of",
            ),
        ];
        checks.into_iter().find_map(|(bound, is_wrong, what)| {
            let Bound(written, bound) = bound.as_ref()?;
            is_wrong(number, bound).then(|| format!("{what} {written}"))
        })
    }
}

/// Whether two values are equal: 1 is 1.0.
fn same(one: &Json, other: &Json) -> bool {
    match (one, other) {
        (Json::Number(a), Json::Number(b)) => a == b || decimal(a).is_some_and(|a| Some(a) == decimal(b)),
        (Json::Array(a), Json::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Json::Object(a), Json::Object(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|((name, a), (known, b))| name == known && same(a, b))
        }
        (one, other) => one == other,
    }
}

impl Problem {
    fn new(at: &str, sentence: String) -> Self {
        Self { at: format!("\"{at}\""), sentence }
    }
}

fn one(at: &str, sentence: Option<String>) -> Vec<Problem> {
    sentence.map(|sentence| Problem::new(at, sentence)).into_iter().collect()
}

fn wrong_count(count: usize, min: Option<usize>, max: Option<usize>, what: &str) -> Option<String> {
    let few = min.filter(|min| count < *min);
    let many = max.filter(|max| count > *max);
    few.map(|min| format!("must have at least {min} {what}, and has {count}"))
        .or_else(|| many.map(|max| format!("must have at most {max} {what}, and has {count}")))
}

/// A JSON value's type, with its article.
pub(crate) const fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[expect(clippy::needless_pass_by_value, reason = "the table has values")]
    fn sentences(schema: Value, value: &Value) -> Vec<String> {
        let schema: Schema = serde_json::from_str(&schema.to_string()).unwrap();
        schema
            .problems("v", &value.clone().into())
            .into_iter()
            .map(|p| format!("{} {}", p.at, p.sentence))
            .collect()
    }

    #[test]
    fn each_keyword_has_its_sentence() {
        for (schema, value, expected) in [
            (json!({"type": "string"}), json!(1), "\"v\" must be a string, and it is a number"),
            (
                json!({"type": ["string", "null"]}),
                json!(true),
                "\"v\" must be a string or null, and it is a boolean",
            ),
            (
                json!({"type": "integer"}),
                json!(1.5),
                "\"v\" must be an integer, and it is a number with a fraction",
            ),
            (json!({"enum": ["a", "b"]}), json!("c"), "\"v\" must be one of \"a\", \"b\""),
            (json!({"pattern": "^[a-z]+$"}), json!("A"), "\"v\" must match ^[a-z]+$"),
            (json!({"minimum": 1}), json!(0), "\"v\" must be at least 1"),
            (json!({"maximum": 9}), json!(10), "\"v\" must be at most 9"),
            (json!({"minLength": 2}), json!("é"), "\"v\" must have at least 2 characters, and has 1"),
            (json!({"maxItems": 1}), json!([1, 2]), "\"v\" must have at most 1 items, and has 2"),
            (
                json!({"items": {"type": "string"}}),
                json!(["a", 2]),
                "\"v[1]\" must be a string, and it is a number",
            ),
            (
                json!({"properties": {"a": {"type": "boolean"}}}),
                json!({"a": 1}),
                "\"v.a\" must be a boolean, and it is a number",
            ),
            (json!({"required": ["a"]}), json!({}), "\"v.a\" is missing"),
            (json!({"const": null}), json!(1), "\"v\" must be null"),
            (json!({"const": 1}), json!(2), "\"v\" must be 1"),
            (json!({"exclusiveMinimum": 0}), json!(0), "\"v\" must be more than 0"),
            (json!({"exclusiveMaximum": 5}), json!(5.0), "\"v\" must be less than 5"),
            (json!({"multipleOf": 0.1}), json!(0.25), "\"v\" must be a multiple of 0.1"),
            (json!({"uniqueItems": true}), json!([1, 2, 1.0]), "\"v\" must not have the same item twice"),
            (json!({"minProperties": 1}), json!({}), "\"v\" must have at least 1 properties, and has 0"),
            (json!({"format": "ipv4"}), json!("1.2.3"), "\"v\" must be an IPv4 address"),
            (
                json!({"format": "date-time"}),
                json!("today"),
                "\"v\" must be a time such as 2026-01-31T12:00:00Z",
            ),
            (
                json!({"additionalProperties": {"type": "string"}}),
                json!({"k": 1}),
                "\"v.k\" must be a string, and it is a number",
            ),
        ] {
            assert_eq!(sentences(schema, &value), [expected]);
        }
    }

    #[test]
    fn what_fits_is_silent() {
        for (schema, value) in [
            (json!({"type": "integer", "minimum": 1, "maximum": 3}), json!(2.0)),
            (json!({"type": "number"}), json!(2)),
            (json!({"type": "object"}), json!({"any": "name"})),
            (json!({"type": "array", "items": {"enum": [1, 2]}}), json!([1, 2, 1])),
            (json!({}), json!(null)),
            (json!({"multipleOf": 0.1, "enum": [0.3]}), json!(0.30)),
            (
                json!({"format": "email", "title": "x", "default": 1, "examples": [], "x-order": 3}),
                json!("a@b.example"),
            ),
        ] {
            assert_eq!(sentences(schema, &value), Vec::<String>::new());
        }
    }

    #[test]
    fn every_keyword_that_would_constrain_a_value_is_enforced_or_refused() {
        for keyword in REFUSED {
            for schema in [json!({*keyword: {}}), json!({"properties": {"a": {"items": {*keyword: {}}}}})] {
                let error = serde_json::from_str::<Schema>(&schema.to_string()).unwrap_err().to_string();
                assert!(error.contains(keyword) && error.contains("not enforced"), "{error}");
            }
        }
        let error = serde_json::from_str::<Schema>(r#"{"format": "iri"}"#).unwrap_err().to_string();
        assert!(error.contains("iri") && error.contains("ipv4"), "{error}");
    }

    #[test]
    fn numbers_are_compared_with_all_their_digits() {
        let schema: Schema = serde_json::from_str(r#"{"maximum": 9007199254740992}"#).unwrap();
        assert_eq!(schema.problems("v", &Json::Number("9007199254740993".to_owned())).len(), 1);
        let schema: Schema = serde_json::from_str(r#"{"type": "integer"}"#).unwrap();
        assert_eq!(schema.problems("v", &Json::Number("12345678901234567890123".to_owned())), []);
    }

    #[test]
    fn a_number_of_a_billion_digits_is_never_written_out() {
        for keyword in ["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"] {
            for number in ["1e1000000000", "-1e-1000000000", "1e99999999999999999999"] {
                let text = format!(r#"{{"{keyword}": {number}}}"#);
                let error = serde_json::from_str::<Schema>(&text).unwrap_err().to_string();
                assert!(error.contains("beyond what Terraform can hold"), "{text}: {error}");
            }
        }
        let schema = r#"{"enum": [1e1000000000], "const": 1e-1000000000}"#;
        let schema: Schema = serde_json::from_str(schema).unwrap();
        assert_eq!(schema.problems("v", &Json::Number("1".to_owned())).len(), 1);
    }

    #[test]
    fn a_bad_pattern_is_found_when_the_manifest_is_read() {
        assert!(serde_json::from_str::<Schema>(r#"{"pattern": "("}"#).is_err());
    }
}
