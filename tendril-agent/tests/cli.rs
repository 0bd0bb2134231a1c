//! The process seen from outside: its messages about its configuration, and its exit codes.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::json;

const CLUSTER: &str = "11111111-2222-4333-8444-555555555555";

fn token(role: &str, exp: u64) -> String {
    let claims = json!({"role": role, "cluster_id": CLUSTER, "exp": exp});
    format!("eyJhbGciOiJIUzI1NiJ9.{}.c2VjcmV0LXNpZ25hdHVyZQ", URL_SAFE_NO_PAD.encode(claims.to_string()))
}

/// The agent with a good configuration that reaches nobody, changed by these variables.
fn agent(dir: &Path, changes: &[(&str, &str)]) -> Output {
    let templates = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/templates");
    let mut command = Command::new(env!("CARGO_BIN_EXE_tendril-agent"));
    command
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .env("SUPABASE_URL", "http://127.0.0.1:9")
        .env("SUPABASE_ANON_KEY", "anon")
        .env("TENDRIL_AGENT_TOKEN", token("tendril_agent", 4_000_000_000))
        .env("TENDRIL_STARTUP_JITTER", "0s")
        .env("TENDRIL_TEMPLATES_DIR", templates)
        .env("TENDRIL_WORK_DIR", dir.join("work"))
        .env("TENDRIL_STATE_DIR", dir.join("state"));
    for (name, value) in changes {
        command.env(name, value);
    }
    command.output().unwrap()
}

/// A refused configuration's message.
fn refused(changes: &[(&str, &str)]) -> String {
    let dir = tempfile::tempdir().unwrap();
    let output = agent(dir.path(), changes);
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{message}");
    message
}

#[test]
fn nothing_configured_is_one_message_with_every_problem() {
    let message = refused(&[
        ("SUPABASE_URL", ""),
        ("SUPABASE_ANON_KEY", " "),
        ("TENDRIL_AGENT_TOKEN", ""),
        ("TENDRIL_TEMPLATES_DIR", "/no/such/dir"),
        ("TENDRIL_WORK_DIR", "/proc/no"),
        ("TENDRIL_CONCURRENCY", "many"),
        ("TENDRIL_SHUTDOWN_GRACE", "soon"),
        ("TENDRIL_TERRAFORM", "no-such-terraform"),
        ("TENDRIL_TERRAFORM_ENV", "TENDRIL_*"),
        ("TENDRIL_HEALTH_ADDR", "8080"),
        ("TENDRIL_LOG_FORMAT", "xml"),
    ]);
    for part in [
        "11 things must be fixed",
        "SUPABASE_URL (--supabase-url) is not set",
        "SUPABASE_PUBLISHABLE_KEY (--supabase-key, or the older SUPABASE_ANON_KEY) is not set",
        "TENDRIL_AGENT_TOKEN or TENDRIL_AGENT_TOKEN_FILE (--agent-token-file) is not set",
        "the templates directory /no/such/dir does not exist",
        "--work-dir /proc/no cannot be created",
        "TENDRIL_CONCURRENCY is \"many\"",
        "TENDRIL_SHUTDOWN_GRACE is \"soon\"",
        "\"no-such-terraform\" is not an executable program",
        "TENDRIL_TERRAFORM_ENV holds \"TENDRIL_*\"",
        "TENDRIL_HEALTH_ADDR is \"8080\"",
        "TENDRIL_LOG_FORMAT is \"xml\"",
    ] {
        assert!(message.contains(part), "{part} is missing in:\n{message}");
    }
}

#[test]
fn a_token_that_no_server_will_take_is_named_at_start() {
    for (token, part) in [
        ("garbage-secret".to_owned(), "malformed"),
        (token("tendril_agent", 1_000_000_000), "expired at 2001-09-09"),
        (token("service_role", 4_000_000_000), "the role \"service_role\""),
    ] {
        let message = refused(&[("TENDRIL_AGENT_TOKEN", &token)]);
        assert!(message.contains(part), "{message}");
        assert!(!message.contains("secret"), "{message}");
    }
}

#[test]
fn a_secret_key_is_refused_and_not_shown() {
    let service = token("service_role", 4_000_000_000);
    for key in ["sb_secret_abcdef", &service] {
        let message = refused(&[("SUPABASE_PUBLISHABLE_KEY", key)]);
        assert!(message.contains("holds a secret key"), "{message}");
        assert!(!message.contains(key), "{message}");
    }
}

#[test]
fn a_token_file_is_read_at_start() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    let changes = [("TENDRIL_AGENT_TOKEN", ""), ("TENDRIL_AGENT_TOKEN_FILE", file.to_str().unwrap())];
    assert!(refused(&changes).contains("cannot be read"));
    fs::write(&file, "\n").unwrap();
    assert!(refused(&changes).contains("is empty"));
    assert!(refused(&changes[1..]).contains("both set"));
}

#[test]
fn help_names_every_variable_and_no_value() {
    let output = Command::new(env!("CARGO_BIN_EXE_tendril-agent"))
        .arg("--help")
        .env("TENDRIL_AGENT_TOKEN", "the-secret")
        .env("TENDRIL_GIT_TOKEN", "the-secret")
        .env("SUPABASE_PUBLISHABLE_KEY", "the-secret")
        .output()
        .unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    for name in [
        "SUPABASE_URL",
        "SUPABASE_PUBLISHABLE_KEY",
        "SUPABASE_ANON_KEY",
        "TENDRIL_AGENT_TOKEN",
        "TENDRIL_AGENT_TOKEN_FILE",
        "TENDRIL_TEMPLATES_DIR",
        "TENDRIL_GIT_HOSTS",
        "TENDRIL_GIT_TOKEN",
        "TENDRIL_GIT_TOKEN_FILE",
        "TENDRIL_GIT_USER",
        "TENDRIL_GIT_TIMEOUT",
        "TENDRIL_GIT_LIMIT",
        "TENDRIL_WORK_DIR",
        "TENDRIL_STATE_DIR",
        "TENDRIL_CONCURRENCY",
        "TENDRIL_SHUTDOWN_GRACE",
        "TENDRIL_PLAN_CANCEL_GRACE",
        "TENDRIL_APPLY_CANCEL_GRACE",
        "TENDRIL_TERRAFORM",
        "TENDRIL_TERRAFORM_CONFIG",
        "TENDRIL_TERRAFORM_ENV",
        "TENDRIL_INFRACOST",
        "TENDRIL_INFRACOST_KEY",
        "TENDRIL_INFRACOST_KEY_FILE",
        "TENDRIL_COST_TIMEOUT",
        "TENDRIL_HEALTH_ADDR",
        "TENDRIL_AGENT_NAME",
        "TENDRIL_LOG_FORMAT",
        "TENDRIL_LOG",
    ] {
        assert!(help.contains(name), "{name} is missing in:\n{help}");
    }
    assert!(!help.contains("the-secret"), "{help}");
}

#[test]
fn a_health_address_that_is_taken_ends_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    let output = agent(dir.path(), &[("TENDRIL_HEALTH_ADDR", &addr)]);
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(message.contains(&format!("--health-addr {addr} cannot be used")), "{message}");
}

/// What it prints with this flag, on a machine whose programs are in this directory.
fn version_lines(flag: &str, programs: &Path) -> Vec<String> {
    let output = Command::new(env!("CARGO_BIN_EXE_tendril-agent"))
        .arg(flag)
        .env_clear()
        .env("PATH", programs)
        .env("TENDRIL_AGENT_TOKEN", "the-secret")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

/// Puts a program into a directory that prints this.
fn program(dir: &Path, name: &str, prints: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    fs::write(dir.join(name), format!("#!/bin/sh\necho '{prints}'\n")).unwrap();
    fs::set_permissions(dir.join(name), fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn the_long_version_names_every_program_and_the_short_one_is_a_line() {
    let dir = tempfile::tempdir().unwrap();
    let own = format!("tendril-agent {}", env!("CARGO_PKG_VERSION"));
    assert_eq!(version_lines("-V", dir.path()), [own.as_str()]);

    let lines = version_lines("--version", dir.path());
    assert_eq!(lines[0], own);
    assert!(lines[1].strip_prefix("contract ").is_some_and(|n| n.parse::<u32>().is_ok()), "{lines:?}");
    let line = |lines: &[String], start: &str| lines.iter().find(|line| line.starts_with(start)).cloned();
    assert!(line(&lines, "terraform neither terraform nor tofu is on PATH").is_some(), "{lines:?}");
    assert!(line(&lines, "git not found").is_some(), "{lines:?}");
    assert!(line(&lines, "infracost not used: infracost is not installed").is_some(), "{lines:?}");

    program(dir.path(), "tofu", r#"{"terraform_version": "1.10.6"}"#);
    program(dir.path(), "git", "git version 2.39.5");
    program(dir.path(), "infracost", "Infracost v0.10.45");
    let lines = version_lines("--version", dir.path());
    assert!(lines.contains(&"tofu 1.10.6".to_owned()), "{lines:?}");
    assert!(lines.contains(&"git 2.39.5".to_owned()), "{lines:?}");
    assert!(lines.contains(&"infracost 0.10.45".to_owned()), "{lines:?}");

    program(dir.path(), "git", "I am no git");
    assert!(line(&version_lines("--version", dir.path()), "git not found").is_some());
}
