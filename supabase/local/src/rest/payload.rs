//! The body of a write: JSON, CSV or a form, as one JSON text and the keys it has.

use std::collections::{BTreeMap, BTreeSet};

use http::HeaderMap;
use http::header::CONTENT_TYPE;
use serde::de::IgnoredAny;
use serde_json::{Map, Value, value::RawValue};

use super::error::RestError;

/// A body that PostgreSQL can read.
#[derive(Debug)]
pub(super) struct Payload {
    /// The JSON text, an object or an array of objects.
    pub(super) json: String,
    /// The keys that each object has.
    pub(super) keys: BTreeSet<String>,
    /// Whether it is one object.
    pub(super) is_object: bool,
}

impl Payload {
    /// Reads a body. With `given_columns` the objects need not have the same keys.
    pub(super) fn read(headers: &HeaderMap, body: &[u8], given_columns: bool) -> Result<Self, RestError> {
        let full = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        match full.split(';').next().unwrap_or_default().trim().to_ascii_lowercase().as_str() {
            ""
            | "application/json"
            | "application/vnd.pgrst.object+json"
            | "application/vnd.pgrst.array+json" => Self::json(body, given_columns),
            "text/csv" => Self::csv(body),
            "application/x-www-form-urlencoded" => Ok(Self::form(body)),
            other => Err(RestError::bad_body(format!("Content-Type not acceptable: {other}"))),
        }
    }

    fn json(body: &[u8], given_columns: bool) -> Result<Self, RestError> {
        let invalid = || RestError::bad_body("Empty or invalid json");
        let text = std::str::from_utf8(body).map_err(|_| invalid())?;
        // An escape that is half a character is found only where texts are read. A number that no double can hold is PostgreSQL's.
        if let Err(error) = serde_json::from_str::<Value>(text)
            && !error.to_string().starts_with("number out of range")
        {
            return Err(invalid());
        }
        let keys_of = |object: &str| {
            let fields =
                serde_json::from_str::<BTreeMap<String, &RawValue>>(object).map_err(|_| invalid())?;
            Ok::<BTreeSet<String>, RestError>(fields.into_keys().collect())
        };
        match text.trim_start().as_bytes().first() {
            Some(b'{') => Ok(Self { json: text.into(), keys: keys_of(text)?, is_object: true }),
            Some(b'[') => {
                let items = serde_json::from_str::<Vec<&RawValue>>(text).map_err(|_| invalid())?;
                let mut all = Vec::new();
                for item in items {
                    let item = item.get();
                    all.push(item.starts_with('{').then(|| keys_of(item)).transpose()?);
                }
                match uniform_keys(&all) {
                    Some(keys) => Ok(Self { json: text.into(), keys, is_object: false }),
                    None if given_columns && all.iter().all(Option::is_some) => {
                        Ok(Self { json: text.into(), keys: BTreeSet::new(), is_object: false })
                    }
                    None => Err(RestError::bad_body("All object keys must match")),
                }
            }
            // A lone number or text counts as an array without rows.
            _ => {
                serde_json::from_str::<IgnoredAny>(text).map_err(|_| invalid())?;
                Ok(Self { json: "[]".into(), keys: BTreeSet::new(), is_object: false })
            }
        }
    }

    fn form(body: &[u8]) -> Self {
        let object: Map<String, Value> = url::form_urlencoded::parse(body)
            .map(|(key, value)| (key.into_owned(), value.into_owned().into()))
            .collect();
        Self {
            keys: object.keys().cloned().collect(),
            json: Value::Object(object).to_string(),
            is_object: true,
        }
    }

    fn csv(body: &[u8]) -> Result<Self, RestError> {
        let text = std::str::from_utf8(body).map_err(|_| RestError::bad_body("Invalid UTF-8 in CSV"))?;
        let mut lines = csv_lines(text).into_iter();
        let header = lines.next().unwrap_or_default();
        let mut rows = Vec::new();
        for line in lines {
            if line.len() != header.len() {
                return Err(RestError::bad_body("All lines must have same number of fields"));
            }
            let row = header.iter().cloned().zip(line.into_iter().map(|cell| match cell.as_str() {
                "NULL" => Value::Null,
                _ => cell.into(),
            }));
            rows.push(Value::Object(row.collect()));
        }
        Ok(Self {
            json: Value::Array(rows).to_string(),
            keys: header.into_iter().collect(),
            is_object: false,
        })
    }
}

/// The keys that all items have, if all are objects with the same.
fn uniform_keys(items: &[Option<BTreeSet<String>>]) -> Option<BTreeSet<String>> {
    let Some(first) = items.first() else { return Some(BTreeSet::new()) };
    items.iter().all(|item| item == first).then(|| first.clone()).flatten()
}

/// Splits CSV into lines of cells; quoted cells may hold commas, line ends and doubled quotes.
fn csv_lines(text: &str) -> Vec<Vec<String>> {
    let mut lines = Vec::new();
    let (mut line, mut cell, mut quoted) = (Vec::new(), String::new(), false);
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => cell.extend(chars.next()),
            '"' if quoted || cell.is_empty() => quoted = !quoted,
            ',' if !quoted => line.push(std::mem::take(&mut cell)),
            '\r' if !quoted && chars.peek() == Some(&'\n') => {}
            '\n' if !quoted => {
                line.push(std::mem::take(&mut cell));
                lines.push(std::mem::take(&mut line));
            }
            _ => cell.push(c),
        }
    }
    if !cell.is_empty() || !line.is_empty() {
        line.push(cell);
        lines.push(line);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> Result<Payload, RestError> {
        Payload::read(&HeaderMap::new(), text.as_bytes(), false)
    }

    #[test]
    fn objects_of_one_array_must_have_the_same_keys() {
        assert!(json(r#"[{"a":1},{"a":2}]"#).is_ok());
        assert!(json(r#"[{"a":1},{"b":2}]"#).is_err());
        assert!(Payload::read(&HeaderMap::new(), br#"[{"a":1},{"b":2}]"#, true).is_ok());
        assert!(json("[1,2]").is_err());
        assert_eq!(json("42").unwrap().json, "[]");
        assert!(json("[{}, 1]").is_err() && json("{").is_err() && json("").is_err());
    }

    #[test]
    fn a_number_that_no_double_can_hold_is_left_to_postgresql() {
        for text in [r#"{"a":1e400}"#, r#"[{"a":-1e999},{"a":[1e-999]}]"#] {
            assert_eq!(json(text).unwrap().json, text);
        }
    }

    #[test]
    fn csv_has_quoted_cells_and_nulls() {
        let payload = Payload::csv(b"a,b\r\n\"x,\"\"y\"\"\",NULL\n").unwrap();
        assert_eq!(payload.json, r#"[{"a":"x,\"y\"","b":null}]"#);
    }
}
