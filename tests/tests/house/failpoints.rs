//! The agent's fail points are listed, and each is in the crash table.

use std::{collections::BTreeSet, fs};

use tendril_tests::repository;

use super::imports::{code, sources};

/// The names in `failpoint!("…")` anywhere in the agent.
fn failpoints_in_use() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for file in sources("tendril-agent/src") {
        let text = code(&file);
        for (_, rest) in
            text.match_indices("failpoint!(\"").map(|(at, start)| text.split_at(at + start.len()))
        {
            found.insert(rest.split('"').next().unwrap_or_default().to_owned());
        }
    }
    found
}

#[test]
fn the_agents_fail_points_are_listed_and_each_is_in_the_crash_table() {
    let used = failpoints_in_use();
    let list = fs::read_to_string(repository("tendril-agent/src/os/failpoint.rs")).expect("the list");
    let list = list.split("&[\n").nth(1).and_then(|list| list.split("];").next()).expect("a list");
    let listed: BTreeSet<String> = list
        .split(',')
        .map(|name| name.trim().trim_matches('"').to_owned())
        .filter(|name| !name.is_empty())
        .collect();
    assert_eq!(used, listed);
    let of_pods = tendril_tests::kubernetes::PLACES.iter();
    let played: BTreeSet<String> = tendril_tests::crash::PLACES
        .iter()
        .map(|(name, _)| name)
        .chain(of_pods)
        .map(|name| (*name).to_owned())
        .collect();
    assert_eq!(played, listed);
}
