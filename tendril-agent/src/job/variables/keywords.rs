//! The values of a schema's keywords: types, formats, bounds and patterns, read and compiled once.

use std::net::{Ipv4Addr, Ipv6Addr};

use bigdecimal::BigDecimal;
use serde::{Deserialize, Deserializer, de::Error as _};

use crate::job::json::{Json, not_exact};

/// A number to compare with, as it was written and as it is.
#[derive(Debug)]
pub(super) struct Bound(pub(super) String, pub(super) BigDecimal);

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
pub(super) fn decimal(number: &str) -> Option<BigDecimal> {
    if not_exact(number).is_some() { None } else { number.parse().ok() }
}

/// The formats that are checked.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Format {
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
    pub(super) fn fits(self, text: &str) -> bool {
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
            // The parser takes more than the standard: it cuts off blanks, and leaves out line ends.
            Self::Uri => {
                !text.contains(|c: char| c.is_whitespace() || c.is_control()) && url::Url::parse(text).is_ok()
            }
            Self::Date => text.len() == 10 && text.parse::<jiff::civil::Date>().is_ok(),
            Self::DateTime => is_rfc_3339(text) && text.parse::<jiff::Timestamp>().is_ok(),
            Self::Email => text.split_once('@').is_some_and(|(user, host)| {
                !user.is_empty() && !user.contains(char::is_whitespace) && is_hostname(host)
            }),
            Self::Hostname => is_hostname(text),
        }
    }

    pub(super) const fn with_article(self) -> &'static str {
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

/// Whether a time has the form of RFC 3339, as Terraform's functions take it; whether it is one, is another question.
fn is_rfc_3339(text: &str) -> bool {
    const FORM: &[u8] = b"0000-00-00T00:00:00";
    let Some((time, rest)) = text.as_bytes().split_at_checked(FORM.len()) else { return false };
    let fits = |(byte, form): (&u8, &u8)| if *form == b'0' { byte.is_ascii_digit() } else { byte == form };
    let digits = |rest: &[u8]| rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let zone = match rest.split_first() {
        Some((b'.', fraction)) if digits(fraction) > 0 => &fraction[digits(fraction)..],
        _ => rest,
    };
    let is_zone = match zone.split_first() {
        Some((b'Z', [])) => true,
        Some((b'+' | b'-', offset)) => offset.len() == 5 && offset.iter().zip(b"00:00").all(fits),
        _ => false,
    };
    is_zone && time.iter().zip(FORM).all(fits)
}

/// The `type` keyword: a name or a list of names.
#[derive(Debug, Default)]
pub(super) enum Kinds {
    #[default]
    Any,
    One(Kind),
    Several(Vec<Kind>),
}

impl<'de> Deserialize<'de> for Kinds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let kind = |value: Json| {
            match &value {
            Json::String(name) => serde_json::from_value(name.as_str().into())
                .map_err(|_| D::Error::custom(format!("the type {name:?} is none: a type is one of \"string\", \"number\", \"integer\", \"boolean\", \"array\", \"object\", \"null\""))),
            other => Err(D::Error::custom(format!("a type is a name or a list of names, and not {}", other.kind()))),
        }
        };
        match Json::deserialize(deserializer)? {
            Json::Array(names) if names.is_empty() => {
                Err(D::Error::custom("the list of types is empty: no value would fit"))
            }
            Json::Array(names) => names.into_iter().map(kind).collect::<Result<_, _>>().map(Self::Several),
            name => kind(name).map(Self::One),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Kind {
    String,
    Number,
    Integer,
    Boolean,
    Array,
    Object,
    Null,
}

impl Kind {
    pub(super) const fn with_article(self) -> &'static str {
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

    pub(super) fn fits(self, value: &Json) -> bool {
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

/// A regular expression, compiled once when the manifest is read.
#[derive(Debug)]
pub(super) struct Pattern(pub(super) regex_lite::Regex);

impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        regex_lite::Regex::new(&text).map(Self).map_err(D::Error::custom)
    }
}
