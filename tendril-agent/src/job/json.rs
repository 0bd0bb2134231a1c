//! JSON whose numbers have all their digits: between the row and Terraform, none may be lost.

use std::{collections::BTreeMap, fmt, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _, ser::Error as _};
use serde_json::{Value, value::RawValue};

use crate::redaction::{MASK, Redactor};

/// How deep lists and objects may lie in each other.
const DEEPEST: usize = 120;

/// A JSON value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Json {
    #[default]
    Null,
    Bool(bool),
    /// As it was written.
    Number(String),
    String(String),
    Array(Vec<Json>),
    Object(Fields),
}

/// The fields of an object.
pub(crate) type Fields = BTreeMap<String, Json>;

/// Why a text is not a value: a sentence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct NotReadable(String);

impl Json {
    /// Reads a text. Errors: it is not JSON, or nested too deeply.
    pub(crate) fn parse(text: &str) -> Result<Self, NotReadable> {
        Self::parse_below(text.trim(), 0)
    }

    // Each level is read for itself: what is inside stays text until then, and no number becomes a double.
    fn parse_below(text: &str, depth: usize) -> Result<Self, NotReadable> {
        let wrong = |error: serde_json::Error| NotReadable(format!("it is not JSON ({error})"));
        match text.as_bytes().first() {
            Some(b'[' | b'{') if depth >= DEEPEST => Err(NotReadable(format!(
                "its lists and objects lie more than {DEEPEST} levels deep in each other"
            ))),
            Some(b'[') => {
                let items: Vec<&RawValue> = serde_json::from_str(text).map_err(wrong)?;
                let items = items.into_iter().map(|item| Self::parse_below(item.get(), depth + 1));
                items.collect::<Result<_, _>>().map(Self::Array)
            }
            Some(b'{') => {
                let fields: BTreeMap<String, &RawValue> = serde_json::from_str(text).map_err(wrong)?;
                let fields = fields
                    .into_iter()
                    .map(|(name, field)| Ok((name, Self::parse_below(field.get(), depth + 1)?)));
                fields.collect::<Result<_, _>>().map(Self::Object)
            }
            Some(b'-' | b'0'..=b'9') => {
                let number: &RawValue = serde_json::from_str(text).map_err(wrong)?;
                Ok(Self::Number(number.get().to_owned()))
            }
            _ => match serde_json::from_str(text).map_err(wrong)? {
                Value::Bool(bool) => Ok(Self::Bool(bool)),
                Value::String(text) => Ok(Self::String(text)),
                _ => Ok(Self::Null),
            },
        }
    }

    /// What serialises without an error, as everything does that is written here.
    pub(crate) fn of(value: &impl Serialize) -> Self {
        let text = serde_json::to_string(value).unwrap_or_default();
        Self::parse(&text).unwrap_or_default()
    }

    /// Its type, with its article.
    pub(crate) const fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a boolean",
            Self::Number(_) => "a number",
            Self::String(_) => "a string",
            Self::Array(_) => "an array",
            Self::Object(_) => "an object",
        }
    }

    /// A string, or the digits of a number.
    pub(crate) fn as_text(&self) -> Option<&str> {
        match self {
            Self::String(text) | Self::Number(text) => Some(text),
            _ => None,
        }
    }

    /// The same for a program to which digits do not matter. Errors: a number that no double can hold.
    pub(crate) fn to_value(&self) -> Result<Value, serde_json::Error> {
        serde_json::from_str(&self.to_string())
    }

    /// What is at its ends: everything but lists and objects.
    pub(crate) fn leaves(&self) -> Vec<&Self> {
        match self {
            Self::Array(items) => items.iter().flat_map(Self::leaves).collect(),
            Self::Object(fields) => fields.values().flat_map(Self::leaves).collect(),
            leaf => vec![leaf],
        }
    }

    /// Whether a row can hold all of its numbers.
    pub(crate) fn is_storable(&self) -> bool {
        self.leaves().into_iter().all(|leaf| !matches!(leaf, Self::Number(number) if !is_numeric(number)))
    }

    /// All names of fields in it.
    pub(crate) fn names(&self) -> Vec<&str> {
        match self {
            Self::Array(items) => items.iter().flat_map(Self::names).collect(),
            Self::Object(fields) => fields
                .iter()
                .flat_map(|(name, field)| std::iter::once(name.as_str()).chain(field.names()))
                .collect(),
            _ => Vec::new(),
        }
    }

    /// The same without secrets in its strings, numbers and names.
    pub(crate) fn redacted(self, redactor: &Redactor) -> Self {
        match self {
            Self::String(text) => Self::String(redactor.redact(&text).into_owned()),
            Self::Array(items) => {
                Self::Array(items.into_iter().map(|item| item.redacted(redactor)).collect())
            }
            Self::Object(fields) => {
                let (mut hidden, mut counts) = (Fields::new(), BTreeMap::<String, usize>::new());
                for (name, field) in fields {
                    let name = redactor.redact(&name).into_owned();
                    // Two names that are hidden alike are two fields still.
                    let mut free = name.clone();
                    while hidden.contains_key(&free) {
                        let count = counts.entry(name.clone()).or_insert(1);
                        *count += 1;
                        free = format!("{name} ({count})");
                    }
                    hidden.insert(free, field.redacted(redactor));
                }
                Self::Object(hidden)
            }
            Self::Number(number) if redactor.redact(&number) != number => Self::String(MASK.to_owned()),
            other => other,
        }
    }

    /// The same without U+0000, which no text of PostgreSQL can hold. Programs can print it, into outputs and messages too.
    pub(crate) fn without_nul(self) -> Self {
        let clean = |text: String| if text.contains('\0') { text.replace('\0', "\u{fffd}") } else { text };
        match self {
            Self::String(text) => Self::String(clean(text)),
            Self::Array(items) => Self::Array(items.into_iter().map(Self::without_nul).collect()),
            Self::Object(fields) => Self::Object(
                fields.into_iter().map(|(name, field)| (clean(name), field.without_nul())).collect(),
            ),
            other => other,
        }
    }
}

/// Whether PostgreSQL can store a number: so many digits before the point, and so many after it.
fn is_numeric(number: &str) -> bool {
    const WHOLE: i64 = 131_072;
    const FRACTION: i64 = 16_383;
    let (mantissa, exponent) = number.split_once(['e', 'E']).unwrap_or((number, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let Ok(exponent) = exponent.parse::<i32>().map(i64::from) else { return false };
    let length = |digits: &str| i64::try_from(digits.len()).unwrap_or(i64::MAX / 2);
    length(whole.trim_start_matches('-')) + exponent <= WHOLE && length(fraction) - exponent <= FRACTION
}

/// Digits of a number in Terraform: it calculates with 512 bits.
const DIGITS: usize = 153;
/// Larger and smaller numbers no double can hold.
const LARGEST_EXPONENT: i64 = 308;

/// Why a number would not arrive as it was written: half a sentence.
pub(crate) fn not_exact(number: &str) -> Option<String> {
    let (mantissa, exponent) = number.split_once(['e', 'E']).unwrap_or((number, "0"));
    let mantissa = mantissa.trim_start_matches('-');
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    let significant = digits.trim_start_matches('0');
    let zeros = digits.len() - significant.len();
    if significant.is_empty() {
        return None;
    }
    // Of the first digit that is no zero.
    let place = i64::try_from(whole.len()).unwrap_or(i64::MAX) - 1 - i64::try_from(zeros).unwrap_or(i64::MAX);
    let magnitude = exponent.parse::<i64>().ok().and_then(|exponent| exponent.checked_add(place));
    if magnitude.is_none_or(|magnitude| magnitude.abs() >= LARGEST_EXPONENT) {
        return Some("is a number beyond 1e308 (or below 1e-308), which programs cannot hold".to_owned());
    }
    let stored = significant.trim_end_matches('0').len();
    (stored > DIGITS).then(|| format!("is a number of {stored} digits, and Terraform stores {DIGITS}"))
}

impl fmt::Display for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |f: &mut fmt::Formatter<'_>, text: &str| write!(f, "{}", Value::from(text));
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(bool) => write!(f, "{bool}"),
            Self::Number(number) => f.write_str(number),
            Self::String(string) => text(f, string),
            Self::Array(items) => {
                f.write_str("[")?;
                for (at, item) in items.iter().enumerate() {
                    write!(f, "{}{item}", if at == 0 { "" } else { "," })?;
                }
                f.write_str("]")
            }
            Self::Object(fields) => {
                f.write_str("{")?;
                for (at, (name, field)) in fields.iter().enumerate() {
                    f.write_str(if at == 0 { "" } else { "," })?;
                    text(f, name)?;
                    write!(f, ":{field}")?;
                }
                f.write_str("}")
            }
        }
    }
}

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        RawValue::from_string(self.to_string()).map_err(S::Error::custom)?.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        Self::parse(raw.get()).map_err(D::Error::custom)
    }
}

impl From<Value> for Json {
    fn from(value: Value) -> Self {
        Self::of(&value)
    }
}

/// `deployments.config_snapshot` as it came: the row can be read whatever is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ConfigSnapshot(Arc<str>);

impl ConfigSnapshot {
    /// Reads it. Errors: why it cannot be read.
    pub(crate) fn parse(&self) -> Result<Json, NotReadable> {
        Json::parse(&self.0)
    }
}

impl Default for ConfigSnapshot {
    fn default() -> Self {
        Self("null".into())
    }
}

impl<'de> Deserialize<'de> for ConfigSnapshot {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Box::<RawValue>::deserialize(deserializer).map(|raw| Self(raw.get().into()))
    }
}

impl Serialize for ConfigSnapshot {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let raw: &RawValue = serde_json::from_str(&self.0).map_err(S::Error::custom)?;
        raw.serialize(serializer)
    }
}

impl From<Value> for ConfigSnapshot {
    fn from(value: Value) -> Self {
        Self(value.to_string().into())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_number_that_no_row_can_hold_is_known() {
        for (number, is_storable) in [
            ("0", true),
            ("-1e400", true),
            ("1e131071", true),
            ("1e131072", false),
            ("-1E+200000", false),
            ("1e-16383", true),
            ("1e-16384", false),
            ("0.5e-16383", false),
            ("1e99999999999", false),
        ] {
            let value = Json::Array(vec![Json::Null, Json::Number(number.to_owned())]);
            assert_eq!(value.is_storable(), is_storable, "{number}");
        }
    }

    #[test]
    fn every_digit_is_kept() {
        for number in [
            "0",
            "-0",
            "1",
            "1.0",
            "1.10",
            "1e3",
            "1E+3",
            "12345678901234567890123",
            "18446744073709551616",
            "3.14159265358979323846",
            "-0.1e-7",
            "1e400",
            "9007199254740993",
        ] {
            let text = format!(r#"{{"a":[{number}],"b":{number}}}"#);
            let json = Json::parse(&text).unwrap();
            assert_eq!(json.to_string(), text);
            assert_eq!(serde_json::to_string(&json).unwrap(), text);
            assert_eq!(serde_json::from_str::<Json>(&text).unwrap(), json);
        }
    }

    #[test]
    fn what_is_too_deep_or_no_json_is_an_error_and_its_row_is_read_all_the_same() {
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(Json::parse(&deep).unwrap_err().to_string().contains("more than 120 levels"));
        let row: BTreeMap<String, ConfigSnapshot> =
            serde_json::from_str(&format!(r#"{{"config":{deep}}}"#)).unwrap();
        row["config"].parse().unwrap_err();
        for text in ["", "{", "01", "nul", "[1,]", "\"", "1 2", "{\"a\":+1}"] {
            Json::parse(text).unwrap_err();
        }
        Json::parse(&format!("{}1{}", "[".repeat(120), "]".repeat(120))).unwrap();
    }

    #[test]
    fn fields_whose_names_are_hidden_are_all_there() {
        let redactor = Redactor::default();
        redactor.hide(["first-secret".to_owned(), "second-secret".to_owned()]);
        let json = Json::parse(r#"{"first-secret":1,"second-secret":2,"third":3}"#).unwrap();
        let shown = json.redacted(&redactor).to_string();
        assert_eq!(shown, format!(r#"{{"{MASK}":1,"{MASK} (2)":2,"third":3}}"#));
    }

    #[test]
    fn numbers_that_would_not_arrive_are_known() {
        for number in ["0", "1e308", "1e400", "-1e-400", "1e99999999999999999999"]
            .iter()
            .zip([true, false, false, false, false])
        {
            assert_eq!(not_exact(number.0).is_none(), number.1, "{}", number.0);
        }
        assert_eq!(not_exact(&"9".repeat(153)), None);
        assert!(not_exact(&"9".repeat(154)).unwrap().contains("154 digits"));
        assert_eq!(not_exact(&format!("1{}", "0".repeat(300))), None);
    }

    proptest! {
        #[test]
        fn a_value_is_what_serde_reads(value in proptest::collection::vec("[\\PC\0\n\"\\\\]{0,8}", 0..5)) {
            let value = serde_json::json!({"list": value, "null": null, "true": true, "nested": {"é": [1, -2.5]}});
            prop_assert_eq!(Json::from(value.clone()).to_value().unwrap(), value);
        }
    }
}
