//! The part of JSON Schema that a `template.json` may use for its variables, with errors for people.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, de::Error as _};
use serde_json::{Map, Value};

/// What a value may be. Keywords that are not listed here are for forms and readers, and are not enforced.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Schema {
    /// One type, or several.
    #[serde(rename = "type")]
    kinds: Kinds,
    #[serde(rename = "enum")]
    choices: Option<Vec<Value>>,
    pattern: Option<Pattern>,
    minimum: Option<f64>,
    maximum: Option<f64>,
    min_length: Option<usize>,
    max_length: Option<usize>,
    min_items: Option<usize>,
    max_items: Option<usize>,
    items: Option<Box<Schema>>,
    properties: BTreeMap<String, Schema>,
    required: Vec<String>,
    additional_properties: Additional,
    /// The value must appear nowhere; `writeOnly` is JSON Schema's own word for it.
    sensitive: bool,
    write_only: bool,
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

    fn fits(self, value: &Value) -> bool {
        match (self, value) {
            (Self::String, Value::String(_))
            | (Self::Number, Value::Number(_))
            | (Self::Boolean, Value::Bool(_))
            | (Self::Array, Value::Array(_))
            | (Self::Object, Value::Object(_))
            | (Self::Null, Value::Null) => true,
            (Self::Integer, Value::Number(number)) => {
                number.is_i64() || number.is_u64() || number.as_f64().is_some_and(|n| n.fract() == 0.0)
            }
            _ => false,
        }
    }
}

/// The `additionalProperties` keyword. Unlike in JSON Schema, names that are not declared are refused unless it says
/// otherwise: Terraform would ignore them with a warning, and a typing error would go unseen.
#[derive(Debug, Default, Deserialize)]
#[serde(untagged)]
enum Additional {
    #[default]
    Unsaid,
    Allowed(bool),
    Schema(Box<Schema>),
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

    /// Everything that is wrong with an object's properties.
    pub(crate) fn problems_of_object(&self, at: &str, object: &Map<String, Value>) -> Vec<Problem> {
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

    fn problems(&self, at: &str, value: &Value) -> Vec<Problem> {
        if let Some(sentence) = self.wrong_kind(value).or_else(|| self.wrong_choice(value)) {
            return vec![Problem::new(at, sentence)];
        }
        match value {
            Value::String(text) => one(at, self.wrong_text(text)),
            Value::Number(number) => one(at, number.as_f64().and_then(|number| self.wrong_number(number))),
            Value::Array(items) => {
                let length = wrong_count(items.len(), self.min_items, self.max_items, "items");
                let mut problems = one(at, length);
                if let Some(schema) = &self.items {
                    let each = items.iter().enumerate();
                    problems.extend(each.flat_map(|(i, item)| schema.problems(&format!("{at}[{i}]"), item)));
                }
                problems
            }
            Value::Object(object) => self.problems_of_object(at, object),
            Value::Null | Value::Bool(_) => Vec::new(),
        }
    }

    fn wrong_kind(&self, value: &Value) -> Option<String> {
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
            Value::Number(_) if kinds == [Kind::Integer] => "a number with a fraction",
            _ => kind_of(value),
        };
        Some(format!("must be {}, and it is {is}", names.join(" or ")))
    }

    fn wrong_choice(&self, value: &Value) -> Option<String> {
        let choices = self.choices.as_ref().filter(|choices| !choices.contains(value))?;
        let list: Vec<String> = choices.iter().map(Value::to_string).collect();
        Some(format!("must be one of {}", list.join(", ")))
    }

    fn wrong_text(&self, text: &str) -> Option<String> {
        let length = wrong_count(text.chars().count(), self.min_length, self.max_length, "characters");
        length.or_else(|| {
            let Pattern(regex) = self.pattern.as_ref().filter(|Pattern(regex)| !regex.is_match(text))?;
            Some(format!("must match {}", regex.as_str()))
        })
    }

    fn wrong_number(&self, number: f64) -> Option<String> {
        let low = self.minimum.filter(|minimum| number < *minimum);
        let high = self.maximum.filter(|maximum| number > *maximum);
        low.map(|minimum| format!("must be at least {minimum}"))
            .or_else(|| high.map(|maximum| format!("must be at most {maximum}")))
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

    fn sentences(schema: Value, value: &Value) -> Vec<String> {
        let schema: Schema = serde_json::from_value(schema).unwrap();
        schema.problems("v", value).into_iter().map(|p| format!("{} {}", p.at, p.sentence)).collect()
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
        ] {
            assert_eq!(sentences(schema, &value), Vec::<String>::new());
        }
    }

    #[test]
    fn a_bad_pattern_is_found_when_the_manifest_is_read() {
        assert!(serde_json::from_value::<Schema>(json!({"pattern": "("})).is_err());
    }
}
