//! The JSON form of Terraform's language, as far as the agent looks into it.
//!
//! A name may stand several times in an object, and each time is a block of its own; a list of objects is as good as an object. Numbers
//! are never read: Terraform holds larger ones than this program.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;

/// What the objects in a text hold: the text is one, or a list of them. Errors: it is not JSON.
pub(super) fn entries(text: &str) -> serde_json::Result<Vec<(String, &RawValue)>> {
    let text = text.trim();
    let mut all = Vec::new();
    if text.starts_with('[') {
        for item in serde_json::from_str::<Vec<&RawValue>>(text)? {
            if item.get().starts_with('{') {
                all.extend(serde_json::from_str::<Entries<'_>>(item.get())?.0);
            }
        }
    } else if text.starts_with('{') {
        all = serde_json::from_str::<Entries<'_>>(text)?.0;
    } else {
        serde_json::from_str::<&RawValue>(text)?;
    }
    Ok(all)
}

/// The same of the blocks of this name in a text.
pub(super) fn entries_of<'a>(text: &'a str, name: &str) -> serde_json::Result<Vec<(String, &'a RawValue)>> {
    let mut all = Vec::new();
    for (known, value) in entries(text)? {
        if known == name {
            all.extend(entries(value.get())?);
        }
    }
    Ok(all)
}

/// An object with each of its names as often as it is there.
struct Entries<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Entries<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Each;

        impl<'de> Visitor<'de> for Each {
            type Value = Vec<(String, &'de RawValue)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut all = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    all.push(entry);
                }
                Ok(all)
            }
        }

        deserializer.deserialize_map(Each).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_there_twice_is_two_blocks() {
        let names = |text: &str| {
            let found = entries_of(text, "variable").unwrap();
            found.into_iter().map(|(name, value)| format!("{name}={}", value.get())).collect::<Vec<_>>()
        };
        let text = r#" {"variable": {"a": 1, "b": [{}]}, "x": 1e400, "variable": [{"a": 2}, 3, {"c": {}}]} "#;
        assert_eq!(names(text), ["a=1", "b=[{}]", "a=2", "c={}"]);
        assert_eq!(names(r#"[{"variable": {"a": 1}}, {"variable": {"b": 2}}]"#), ["a=1", "b=2"]);
        assert_eq!(names("7"), [""; 0]);
        for broken in ["", "{", "{\"variable\": {\"a\" 1}}", "[{}"] {
            assert!(entries(broken).is_err(), "{broken}");
        }
    }
}
