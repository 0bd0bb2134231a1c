//! Readers of single values: times and names.

use std::time::Duration;

/// A time such as `30s`, `10m`, `2h`.
pub(super) fn time(text: &str) -> Result<Duration, String> {
    let wrong = || "write a time such as 30s, 10m or 2h".to_owned();
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor = match &text[digits.len()..] {
        "s" | "" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return Err(wrong()),
    };
    let count: u64 = digits.parse().map_err(|_| wrong())?;
    // A year is more than anybody waits.
    count
        .checked_mul(factor)
        .filter(|seconds| *seconds <= 31_536_000)
        .map(Duration::from_secs)
        .ok_or_else(wrong)
}

/// A name in Kubernetes.
pub(super) fn kubernetes_name(text: &str) -> Result<String, String> {
    let fits = text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    if fits && (1..=52).contains(&text.len()) && !text.starts_with('-') && !text.ends_with('-') {
        Ok(text.to_owned())
    } else {
        Err("use up to 52 lower-case letters, digits and hyphens, with a letter or digit at both ends"
            .to_owned())
    }
}

/// A name that AWS, Kubernetes and a file system take.
pub(super) fn cluster_name(text: &str) -> Result<String, String> {
    let name = kubernetes_name(text)?;
    // A VPC of that name is made: the shortest limit of the templates.
    if name.len() > 31 || name.len() < 2 || !name.starts_with(|c: char| c.is_ascii_lowercase()) {
        return Err("use 2 to 31 characters, and begin with a letter".to_owned());
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_a_unit() {
        assert_eq!(time("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(time("10m"), Ok(Duration::from_secs(600)));
        assert_eq!(time("2h"), Ok(Duration::from_secs(7200)));
        for text in ["", "m", "-1s", "1d", "1.5h", "99999999999999999999h", "9999999h"] {
            assert!(time(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_clusters_name_fits_everywhere_it_is_used() {
        for text in ["a", "A", "1a", "a_b", "-a", "a-", "../a", &"a".repeat(32)] {
            assert!(cluster_name(text).is_err(), "{text}");
        }
        assert!(cluster_name("prod-eu").is_ok());
    }
}
