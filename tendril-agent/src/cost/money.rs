//! Amounts of money: stored exactly as they were printed, and never put through a floating-point number.

use std::{cmp::Ordering, str::FromStr};

use bigdecimal::{BigDecimal, Zero};
use serde::{Deserialize, Deserializer, Serialize, de::Error};
use serde_json::value::RawValue;

/// Longest amount that is believed, in characters.
const LONGEST: usize = 64;

/// An amount in plain decimal digits, such as `42.17`; in JSON a string.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Money(String);

impl Money {
    /// An amount as it was printed; none for anything but a plain decimal number.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let unsigned = text.strip_prefix('-').unwrap_or(text);
        let plain = match unsigned.split_once('.') {
            Some((whole, fraction)) => digits(whole) && digits(fraction),
            None => digits(unsigned),
        };
        (plain && text.len() <= LONGEST).then(|| Self(text.to_owned()))
    }

    /// The exact sum.
    pub(crate) fn sum<'a>(amounts: impl IntoIterator<Item = &'a Self>) -> Self {
        let sum = amounts.into_iter().fold(BigDecimal::zero(), |sum, amount| sum + amount.value());
        Self(sum.to_plain_string())
    }

    /// Whether it is nothing, however that was printed.
    pub(crate) fn is_zero(&self) -> bool {
        self.value().is_zero()
    }

    /// As it was printed.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// By value.
    pub(crate) fn compare(&self, other: &Self) -> Ordering {
        self.value().cmp(&other.value())
    }

    fn value(&self) -> BigDecimal {
        // Plain digits are always a number.
        BigDecimal::from_str(&self.0).unwrap_or_default()
    }
}

impl<'de> Deserialize<'de> for Money {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // The raw text: a number would be rounded on its way.
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        let text = match raw.get().strip_prefix('"') {
            Some(_) => serde_json::from_str::<String>(raw.get()).map_err(D::Error::custom)?,
            None => raw.get().to_owned(),
        };
        Self::parse(&text).ok_or_else(|| D::Error::custom("an amount is no plain decimal number"))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(json: &str) -> Result<Option<Money>, serde_json::Error> {
        serde_json::from_str(json)
    }

    #[test]
    fn null_is_no_amount_and_nothing_is_one() {
        assert_eq!(read("null").unwrap(), None);
        assert_eq!(read("\"0\"").unwrap(), Money::parse("0"));
        assert!(Money::parse("-0.00").unwrap().is_zero());
    }

    #[test]
    fn what_is_no_plain_decimal_number_is_refused() {
        let long = format!("\"{}\"", "1".repeat(LONGEST + 1));
        for json in [
            "\"\"",
            "\"1e9\"",
            "1e999999999",
            "\"NaN\"",
            "\"$1\"",
            "\"1.\"",
            "\".5\"",
            "\"--1\"",
            "true",
            "[]",
            &long,
        ] {
            assert!(read(json).is_err(), "{json}");
        }
    }

    #[test]
    fn a_sum_is_exact_where_a_float_is_not() {
        let amounts = ["0.1", "0.2", "9007199254740993", "0.0000000000000000000000001"]
            .map(|text| Money::parse(text).unwrap());
        assert_eq!(Money::sum(&amounts).as_str(), "9007199254740993.3000000000000000000000001");
        assert_eq!(Money::sum(&[]).as_str(), "0");
    }

    proptest! {
        #[test]
        fn an_amount_is_kept_digit_by_digit(text in "-?[0-9]{1,30}(\\.[0-9]{1,30})?") {
            let quoted = format!("\"{text}\"");
            let money = read(&quoted).unwrap().unwrap();
            prop_assert_eq!(money.as_str(), &text);
            prop_assert_eq!(serde_json::to_string(&money).unwrap(), quoted);
        }

        #[test]
        fn an_amount_that_is_a_json_number_is_kept_too(text in "-?(0|[1-9][0-9]{0,29})(\\.[0-9]{1,30})?") {
            let money = read(&text).unwrap().unwrap();
            prop_assert_eq!(money.as_str(), &text);
        }

        #[test]
        fn sums_agree_with_whole_numbers(cents in proptest::collection::vec(0_u64..10_000_000_000, 0..20)) {
            let amounts: Vec<Money> = cents.iter()
                .map(|cents| Money::parse(&format!("{}.{:02}", cents / 100, cents % 100)).unwrap())
                .collect();
            let total: u64 = cents.iter().sum();
            let expected = Money::parse(&format!("{}.{:02}", total / 100, total % 100)).unwrap();
            prop_assert_eq!(Money::sum(&amounts).compare(&expected), Ordering::Equal);
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".{0,80}") {
            if let Some(money) = Money::parse(&text) {
                prop_assert_eq!(money.as_str(), &text);
            }
        }
    }
}
