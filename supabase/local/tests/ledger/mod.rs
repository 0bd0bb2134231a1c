//! DIFFERENCES.md, as the tests read it.

use std::collections::BTreeMap;

/// The entries of a kind, such as `rest/v16.2`: name and reason.
pub(crate) fn listed(kind: &str) -> BTreeMap<String, String> {
    let entry = |line: &str| {
        let (name, reason) = line.strip_prefix("- `")?.split_once("`: ")?;
        let name = name.strip_prefix(kind)?.strip_prefix('/')?;
        Some((name.to_owned(), reason.to_owned()))
    };
    include_str!("../../DIFFERENCES.md").lines().filter_map(entry).collect()
}
