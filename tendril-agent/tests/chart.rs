//! What the chart sets is what the agent reads: `scripts/check-chart.py --write` renders the files in `tests/fixtures/chart` with the
//! real Helm, from values that use everything.

#![cfg(feature = "kubernetes")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::json;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/chart").join(name)
}

/// The agent as a container of the chart starts it, but for its places, and for one setting that is wrong on purpose: it lists every
/// problem of its configuration, and ends.
fn complaints(variables: &str, dir: &Path, args: &[&str]) -> String {
    let text = fs::read_to_string(fixture(variables)).unwrap();
    let variables: BTreeMap<String, String> = serde_json::from_str(&text).unwrap();
    let mounted = dir.join("mounted");
    fs::create_dir_all(mounted.join("hooks")).unwrap();
    fs::write(mounted.join("file"), "x").unwrap();
    let key = mounted.join("key");
    fs::write(&key, format!("tdl_{}{}", "0".repeat(22), "a".repeat(43))).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_tendril-agent"));
    command
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .env("SUPABASE_URL", "http://127.0.0.1:9")
        .env("SUPABASE_PUBLISHABLE_KEY", "k");
    for (name, value) in variables {
        let place = match name.as_str() {
            "TENDRIL_TEMPLATES_DIR" => Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/templates"),
            "TENDRIL_SERVICE_ACCOUNT_MAP" | "TENDRIL_POD_TEMPLATE" => {
                fixture(value.strip_prefix("/etc/tendril-runs/").unwrap())
            }
            "TENDRIL_AGENT_TOKEN_FILE" => key.clone(),
            "TENDRIL_HOOK_DIR" => mounted.join("hooks"),
            _ if value.starts_with("/etc/") => mounted.join("file"),
            _ => value.into(),
        };
        command.env(name, place);
    }
    command
        .env("TENDRIL_LOG_FORMAT", "xml")
        .env("TENDRIL_WORK_DIR", dir.join("work"))
        .env("TENDRIL_STATE_DIR", dir.join("state"));
    let output = command.args(args).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    said
}

/// Nothing is wrong but what was made wrong.
fn assert_only_the_format(said: &str) {
    assert!(
        said.contains("1 thing must be fixed") && said.contains("TENDRIL_LOG_FORMAT is \"xml\""),
        "{said}"
    );
}

#[test]
fn the_agent_reads_every_setting_of_the_chart() {
    let dir = tempfile::tempdir().unwrap();
    assert_only_the_format(&complaints("agent.json", dir.path(), &[]));
}

#[test]
fn a_run_reads_every_setting_of_the_chart() {
    let dir = tempfile::tempdir().unwrap();
    let attempt = json!({
        "format": 1, "version": env!("CARGO_PKG_VERSION"), "deployment_id": "11111111-2222-4333-8444-555555555555", "attempt": 1,
        "claim_token": "11111111-2222-4333-8444-555555555556", "state_key": "hello.prod", "start": "workspace", "config_snapshot": {},
        "supabase_url": "http://127.0.0.1:9", "supabase_key": "k", "cluster_id": "11111111-2222-4333-8444-555555555557", "agent_name": "a",
        "token": "claim",
    });
    let file = dir.path().join("attempt.json");
    fs::write(&file, attempt.to_string()).unwrap();
    assert_only_the_format(&complaints(
        "run.json",
        dir.path(),
        &["execute", "--attempt", file.to_str().unwrap()],
    ));
}
