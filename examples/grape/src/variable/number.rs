//! JSON whose numbers are not changed by reading them.

use std::collections::BTreeMap;

use serde_json::{Map, Number, Value, value::RawValue};

/// A number, where a JSON number holds exactly what is written.
pub fn exact(text: &str) -> Option<Number> {
    let number: Number = serde_json::from_str(text).ok()?;
    (normal(&number.to_string())? == normal(text)?).then_some(number)
}

/// Digits without zeros at either end, and the power of ten behind them: `1.10` and `11e-1` are (`11`, -1).
fn normal(text: &str) -> Option<(bool, String, i64)> {
    let lower = text.to_ascii_lowercase();
    let (mantissa, exponent) = lower.split_once('e').unwrap_or((&lower, "0"));
    let exponent: i64 = exponent.parse().ok()?;
    let (negative, mantissa) = mantissa.strip_prefix('-').map_or((false, mantissa), |rest| (true, rest));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    let significant = digits.trim_start_matches('0').trim_end_matches('0');
    if significant.is_empty() {
        return Some((false, String::new(), 0));
    }
    let zeros = i64::try_from(digits.len() - digits.trim_end_matches('0').len()).ok()?;
    let power = exponent.checked_sub(i64::try_from(fraction.len()).ok()?)?.checked_add(zeros)?;
    Some((negative, significant.to_owned(), power))
}

/// Reads JSON; a number that would lose digits is refused.
///
/// # Errors
/// A sentence for people.
pub fn read_json(text: &str) -> Result<Value, String> {
    let raw: &RawValue = serde_json::from_str(text).map_err(|error| format!("it is no JSON: {error}"))?;
    from_raw(raw)
}

fn from_raw(raw: &RawValue) -> Result<Value, String> {
    let text = raw.get();
    let broken = |error: serde_json::Error| format!("it is no JSON: {error}");
    match text.as_bytes().first() {
        Some(b'{') => {
            let members: BTreeMap<String, &RawValue> = serde_json::from_str(text).map_err(broken)?;
            let read = |(name, raw): (String, &RawValue)| Ok((name, from_raw(raw)?));
            members.into_iter().map(read).collect::<Result<Map<_, _>, String>>().map(Value::Object)
        }
        Some(b'[') => {
            let items: Vec<&RawValue> = serde_json::from_str(text).map_err(broken)?;
            items.into_iter().map(from_raw).collect::<Result<_, _>>().map(Value::Array)
        }
        Some(b'-' | b'0'..=b'9') => exact(text).map(Value::Number).ok_or_else(|| {
            format!("the number {text} has more digits than can be passed on: write it as a string")
        }),
        _ => serde_json::from_str(text).map_err(broken),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_number_is_taken_only_if_nothing_of_it_is_lost() {
        for text in [
            "0",
            "-0",
            "1.10",
            "51e5",
            "0.1",
            "-2.50",
            "18446744073709551615",
            "1e-7",
            "100",
            "1e2",
            "0.30000000000000004",
        ] {
            assert!(exact(text).is_some(), "{text}");
        }
        for text in [
            "12345678901234567890123",
            "0.30000000000000004441",
            "1e400",
            "18446744073709551616",
            "01",
            "+1",
            "",
            "1 ",
        ] {
            assert!(exact(text).is_none(), "{text}");
        }
    }

    #[test]
    fn numbers_deep_inside_json_are_kept_or_refused_too() {
        assert_eq!(read_json("{\"a\": [1.10, \"1.10\"]}").unwrap(), json!({ "a": [1.1, "1.10"] }));
        assert!(read_json("{\"a\": [12345678901234567890123]}").unwrap_err().contains("more digits"));
        assert!(read_json("{").is_err() && read_json("a").is_err());
    }
}
