//! The order of the rooms of `supabase-local`, and of the files in its larger rooms.

use super::imports::{code, heads, mentioned, modules, sources};

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
            "cache",
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
            "principal",
            "oracle",
            "subscription",
            "subscriber",
            "index",
            "registry",
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
            "haskell",
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
            "explain",
            "accept",
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
