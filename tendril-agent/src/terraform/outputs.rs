//! What `terraform output -json` prints: read one output at a time, so that a large, deep or odd one costs neither the memory of
//! all nor the others.

use std::{
    fmt,
    io::{BufReader, Read},
};

use serde::{
    Deserialize, Deserializer as _,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;

use crate::job::{Fields, Json};

/// Largest output that is stored, and most of all of them together, in bytes. A row is shown in whole by every portal.
const LARGEST: usize = 1024 * 1024;
const MOST: usize = 4 * 1024 * 1024;
/// What is shown in the place of an output that is nested too deeply for a row.
const TOO_DEEP: &str = "(an output that is nested too deeply to be stored)";

/// The same for one with a number of more digits than a row can hold.
const TOO_LARGE_NUMBER: &str = "(an output with a number of too many digits to be stored)";

/// The outputs of a state.
#[derive(Debug, Default)]
pub(crate) struct Outputs {
    /// Those that may be shown.
    pub(crate) public: Fields,
    /// The values of those that are sensitive.
    pub(crate) sensitive: Vec<Json>,
    /// The bytes of those that may be shown.
    size: usize,
}

/// One entry.
#[derive(Deserialize)]
struct Entry {
    sensitive: bool,
    value: Box<RawValue>,
}

impl Outputs {
    /// Reads what was printed. Errors: it is not what Terraform prints.
    pub(crate) fn read(printed: impl Read) -> Result<Self, serde_json::Error> {
        let mut printed = serde_json::Deserializer::from_reader(BufReader::new(printed));
        let outputs = printed.deserialize_map(Entries)?;
        printed.end()?;
        Ok(outputs)
    }

    /// One that cannot be stored does not lose the others.
    fn add(&mut self, name: String, Entry { sensitive, value }: Entry) {
        let text = value.get();
        if sensitive {
            // A text that large is in no line.
            if text.len() <= LARGEST {
                // As text it is hidden where it stands as it is.
                self.sensitive.push(Json::parse(text).unwrap_or_else(|_| Json::String(text.to_owned())));
            }
            return;
        }
        let value = if text.len() > LARGEST || self.size + text.len() > MOST {
            Json::String(format!("(an output of {} KiB, too large to be stored)", text.len().div_ceil(1024)))
        } else {
            self.size += text.len();
            match Json::parse(text) {
                Ok(value) if !value.is_storable() => Json::String(TOO_LARGE_NUMBER.to_owned()),
                value => value.unwrap_or_else(|_| Json::String(TOO_DEEP.to_owned())),
            }
        };
        self.public.insert(name, value);
    }
}

struct Entries;

impl<'de> Visitor<'de> for Entries {
    type Value = Outputs;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of outputs")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut entries: M) -> Result<Outputs, M::Error> {
        let mut outputs = Outputs::default();
        while let Some((name, entry)) = entries.next_entry()? {
            outputs.add(name, entry);
        }
        Ok(outputs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Outputs {
        Outputs::read(text.as_bytes()).unwrap()
    }

    #[test]
    fn sensitive_outputs_are_kept_apart() {
        let outputs = read(
            r#"{"a":{"sensitive":false,"type":"string","value":"x"},"b":{"sensitive":true,"type":"string","value":"y"}}"#,
        );
        assert_eq!(Json::Object(outputs.public).to_string(), r#"{"a":"x"}"#);
        assert_eq!(outputs.sensitive, [Json::String("y".to_owned())]);
    }

    #[test]
    fn an_odd_output_does_not_lose_the_others_or_a_digit() {
        let deep = format!("{}{}", "[".repeat(500), "]".repeat(500));
        let text = format!(
            r#"{{"n":{{"sensitive":false,"value":1e400}},"ok":{{"sensitive":false,"value":"fine"}},"deep":{{"sensitive":false,"value":{deep}}},"big":{{"sensitive":false,"value":12345678901234567890123}}}}"#
        );
        let expected =
            format!(r#"{{"big":12345678901234567890123,"deep":"{TOO_DEEP}","n":1e400,"ok":"fine"}}"#);
        assert_eq!(Json::Object(read(&text).public).to_string(), expected);
    }

    #[test]
    fn a_number_that_no_row_can_hold_does_not_lose_the_other_outputs() {
        let digits = format!("1{}", "0".repeat(200_000));
        let text = format!(
            r#"{{"n":{{"sensitive":false,"value":[{digits}]}},"small":{{"sensitive":false,"value":1e-20000}},"ok":{{"sensitive":false,"value":"fine"}}}}"#
        );
        let expected = format!(r#"{{"n":"{TOO_LARGE_NUMBER}","ok":"fine","small":"{TOO_LARGE_NUMBER}"}}"#);
        assert_eq!(Json::Object(read(&text).public).to_string(), expected);
    }

    #[test]
    fn an_output_that_is_too_large_does_not_lose_the_others() {
        let of = |name: &str, size: usize| {
            format!(r#""{name}":{{"sensitive":false,"value":"{}"}}"#, "x".repeat(size))
        };
        let many: Vec<String> = (0..5).map(|n| of(&format!("many{n}"), LARGEST - 2)).collect();
        let text = format!("{{{},{},{}}}", of("huge", 20 * LARGEST), many.join(","), of("small", 5));
        let public = read(&text).public;
        let note =
            |name: &str| public[name].as_text().is_some_and(|text| text.ends_with("too large to be stored)"));
        assert_eq!(public["huge"].as_text(), Some("(an output of 20481 KiB, too large to be stored)"));
        assert!(!note("many0") && !note("many3") && note("many4"));
        assert_eq!(public.len(), 7);
    }

    #[test]
    fn what_is_no_object_of_outputs_is_an_error() {
        for text in ["", "[]", "{", "{} {}", r#"{"a": 1}"#, r#"{"a": {"sensitive": "yes", "value": 1}}"#] {
            assert!(Outputs::read(text.as_bytes()).is_err(), "{text}");
        }
    }
}
