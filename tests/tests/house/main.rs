//! The order of the house: what may import what. The order is in the libraries' documentation; here it is checked.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test may fail")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use tendril_tests::repository;

mod circles;

/// The rooms of `tendril-realtime`, from values without I/O down to what users hold. Imports point up only.
const ORDER: &[&str] = &[
    "telemetry",
    "error",
    "filter",
    "backoff",
    "secret",
    "token",
    "auth",
    "trace",
    "endpoint",
    "tls",
    "proxy",
    "network",
    "rest",
    "wire",
    "session",
    "socket",
    "driver",
    "stream",
    "channel",
    "client",
    "watch",
    "lib",
];

/// The rooms of `tendril-agent`, from the operating system up to the process. Imports point up this list only: the way of a
/// job, read backwards.
const AGENT_ORDER: &[&str] = &[
    "telemetry",
    "os",
    "redaction",
    "process",
    "job",
    "control_plane",
    "logs",
    "template",
    "terraform",
    "cost",
    "execute",
    "launch",
    "dispatch",
    "observability",
    "config",
    "agent",
    "executor",
    "program",
    "lib",
    "main",
];

/// `rest` stands on values, and on nothing of the websocket.
const REST_STANDS_ON: &[&str] = &[
    "error",
    "filter",
    "backoff",
    "secret",
    "token",
    "auth",
    "trace",
    "endpoint",
    "tls",
    "proxy",
    "network",
    "telemetry",
];

/// Names that say nothing about what is inside.
const EMPTY_NAMES: &[&str] = &["utils", "util", "common", "helpers", "helper", "manager", "types", "misc"];

/// The Rust files below a directory.
fn sources(dir: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut dirs = vec![repository(dir)];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display())) {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                dirs.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    assert!(!found.is_empty(), "{dir} has sources");
    found.retain(|file| !is_test(file));
    found.sort();
    found
}

/// Whether its parent declares it for tests only. Tests may reach everywhere.
fn is_test(file: &Path) -> bool {
    // `testing/mod.rs` is declared where `testing.rs` would be.
    let shown = if file.ends_with("mod.rs") {
        file.parent().unwrap_or(file).with_extension("rs")
    } else {
        file.to_owned()
    };
    let (Some(dir), Some(stem)) = (shown.parent(), shown.file_stem()) else { return false };
    let (stem, name) = (stem.to_string_lossy(), file.file_name().expect("a name").to_string_lossy());
    let by_name = format!("#[cfg(test)]\nmod {stem};");
    let by_path = format!("#[path = \"{name}\"]");
    let siblings = fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry").path());
    let parents = siblings.chain([dir.with_extension("rs")]).filter(|path| path.is_file() && path != file);
    parents.into_iter().filter_map(|path| fs::read_to_string(path).ok()).any(|text| {
        text.contains(&by_name)
            || text.split_once(&by_path).is_some_and(|(before, _)| before.ends_with("#[cfg(test)]\n"))
    })
}

/// The path of a file inside its crate as modules: `rest/request.rs` is `rest`, `request`.
fn modules(file: &Path, dir: &str) -> Vec<String> {
    let inside = file.strip_prefix(repository(dir)).expect("a file of the crate").with_extension("");
    let mut parts: Vec<String> = inside.iter().map(|part| part.to_string_lossy().into_owned()).collect();
    if parts.last().is_some_and(|last| last == "mod") {
        parts.pop();
    }
    parts
}

/// A file without its comments and without its test module, which may reach everywhere.
fn code(file: &Path) -> String {
    let text = fs::read_to_string(file).expect("a source");
    let product = text.split("\n#[cfg(test)]\nmod ").next().unwrap_or_default();
    product.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// The first module below the crate of every path that a file mentions: of `crate::wire::Change`, `use crate::{error::Error,
/// wire}` and, in a file of `rest/`, `super::super::error`.
fn mentioned(code: &str, place: &[String]) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (start, _) in code.match_indices("crate::") {
        found.extend(heads(&code[start + "crate::".len()..]));
    }
    // A chain of `super` leads out of this file's folder if it is as long as the file is deep.
    for (start, _) in code.match_indices("super::") {
        if code[..start].ends_with("super::") {
            continue;
        }
        let mut rest = &code[start..];
        let mut steps = 0;
        while let Some(after) = rest.strip_prefix("super::") {
            (rest, steps) = (after, steps + 1);
        }
        if steps >= place.len() {
            found.extend(heads(rest));
        }
    }
    found
}

/// The first names of a path, or of each path in a group: `{error::Error, wire::{A, B}}` gives `error` and `wire`.
fn heads(path: &str) -> Vec<String> {
    let name = |text: &str| {
        text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>()
    };
    let Some(group) = path.strip_prefix('{') else { return vec![name(path)] };
    let (mut depth, mut members, mut start) = (0_usize, Vec::new(), 0);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                members.push(name(&group[start..at]));
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                members.push(name(&group[start..at]));
                start = at + 1;
            }
            _ => {}
        }
    }
    members.retain(|member| !member.is_empty());
    members
}

fn rank(order: &[&str], module: &str) -> Option<usize> {
    order.iter().position(|known| *known == module)
}

/// Each import of a crate that does not point up the list.
fn against(order: &[&str], dir: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    for file in sources(dir) {
        let place = modules(&file, dir);
        let own = &place[0];
        let own_rank =
            rank(order, own).unwrap_or_else(|| panic!("the room `{own}` has no place in the order"));
        for module in mentioned(&code(&file), &place) {
            // What is no room is a name of the crate's face, such as `crate::Error`: that is for users.
            if rank(order, &module).is_none_or(|rank| rank > own_rank) && own != "lib" {
                wrong.push(format!("{} imports {module}", place.join("::")));
            }
        }
    }
    wrong
}

#[test]
fn imports_of_the_library_point_up_only() {
    let wrong = against(ORDER, "tendril-realtime/src");
    assert!(wrong.is_empty(), "imports must point up the list {ORDER:?}:\n{}", wrong.join("\n"));
}

#[test]
fn imports_of_the_agent_point_up_only() {
    let wrong = against(AGENT_ORDER, "tendril-agent/src");
    assert!(wrong.is_empty(), "imports must point up the list {AGENT_ORDER:?}:\n{}", wrong.join("\n"));
}

#[test]
fn rest_stands_on_values_only() {
    let mut wrong = Vec::new();
    for file in sources("tendril-realtime/src/rest") {
        let place = modules(&file, "tendril-realtime/src");
        for module in mentioned(&code(&file), &place) {
            if module != "rest" && !REST_STANDS_ON.contains(&module.as_str()) {
                wrong.push(format!("{} imports {module}", place.join("::")));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_protocols_state_machine_knows_no_runtime() {
    let mentions = |dir: &str, word: &str| {
        for file in sources(dir) {
            assert!(!code(&file).contains(word), "{} mentions {word}", file.display());
        }
    };
    mentions("tendril-realtime/src/session", "tokio");
    // Frames are made of the websocket library's checked text, which is no runtime.
    mentions("tendril-realtime/src/wire", "tokio::");
}

/// The rooms of `grape`, from values to commands. Imports point up only.
const GRAPE_ORDER: &[&str] = &[
    "failure",
    "output",
    "session",
    "variable",
    "control_plane",
    "cli",
    "context",
    "up",
    "command",
    "lib",
    "main",
];

#[test]
fn imports_of_grape_point_up_only() {
    let mut wrong = Vec::new();
    for file in sources("examples/grape/src") {
        let place = modules(&file, "examples/grape/src");
        let rank = |module: &str| GRAPE_ORDER.iter().position(|known| *known == module);
        let own =
            rank(&place[0]).unwrap_or_else(|| panic!("the room `{}` has no place in the order", place[0]));
        for module in mentioned(&code(&file), &place) {
            if rank(&module).is_none_or(|rank| rank > own) {
                wrong.push(format!("{} imports {module}", place.join("::")));
            }
        }
    }
    assert!(wrong.is_empty(), "imports must point up the list {GRAPE_ORDER:?}:\n{}", wrong.join("\n"));
}

#[test]
fn every_file_is_named_by_a_noun_of_the_domain() {
    for dir in ["tendril-realtime/src", "tendril-agent/src", "supabase/local/src", "tests/src", "examples"] {
        for file in sources(dir) {
            let parts = modules(&file, dir);
            let empty = parts.iter().find(|part| EMPTY_NAMES.contains(&part.as_str()));
            assert_eq!(empty, None, "{}", file.display());
        }
    }
}

#[test]
fn the_reader_of_imports_finds_them() {
    let place = ["rest".to_owned(), "request".to_owned()];
    let found = |code: &str| mentioned(code, &place).into_iter().collect::<Vec<_>>();
    assert_eq!(found("use crate::wire::{Change, join};"), ["wire"]);
    assert_eq!(found("use crate::{\n    error::{Error, ErrorKind},\n    wire,\n};"), ["error", "wire"]);
    assert_eq!(found("fn a() -> crate::driver::Phase {}"), ["driver"]);
    assert_eq!(found("use super::response::Response;"), Vec::<String>::new());
    assert_eq!(found("use super::super::socket::Socket;"), ["socket"]);
}

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
    let played: BTreeSet<String> =
        tendril_tests::crash::PLACES.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(played, listed);
}

/// The rooms of `supabase-local`, from values down to the whole stack. Imports point up only.
const LOCAL_ORDER: &[&str] = &[
    "error",
    "clock",
    "jwt",
    "keys",
    "project",
    "supervisor",
    "database",
    "link",
    "postgres",
    "replication",
    "changes",
    "http",
    "gateway",
    "fault",
    "rest",
    "auth",
    "realtime",
    "hosted",
    "functions",
    "server",
    "stack",
    "cli",
    "lib",
    "main",
];

/// The files of its larger rooms, in the order of their imports. What opens a room comes after all of them.
const LOCAL_ROOMS: &[(&str, &[&str])] = &[
    (
        "postgres",
        &[
            "account",
            "binaries",
            "pg_cron",
            "bootstrap",
            "migrations",
            "process",
            "prepared",
            "server",
            "existing",
        ],
    ),
    (
        "changes",
        &[
            "filter",
            "binding",
            "table",
            "listener",
            "oracle",
            "subscription",
            "audience",
            "index",
            "seats",
            "filters",
            "record",
            "inspection",
            "dispatch",
        ],
    ),
    (
        "rest",
        &[
            "settings",
            "reason",
            "error",
            "hint",
            "sql",
            "parsec",
            "grammar",
            "select",
            "filter",
            "query",
            "schema",
            "catalog",
            "reload",
            "prefer",
            "media",
            "auth",
            "payload",
            "transaction",
            "request",
            "response",
            "relation",
            "plan",
            "condition",
            "statement",
            "mutation",
            "overload",
            "service",
            "read",
            "write",
            "rpc",
            "swagger",
            "openapi",
            "cors",
        ],
    ),
    (
        "realtime",
        &[
            "binary",
            "frame",
            "options",
            "rate",
            "users",
            "presence",
            "rooms",
            "join",
            "permission",
            "messages",
            "feed",
            "hub",
            "channel",
            "socket",
            "handshake",
            "http",
        ],
    ),
];

#[test]
fn imports_of_the_local_stack_point_up_only() {
    let dir = "supabase/local/src";
    let place_in = |order: &[&str], module: &str| order.iter().position(|known| *known == module);
    let mut wrong = Vec::new();
    for file in sources(dir) {
        let place = modules(&file, dir);
        let own = place_in(LOCAL_ORDER, &place[0])
            .unwrap_or_else(|| panic!("the room `{}` has no place in the order", place[0]));
        let face = ["lib", "main"].contains(&place[0].as_str());
        for module in mentioned(&code(&file), &place) {
            // What is no room is a name of the crate's face, which is for users.
            if !face && place_in(LOCAL_ORDER, &module).is_none_or(|found| found > own) {
                wrong.push(format!("{} imports {module}", place.join("::")));
            }
        }
        let Some((room, order)) = LOCAL_ROOMS.iter().find(|(room, _)| *room == place[0]) else { continue };
        // What is deeper than a file of the room belongs to that file, and may use what that has.
        let Some(name) = place.get(1) else { continue };
        let own =
            place_in(order, name).unwrap_or_else(|| panic!("`{name}` has no place in the order of `{room}`"));
        let (text, absolute) = (code(&file), format!("crate::{room}::"));
        let after = |(start, found): (usize, &str)| &text[start + found.len()..];
        let sibling = |(start, _): &(usize, &str)| place.len() == 2 && !text[..*start].ends_with("super::");
        let inside = text
            .match_indices("super::")
            .filter(sibling)
            .map(after)
            .chain(text.match_indices(absolute.as_str()).map(after));
        for module in inside.flat_map(heads) {
            if module != *name && place_in(order, &module).is_none_or(|found| found > own) {
                wrong.push(format!("{} imports {module}", place.join("::")));
            }
        }
    }
    assert!(wrong.is_empty(), "imports must point up:\n{}", wrong.join("\n"));
}
