//! Which program is found, and what each line is recorded.

use std::{ffi::OsStr, fs, os::unix::fs::PermissionsExt as _};

use super::*;
use crate::template::Workspace;

/// A program that answers everything like this.
fn program(dir: &Path, script: &str) -> String {
    let path = dir.join("infracost");
    fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path.to_str().unwrap().to_owned()
}

fn found(script: &str) -> Result<Found, String> {
    let dir = tempfile::tempdir().unwrap();
    let program = program(dir.path(), script);
    loop {
        match Found::detect(Some(&program)) {
            // Another test's child holds the new file for a moment.
            Err(why) if why.contains("Text file busy") => std::thread::yield_now(),
            found => return found,
        }
    }
}

#[test]
fn each_line_is_known_by_how_it_prints_its_version() {
    for (message, line, shown) in [
        ("Infracost v0.10.45", Line::Zero, "infracost 0.10.45"),
        ("infracost version v2.0.0", Line::Two, "infracost 2.0.0"),
        ("infracost version 2.3.1-rc.1", Line::Two, "infracost 2.3.1-rc.1"),
    ] {
        let found = found(&format!("[ \"$*\" = --version ] && echo '{message}'")).unwrap();
        let Found::Program(program) = &found else { panic!("{message}: {found}") };
        assert_eq!((program.line(), found.to_string().as_str()), (line, shown));
    }
}

#[test]
fn an_unknown_version_is_said_and_is_no_reason_not_to_start() {
    for message in [
        "Infracost v0.9.24",
        "infracost version v3.0.0",
        "infracost version v1.10.0",
        "infracost version dev",
        "",
    ] {
        let found = found(&format!("echo '{message}'")).unwrap();
        assert!(matches!(&found, Found::Unusable(why) if why.contains("0.10 or 2.x")), "{message}: {found}");
    }
}

#[test]
fn a_named_program_that_is_not_there_or_does_not_run_is_a_problem() {
    let missing = Found::detect(Some("/no/infracost")).unwrap_err();
    assert!(missing.contains("/no/infracost") && missing.contains("TENDRIL_INFRACOST"), "{missing}");
    assert!(found("exit 3").unwrap_err().contains("ended with exit status: 3"));
    assert!(matches!(Found::detect(Some("off")), Ok(Found::Off)));
}

fn command(line: Line, key: Option<&str>) -> Result<(process::Command, CostDir), String> {
    let program = Program { path: "/bin/infracost".into(), version: "0.0.0".to_owned(), line };
    let workspace = Workspace::at(PathBuf::from("/srv/job.1"));
    let cost_dir = CostDir::new(&workspace, Path::new("/srv"));
    let grace_period = GracePeriod { graceful: VERSION_LIMIT, forced: VERSION_LIMIT };
    let key = Key::from_values(key, None).unwrap();
    let infracost = Infracost { found: Found::Program(program.clone()), key };
    Ok((infracost.command(&program, workspace.module_dir(), &cost_dir, grace_period)?, cost_dir))
}

#[test]
fn each_line_is_spoken_to_in_its_own_words() {
    let arguments = |line| {
        let (command, _) = command(line, Some("k")).unwrap();
        assert_eq!(command.dir, Path::new("/srv/job.1/run/module"));
        command.args.join(OsStr::new(" ")).into_string().unwrap()
    };
    assert_eq!(
        arguments(Line::Zero),
        "breakdown --path . --format json --out-file /srv/job.1/run/.infracost/estimate.json --no-color --log-level warn"
    );
    assert_eq!(arguments(Line::Two), "scan --json .");
}

#[test]
fn each_line_gets_its_key_and_nothing_of_the_others() {
    for (line, own, other) in [
        (Line::Zero, "INFRACOST_API_KEY", "INFRACOST_CLI_AUTHENTICATION_TOKEN"),
        (Line::Two, "INFRACOST_CLI_AUTHENTICATION_TOKEN", "INFRACOST_API_KEY"),
    ] {
        let (command, _) = command(line, Some("the-key")).unwrap();
        let value = |name: &str| command.env.get(OsStr::new(name)).and_then(|value| value.to_str());
        assert_eq!((value(own), value(other)), (Some("the-key"), None));
        assert_eq!(value("INFRACOST_SKIP_UPDATE_CHECK"), Some("true"));
        assert_eq!(value("INFRACOST_DISABLE_ENVFILE"), Some("true"), "a template's .env sets nothing");
        assert_eq!(value("HOME"), Some("/srv/job.1/run/.infracost/home"));
        assert_eq!(value("TF_DATA_DIR"), Some("/srv/job.1/run/data"), "the mark of the attempt's processes");
        let cloud = |name: &&OsString| {
            name.to_str().is_some_and(|name| name.starts_with("AWS_") || name.starts_with("TENDRIL_"))
        };
        assert_eq!(command.env.keys().find(cloud), None);
    }
    let (zero, _) = command(Line::Zero, Some("k")).unwrap();
    assert_eq!(zero.env.get(OsStr::new("INFRACOST_ENABLE_CLOUD")), Some(&"false".into()));
    let (two, _) = command(Line::Two, Some("k")).unwrap();
    assert_eq!(two.env.get(OsStr::new("INFRACOST_CLI_PLUGIN_AUTO_UPDATE")), Some(&"false".into()));
    assert_eq!(
        two.env.get(OsStr::new("INFRACOST_CLI_PLUGIN_CACHE_DIRECTORY")),
        Some(&"/srv/infracost/plugins".into())
    );
}

#[test]
fn without_a_key_it_is_not_started_and_the_sentence_says_how_to_give_one() {
    let why = command(Line::Zero, None).map(|_| ()).unwrap_err();
    assert!(why.contains("INFRACOST_API_KEY") && why.contains("TENDRIL_INFRACOST_KEY_FILE"), "{why}");
    let env = [("INFRACOST_PRICING_API_ENDPOINT".into(), "https://prices.example".into())].into();
    assert!(Line::Zero.has_access(&env), "another price list may want none");
    assert!(!Line::Two.has_access(&env));
}

#[test]
fn a_key_is_in_one_place_and_hides_itself() {
    assert!(Key::from_values(Some("a"), Some("b")).unwrap_err().contains("both set"));
    let file = tempfile::NamedTempFile::new().unwrap();
    let of = |path: &Path| Infracost::from_values(Some("off"), None, path.to_str()).unwrap();
    let infracost = of(file.path());
    assert!(infracost.key.as_ref().unwrap().read().unwrap_err().contains("is empty"));
    fs::write(file.path(), "s3cret-key\n").unwrap();
    assert!(infracost.secrets().contains(&"s3cret-key".to_owned()), "as the file is now");
    let inline = Infracost::from_values(Some("off"), Some("s3cret-key"), None).unwrap();
    assert!(!format!("{inline:?}").contains("s3cret"), "{inline:?}");
}

#[test]
fn a_key_file_that_is_wanted_and_cannot_be_read_is_a_problem() {
    let dir = tempfile::tempdir().unwrap();
    let program = program(dir.path(), "echo Infracost v0.10.45");
    let why = Infracost::from_values(Some(&program), None, Some("/no/key")).unwrap_err();
    assert!(why.contains("/no/key cannot be read"), "{why}");
}

#[tokio::test]
async fn prices_that_were_found_are_there_for_the_next_attempt_and_the_rest_is_gone() {
    let work = tempfile::tempdir().unwrap();
    let cost_dirs = ["a.1", "b.1"].map(|name| {
        let workspace = Workspace::at(work.path().join(name));
        CostDir::new(&workspace, work.path())
    });
    cost_dirs[0].lay_out().unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&cost_dirs[0].estimate()), 0o600);
    assert_eq!(mode(cost_dirs[0].estimate().parent().unwrap()), 0o700);
    fs::write(cost_dirs[0].estimate().with_file_name("pricing.gob"), "prices").unwrap();
    cost_dirs[0].keep_prices();
    cost_dirs[0].clear().unwrap();
    assert!(!cost_dirs[0].estimate().parent().unwrap().exists());
    cost_dirs[0].clear().unwrap();
    cost_dirs[1].lay_out().unwrap();
    assert_eq!(fs::read_to_string(cost_dirs[1].estimate().with_file_name("pricing.gob")).unwrap(), "prices");
    let _lock = cost_dirs[1].lock(Line::Two).await.unwrap();
    let second = tokio::time::timeout(Duration::from_millis(100), cost_dirs[0].lock(Line::Two)).await;
    assert!(second.is_err(), "one estimate of 2.x at a time");
    assert!(cost_dirs[0].lock(Line::Zero).await.unwrap().is_none(), "0.10 needs no lock");
}
