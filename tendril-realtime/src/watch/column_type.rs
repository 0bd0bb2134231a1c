//! What a column's type means for its value in an event: whether it is the value that a read returns, and when two values are equal.
//!
//! Realtime and `PostgREST` write most types alike, and some not: `tests/recorded/types.json` has 165 values of 65 types as real
//! servers write them. Where they differ, or where nothing is known, the row is read again instead of being taken from the event.

use std::collections::HashMap;

use serde_json::value::RawValue;

/// A column's type, as far as it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ColumnType {
    Bool,
    Integer,
    Uuid,
    /// Text, under a collation that an event does not name.
    Text,
    /// `numeric`: NaN and the infinities come as `null`.
    Numeric,
    /// As `numeric`, and large and small numbers are written in two ways.
    Float4,
    Float8,
    /// Written alike. Different texts may be equal values: times, networks, ranges.
    Alike,
    /// Written alike. A JSON null is not the same as NULL.
    Jsonb,
    /// Written differently, or not known to be written alike.
    Different,
    /// An enum, a domain, a composite type, a type of an extension: the form of the value has to do.
    Other,
}

/// The types of a table's columns, as an event names them.
#[derive(Debug, Default)]
pub(super) struct ColumnTypes(HashMap<String, ColumnType>);

#[derive(serde::Deserialize)]
struct Column {
    name: String,
    #[serde(rename = "type", default)]
    type_name: String,
}

impl ColumnTypes {
    /// Of an event's `columns`.
    pub(super) fn parse(columns: &str) -> Self {
        let columns: Vec<Column> = serde_json::from_str(columns).unwrap_or_default();
        Self(columns.into_iter().map(|column| (column.name, ColumnType::named(&column.type_name))).collect())
    }

    /// Of a column that the event does not name, nothing is known.
    pub(super) fn of(&self, column: &str) -> ColumnType {
        self.0.get(column).copied().unwrap_or(ColumnType::Different)
    }
}

impl ColumnType {
    /// By PostgreSQL's internal name, which for an array begins with `_`.
    fn named(name: &str) -> Self {
        if let Some(element) = name.strip_prefix('_') {
            return match Self::named(element) {
                Self::Bool
                | Self::Integer
                | Self::Uuid
                | Self::Text
                | Self::Numeric
                | Self::Alike
                | Self::Jsonb => Self::Alike,
                Self::Different if element == "bytea" => Self::Alike,
                _ => Self::Different,
            };
        }
        match name {
            "bool" => Self::Bool,
            "int2" | "int4" | "int8" => Self::Integer,
            "uuid" => Self::Uuid,
            "text" | "varchar" => Self::Text,
            "numeric" => Self::Numeric,
            "float4" => Self::Float4,
            "float8" => Self::Float8,
            "jsonb" => Self::Jsonb,
            "name" | "char" | "money" | "xml" | "date" | "time" | "timetz" | "timestamp" | "timestamptz"
            | "interval" | "varbit" | "inet" | "cidr" | "macaddr" | "macaddr8" | "point" | "line"
            | "lseg" | "box" | "path" | "polygon" | "circle" | "tsvector" | "tsquery" | "int4range"
            | "int8range" | "numrange" | "tsrange" | "tstzrange" | "daterange" | "int4multirange"
            | "int8multirange" | "nummultirange" | "tsmultirange" | "tstzmultirange" | "datemultirange"
            | "oid" | "pg_lsn" | "xid8" => Self::Alike,
            // The first character, the first bit, without `\x`, as jsonb: recorded. The others are not recorded, or depend on
            // settings of the session, such as the search path.
            "bpchar" | "bit" | "bytea" | "json" | "jsonpath" | "int2vector" | "oidvector" | "tid" | "xid"
            | "cid" | "aclitem" | "refcursor" | "txid_snapshot" | "pg_snapshot" | "gtsvector" | "record"
            | "" => Self::Different,
            _ if name.starts_with("reg") || name.starts_with("pg_") => Self::Different,
            _ => Self::Other,
        }
    }

    /// Whether a read returns this value in the same spelling.
    pub(super) fn is_written_alike(self, value: &RawValue) -> bool {
        let json = value.get();
        match self {
            Self::Bool | Self::Integer | Self::Uuid | Self::Text | Self::Alike | Self::Jsonb => true,
            Self::Different => false,
            Self::Numeric => json != "null",
            Self::Float4 => is_plain_float(json, 1e6),
            Self::Float8 => is_plain_float(json, 1e15),
            Self::Other => match json.as_bytes().first() {
                // Perhaps a char(n) or a bit(n) cut short, perhaps bytes or a geometry in hexadecimal.
                Some(b'"') => serde_json::from_str::<String>(json).is_ok_and(|text| {
                    text.chars().count() > 1 && !text.bytes().all(|byte| byte.is_ascii_hexdigit())
                }),
                Some(b'-' | b'0'..=b'9') => is_plain_float(json, 1e6),
                Some(b't' | b'f') => true,
                // A list of something unknown, a composite type whose fields have another order, a NaN.
                _ => false,
            },
        }
    }

    /// Whether a row can be found by this value of a key's column.
    pub(super) fn is_sound_key(self, value: &RawValue) -> bool {
        self != Self::Jsonb && self.is_written_alike(value)
    }

    /// Whether NULL, and nothing else, is written as this `null`.
    pub(super) fn null_is_null(self) -> bool {
        matches!(self, Self::Bool | Self::Integer | Self::Uuid | Self::Text | Self::Alike)
    }

    /// Whether the value of a column equals what a filter's text means; `None` where only the server can decide.
    pub(super) fn equals(self, value: &RawValue, filter: &str) -> Option<bool> {
        if !self.is_written_alike(value) {
            return None;
        }
        let json = value.get();
        let text = serde_json::from_str::<String>(json).unwrap_or_else(|_| json.to_owned());
        match self {
            Self::Bool => matches!(filter, "true" | "false").then(|| text == filter),
            Self::Integer => Some(integer(&text)? == integer(filter)?),
            Self::Uuid => Some(uuid(&text)? == uuid(filter)?),
            Self::Text if text == filter => Some(true),
            Self::Text => (letters(&text)? != letters(filter)?).then_some(false),
            Self::Numeric | Self::Float4 | Self::Float8 | Self::Alike => {
                (text == filter && !json.starts_with(['[', '{'])).then_some(true)
            }
            // A text that is JSON itself may mean another value than a string of these characters.
            Self::Other => {
                let is_json = serde_json::from_str::<&RawValue>(filter).is_ok();
                (text == filter && !is_json).then_some(true)
            }
            Self::Jsonb | Self::Different => None,
        }
    }
}

/// A number that both servers write without an exponent: PostgreSQL writes one from `limit` on.
fn is_plain_float(json: &str, limit: f64) -> bool {
    let plain = json.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'-' | b'.'));
    plain && json.parse::<f64>().is_ok_and(|number| number == 0.0 || (1e-4..limit).contains(&number.abs()))
}

fn integer(text: &str) -> Option<i128> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// The digits, if it is written in the usual way.
fn uuid(text: &str) -> Option<String> {
    let dashes = |at: usize| matches!(at, 8 | 13 | 18 | 23);
    let is_usual = text.len() == 36
        && text
            .bytes()
            .enumerate()
            .all(|(at, byte)| (byte == b'-') == dashes(at) && (byte == b'-' || byte.is_ascii_hexdigit()));
    is_usual.then(|| text.to_ascii_lowercase())
}

/// What remains of a text when everything is left out that a collation may pass over: case, accents, punctuation, zeros before
/// a number, letters that some languages take for one. Texts whose rest differs are different under every collation; `None` where
/// that is not certain.
fn letters(text: &str) -> Option<String> {
    if !text.is_ascii() {
        return None;
    }
    let mut rest = String::with_capacity(text.len());
    let mut in_number = false;
    for byte in text.bytes() {
        let letter = match byte.to_ascii_lowercase() {
            b'w' => 'v',
            b'j' | b'y' => 'i',
            other => char::from(other),
        };
        let is_digit = letter.is_ascii_digit();
        if letter.is_ascii_alphanumeric() && (letter != '0' || in_number) {
            rest.push(letter);
        }
        in_number = is_digit && (letter != '0' || in_number);
    }
    Some(rest)
}

#[cfg(test)]
mod tests {
    use serde_json::value::to_raw_value;

    use super::{super::record::Record, *};

    fn equals(type_name: &str, json: &str, filter: &str) -> Option<bool> {
        let value = RawValue::from_string(json.to_owned()).unwrap();
        ColumnType::named(type_name).equals(&value, filter)
    }

    #[test]
    fn equality_is_judged_where_it_is_certain() {
        for (type_name, json, filter, answer) in [
            ("int4", "5", "5", Some(true)),
            ("int8", "5", "+05", Some(true)),
            ("int8", "5", "6", Some(false)),
            ("int4", "16", "0x10", None),
            ("bool", "true", "true", Some(true)),
            ("bool", "true", "false", Some(false)),
            ("bool", "true", "yes", None),
            ("text", r#""QUEUED""#, "QUEUED", Some(true)),
            ("text", r#""DONE""#, "QUEUED", Some(false)),
            ("text", r#""queued""#, "QUEUED", None),
            ("text", r#""re-queued""#, "REQUEUED", None),
            ("text", r#""résumé""#, "resume", None),
            ("text", r#""a01""#, "A1", None),
            ("text", r#""a10""#, "A1", Some(false)),
            ("text", r#""1-01""#, "1-1", None),
            (
                "uuid",
                r#""aaaaaaaa-0000-4000-8000-000000000001""#,
                "AAAAAAAA-0000-4000-8000-000000000001",
                Some(true),
            ),
            (
                "uuid",
                r#""aaaaaaaa-0000-4000-8000-000000000001""#,
                "aaaaaaaa-0000-4000-8000-000000000002",
                Some(false),
            ),
            (
                "uuid",
                r#""aaaaaaaa-0000-4000-8000-000000000001""#,
                "{aaaaaaaa-0000-4000-8000-000000000002}",
                None,
            ),
            ("timestamptz", r#""2026-01-01T00:00:00+00:00""#, "2026-01-01T00:00:00Z", None),
            ("inet", r#""fe80::1""#, "FE80::1", None),
            ("inet", r#""fe80::1""#, "fe80::1", Some(true)),
            ("numeric", "1.50", "1.5", None),
            ("numeric", "1.50", "1.50", Some(true)),
            ("citext", r#""bob@x""#, "Bob@x", None),
            ("mood", r#""happy""#, "happy", Some(true)),
            ("mood", r#""happy""#, "sad", None),
            ("mood", r#""5""#, "5", None),
            ("bpchar", r#""a""#, "a", None),
            ("bytea", r#""deadbeef""#, r"\xdeadbeef", None),
            ("jsonb", r#""5""#, "5", None),
            ("_int4", "[1,2]", "[1,2]", None),
            ("float8", "null", "NaN", None),
        ] {
            assert_eq!(equals(type_name, json, filter), answer, "{type_name} {json} {filter}");
        }
    }

    #[derive(serde::Deserialize)]
    struct Recorded {
        literal: String,
        realtime_column_type: String,
        realtime_record: String,
        postgrest_row: String,
    }

    /// 165 values of 65 types, as a real Realtime and a real `PostgREST` wrote them.
    #[test]
    fn what_is_taken_from_an_event_is_what_a_read_returns() {
        let values: Vec<Recorded> =
            serde_json::from_str(include_str!("../../tests/recorded/types/types.json")).unwrap();
        assert_eq!(values.len(), 165);
        let mut taken = 0;
        for value in values {
            let event = Record::parse(&value.realtime_record).unwrap();
            let rows: Vec<Box<RawValue>> = serde_json::from_str(&value.postgrest_row).unwrap();
            let read = Record::parse(rows[0].get()).unwrap();
            let kind = ColumnType::named(&value.realtime_column_type);
            let column = event.column("v").unwrap();
            let what = format!("{} {}", value.realtime_column_type, value.literal);
            if kind.is_written_alike(column) {
                assert_eq!(event.fingerprint(), read.fingerprint(), "{what}");
                taken += 1;
            }
            if kind.null_is_null() && column.get() == "null" {
                assert_eq!(value.literal, "null", "{what}");
            }
            // Its own text is never judged to be another value.
            if let Some(text) = read.text_of("v") {
                assert_ne!(kind.equals(column, &text), Some(false), "{what}");
            }
        }
        assert!(taken > 100, "{taken} values are taken from events");
    }

    #[test]
    fn a_null_of_a_number_may_be_something_else() {
        let null = to_raw_value(&()).unwrap();
        for name in ["numeric", "float4", "float8", "money_domain", "bpchar"] {
            let column = ColumnType::named(name);
            assert!(!column.is_written_alike(&null) && !column.null_is_null(), "{name}");
        }
        assert!(!ColumnType::named("jsonb").null_is_null());
        assert!(ColumnType::named("text").null_is_null());
    }
}
