//! The schema of a template's variables, as far as it gives values their types. The agent checks patterns and limits:
//! it refuses what does not fit before anything runs.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::number::{exact, read_json};

/// What a value may be.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Schema {
    #[serde(rename = "type")]
    kinds: Kinds,
    #[serde(rename = "enum")]
    choices: Option<Vec<Value>>,
    items: Option<Box<Schema>>,
    /// Variables of a template, members of an object.
    pub properties: BTreeMap<String, Schema>,
    /// Those that must be given.
    pub required: Vec<String>,
    additional_properties: Additional,
    /// Given when nothing else is.
    pub default: Option<Value>,
    /// A sentence for people.
    pub description: Option<String>,
}

/// The keyword `type`: a name or a list of names.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(untagged)]
enum Kinds {
    #[default]
    Any,
    One(Kind),
    Several(Vec<Kind>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
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

/// The keyword `additionalProperties`.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum Additional {
    Allowed(bool),
    Of(Box<Schema>),
}

impl Default for Additional {
    fn default() -> Self {
        Self::Allowed(true)
    }
}

impl Kind {
    const fn with_article(self) -> &'static str {
        match self {
            Self::String => "a string",
            Self::Number => "a number",
            Self::Integer => "an integer",
            Self::Boolean => "true or false",
            Self::Array => "a list",
            Self::Object => "an object",
            Self::Null => "null",
        }
    }

    fn fits(self, value: &Value) -> bool {
        match self {
            Self::String => value.is_string(),
            Self::Number => value.is_number(),
            // 2.0 is an integer in JSON Schema.
            Self::Integer => {
                value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|number| number.fract() == 0.0)
            }
            Self::Boolean => value.is_boolean(),
            Self::Array => value.is_array(),
            Self::Object => value.is_object(),
            Self::Null => value.is_null(),
        }
    }

    /// The value of this kind for a text.
    fn read(self, text: &str) -> Result<Value, String> {
        let wrong = || format!("must be {}", self.with_article());
        match self {
            Self::String => Ok(text.into()),
            Self::Number => match exact(text) {
                Some(number) => Ok(number.into()),
                None if text.parse::<f64>().is_ok() => {
                    Err("is a number of another spelling or of more digits than can be passed on".to_owned())
                }
                None => Err(wrong()),
            },
            Self::Integer => match exact(text) {
                Some(number) if Self::Integer.fits(&Value::Number(number.clone())) => Ok(number.into()),
                _ => Err(wrong()),
            },
            Self::Boolean => match text {
                "true" => Ok(true.into()),
                "false" => Ok(false.into()),
                _ => Err(wrong()),
            },
            Self::Null => {
                if text == "null" {
                    Ok(Value::Null)
                } else {
                    Err(wrong())
                }
            }
            Self::Array => json_of(self, text, "[\"a\", \"b\"]"),
            Self::Object => json_of(self, text, "{\"key\": \"value\"}"),
        }
    }
}

fn json_of(kind: Kind, text: &str, example: &str) -> Result<Value, String> {
    match read_json(text) {
        Ok(value) if kind.fits(&value) => Ok(value),
        Ok(_) => Err(format!("must be {}, as JSON: {example}", kind.with_article())),
        Err(why) => Err(format!("must be {}, as JSON: {example}; {why}", kind.with_article())),
    }
}

impl Schema {
    /// The value for a text on the command line: by this schema's type, never by its spelling. Where text is among
    /// the types, it is text.
    ///
    /// # Errors
    /// What it must be, to be put behind the variable's name.
    pub fn read(&self, text: &str) -> Result<Value, String> {
        let kinds = self.kinds();
        let value = match kinds {
            // An enumeration without a type has its values' types.
            [] => match self.choices.iter().flatten().find(|choice| spelled(choice) == text) {
                Some(choice) => choice.clone(),
                None => text.into(),
            },
            kinds if kinds.contains(&Kind::String) => text.into(),
            kinds => {
                let read = kinds.iter().find_map(|kind| kind.read(text).ok());
                match (read, kinds) {
                    (Some(value), _) => value,
                    (None, [kind]) => return kind.read(text),
                    (None, _) => return Err(self.must_be()),
                }
            }
        };
        self.check(&value)?;
        Ok(value)
    }

    /// Whether a value is of this type, with all that is in it.
    ///
    /// # Errors
    /// What it must be, to be put behind the variable's name. Never the value: it may be a secret.
    pub fn check(&self, value: &Value) -> Result<(), String> {
        let kinds = self.kinds();
        if !kinds.is_empty() && !kinds.iter().any(|kind| kind.fits(value)) {
            return Err(self.must_be());
        }
        if let Some(choices) = &self.choices
            && !choices.contains(value)
        {
            let choices: Vec<_> = choices.iter().map(spelled).collect();
            return Err(format!("must be one of: {}", choices.join(", ")));
        }
        if let (Some(items), Value::Array(values)) = (&self.items, value) {
            for (at, value) in values.iter().enumerate() {
                items.check(value).map_err(|problem| format!("[{at}] {problem}"))?;
            }
        }
        if let Value::Object(members) = value {
            for (name, value) in members {
                match (self.properties.get(name), &self.additional_properties) {
                    (Some(schema), _) => schema.check(value),
                    (None, Additional::Of(schema)) => schema.check(value),
                    (None, Additional::Allowed(true)) => Ok(()),
                    (None, Additional::Allowed(false)) => Err("is not known".to_owned()),
                }
                .map_err(|problem| format!(".{name} {problem}"))?;
            }
            if let Some(missing) = self.required.iter().find(|name| !members.contains_key(*name)) {
                return Err(format!("lacks `{missing}`"));
            }
        }
        Ok(())
    }

    /// Whether variables that the schema does not name are refused.
    pub fn is_closed(&self) -> bool {
        matches!(self.additional_properties, Additional::Allowed(false))
    }

    /// What a value must be, for a list of variables.
    pub fn kind_name(&self) -> String {
        let name = |kind: &Kind| match kind {
            Kind::String => "string",
            Kind::Number => "number",
            Kind::Integer => "integer",
            Kind::Boolean => "boolean",
            Kind::Array => "list",
            Kind::Object => "object",
            Kind::Null => "null",
        };
        match self.kinds() {
            [] => "any".to_owned(),
            kinds => kinds.iter().map(name).collect::<Vec<_>>().join(" or "),
        }
    }

    fn kinds(&self) -> &[Kind] {
        match &self.kinds {
            Kinds::Any => &[],
            Kinds::One(kind) => std::slice::from_ref(kind),
            Kinds::Several(kinds) => kinds,
        }
    }

    fn must_be(&self) -> String {
        let kinds: Vec<_> = self.kinds().iter().map(|kind| kind.with_article()).collect();
        format!("must be {}", kinds.join(" or "))
    }
}

/// A choice as it is written on the command line.
fn spelled(choice: &Value) -> String {
    choice.as_str().map_or_else(|| choice.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn schema(value: Value) -> Schema {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn the_schema_and_not_the_spelling_gives_a_value_its_type() {
        let string = schema(json!({ "type": "string" }));
        for text in [
            "1.10",
            "51e5",
            "true",
            "null",
            "12345678901234567890123",
            "007",
            "[1]",
            "{}",
            "",
            "\"a\"",
            "a=b",
        ] {
            assert_eq!(string.read(text), Ok(json!(text)), "{text}");
        }
        assert_eq!(schema(json!({ "type": "integer" })).read("12"), Ok(json!(12)));
        assert_eq!(schema(json!({ "type": "number" })).read("1.10"), Ok(json!(1.1)));
        assert_eq!(schema(json!({ "type": "boolean" })).read("true"), Ok(json!(true)));
        assert_eq!(schema(json!({ "type": ["string", "integer"] })).read("12"), Ok(json!("12")));
        assert_eq!(schema(json!({ "type": ["null", "integer"] })).read("null"), Ok(Value::Null));
        assert_eq!(schema(json!({ "enum": [30, 90, "all"] })).read("90"), Ok(json!(90)));
        assert_eq!(
            schema(json!({ "type": "array", "items": { "type": "string" } })).read("[\"1.10\"]"),
            Ok(json!(["1.10"]))
        );
    }

    #[test]
    fn a_value_of_another_type_is_refused_and_not_repeated() {
        for (kind, text) in [
            ("integer", "secret"),
            ("integer", "1.5"),
            ("number", "secret"),
            ("number", "12345678901234567890123"),
            ("boolean", "yes"),
            ("array", "secret"),
            ("array", "{}"),
            ("object", "[1]"),
        ] {
            let problem = schema(json!({ "type": kind })).read(text).unwrap_err();
            assert!(!problem.contains("secret"), "{problem}");
        }
        let list = schema(json!({ "type": "array", "items": { "type": "string" } }));
        assert_eq!(list.read("[\"a\", 1]").unwrap_err(), "[1] must be a string");
        let choice = schema(json!({ "type": "integer", "enum": [30, 90] }));
        assert_eq!(choice.read("31").unwrap_err(), "must be one of: 30, 90");
    }
}
