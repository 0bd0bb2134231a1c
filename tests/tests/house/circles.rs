//! What is wrong inside a room: files that import each other in a circle, and names that this code no longer uses.

use std::collections::BTreeSet;

use super::imports::{code, modules, sources};

/// Every path of a `use` tree: `a::{b, c::{d, e}}` is `a::b`, `a::c::d` and `a::c::e`.
fn expand(prefix: &str, tree: &str, paths: &mut Vec<String>) {
    let tree = tree.trim();
    let Some((head, group)) = tree.split_once('{') else {
        paths.push(format!("{prefix}{tree}"));
        return;
    };
    let (mut depth, mut start) = (0_usize, 0);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            ',' | '}' if depth == 0 => {
                if !group[start..at].trim().is_empty() {
                    expand(&format!("{prefix}{head}"), &group[start..at], paths);
                }
                start = at + 1;
            }
            '}' => depth -= 1,
            _ => {}
        }
    }
}

/// The paths into its own crate that a file mentions.
fn own_paths(code: &str) -> Vec<String> {
    let mut paths = Vec::new();
    for root in ["crate::", "super::"] {
        for (start, _) in code.match_indices(root) {
            if code[..start].ends_with("::") {
                continue;
            }
            let tree = code[start..].split([';', '(', ')', ' ', '<', '>', '?', '.']).next();
            let line_is_use = code[..start].ends_with("use ");
            let tree = if line_is_use { code[start..].split(';').next() } else { tree };
            expand("", tree.unwrap_or_default(), &mut paths);
        }
    }
    paths
}

/// The module that a path leads to, seen from a file: the longest beginning that is one.
fn target(path: &str, place: &[String], modules: &BTreeSet<Vec<String>>) -> Option<Vec<String>> {
    let mut parts = path.split("::").map(str::trim).peekable();
    let mut full = if parts.next_if_eq(&"crate").is_some() { Vec::new() } else { place.to_vec() };
    while parts.next_if_eq(&"super").is_some() {
        full.pop();
    }
    full.extend(parts.map(str::to_owned));
    (1..=full.len()).rev().map(|length| full[..length].to_vec()).find(|module| modules.contains(module))
}

/// The circles among the files of each room: `room: file, file`.
fn circles(dir: &str) -> BTreeSet<String> {
    let files: Vec<(Vec<String>, String)> =
        sources(dir).iter().map(|file| (modules(file, dir), code(file))).collect();
    let all: BTreeSet<Vec<String>> = files.iter().map(|(place, _)| place.clone()).collect();
    let known = &all;
    let edges: Vec<(&Vec<String>, Vec<String>)> = files
        .iter()
        .flat_map(|(place, code)| {
            own_paths(code).into_iter().filter_map(move |path| Some((place, target(&path, place, known)?)))
        })
        .collect();
    let rooms: BTreeSet<&[String]> =
        all.iter().flat_map(|place| (0..place.len()).map(|length| &place[..length])).collect();
    let mut found = BTreeSet::new();
    for room in rooms {
        let inside = |place: &[String]| {
            (place.len() > room.len() && place.starts_with(room)).then(|| place[room.len()].clone())
        };
        let mut reach: BTreeSet<(String, String)> = edges
            .iter()
            .filter_map(|(from, to)| Some((inside(from)?, inside(to)?)))
            .filter(|(from, to)| from != to)
            .collect();
        loop {
            let further: Vec<_> = reach
                .iter()
                .flat_map(|(a, b)| {
                    reach.iter().filter(move |(c, _)| c == b).map(move |(_, d)| (a.clone(), d.clone()))
                })
                .filter(|pair| !reach.contains(pair))
                .collect();
            if further.is_empty() {
                break;
            }
            reach.extend(further);
        }
        let ringed: BTreeSet<&String> = reach.iter().filter(|(a, b)| a == b).map(|(a, _)| a).collect();
        for first in &ringed {
            let ring: Vec<&str> = ringed
                .iter()
                .filter(|other| reach.contains(&((**first).clone(), (***other).clone())))
                .map(|name| name.as_str())
                .collect();
            found.insert(format!("{}: {}", room.join("::"), ring.join(", ")));
        }
    }
    found
}

#[test]
fn no_files_of_a_room_import_each_other_in_a_circle() {
    for dir in ["tendril-realtime/src", "tendril-agent/src", "examples/grape/src", "supabase/local/src"] {
        let found = circles(dir);
        assert!(found.is_empty(), "{dir}: a module must not import what imports it: {found:?}");
    }
}

/// Names that this code no longer uses; the field has others.
const RETIRED: &[&str] = &[
    "crew",
    "workbench",
    "rung",
    "ladder",
    "heir",
    "needles",
    "shelf",
    "timetable",
    "errand",
    "roster",
    "shortage",
    "hinted",
    "inlet",
    "redial",
    "untold",
    "halt",
    "burial",
    "deaf",
    "farewell",
    "goodbye",
    "heirs",
    "journey",
    "mend",
    "mends",
    "politely",
    "settled",
    "sight",
    "spoken",
    "unheard",
    "wish",
];

#[test]
fn no_retired_name_comes_back() {
    let dirs = [
        "tendril-realtime/src",
        "tendril-agent/src",
        "supabase/local/src",
        "examples/grape/src",
        "tests/src",
    ];
    for dir in dirs {
        for file in sources(dir) {
            let text = code(&file).to_lowercase();
            let mut parts = text.split(|c: char| !c.is_ascii_alphabetic());
            let found = parts.find(|part| RETIRED.contains(part));
            assert_eq!(found, None, "{}", file.display());
        }
    }
}
