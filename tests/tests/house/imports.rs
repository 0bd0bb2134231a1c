//! Reads the sources: which files there are, which module each is, and which modules it mentions.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use tendril_tests::repository;

/// The Rust files below a directory.
pub(super) fn sources(dir: &str) -> Vec<PathBuf> {
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

/// Whether it is declared for tests only, or is inside of what is. Tests may reach everywhere.
fn is_test(file: &Path) -> bool {
    let Some(dir) = file.parent() else { return false };
    let parent = if file.ends_with("mod.rs") { dir.with_file_name("mod.rs") } else { dir.join("mod.rs") };
    is_declared_for_tests(file) || (parent.is_file() && is_test(&parent))
}

/// Whether its parent declares it for tests only.
fn is_declared_for_tests(file: &Path) -> bool {
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
pub(super) fn modules(file: &Path, dir: &str) -> Vec<String> {
    let inside = file.strip_prefix(repository(dir)).expect("a file of the crate").with_extension("");
    let mut parts: Vec<String> = inside.iter().map(|part| part.to_string_lossy().into_owned()).collect();
    if parts.last().is_some_and(|last| last == "mod") {
        parts.pop();
    }
    parts
}

/// A file without its comments and without its test module, which may reach everywhere.
pub(super) fn code(file: &Path) -> String {
    let text = fs::read_to_string(file).expect("a source");
    let product = text.split("\n#[cfg(test)]\nmod ").next().unwrap_or_default();
    product.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// The first module below the crate of every path that a file mentions: of `crate::wire::Change`, `use crate::{error::Error,
/// wire}` and, in a file of `rest/`, `super::super::error`.
pub(super) fn mentioned(code: &str, place: &[String]) -> BTreeSet<String> {
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
pub(super) fn heads(path: &str) -> Vec<String> {
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
