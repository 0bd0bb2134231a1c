//! The part of JSON Schema that a `template.json` may use for its variables, with errors for people.

mod keywords;
mod names;

use std::collections::BTreeMap;

use bigdecimal::{BigDecimal, Zero as _};
use serde::{Deserialize, Deserializer, de::Error as _};
use serde_json::Value;

use self::{
    keywords::{Bound, Format, Kind, Kinds, Pattern, decimal},
    names::wrong_name,
};
use crate::job::json::{Fields, Json};

/// What a value may be. Of the keywords that are not listed here, those that would constrain a value or look as if they did are
/// refused when the file is read ([`names`]); all others are for forms and readers.
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
}

/// A value that is there, `null` too.
fn given<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Json>, D::Error> {
    Json::deserialize(deserializer).map(Some)
}

/// A wrong value.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    /// Quoted path of the value, such as `"sizes[2]"`.
    pub(crate) at: String,
    /// What it must be. Never the value itself: it may be a secret.
    pub(crate) sentence: String,
}

/// The `additionalProperties` keyword. Unlike in JSON Schema, names that are not declared are refused unless it
/// allows them: Terraform would ignore them with a warning, and a typing error would go unseen.
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

impl Schema {
    /// Reads a schema. Errors: it is none, or has a keyword that is not enforced.
    pub(crate) fn parse(text: &str) -> Result<Self, serde_json::Error> {
        match Json::parse(text).map_err(serde_json::Error::custom).map(|json| wrong_name(&json))? {
            Some(sentence) => Err(serde_json::Error::custom(sentence)),
            // From the text: a number that no double can hold is one only where it is a bound, and read as it is written.
            None => serde_json::from_str(text),
        }
    }

    /// The parts of a value that must appear nowhere: all of it, or what is marked inside it.
    pub(crate) fn secrets<'a>(&self, value: &'a Json) -> Vec<&'a Json> {
        if self.sensitive || self.write_only {
            return vec![value];
        }
        match value {
            Json::Array(items) => {
                let schema = self.items.as_deref();
                items
                    .iter()
                    .flat_map(|item| schema.map_or_else(Vec::new, |schema| schema.secrets(item)))
                    .collect()
            }
            Json::Object(fields) => {
                fields.iter().flat_map(|(name, field)| self.secrets_of_property(name, field)).collect()
            }
            _ => Vec::new(),
        }
    }

    /// The same of one property of an object, which this schema describes.
    pub(crate) fn secrets_of_property<'a>(&self, name: &str, value: &'a Json) -> Vec<&'a Json> {
        if self.sensitive || self.write_only {
            return vec![value];
        }
        let schema = match (self.properties.get(name), &self.additional_properties) {
            (Some(schema), _) => schema,
            (None, Additional::Schema(schema)) => schema,
            (None, Additional::Unsaid | Additional::Allowed(_)) => return Vec::new(),
        };
        schema.secrets(value)
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
#[path = "variables_tests.rs"]
mod tests;
