//! Arguments of a function in the query string of a GET, where some words and values would be read as something else.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

use crate::{error::Error, filter::Operand};

/// Parameters of `PostgREST` itself.
const RESERVED: [&str; 8] = ["select", "columns", "on_conflict", "order", "limit", "offset", "and", "or"];

/// Words before a point or a parenthesis that make `PostgREST` take an argument for a filter.
const OPERATORS: [&str; 26] = [
    "not",
    "eq",
    "neq",
    "gt",
    "gte",
    "lt",
    "lte",
    "like",
    "ilike",
    "match",
    "imatch",
    "in",
    "is",
    "isdistinct",
    "fts",
    "plfts",
    "phfts",
    "wfts",
    "cs",
    "cd",
    "ov",
    "sl",
    "sr",
    "nxl",
    "nxr",
    "adj",
];

/// The parameters for the arguments of a JSON object. Numbers keep every digit.
pub(super) fn parameters(arguments: &str) -> Result<Vec<(String, String)>, Error> {
    let arguments: BTreeMap<String, Box<RawValue>> =
        serde_json::from_str(arguments).map_err(|_| invalid("they must be an object of named arguments"))?;
    arguments.into_iter().map(|(name, value)| parameter(name, value.get())).collect()
}

fn parameter(name: String, json: &str) -> Result<(String, String), Error> {
    if RESERVED.contains(&name.as_str()) || name.contains('.') || name.is_empty() {
        return Err(invalid(format!(
            "a GET cannot carry an argument named `{name}`: call the function with POST"
        )));
    }
    let value = match json.as_bytes().first() {
        Some(b'n') => {
            return Err(invalid(format!("a GET cannot carry NULL for `{name}`: leave it out, or use POST")));
        }
        Some(b'[') => {
            let items: Vec<Box<RawValue>> = serde_json::from_str(json).unwrap_or_default();
            if items.iter().any(|item| item.get().starts_with(['[', '{', 'n'])) {
                return Err(invalid(format!(
                    "a GET cannot carry the array `{name}`: call the function with POST"
                )));
            }
            Operand::list(items.iter().map(|item| text_of(item.get()))).to_text()
        }
        _ => text_of(json),
    };
    // `PostgREST` would take what stands before it for the whole.
    if name.contains('\0') || value.contains('\0') {
        return Err(invalid("PostgreSQL has no text with a NUL character"));
    }
    let word = value.split(['.', '(']).next().unwrap_or_default();
    if word.len() < value.len() && OPERATORS.contains(&word) {
        return Err(invalid(format!(
            "a GET cannot carry this value of `{name}`, which begins like a filter: call the function with POST"
        )));
    }
    Ok((name, value))
}

/// A string without its quotes; anything else as it is written.
fn text_of(json: &str) -> String {
    serde_json::from_str::<String>(json).unwrap_or_else(|_| json.to_owned())
}

fn invalid(reason: impl Into<String>) -> Error {
    Error::invalid("arguments", reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_become_parameters() {
        let pairs =
            parameters(r#"{"a": 1, "b": "x y", "c": ["p", "q,r"], "d": true, "e": {"k": 1.50}}"#).unwrap();
        let pairs: Vec<_> = pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(
            pairs,
            [("a", "1"), ("b", "x y"), ("c", r#"{"p","q,r"}"#), ("d", "true"), ("e", r#"{"k": 1.50}"#)]
        );
    }

    #[test]
    fn what_would_be_read_as_something_else_is_refused() {
        for arguments in [
            r#"{"limit": 1}"#,
            r#"{"a.b": 1}"#,
            r#"{"": 1}"#,
            r#"{"a": null}"#,
            r#"{"a": "eq.5"}"#,
            r#"{"a": "not.in.(1)"}"#,
            r#"{"a": "fts(english).x"}"#,
            r#"{"a": [[1]]}"#,
            r#"{"a": "x\u0000y"}"#,
            r#"{"a": ["x\u0000y"]}"#,
            r#"{"a\u0000b": 1}"#,
            "[1]",
        ] {
            assert!(parameters(arguments).is_err(), "{arguments}");
        }
        assert!(parameters(r#"{"a": "equal.5", "b": "eq", "c": "1.5"}"#).is_ok());
    }
}
