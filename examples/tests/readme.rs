//! The READMEs show what the examples really print.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test may fail")]

use std::{fs, path::Path};

fn text(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The code of an example without the notes at its head.
fn example(name: &str) -> String {
    let text = text(&format!("examples/examples/{name}.rs"));
    let code: Vec<_> = text.lines().skip_while(|line| line.starts_with("//!") || line.is_empty()).collect();
    code.join("\n")
}

/// The Rust samples of a README.
fn snippets(readme: &str) -> Vec<String> {
    let text = text(readme);
    let pieces =
        text.split("\n```rust\n").skip(1).map(|piece| piece.split("\n```").next().unwrap().to_owned());
    pieces.collect()
}

#[test]
fn the_readme_shows_the_examples_word_for_word() {
    assert_eq!(snippets("README.md"), [example("quickstart"), example("watch")]);
}

#[test]
fn the_librarys_readme_shows_the_examples_word_for_word() {
    assert_eq!(snippets("tendril-realtime/README.md"), [example("quickstart"), example("watch")]);
}

/// Every `[text](path)` that leads into the repository.
#[test]
fn links_lead_to_files_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut checked = 0;
    for page in ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "RELEASING.md", "tendril-realtime/README.md"]
    {
        let text = text(page);
        let links = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for link in links.filter(|link| !link.contains("://") && !link.starts_with('#')) {
            let file = link.split('#').next().unwrap();
            let target = root.join(page).parent().unwrap().join(file);
            assert!(target.exists(), "{page} links to {link}, which is not there");
            checked += 1;
        }
    }
    assert!(checked > 5, "only {checked} links were found");
}
