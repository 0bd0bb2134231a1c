//! The API key of a cluster: `tdl_`, 22 digits of the cluster's id, 43 digits of secret; digits are base62.
//!
//! Only the database can check whether a key is good. What can be wrong with one that was copied by hand is reported here, before
//! anything is sent.

use std::fmt;

use secrecy::{ExposeSecret, SecretString};
use uuid::Uuid;

const PREFIX: &str = "tdl_";
/// Digits of the cluster's id.
const ID: usize = 22;
/// Digits of the secret.
const SECRET: usize = 43;
const LENGTH: usize = PREFIX.len() + ID + SECRET;
const DIGITS: &[u8] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const QUOTES: [char; 3] = ['"', '\'', '`'];

/// A key that has the form of one.
#[derive(Clone)]
pub(crate) struct ClusterKey {
    text: SecretString,
    cluster_id: Uuid,
}

impl ClusterKey {
    /// Whether a text is meant as a key, good or bad.
    pub(crate) fn is_meant(text: &str) -> bool {
        let bare = text.trim_start_matches(QUOTES);
        bare.get(..PREFIX.len()).is_some_and(|start| start.eq_ignore_ascii_case(PREFIX))
    }

    /// Reads a key. Errors: a sentence for each way in which copying goes wrong; none repeats a part of the key.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        const AGAIN: &str = "copy it again, as it was shown when it was made";
        if text.starts_with(QUOTES) || text.ends_with(QUOTES) {
            return Err("the API key stands in quotation marks: take them away".to_owned());
        }
        if text.contains('…') || text.contains("...") {
            return Err(format!("the API key was shortened where it was shown: {AGAIN}, whole"));
        }
        if let Some(place) = text.chars().position(char::is_whitespace) {
            return Err(format!(
                "the API key holds white space after {place} characters, as if it were broken over lines or more than the key were copied: {AGAIN}, in one piece"
            ));
        }
        let Some(digits) = text.strip_prefix(PREFIX) else {
            return Err(format!("the API key does not begin with {PREFIX} in small letters: {AGAIN}"));
        };
        if let Some(place) = digits.chars().position(|c| !c.is_ascii_alphanumeric()) {
            return Err(format!(
                "the API key holds a character that no key has, after {} characters (letters and digits follow {PREFIX}): {AGAIN}",
                PREFIX.len() + place
            ));
        }
        match text.len() {
            LENGTH => {}
            short if short < LENGTH => {
                return Err(format!(
                    "the API key has {short} characters of {LENGTH}, it was cut off when it was copied: {AGAIN}"
                ));
            }
            long => {
                return Err(format!(
                    "the API key has {long} characters, more than the {LENGTH} of a key: {AGAIN}, without what follows it"
                ));
            }
        }
        let cluster_id = uuid_of(&digits.as_bytes()[..ID]).ok_or_else(|| {
            format!("the API key names no cluster (its first {ID} digits are no UUID): {AGAIN}")
        })?;
        Ok(Self { text: SecretString::from(text), cluster_id })
    }

    /// The cluster that it names.
    pub(crate) const fn cluster_id(&self) -> Uuid {
        self.cluster_id
    }

    /// The key, for the one request that shows it.
    pub(super) fn expose(&self) -> &str {
        self.text.expose_secret()
    }
}

impl PartialEq for ClusterKey {
    fn eq(&self, other: &Self) -> bool {
        self.expose() == other.expose()
    }
}

impl fmt::Debug for ClusterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterKey").field("cluster_id", &self.cluster_id).finish_non_exhaustive()
    }
}

/// 16 bytes, big-endian, in base62. None: more than 16 bytes.
fn uuid_of(digits: &[u8]) -> Option<Uuid> {
    let value = |digit: &u8| DIGITS.iter().position(|known| known == digit);
    let number = digits.iter().try_fold(0_u128, |number, digit| {
        number.checked_mul(62)?.checked_add(u128::try_from(value(digit)?).ok()?)
    })?;
    Some(Uuid::from_u128(number))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As the database writes it.
    fn key_of(id: Uuid, secret: &str) -> String {
        let (mut rest, mut digits) = (id.as_u128(), Vec::new());
        for _ in 0..ID {
            digits.insert(0, DIGITS[usize::try_from(rest % 62).unwrap()]);
            rest /= 62;
        }
        format!("{PREFIX}{}{secret}", String::from_utf8(digits).unwrap())
    }

    fn good() -> String {
        key_of(Uuid::from_u128(0x5eed), &"Z".repeat(SECRET))
    }

    #[test]
    fn each_mistake_of_copying_has_its_own_sentence() {
        let good = good();
        let changed = |place: usize, digit: &str| format!("{}{digit}{}", &good[..place], &good[place + 1..]);
        let mut message = std::collections::BTreeSet::new();
        for (key, part) in [
            (good[..68].to_owned(), "68 characters of 69, it was cut off"),
            (PREFIX.to_owned(), "4 characters of 69"),
            (format!("{good}a"), "has 70 characters, more than the 69"),
            (changed(30, "-"), "a character that no key has, after 30"),
            (changed(68, "é"), "after 68 characters (letters"),
            (format!("{}\n{}", &good[..40], &good[40..]), "white space after 40"),
            (format!("{good} # production"), "white space after 69"),
            (format!("\"{good}\""), "quotation marks"),
            (format!("{}…", &good[..20]), "was shortened"),
            (good.replacen("tdl_", "TDL_", 1), "does not begin with tdl_"),
            (format!("tdl_{}{}", "z".repeat(ID), "Z".repeat(SECRET)), "names no cluster"),
        ] {
            assert!(ClusterKey::is_meant(&key), "{key}");
            let problem = ClusterKey::parse(&key).unwrap_err();
            assert!(problem.contains(part), "{problem}");
            assert!(!problem.contains("ZZZZ") && !problem.contains("zzzz"), "{problem}");
            message.insert(problem);
        }
        assert_eq!(message.len(), 11);
    }

    #[test]
    fn a_jwt_is_not_meant_as_a_key() {
        for text in ["", "tdl", "eyJhbGciOiJIUzI1NiJ9.e30.sig", "sb_publishable_x", "é"] {
            assert!(!ClusterKey::is_meant(text), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_key_tells_its_cluster_and_hides_itself(id: u128, secret in "[0-9A-Za-z]{43}") {
            let text = key_of(Uuid::from_u128(id), &secret);
            let key = ClusterKey::parse(&text).unwrap();
            prop_assert_eq!(key.cluster_id(), Uuid::from_u128(id));
            let shown = format!("{key:?}");
            prop_assert!(!shown.contains(&secret), "{}", shown);
        }

        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,80}") {
            let _any = ClusterKey::parse(&text);
            let _any = ClusterKey::parse(&format!("tdl_{text}"));
        }
    }
}
