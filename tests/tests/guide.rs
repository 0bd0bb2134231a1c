//! The operations guide is true: every setting, metric, alert, chart value, function, sentence and proof that it names is
//! looked up where it is made.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test may fail")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use tendril_tests::repository;

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn here(path: &str) -> String {
    text(&repository(path))
}

/// The files below a directory with this ending.
fn files(dir: &str, result: &str) -> Vec<PathBuf> {
    let (mut found, mut dirs) = (Vec::new(), vec![repository(dir)]);
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display())) {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                dirs.push(path);
            } else if path.to_string_lossy().ends_with(result) {
                found.push(path);
            }
        }
    }
    found.sort();
    assert!(!found.is_empty(), "{dir} has no {result}");
    found
}

/// The pages, each with its name.
fn pages() -> Vec<(String, String)> {
    let mut pages = files("tendril-agent/docs", ".md");
    pages.push(repository("tendril-agent/README.md"));
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    pages.iter().map(|path| (name(path), text(path))).collect()
}

fn page(name: &str) -> String {
    pages().into_iter().find(|(page, _)| page == name).unwrap_or_else(|| panic!("no page {name}")).1
}

/// Blocks of code, each with its language.
fn blocks(page: &str) -> Vec<(&str, &str)> {
    let pieces = page.split("```").collect::<Vec<_>>();
    pieces.chunks(2).filter_map(|pair| pair.get(1)?.split_once('\n')).collect()
}

/// What is in `backticks`, outside of blocks.
fn spans(page: &str) -> Vec<&str> {
    let prose = page.split("```").step_by(2);
    prose.flat_map(|prose| prose.split('`').skip(1).step_by(2)).collect()
}

/// Words of these characters that begin so, anywhere in a page.
fn words<'a>(page: &'a str, begin: &str, more: impl Fn(char) -> bool) -> BTreeSet<&'a str> {
    let starts = page.match_indices(begin).filter(|(at, _)| {
        !page[..*at].ends_with(|c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '/'))
    });
    let word = |(at, _): (usize, &str)| {
        let rest = &page[at..];
        &rest[..rest.find(|c| !more(c)).unwrap_or(rest.len())]
    };
    starts.map(word).collect()
}

/// The sources of all messages, as they are printed.
fn sayings() -> String {
    let mut sayings = String::new();
    for file in files("tendril-agent/src", ".rs").into_iter().chain(files("supabase/migrations", ".sql")) {
        sayings.push_str(&text(&file));
    }
    // A string that continues in the next line.
    let mut whole = String::new();
    let mut pieces = sayings.split("\\\n");
    whole.push_str(pieces.next().unwrap_or_default());
    pieces.for_each(|piece| whole.push_str(piece.trim_start()));
    whole.replace("\\\"", "\"").replace("''", "'")
}

/// Nothing is wrong, or everything that is.
fn assert_none(wrong: &[String]) {
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn settings_exist() {
    let cli = here("tendril-agent/src/config/args.rs");
    let flags: BTreeSet<String> = cli
        .lines()
        .filter_map(|line| line.trim().strip_prefix("pub ")?.split_once(": "))
        .map(|(field, _)| format!("--{}", field.replace('_', "-")))
        .collect();
    let function = here("supabase/functions/agent-token/settings.ts");
    // The variables that a hook is given.
    let hooks = ["hooks.rs", "stages/mod.rs", "stages/plan.rs"]
        .map(|file| here(&format!("tendril-agent/src/execute/{file}")))
        .concat();
    let mut wrong = Vec::new();
    let mut seen = 0;
    for (name, page) in pages() {
        let own_lines = blocks(&page).into_iter().flat_map(|(_, block)| block.lines());
        let own_lines =
            own_lines.filter_map(|line| line.split_once("tendril-agent --").map(|(_, rest)| rest));
        let in_blocks =
            own_lines.flat_map(|rest| format!("--{rest}").split(' ').map(str::to_owned).collect::<Vec<_>>());
        let in_prose = spans(&page).into_iter().filter(|span| span.starts_with("--")).map(str::to_owned);
        for flag in in_prose.chain(in_blocks).filter(|word| word.len() > 2 && word.starts_with("--")) {
            let flag = flag.split([' ', '=']).next().unwrap_or_default();
            seen += 1;
            // Those of helm stand in front of a value of the chart.
            if !flags.contains(flag) && !matches!(flag, "--set" | "--version" | "--namespace") {
                wrong.push(format!("{name}: the agent has no flag {flag}"));
            }
        }
        for variable in words(&page, "TENDRIL_", |c| c.is_ascii_uppercase() || c == '_') {
            seen += 1;
            let variable = variable.trim_end_matches('_');
            let known = [&cli, &hooks].iter().any(|source| source.contains(&format!("\"{variable}\"")))
                || function.contains(&format!("'{variable}'"));
            if !known && variable != "TENDRIL" {
                wrong.push(format!("{name}: nobody reads {variable}"));
            }
        }
    }
    assert!(seen > 40, "{seen} settings were found");
    assert_none(&wrong);
}

#[test]
fn metrics_and_alerts_exist_and_each_alert_is_explained() {
    let metrics = here("tendril-agent/METRICS.md");
    let mut wrong = Vec::new();
    for (name, page) in pages() {
        for metric in words(&page, "tendril_agent_", |c| c.is_ascii_lowercase() || c == '_') {
            if !metrics.contains(&format!("| `{metric}` |")) {
                wrong.push(format!("{name}: there is no metric {metric}"));
            }
        }
    }
    let rules = here("tendril-agent/chart/files/alerts.yaml");
    let alerts: Vec<&str> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    let guide = page("monitoring.md");
    let explained: Vec<&str> = guide.lines().filter_map(|line| line.strip_prefix("### ")).collect();
    assert_eq!(explained, alerts, "monitoring.md explains the alerts of alerts.yaml, in their order");
    assert_none(&wrong);
}

/// `a.b.c` of each value of the chart, and of each group of values.
fn chart_values() -> BTreeSet<String> {
    let (mut path, mut found) = (Vec::<String>::new(), BTreeSet::new());
    for line in here("tendril-agent/chart/values.yaml").lines() {
        let depth = (line.len() - line.trim_start().len()) / 2;
        let Some((name, _)) = line.trim_start().split_once(':') else { continue };
        if name.starts_with('#') || name.starts_with('-') {
            continue;
        }
        path.truncate(depth);
        path.push(name.to_owned());
        found.insert(path.join("."));
    }
    found
}

#[test]
fn values_of_the_chart_exist() {
    let values = chart_values();
    let exists = |path: &str| {
        let free = ["state.config.", "serviceAccount.annotations."].iter().any(|free| path.starts_with(free));
        free || values.contains(path)
    };
    let groups: BTreeSet<&str> =
        values.iter().filter_map(|value| value.split_once('.')).map(|(group, _)| group).collect();
    let (mut wrong, mut seen) = (Vec::new(), 0);
    for (name, page) in pages() {
        let set = page.match_indices("--set ").map(|(at, set)| &page[at + set.len()..]);
        let set = set.filter_map(|rest| rest.split_once('=')).map(|(path, _)| path);
        let dotted = spans(&page).into_iter().filter(|span| {
            span.split_once('.').is_some_and(|(group, rest)| {
                groups.contains(group) && rest.chars().all(|c| c.is_ascii_alphanumeric() || c == '.')
            })
        });
        for path in set.chain(dotted).filter(|path| !path.contains('…')) {
            seen += 1;
            // `work_dir.full` and its like are of /status.
            if !exists(path) {
                wrong.push(format!("{name}: the chart has no value {path}"));
            }
        }
        for group in [
            "replicas",
            "concurrency",
            "extraEnv",
            "terraformEnv",
            "extraVolumes",
            "tokenFrom",
            "existingSecret",
        ] {
            assert!(values.contains(group), "{group}");
        }
    }
    assert!(seen > 25, "{seen} values were found");
    assert_none(&wrong);
}

#[test]
fn functions_columns_and_codes_of_the_database_exist() {
    let migrations: String = files("supabase/migrations", ".sql").iter().map(|file| text(file)).collect();
    let (mut wrong, mut seen) = (Vec::new(), 0);
    for (name, page) in pages() {
        for span in spans(&page) {
            let Some((function, _)) = span.split_once('(') else { continue };
            let is_name =
                !function.is_empty() && function.chars().all(|c| c.is_ascii_lowercase() || c == '_');
            if is_name && function.contains('_') {
                seen += 1;
                if !migrations.contains(&format!("function public.{function}(")) {
                    wrong.push(format!("{name}: the database has no function {function}"));
                }
            }
        }
    }
    assert!(seen > 8, "{seen} functions were found");
    let sources: String = files("tendril-agent/src", ".rs").iter().map(|file| text(file)).collect();
    let guide = page("troubleshooting.md");
    for line in guide.lines().filter(|line| line.starts_with("| `")) {
        let code = line.split('`').nth(1).unwrap_or_default();
        if code.chars().all(|c| c.is_ascii_uppercase() || c == '_') && code.contains('_') {
            let words = code.split('_').map(|word| [&word[..1], &word[1..].to_lowercase()].concat());
            let camel = words.collect::<Vec<_>>().concat();
            if !sources.contains(&format!("    {camel},")) || !migrations.contains(code) {
                wrong.push(format!("troubleshooting.md: there is no error_code {code}"));
            }
        }
    }
    assert_none(&wrong);
}

#[test]
fn sentences_are_said_by_the_agent_or_the_database() {
    let sayings = sayings();
    let guides = ["troubleshooting.md", "kubernetes.md"].map(|name| (name, page(name)));
    let (mut output, mut wrong, mut column) = (0, Vec::new(), None);
    for (name, line) in guides.iter().flat_map(|(name, guide)| guide.lines().map(move |line| (name, line))) {
        if !line.starts_with('|') {
            column = None;
            continue;
        }
        let cells: Vec<&str> = line.split(" | ").map(|cell| cell.trim_matches(['|', ' '])).collect();
        let is_heading =
            |cell: &&str| matches!(*cell, "message" | "`error_message` contains" | "`error_message` says");
        let heading = cells.iter().position(is_heading);
        if heading.is_some() {
            column = heading;
            continue;
        }
        let Some(cell) = column.and_then(|column| cells.get(column)) else { continue };
        for sentence in cell.split('`').skip(1).step_by(2).filter(|span| span.contains(' ')) {
            output += 1;
            for part in sentence.split('…').map(str::trim).filter(|part| part.len() >= 6) {
                if !sayings.contains(part) {
                    wrong.push(format!("{name}: no code contains \"{part}\" (of \"{sentence}\")"));
                }
            }
        }
    }
    assert!(output > 50, "{output} sentences were found");
    assert_none(&wrong);
}

#[test]
fn each_line_of_the_security_model_has_its_proof() {
    let guide = page("security.md");
    let (mut proofs, mut wrong) = (0, Vec::new());
    // What a template can reach has a table of its own, by the user that the agent runs as.
    let (model, _) = guide.split_once("## What a template can reach").expect("two parts");
    for line in model.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| they c")) {
        let cells: Vec<&str> = line.trim_matches(['|', ' ']).split(" | ").collect();
        let [claim, proof] = cells[..] else { panic!("two cells: {line}") };
        assert!(proof.contains(".sql`: ") || proof.contains(".rs`: "), "\"{claim}\" has no proof");
        for proof in proof.split("; ") {
            let (file, assertion) =
                proof.trim_start_matches('`').split_once("`: ").expect("a file and an assertion");
            let scenario = Path::new(file).extension().is_some_and(|extension| extension == "rs");
            let (path, wanted) = if scenario {
                (format!("tests/tests/scenarios/{file}"), format!("async fn {assertion}()"))
            } else {
                // A description may go on with what differs.
                (format!("supabase/tests/{file}"), format!("'{}", assertion.replace('\'', "''")))
            };
            proofs += 1;
            let source = here(&path);
            let ends = |rest: &str| rest.starts_with('\'') || rest.starts_with(" ' ||") || scenario;
            let is_there = source.match_indices(&wanted).any(|(at, found)| ends(&source[at + found.len()..]));
            if !is_there {
                wrong.push(format!("{file} asserts nothing called \"{assertion}\", which proves: {claim}"));
            }
        }
    }
    assert!(proofs > 60, "{proofs} proofs");
    assert_none(&wrong);
}

#[test]
fn json_is_json_and_links_lead_somewhere() {
    let dir = repository("tendril-agent");
    for (name, page) in pages() {
        for (language, block) in blocks(&page) {
            if language == "json" {
                serde_json::from_str::<serde_json::Value>(block)
                    .unwrap_or_else(|error| panic!("{name}: {error} in\n{block}"));
            }
        }
        let place = if name == "README.md" { dir.clone() } else { dir.join("docs") };
        for link in page.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.contains("://") {
                continue;
            }
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { place.join(&name) } else { place.join(file) };
            assert!(target.exists(), "{name} links to {link}, which is not there");
            let headings = || {
                text(&target)
                    .lines()
                    .filter(|line| line.starts_with('#'))
                    .map(|line| slug(line.trim_start_matches(['#', ' '])))
                    .collect::<Vec<_>>()
            };
            assert!(
                anchor.is_empty() || headings().iter().any(|heading| heading == anchor),
                "{name} links to {link}: no such heading"
            );
        }
    }
}

/// A heading's anchor, as GitHub makes it.
fn slug(heading: &str) -> String {
    let kept = heading.to_lowercase();
    let kept = kept.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[test]
fn one_version_is_on_everything_that_is_released() {
    let manifest = here("Cargo.toml");
    let version = manifest
        .lines()
        .find_map(|line| line.strip_prefix("version = "))
        .expect("a version")
        .trim_matches('"');
    for name in ["tendril-realtime", "tendril-agent", "supabase-local"] {
        let line =
            manifest.lines().find(|line| line.starts_with(&format!("{name} = "))).expect("a dependency");
        assert!(line.contains(&format!("version = \"{version}\"")), "{line}");
    }
    let chart = here("tendril-agent/chart/Chart.yaml");
    for line in [format!("version: {version}"), format!("appVersion: {version}")] {
        assert!(chart.lines().any(|found| found == line), "Chart.yaml lacks {line}");
    }
}
