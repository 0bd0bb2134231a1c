//! Strings as JSON has them: borrowed, unless they hold escapes.

use std::{borrow::Cow, fmt};

use serde::{Deserialize, Deserializer, de::Visitor};

/// A key or a name in a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Name<'a>(pub(crate) Cow<'a, str>);

/// Whether this JSON text is exactly this name; without allocating where the name needs no escapes.
pub(crate) fn is_name(json: &str, name: &str) -> bool {
    json.strip_prefix('"').and_then(|text| text.strip_suffix('"')) == Some(name)
        || (json.contains('\\') && serde_json::from_str::<String>(json).is_ok_and(|text| text == name))
}

impl<'de: 'a, 'a> Deserialize<'de> for Name<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Borrowing;
        impl<'de> Visitor<'de> for Borrowing {
            type Value = Name<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Name(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Name(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(Borrowing)
    }
}
