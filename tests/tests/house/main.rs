//! The order of the house: what may import what. The order is in the libraries' documentation; here it is checked.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test may fail")]

mod circles;
mod failpoints;
mod imports;
mod local_stack;

use imports::{code, mentioned, modules, sources};

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

/// `rest` depends on values, and on nothing of the websocket.
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

/// Names that do not describe the contents.
const EMPTY_NAMES: &[&str] = &["utils", "util", "common", "helpers", "helper", "manager", "types", "misc"];

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
    let mentions = |dir: &str, name: &str| {
        for file in sources(dir) {
            assert!(!code(&file).contains(name), "{} mentions {name}", file.display());
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
